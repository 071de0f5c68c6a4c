//! The side of the backend: the machine and its one request in flight.
//!
//! An exchange that is dropped before the backend knows of the end tells it in a task of its own: the client may go at
//! any moment, also while OPEN is under way, and the backend must not keep a connection that no longer exists.

use crate::model::session::CloseReason;
use crate::proto::packed_fields::PackedFields;
use crate::proto::websocket_over_http::bridge::{Action, AnswerError, Bridge, FromClient, Outcome};
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::meta::Meta;
use crate::proto::websocket_over_http::retry::Jitter;
use crate::proto::websocket_over_http::{ANSWER_BYTES_MAX, fields};
use crate::server::body::{Body, ReadError, read_whole};
use crate::session::settings::BridgeSettings;
use crate::session::websocket_over_http::backend::{Backend, BackendError};
use crate::session::websocket_over_http::dialect::{Dialect, Timeline};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, StatusCode};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

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
    fields: PackedFields,
    asked: Option<LocalBoxFuture<'static, Result<Reply, BackendError>>>,
    answer_bytes_max: usize,
    timeline: Timeline,
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
            fields: PackedFields::pack(&fields),
            asked: None,
            answer_bytes_max: ANSWER_BYTES_MAX.saturating_add(settings.message_bytes_max),
            timeline: Timeline::start(),
        };
        Ok(Self { inner: Some(Box::new(inner)) })
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
}

impl Dialect for Exchange {
    fn connection_id(&self) -> &str {
        self.inner.as_ref().map_or("", |inner| &inner.connection_id)
    }

    fn timeline(&self) -> Timeline {
        self.inner.as_ref().map_or_else(Timeline::start, |inner| inner.timeline)
    }

    fn next_action(&mut self) -> Option<Action> {
        self.inner.as_mut()?.next()
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reply = std::task::ready!(self.poll_reply(cx));
        let result = self.take_in(&reply);
        let cause = reply.err().map(|error| error.to_string());
        match (result, cause) {
            (Err(error), cause) => {
                tracing::warn!(session.id = self.connection_id(), %error, cause, "bridged backend failed");
            }
            (Ok(()), Some(cause)) => {
                tracing::debug!(session.id = self.connection_id(), cause, "bridged request is tried again");
            }
            (Ok(()), None) => {}
        }
        Poll::Ready(())
    }

    fn wants_client(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.bridge.wants_client())
    }

    fn client_said(&mut self, frame: FromClient) {
        if let Some(inner) = self.inner.as_mut() {
            let now_ms = inner.timeline.now_ms();
            inner.bridge.client_said(frame, now_ms);
        }
    }

    fn client_gone(&mut self, _: CloseReason) {
        if let Some(inner) = self.inner.as_mut() {
            inner.bridge.client_gone();
        }
    }

    fn delivered(&mut self) {
        if let Some(inner) = self.inner.as_mut() {
            let now_ms = inner.timeline.now_ms();
            inner.bridge.delivered(now_ms);
        }
    }

    fn meta(&self) -> Option<&Meta> {
        self.inner.as_ref().map(|inner| inner.bridge.meta())
    }

    fn subscription_meta(&self) -> &[(Box<str>, Box<str>)] {
        self.inner.as_ref().map_or(&[], |inner| inner.bridge.subscription_meta())
    }

    fn close_by_publisher(&mut self, close: Close) {
        if let Some(inner) = self.inner.as_mut() {
            inner.bridge.close_by_publisher(close);
        }
    }

    fn refresh(&mut self) {
        if let Some(inner) = self.inner.as_mut() {
            inner.bridge.refresh();
        }
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.inner.as_ref()?.bridge.deadline_ms()
    }

    fn finish(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            let Some(inner) = self.inner.as_mut() else { return };
            inner.bridge.client_gone();
            inner.finish().await;
        })
    }
}

impl Inner {
    fn next(&mut self) -> Option<Action> {
        loop {
            match self.bridge.next(self.timeline.now_ms())? {
                Action::Post(body) => self.ask(body),
                other => return Some(other),
            }
        }
    }

    fn ask(&mut self, body: Bytes) {
        let mut fields = self.fields.unpack();
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
        let now_ms = self.timeline.now_ms();
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
                tokio::time::sleep_until(self.timeline.instant(at_ms)).await;
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

/// Reads an answer's body whole.
///
/// # Errors
/// When it is over `bytes_max`, breaks off or takes too long.
pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, BackendError> {
    match tokio::time::timeout(BODY_TIMEOUT, read_whole(body, bytes_max)).await {
        Ok(Ok(content)) => Ok(content),
        Ok(Err(ReadError::Broken(error))) => Err(BackendError::Broken(error)),
        Ok(Err(error @ ReadError::TooLarge(_))) => Err(BackendError::Broken(Box::new(error))),
        Err(error) => Err(BackendError::TimedOut(Box::new(error))),
    }
}

/// A random number for the wait before another try.
pub fn jitter() -> Jitter {
    let mut bytes = [0x7f; 2];
    // Without a random source retries come in the middle of their stretch.
    let _ = SystemRandom::new().fill(&mut bytes);
    Jitter(u16::from_be_bytes(bytes))
}
