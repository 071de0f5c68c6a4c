//! A plain HTTP backend of a bridged WebSocket: the test sees each POST and says what is answered to it.

use crate::support::client::within;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const EVENTS: &str = "application/websocket-events";

/// A backend on a port of its own; gone when dropped.
pub struct BridgeBackend {
    /// Where it listens.
    pub address: SocketAddr,
    asked: mpsc::UnboundedReceiver<Asked>,
    send: mpsc::UnboundedSender<Asked>,
    accepting: JoinHandle<()>,
}

/// One request that waits for its answer. Dropped without one, its connection breaks.
#[derive(Debug)]
pub struct Asked {
    /// The method.
    pub method: http::Method,
    /// Path and query.
    pub target: Uri,
    /// The fields.
    pub fields: HeaderMap,
    /// The events.
    pub body: Bytes,
    reply: oneshot::Sender<Response<Full<Bytes>>>,
}

impl BridgeBackend {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("an address");
        let (send, asked) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(accept(socket, send.clone()));
        Self { address, asked, send, accepting }
    }

    /// The next request.
    pub async fn asked(&mut self) -> Asked {
        within("a request to the backend", self.asked.recv()).await.expect("the backend runs")
    }

    /// The next request, which must have this body.
    #[track_caller]
    pub fn expect<'a>(&'a mut self, body: &'a str) -> impl Future<Output = Asked> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let asked = self.asked().await;
            assert_eq!(String::from_utf8_lossy(&asked.body), body, "at {caller}");
            asked
        }
    }

    /// Whether no request waits. Says something only where one would have come before what the test saw already.
    pub fn is_quiet(&self) -> bool {
        self.asked.is_empty()
    }

    /// Takes no connections from now on.
    pub async fn go_down(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    /// Takes connections again.
    pub async fn come_up(&mut self) {
        let socket = TcpListener::bind(self.address).await.expect("the port is still free");
        self.accepting = tokio::spawn(accept(socket, self.send.clone()));
    }

    /// Echoes from now on: OPEN opens, each message comes back, CLOSE is answered by its like.
    pub fn echo(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(asked) = self.asked.recv().await {
                let answer = echoed(&asked.body);
                asked.answer(200, &[("sec-websocket-extensions", "grip")], answer);
            }
        })
    }
}

impl Drop for BridgeBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Asked {
    /// Answers 200 with events, in GRIP's form.
    pub fn grip(self, events: &str) {
        self.answer(200, &[("sec-websocket-extensions", "grip")], events.to_owned());
    }

    /// Answers with events' media type unless `fields` have another.
    pub fn answer(self, status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) {
        let mut response = Response::builder().status(status);
        if !fields.iter().any(|(name, _)| *name == "content-type") {
            response = response.header("content-type", EVENTS);
        }
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        // A proxy that has gone meanwhile shows in what the test looks at next.
        let _ = self.reply.send(response.body(Full::new(body.into())).expect("an answer"));
    }

    /// A field's text; empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().expect("a field of text"))
    }
}

/// An event as it stands in a body.
pub fn event(name: &str, content: &str) -> String {
    format!("{name} {:x}\r\n{content}\r\n", content.len())
}

/// A control message.
pub fn control(json: &str) -> String {
    event("TEXT", &format!("c:{json}"))
}

fn echoed(mut body: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    while let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") {
        let line = std::str::from_utf8(&body[..end]).expect("a first line");
        body = &body[end + 2..];
        let (name, content) = match line.split_once(' ') {
            None => (line, &body[..0]),
            Some((name, len)) => {
                let len = usize::from_str_radix(len, 16).expect("a length");
                let content = &body[..len];
                body = &body[len + 2..];
                (name, content)
            }
        };
        match name {
            "OPEN" => answer.extend_from_slice(b"OPEN\r\n"),
            "TEXT" | "BINARY" => push(&mut answer, name, b"m:", content),
            "CLOSE" => push(&mut answer, name, b"", content),
            _ => {}
        }
    }
    answer
}

fn push(answer: &mut Vec<u8>, name: &str, prefix: &[u8], content: &[u8]) {
    answer.extend_from_slice(format!("{name} {:x}\r\n", prefix.len() + content.len()).as_bytes());
    answer.extend_from_slice(prefix);
    answer.extend_from_slice(content);
    answer.extend_from_slice(b"\r\n");
}

async fn accept(socket: TcpListener, send: mpsc::UnboundedSender<Asked>) {
    // Aborted with this task, so that a backend that is down holds no connection.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((tcp, _)) = socket.accept().await {
        let send = send.clone();
        connections.spawn(async move {
            let service = service_fn(|request| ask(request, send.clone()));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn ask(
    request: Request<Incoming>,
    send: mpsc::UnboundedSender<Asked>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let (reply, answer) = oneshot::channel();
    let asked = Asked { method: head.method, target: head.uri, fields: head.headers, body, reply };
    send.send(asked).map_err(|_| io::Error::other("the test is over"))?;
    answer.await.map_err(|_| io::Error::other("the test drops the request"))
}
