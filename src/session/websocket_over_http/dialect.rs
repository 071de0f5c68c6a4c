//! The seam between a session and the language in which its backend is spoken to.
//!
//! [`super::run`] knows the client, the hub and the clock; a [`Dialect`] knows what the backend is asked and what its
//! answers mean. WebSocket over HTTP is one ([`super::exchange`]), CloudEvents are another; what both do alike with a
//! request in flight, and with a backend that has to hear of the end, is [`super::conversation`].

use crate::model::session::CloseReason;
use crate::proto::websocket_over_http::bridge::{Action, FromClient};
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::meta::Meta;
use futures_util::future::LocalBoxFuture;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// One session's conversation with its backend.
///
/// A dialect that is dropped before the backend knows of the end tells it in a task of its own: the client may go at any
/// moment, and the backend must not keep a connection that no longer exists.
pub trait Dialect {
    /// The name of the connection towards the backend.
    fn connection_id(&self) -> &str;
    /// When the conversation began.
    fn timeline(&self) -> Timeline;
    /// The next thing to do for the client; requests are sent on the way. Pulled only while the client takes what it
    /// is sent, or is gone.
    fn next_action(&mut self) -> Option<Action>;
    /// Takes in the answer to the request in flight, and logs what is wrong with it; pending if there is none.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Whether the client is to be read: not while enough waits for the backend, and not after the end.
    fn wants_client(&self) -> bool;
    /// Takes in what the client sent.
    fn client_said(&mut self, frame: FromClient);
    /// Notes that the session ends for the client, and why. Said again, it changes nothing.
    fn client_gone(&mut self, reason: CloseReason);
    /// Notes that a channel's message went to the client.
    fn delivered(&mut self);
    /// What the backend gave the session to keep; `None` where there is no such thing.
    fn meta(&self) -> Option<&Meta>;
    /// What the backend said of the session for the filters of its channels.
    fn subscription_meta(&self) -> &[(Box<str>, Box<str>)];
    /// Whose session it is, as far as the backend said; `None` also where that is known from the start.
    fn user(&self) -> Option<&str> {
        let words = self.subscription_meta().iter();
        let said = words.filter(|(name, _)| **name == *"user").map(|(_, value)| &**value).next();
        said.or_else(|| self.meta()?.word("user"))
    }
    /// Closes the client, as a publisher asked.
    fn close_by_publisher(&mut self, close: Close);
    /// Asks the backend soon, as a publisher asked; nothing where there is nothing to ask.
    fn refresh(&mut self);
    /// When [`Dialect::next_action`] has something because of time alone, by [`Dialect::timeline`].
    fn deadline_ms(&self) -> Option<u64>;
    /// Tells the backend what it still has to know after the client is gone. Cancel-safe: what is left is told when
    /// the dialect is dropped.
    fn finish(&mut self) -> LocalBoxFuture<'_, ()>;
}

/// The clock of a machine without one: milliseconds since its conversation began.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    began: Instant,
}

impl Timeline {
    /// A clock that stands at zero now.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Milliseconds since the start.
    pub fn now_ms(self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant of a time on this clock, a year ahead at most.
    pub fn instant(self, at_ms: u64) -> Instant {
        const FAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;
        self.began + Duration::from_millis(at_ms.min(FAR_MS))
    }
}
