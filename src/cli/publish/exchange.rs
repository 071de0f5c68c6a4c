//! One request to a publish listener over a connection of its own (HTTP/1.1, cleartext).

use super::Failure;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, IF_MATCH, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::fmt::Display;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const PIECE_BYTES: usize = 16 * 1024;

type OutBody = UnsyncBoxBody<Bytes, io::Error>;

/// A publish listener and what goes with each request to it.
pub(super) struct Target {
    url: String,
    authority: String,
    path: String,
    fields: http::HeaderMap,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Target {
    pub(super) fn new(url: &str, token: Option<String>, if_match: Option<&str>) -> Result<Self, Failure> {
        let bad = |reason: &str| Failure::Data(format!("--url {url:?} {reason}"));
        let uri: Uri = url.parse().map_err(|_| bad("is no URL; give one such as http://127.0.0.1:5561"))?;
        let authority = uri.authority().ok_or_else(|| bad("has no host; give one such as http://127.0.0.1:5561"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(bad("is not http; the publish listener speaks cleartext HTTP/1.1"));
        }
        let path = uri.path().trim_end_matches('/');
        let path = if path.ends_with("/v1/events") { path.to_owned() } else { format!("{path}/v1/events") };
        let mut fields = http::HeaderMap::new();
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("has no usable host"))?;
        fields.insert(HOST, host);
        fields.insert(USER_AGENT, HeaderValue::from_static(concat!("pushbridge/", env!("CARGO_PKG_VERSION"))));
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|_| Failure::Data("the token has a control character".into()))?;
            value.set_sensitive(true);
            fields.insert(AUTHORIZATION, value);
        }
        if let Some(position) = if_match {
            let value = HeaderValue::from_str(position);
            fields.insert(IF_MATCH, value.map_err(|_| Failure::Data("--if-match has a control character".into()))?);
        }
        let authority = match authority.port() {
            Some(_) => authority.as_str().to_owned(),
            None => format!("{authority}:80"),
        };
        Ok(Self { url: url.to_owned(), authority, path, fields })
    }

    /// Posts one JSON text and reads the answer.
    pub(super) async fn post(&self, body: String) -> Result<Answer, Failure> {
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        let exchange = self.exchange("application/json", body, async |response| self.answer(response).await);
        timeout(ANSWER_WAIT, exchange).await.map_err(|_| self.unreachable("no answer came in time"))?
    }

    /// Posts lines as `input` has them, and hands each line of the answer to `each` as it comes.
    pub(super) async fn stream(
        &self,
        input: impl AsyncRead + Send + Unpin + 'static,
        mut each: impl FnMut(&Bytes) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let pieces = stream::try_unfold(input, |mut input| async move {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            let read = input.read_buf(&mut piece).await?;
            Ok((read > 0).then(|| (Frame::data(piece.freeze()), input)))
        });
        let body = StreamBody::new(pieces).boxed_unsync();
        self.exchange("application/x-ndjson", body, async |response| {
            if response.status() != StatusCode::OK {
                let answer = self.answer(response).await?;
                return super::print_answer(&answer, &mut io::sink());
            }
            let mut body = response.into_body();
            let mut buffer = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|error| self.unreachable(error))?.into_data() else { continue };
                buffer.extend_from_slice(&data);
                while let Some(at) = memchr::memchr(b'\n', &buffer) {
                    let line = buffer.split_to(at + 1).freeze();
                    each(&line.slice(..at))?;
                }
                if buffer.len() > ANSWER_BYTES_MAX {
                    return Err(self.unreachable("a line of the answer is too long"));
                }
            }
            Ok(())
        })
        .await
    }

    /// Connects, sends, and runs the connection beside what `read` does with the response.
    async fn exchange<T>(
        &self,
        content_type: &'static str,
        body: OutBody,
        read: impl AsyncFnOnce(http::Response<Incoming>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let stream = timeout(CONNECT_WAIT, TcpStream::connect(&self.authority)).await;
        let stream = stream.map_err(|_| self.unreachable("no connection in time"))?;
        let stream = stream.map_err(|error| self.unreachable(error))?;
        let connection = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connection.map_err(|error| self.unreachable(error))?;
        let mut request = Request::post(&*self.path).body(body).map_err(|error| self.unreachable(error))?;
        request.headers_mut().extend(self.fields.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let mut exchange = pin!(async {
            let response = sender.send_request(request).await.map_err(|error| self.unreachable(error))?;
            read(response).await
        });
        // The connection may end before what it brought is read.
        tokio::select! {
            biased;
            result = &mut exchange => result,
            _ = connection => exchange.await,
        }
    }

    async fn answer(&self, response: http::Response<Incoming>) -> Result<Answer, Failure> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.unreachable(error))?.to_bytes();
        // What is no JSON comes from something else than a publish listener; its status says enough.
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }

    fn unreachable(&self, reason: impl Display) -> Failure {
        Failure::Unreachable { url: self.url.clone(), reason: reason.to_string() }
    }
}
