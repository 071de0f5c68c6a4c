//! The side of the backend: a machine and its one request in flight, whatever language they speak.
//!
//! ```text
//! session ─▶ next_action ─▶ Speaker::next ─┬─ for the client ─▶ session
//!                                          └─ a request ─▶ in flight ─▶ poll_reply ─▶ take_in ─▶ Speaker::answered
//!
//! client gone ─▶ finish ─┬─ the backend knows
//!                        └─ dropped before ─▶ a task of its own ─▶ the backend knows
//! ```
//!
//! A conversation that is dropped before the backend knows of the end goes on in a task of its own: the client may go at
//! any moment, also while the first request is under way, and the backend must not keep a connection that no longer
//! exists.

use crate::model::session::CloseReason;
use crate::proto::websocket_over_http::bridge::Action;
use crate::proto::websocket_over_http::fields;
use crate::proto::websocket_over_http::retry::Jitter;
use crate::server::Response;
use crate::server::body::{Body, ReadError, read_whole};
use crate::session::websocket_over_http::backend::BackendError;
use crate::session::websocket_over_http::dialect::Timeline;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, StatusCode};
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long an answer's body may take after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A machine in its language, and who answers it.
pub trait Speaker: 'static {
    /// Why a request has no answer.
    type Failure: Error;
    /// Why an answer, or the lack of one, ends the connection.
    type Fault: Error;

    /// The name of the connection towards the backend.
    fn connection_id(&self) -> &str;
    /// The name of the backend's upstream.
    fn upstream(&self) -> Arc<str>;
    /// The next thing to do, if there is any at this moment.
    fn next(&mut self, now_ms: u64) -> Option<Next<Self::Failure>>;
    /// Takes in what became of the request.
    ///
    /// # Errors
    /// Why the connection ends.
    fn answered(
        &mut self,
        reply: &Result<Reply, Self::Failure>,
        jitter: Jitter,
        now_ms: u64,
    ) -> Result<(), Self::Fault>;
    /// Notes that the client is gone. Said again, it changes nothing.
    fn client_gone(&mut self, reason: CloseReason, now_ms: u64);
    /// Whether there is nothing left to do for either side.
    fn is_over(&self) -> bool;
    /// When [`Speaker::next`] has something because of time alone.
    fn deadline_ms(&self) -> Option<u64>;
}

/// What is to be done.
pub enum Next<F> {
    /// Wait for the answer to this request.
    Ask(Asked<F>),
    /// Do this for the client.
    Act(Action),
}

/// A request in flight.
pub type Asked<F> = LocalBoxFuture<'static, Result<Reply, F>>;

/// What a backend answered.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub fields: HeaderMap,
    /// The body, whole, where it is for the machine.
    pub content: Bytes,
    /// The body of any other answer, not read.
    pub unread: Body,
}

impl Reply {
    /// Reads an answer; its body where the machine understands that of this status.
    ///
    /// # Errors
    /// When the body is over `bytes_max`, breaks off or takes too long.
    pub async fn read(
        response: Response,
        understands: fn(&StatusCode) -> bool,
        bytes_max: usize,
    ) -> Result<Self, BackendError> {
        let (head, body) = response.into_parts();
        let (content, unread) = match understands(&head.status) {
            true => (whole(body, bytes_max).await?, Body::empty()),
            false => (Bytes::new(), body),
        };
        Ok(Self { status: head.status, fields: head.headers, content, unread })
    }
}

async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, BackendError> {
    match tokio::time::timeout(BODY_TIMEOUT, read_whole(body, bytes_max)).await {
        Ok(Ok(content)) => Ok(content),
        Ok(Err(ReadError::Broken(error))) => Err(BackendError::Broken(error)),
        Ok(Err(error @ ReadError::TooLarge(_))) => Err(BackendError::Broken(Box::new(error))),
        Err(error) => Err(BackendError::TimedOut(Box::new(error))),
    }
}

/// Nobody can make ids without randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// A new connection's id.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_connection_id() -> Result<Box<str>, NoRandomness> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| NoRandomness)?;
    Ok(fields::connection_id(random).into())
}

/// A speaker and its request in flight.
pub struct Conversation<S: Speaker> {
    /// There until it is dropped.
    inner: Option<Box<Inner<S>>>,
}

struct Inner<S: Speaker> {
    speaker: S,
    asked: Option<Asked<S::Failure>>,
    timeline: Timeline,
}

impl<S: Speaker> Conversation<S> {
    /// A conversation in which nothing was said yet.
    pub fn new(speaker: S) -> Self {
        Self { inner: Some(Box::new(Inner { speaker, asked: None, timeline: Timeline::start() })) }
    }

    /// Who speaks.
    pub fn speaker(&self) -> Option<&S> {
        self.inner.as_ref().map(|inner| &inner.speaker)
    }

