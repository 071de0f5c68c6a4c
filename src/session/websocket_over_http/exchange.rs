//! The side of the backend: the machine and its one request in flight.
//!
//! An exchange that is dropped before the backend knows of the end tells it in a task of its own: the client may go at
//! any moment, also while OPEN is under way, and the backend must not keep a connection that no longer exists.

use crate::proto::websocket_over_http::bridge::{Action, AnswerError, Bridge, Outcome};
use crate::proto::websocket_over_http::meta::Meta;
use crate::proto::websocket_over_http::retry::Jitter;
use crate::proto::websocket_over_http::{ANSWER_BYTES_MAX, fields};
use crate::server::body::{Body, ReadError, read_whole};
use crate::session::settings::BridgeSettings;
use crate::session::websocket_over_http::backend::{Backend, BackendError};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, StatusCode};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer's body may take after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A machine, its backend and its request in flight.
pub struct Exchange {
    inner: Option<Box<Inner>>,
}

struct Inner {
    bridge: Bridge,
    backend: Rc<dyn Backend>,
    connection_id: Box<str>,
    /// The fields of each request, without meta.
    fields: HeaderMap,
    asked: Option<LocalBoxFuture<'static, Result<Reply, BackendError>>>,
    answer_bytes_max: usize,
    began: Instant,
}

/// What a backend answered.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub fields: HeaderMap,
    /// The body of a 200, whole.
    pub content: Bytes,
    /// The body of any other answer, not read.
    pub unread: Body,
}

/// Nobody can make ids without randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

impl Exchange {
    /// An exchange that has said nothing yet. `client` are the fields of the client's handshake, `meta` is what the backend
    /// gave to keep if the session was elsewhere before.
    ///
    /// # Errors
    /// When the system gives no random bytes for the connection's id.
    pub fn new(
        backend: Rc<dyn Backend>,
        client: &HeaderMap,
        settings: BridgeSettings,
        meta: Meta,
    ) -> Result<Self, NoRandomness> {
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| NoRandomness)?;
        let connection_id = fields::connection_id(random);
        let fields = fields::for_backend(client, &connection_id);
        let inner = Inner {
            bridge: Bridge::new(settings.pings, meta),
            backend,
            connection_id: connection_id.into(),
            fields,
            asked: None,
            answer_bytes_max: ANSWER_BYTES_MAX.saturating_add(settings.message_bytes_max),
            began: Instant::now(),
        };
        Ok(Self { inner: Some(Box::new(inner)) })
    }

    /// The connection's id.
    pub fn connection_id(&self) -> &str {
        self.inner.as_ref().map_or("", |inner| &inner.connection_id)
    }

    /// Milliseconds since the exchange began: the machine's clock.
    pub fn now_ms(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.now_ms())
    }

    /// The instant of the machine's clock.
    pub fn instant(&self, at_ms: u64) -> Instant {
        self.inner.as_ref().map_or_else(Instant::now, |inner| inner.instant(at_ms))
    }

    /// The machine.
    pub fn bridge(&mut self) -> Option<&mut Bridge> {
        self.inner.as_mut().map(|inner| &mut inner.bridge)
    }

    /// What the backend gave to keep.
    pub fn meta(&self) -> Option<&Meta> {
        self.inner.as_ref().map(|inner| inner.bridge.meta())
    }

    /// The machine's next action for the client; requests are sent on the way.
    pub fn next_action(&mut self) -> Option<Action> {
        self.inner.as_mut()?.next()
    }

    /// The answer to the request in flight, which the machine has not seen; pending if there is none.
    pub fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, BackendError>> {
        self.inner.as_mut().map_or(Poll::Pending, |inner| inner.poll_reply(cx))
    }

    /// Tells the machine of an answer.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn take_in(&mut self, reply: &Result<Reply, BackendError>) -> Result<(), AnswerError> {
        self.inner.as_mut().map_or(Ok(()), |inner| inner.take_in(reply))
    }

    /// Tells the backend what it still has to know after the client is gone. Cancel-safe: what is left is then told by
    /// a task of its own.
    pub async fn finish(&mut self) {
        let Some(inner) = self.inner.as_mut() else { return };
        inner.bridge.client_gone();
        inner.finish().await;
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn instant(&self, at_ms: u64) -> Instant {
        const FAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;
        self.began + Duration::from_millis(at_ms.min(FAR_MS))
    }

    fn next(&mut self) -> Option<Action> {
        loop {
            match self.bridge.next(self.now_ms())? {
                Action::Post(body) => self.ask(body),
                other => return Some(other),
            }
        }
    }

    fn ask(&mut self, body: Bytes) {
        let mut fields = self.fields.clone();
        self.bridge.meta().echo(&mut fields);
        let post = self.backend.post(fields, body);
        let bytes_max = self.answer_bytes_max;
        self.asked = Some(Box::pin(async move {
            let (head, body) = post.await?.into_parts();
            let (content, unread) = match head.status {
                StatusCode::OK => (read(body, bytes_max).await?, Body::empty()),
                _ => (Bytes::new(), body),
            };
            Ok(Reply { status: head.status, fields: head.headers, content, unread })
        }));
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, BackendError>> {
        let Some(asked) = &mut self.asked else { return Poll::Pending };
        let reply = std::task::ready!(asked.as_mut().poll(cx));
        self.asked = None;
        Poll::Ready(reply)
    }

    fn take_in(&mut self, reply: &Result<Reply, BackendError>) -> Result<(), AnswerError> {
        let outcome = match reply {
            Ok(reply) => Outcome::Answered(reply.status, &reply.fields, &reply.content),
            Err(BackendError::NotProcessed(_)) => Outcome::NotProcessed,
            Err(BackendError::TimedOut(_) | BackendError::Broken(_)) => Outcome::Failed,
        };
        let now_ms = self.now_ms();
        self.bridge.answered(outcome, jitter(), now_ms)
    }

    async fn finish(&mut self) {
        loop {
            // What is for the client has nowhere to go.
            while self.next().is_some() {}
            if self.bridge.is_over() {
                return;
            }
            let reply = if self.asked.is_some() {
                std::future::poll_fn(|cx| self.poll_reply(cx)).await
            } else if let Some(at_ms) = self.bridge.deadline_ms() {
                tokio::time::sleep_until(self.instant(at_ms)).await;
                continue;
            } else {
                return;
            };
            if let Err(error) = self.take_in(&reply) {
                let cause = reply.err().map(|error| error.to_string());
                tracing::debug!(session.id = %self.connection_id, %error, cause, "could not tell a backend of an end");
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        inner.bridge.client_gone();
        // Outside of a runtime the process is ending, and nobody can be told.
        if !inner.bridge.is_over() && tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::spawn_local(async move { inner.finish().await });
        }
    }
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, BackendError> {
    match tokio::time::timeout(BODY_TIMEOUT, read_whole(body, bytes_max)).await {
        Ok(Ok(content)) => Ok(content),
        Ok(Err(ReadError::Broken(error))) => Err(BackendError::Broken(error)),
        Ok(Err(error @ ReadError::TooLarge(_))) => Err(BackendError::Broken(Box::new(error))),
        Err(error) => Err(BackendError::TimedOut(Box::new(error))),
    }
}

fn jitter() -> Jitter {
    let mut bytes = [0x7f; 2];
    // Without a random source retries come in the middle of their stretch.
    let _ = SystemRandom::new().fill(&mut bytes);
    Jitter(u16::from_be_bytes(bytes))
}
