//! A plain HTTP/1.1 backend that answers every request with its own name.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A running backend; it stops when dropped.
pub struct Backend {
    address: SocketAddr,
    arrived: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl Backend {
    /// Starts one that answers at once.
    pub async fn start(name: &'static str) -> Self {
        let backend = Self::held(name).await;
        backend.release();
        backend
    }

    /// Starts one that answers nothing until it is released.
    pub async fn held(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (arrived, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, held) = (Arc::clone(&arrived), Arc::clone(&answers));
        let answer = move |_: Request<Incoming>| {
            counted.fetch_add(1, SeqCst);
            let held = Arc::clone(&held);
            async move {
                let _released = held.acquire().await.expect("it is never closed");
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(name.as_bytes()))))
            }
        };
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(tcp), service_fn(answer.clone())));
            }
        });
        Self { address, arrived, answers, accepting }
    }

    /// How many requests have come.
    pub fn arrived(&self) -> usize {
        self.arrived.load(SeqCst)
    }

    /// Answers what has come and what will.
    pub fn release(&self) {
        self.answers.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Its URL, as the configuration names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