    /// Lets the speaker hear something, at the time that it is.
    pub fn tell(&mut self, what: impl FnOnce(&mut S, u64)) {
        if let Some(inner) = self.inner.as_mut() {
            let now_ms = inner.timeline.now_ms();
            what(&mut inner.speaker, now_ms);
        }
    }

    /// The name of the connection towards the backend.
    pub fn connection_id(&self) -> &str {
        self.speaker().map_or("", S::connection_id)
    }

    /// When the conversation began.
    pub fn timeline(&self) -> Timeline {
        self.inner.as_ref().map_or_else(Timeline::start, |inner| inner.timeline)
    }

    /// When [`Conversation::next_action`] has something because of time alone.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.speaker()?.deadline_ms()
    }

    /// The next thing to do for the client; requests are sent on the way.
    pub fn next_action(&mut self) -> Option<Action> {
        self.inner.as_mut()?.next_action()
    }

    /// The answer to the request in flight, which the speaker has not heard; pending if there is none.
    pub fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, S::Failure>> {
        self.inner.as_mut().map_or(Poll::Pending, |inner| inner.poll_reply(cx))
    }

    /// Tells the speaker of an answer.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn take_in(&mut self, reply: &Result<Reply, S::Failure>) -> Result<(), S::Fault> {
        self.inner.as_mut().map_or(Ok(()), |inner| inner.take_in(reply))
    }

    /// Takes in the answer to the request in flight, and logs what is wrong with it; pending if there is none.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Pending };
        let reply = std::task::ready!(inner.poll_reply(cx));
        let result = inner.take_in(&reply);
        let cause = reply.err().map(|error| error.to_string());
        let (session, upstream) = (inner.speaker.connection_id(), inner.speaker.upstream());
        match (result, cause) {
            (Err(error), cause) => {
                tracing::warn!(upstream = &*upstream, session.id = session, %error, cause, "bridged backend failed");
            }
            (Ok(()), Some(cause)) => {
                tracing::debug!(upstream = &*upstream, session.id = session, cause, "bridged request is tried again");
            }
            (Ok(()), None) => {}
        }
        Poll::Ready(())
    }

    /// Tells the backend what it still has to know once the client is gone. Cancel-safe: what is left is told when the
    /// conversation is dropped.
    pub async fn finish(&mut self) {
        self.tell(|speaker, now_ms| speaker.client_gone(CloseReason::ClientGone, now_ms));
        if let Some(inner) = self.inner.as_mut() {
            inner.finish().await;
        }
    }
}

impl<S: Speaker> Inner<S> {
    fn next_action(&mut self) -> Option<Action> {
        loop {
            match self.speaker.next(self.timeline.now_ms())? {
                Next::Ask(asked) => self.asked = Some(asked),
                Next::Act(action) => return Some(action),
            }
        }
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, S::Failure>> {
        let Some(asked) = &mut self.asked else { return Poll::Pending };
        let reply = std::task::ready!(asked.as_mut().poll(cx));
        self.asked = None;
        Poll::Ready(reply)
    }

    fn take_in(&mut self, reply: &Result<Reply, S::Failure>) -> Result<(), S::Fault> {
        let now_ms = self.timeline.now_ms();
        self.speaker.answered(reply, jitter(), now_ms)
    }

    async fn finish(&mut self) {
        loop {
            // What is for the client has nowhere to go.
            while self.next_action().is_some() {}
            if self.speaker.is_over() {
                return;
            }
            let reply = if self.asked.is_some() {
                std::future::poll_fn(|cx| self.poll_reply(cx)).await
            } else if let Some(at_ms) = self.speaker.deadline_ms() {
                tokio::time::sleep_until(self.timeline.instant(at_ms)).await;
                continue;
            } else {
                return;
            };
            if let Err(error) = self.take_in(&reply) {
                let cause = reply.err().map(|error| error.to_string());
                let session = self.speaker.connection_id();
                tracing::debug!(session.id = session, %error, cause, "could not tell a backend of an end");
            }
        }
    }
}

impl<S: Speaker> Drop for Conversation<S> {
    fn drop(&mut self) {
        self.tell(|speaker, now_ms| speaker.client_gone(CloseReason::ClientGone, now_ms));
        let Some(mut inner) = self.inner.take() else { return };
        // Outside of a runtime the process is ending, and nobody can be told.
        if !inner.speaker.is_over() && tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::spawn_local(async move { inner.finish().await });
        }
    }
}

/// A random number for the wait before another try.
fn jitter() -> Jitter {
    let mut bytes = [0x7f; 2];
    // Without a random source retries come in the middle of their stretch.
    let _ = SystemRandom::new().fill(&mut bytes);
    Jitter(u16::from_be_bytes(bytes))
}
