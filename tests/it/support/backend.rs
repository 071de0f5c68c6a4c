//! A small backend on a free port whose answers the test writes: over HTTP/1.1, or raw bytes.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// Any body, of requests and of answers.
pub type AnyBody = BoxBody<Bytes, io::Error>;

/// A running backend; its connections end with the test's runtime, it takes no more when dropped.
pub struct Backend {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Hands each connection to `serve`.
    pub async fn raw<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tcp.set_nodelay(true).expect("a socket option");
                tokio::spawn(serve(tcp));
            }
        });
        Self { address, connections, task }
    }

    /// Answers each request with `answer`, over HTTP/1.1 with upgrades or HTTP/2, as the first bytes say.
    pub async fn http<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        Self::raw(move |tcp| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let answering = answer(request);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                let mut start = [0; 3];
                if tcp.peek(&mut start).await.is_ok_and(|len| start[..len] == *b"PRI") {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(tcp), service).await;
                } else {
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(tcp), service).with_upgrades().await;
                }
            }
        })
        .await
    }

    /// Answers each request with what it was: `{method, target, fields, body, trailers}`.
    pub async fn mirror() -> Self {
        Self::http(mirrored).await
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A configuration that passes everything on to it; `upstream` is more of the upstream's section.
    pub fn config(&self, upstream: &str) -> String {
        format!(
            "upstreams:\n  backend: {{ servers: [\"http://{}\"]{upstream} }}\nroutes:\n  - name: events\n    match: {{ path: \"/events/{{topic}}\" }}\n    push: {{ channels: [\"{{topic}}\"] }}\n  - name: everything\n    match: {{ path: \"/**\" }}\n    proxy: {{ upstream: backend }}\n",
            self.address
        )
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A body whose pieces come one by one; `closed()` of the sender tells that its reader is gone.
pub fn piecewise() -> (Sender<Result<Frame<Bytes>, io::Error>>, AnyBody) {
    let (send, mut pieces): (_, Receiver<_>) = channel(1);
    let stream = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx));
    (send, StreamBody::new(stream).boxed())
}

/// A whole body.
pub fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A response with a whole body.
pub fn answer(status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Response<AnyBody> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(full(body)).expect("a response")
}

async fn mirrored(request: Request<Incoming>) -> Response<AnyBody> {
    let (parts, body) = request.into_parts();
    let Ok(collected) = body.collect().await else { return answer(400, &[], "broken body") };
    let trailers = collected.trailers().map(fields_json);
    let seen = serde_json::json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "fields": fields_json(&parts.headers),
        "body": String::from_utf8_lossy(&collected.to_bytes()),
        "trailers": trailers,
    });
    answer(200, &[("content-type", "application/json")], seen.to_string())
}

/// Each name with its values, joined by ` | `.
fn fields_json(fields: &HeaderMap) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    for name in fields.keys() {
        let values: Vec<_> =
            fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        object.insert(name.as_str().to_owned(), values.join(" | ").into());
    }
    object.into()
}
