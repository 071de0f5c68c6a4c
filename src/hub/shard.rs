//! One worker's part of the hub.

use crate::hub::HubError;
use crate::hub::log::Entry;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::session::{CloseReason, Gap};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Where a session without a cursor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    Now,
    /// With the newest messages of each channel, this many at most.
    Last(usize),
}

/// One worker's sessions, and its mirror of the logs that they read.
#[derive(Debug)]
pub struct Shard {}

/// What a session reads.
#[derive(Debug)]
pub enum Delivery {
    /// The next message of one of its channels.
    Message(Arc<Entry>),
    /// Something is missing before what follows.
    Gap(Gap),
    /// The session is to end.
    End(CloseReason),
}

/// A session's place in its channels. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    shard: Rc<Shard>,
}

impl Shard {
    /// Joins channels, from a cursor or from `start`.
    ///
    /// # Errors
    /// When there are too many channels.
    pub fn subscribe(
        self: &Rc<Self>,
        _channels: &[ChannelName],
        _cursor: Option<&Cursor>,
        _start: Start,
    ) -> Result<Subscription, HubError> {
        Ok(Subscription { shard: Rc::clone(self) })
    }

    /// Milliseconds of this shard's clock, as of the last time the worker looked (coarse, cheap).
    pub fn now_ms(&self) -> u64 {
        0
    }
}

impl Subscription {
    /// Whether the cursor was honoured in full; `None` if there was none.
    pub fn resumed(&self) -> Option<bool> {
        None
    }

    /// The next thing to send, if there is any.
    pub fn next(&mut self) -> Option<Delivery> {
        let _ = &self.shard;
        None
    }

    /// Ready when [`Subscription::next`] may have something or the deadline has passed; else the task is woken then.
    pub fn poll_wait(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Wakes the session at about this time of [`Shard::now_ms`] (within a quarter of a second).
    pub fn set_deadline(&mut self, _at_ms: u64) {}

    /// The place of the session: after the last delivery of each channel.
    pub fn cursor(&self) -> Cursor {
        Cursor::default()
    }

    /// The channels, in the order they were joined.
    pub fn channels(&self) -> Vec<ChannelName> {
        Vec::new()
    }

    /// Joins another channel, from now on.
    ///
    /// # Errors
    /// When there are too many channels.
    pub fn add(&mut self, _channel: &ChannelName) -> Result<(), HubError> {
        Ok(())
    }

    /// Leaves a channel; whether the session was on it.
    pub fn remove(&mut self, _channel: &ChannelName) -> bool {
        false
    }
}
