//! A POST whose body is sent piece by piece while the answer is already being read.

use crate::support::client::{Http, Stream, dial, within};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::sync::{mpsc, watch};

/// An open request.
pub struct Duplex {
    pieces: mpsc::UnboundedSender<Bytes>,
    response: tokio::task::JoinHandle<Response<Incoming>>,
}

impl Duplex {
    /// Begins a POST to the publish listener, on a cleartext connection of its own.
    pub async fn post(version: Http, to: SocketAddr, content_type: &str) -> Self {
        let (pieces, body) = mpsc::unbounded_channel::<Bytes>();
        let body = StreamBody::new(Box::pin(futures_util::stream::unfold(body, async |mut body| {
            let piece = body.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), body))
        })));
        let uri = if version == Http::H1 { "/v1/events".to_owned() } else { format!("http://{to}/v1/events") };
        let request = Request::post(uri).header("content-type", content_type);
        let request = if version == Http::H1 { request.header("host", to.to_string()) } else { request };
        let request = request.body(body).expect("a request");
        let io = TokioIo::new(dial(to).await);
        let response = match version {
            Http::H1 => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("a handshake");
                tokio::spawn(connection);
                tokio::spawn(async move { sender.send_request(request).await.expect("an answer") })
            }
            _ => {
                let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
                let (mut sender, connection) = handshake.await.expect("a handshake");
                tokio::spawn(connection);
                tokio::spawn(async move { sender.send_request(request).await.expect("an answer") })
            }
        };
        Self { pieces, response }
    }

    /// Sends more of the body.
    pub fn send(&self, piece: impl Into<Bytes>) {
        self.pieces.send(piece.into()).expect("the request is open");
    }

    /// Waits for the answer's head; the body stays open as long as the sender is held.
    pub async fn answer(self) -> (Sender, Response<Incoming>) {
        let response = within("an answer", self.response).await.expect("an answer");
        (Sender(self.pieces), response)
    }

    /// As [`Duplex::answer`], for an answer that is read line by line.
    pub async fn stream(self) -> (Sender, Stream) {
        let (sender, response) = self.answer().await;
        assert_eq!(response.status(), 200);
        (sender, Stream::of(response))
    }
}

/// The open end of a request's body; dropping it ends the body.
pub struct Sender(mpsc::UnboundedSender<Bytes>);

impl Sender {
    /// Sends more of the body.
    pub fn send(&self, piece: impl Into<Bytes>) {
        self.0.send(piece.into()).expect("the request is open");
    }
}

/// How far several readers have come, so that a publisher can stay within reach of them: on a loaded machine a test's
/// own clients are the slow ones.
#[derive(Default)]
pub struct Readers(Vec<watch::Receiver<usize>>);

impl Readers {
    /// Another reader, which tells how many events it has read.
    pub fn add(&mut self) -> watch::Sender<usize> {
        let (read, reader) = watch::channel(0);
        self.0.push(reader);
        read
    }

    /// Waits until each has read `count` events.
    ///
    /// # Panics
    /// When one has ended before.
    pub async fn have_read(&mut self, count: usize) {
        for reader in &mut self.0 {
            within("a reader", reader.wait_for(|read| *read >= count)).await.expect("a reader that keeps up");
        }
    }
}
