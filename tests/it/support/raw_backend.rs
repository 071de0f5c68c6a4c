//! A backend that is sockets, so that it can answer what no library would: bytes that break off, go on for ever, or are
//! no HTTP.

use crate::support::client::within;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What a request is answered with.
#[derive(Debug, Clone)]
pub enum Say {
    /// These bytes; more requests may follow.
    Bytes(Vec<u8>),
    /// These bytes, and then the end of the connection.
    Last(Vec<u8>),
    /// These bytes, and then those again and again for as long as they are taken.
    Endless(Vec<u8>, Vec<u8>),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its head, in lower case.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Told {
    /// A field's text; empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A backend on a port of its own; it takes no more connections when dropped.
pub struct RawBackend {
    /// Where it listens.
    pub address: SocketAddr,
    told: mpsc::UnboundedReceiver<Told>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl RawBackend {
    /// Starts on a free port; `answer` says what to answer to a request.
    pub async fn start(answer: impl Fn(&Told) -> Say + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("an address");
        let (tell, told) = mpsc::unbounded_channel();
        let (answer, open) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&open);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = socket.accept().await {
                let (answer, tell, counted) = (Arc::clone(&answer), tell.clone(), Arc::clone(&counted));
                counted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(async move {
                    serve(tcp, &*answer, &tell).await;
                    counted.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, told, open, accepting }
    }

    /// The next request.
    pub async fn told(&mut self) -> Told {
        within("a request to the backend", self.told.recv()).await.expect("the backend runs")
    }

    /// Waits until the other side has closed all connections that were not closed from here.
    pub async fn is_left(&self) {
        let leaving = async {
            while self.open.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        within("the end of all connections to the backend", leaving).await;
    }
}

impl Drop for RawBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut tcp: TcpStream, answer: &(impl Fn(&Told) -> Say + ?Sized), tell: &mpsc::UnboundedSender<Told>) {
    let mut read = Vec::new();
    loop {
        let (told, len) = loop {
            if let Some(request) = request(&read) {
                break request;
            }
            if tcp.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        read.drain(..len);
        let say = answer(&told);
        let _ = tell.send(told);
        match say {
            Say::Bytes(bytes) => {
                if tcp.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Say::Last(bytes) => {
                let _ = tcp.write_all(&bytes).await;
                return;
            }
            Say::Endless(start, more) => {
                let _ = tcp.write_all(&start).await;
                while tcp.write_all(&more).await.is_ok() {}
                return;
            }
        }
    }
}

/// The first whole request, and its length.
fn request(bytes: &[u8]) -> Option<(Told, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let mut told = Told { head, body: Vec::new() };
    let len = match told.field("content-length") {
        "" => 0,
        len => len.parse().expect("a length"),
    };
    told.body = bytes.get(end..end + len)?.to_vec();
    Some((told, end + len))
}
