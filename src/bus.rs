//! How messages reach the hub: the one way in, whether from this instance or from others.
//!
//! A bus gives each message its position, remembers ids for the idempotency window, and feeds the hub in order. Beside
//! it stands a [`store::SessionStore`], in which sessions that were lost wait for their clients. `bus/tests/conformance.rs`
//! says what every bus promises, as tests. `app/bus.rs` makes the one that is configured.
//!
//! ```text
//! publish ──▶ the bus: id known? condition holds? position ──▶ every instance that follows the channel ─▶ hub ─▶ sessions
//! attach  ──▶ follow the channel, read its history ─▶ hub     (let go of a while after the last session left)
//! ```

pub mod envelope;
pub mod health;
pub mod kafka;
pub mod memory;
pub mod nats;
pub mod redis;
pub mod sequences;
pub mod settings;
pub mod store;
#[cfg(test)]
pub mod tests;
pub mod thread;

use crate::hub::channel::Channel;
use crate::hub::{Hub, HubError};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::message::Message;
use crate::model::position::Position;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

pub use crate::model::position::IfMatch;

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where it stands; of a duplicate: where the first one stands.
    pub position: Position,
    /// Whether the id was known, so that nothing was published.
    pub duplicate: bool,
    /// Sessions of this instance on the channel.
    pub local_sessions: usize,
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The channel has moved ([`IfMatch`]).
    #[error("the channel has moved")]
    Moved {
        /// Where it is now; `None` if nothing was ever published.
        position: Option<Position>,
    },
    /// The hub can't take it.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The bus can't publish on condition.
    #[error("this bus can't publish on condition; leave If-Match out, or use another bus")]
    NoConditions,
    /// The bus can't be reached.
    #[error("the bus is down: {0}")]
    Down(String),
}

/// Channels that this instance follows; held until a session has joined them.
#[derive(Debug)]
pub struct Attached {
    _channels: Vec<Arc<Channel>>,
}

impl Attached {
    /// Holds on to open channels.
    pub fn new(channels: Vec<Arc<Channel>>) -> Self {
        Self { _channels: channels }
    }
}

/// How instances share messages.
///
/// Workers call it from their own threads, and may drop any future: a publish that was dropped may have been published.
pub trait Bus: Send + Sync + 'static {
    /// Publishes one message: gives it a position and brings it to every instance's hub. A message whose id was
    /// published to its channel within the idempotency window, on whatever instance, is a duplicate and goes nowhere.
    ///
    /// # Errors
    /// When the condition fails or the bus can't take it. Then nothing was published, but for a bus that did not answer
    /// in time, whose error says so; a publish of the same id finds out. Nothing is kept to be published later.
    fn publish(&self, message: Message, if_match: Option<IfMatch>) -> BoxFuture<'_, Result<Published, BusError>>;

    /// Makes this instance follow the channels, so that sessions may join them: each one's log holds the history that
    /// the bus has, and is current from then on for as long as a session is on it, or the answer is held. With a cursor
    /// it is also as current as that: a client may come from an instance that was a moment ahead of this one. What is
    /// gone shows in the log: a session that joins at the cursor hears of a gap.
    ///
    /// Nobody unsubscribes: the bus lets go of a channel a while after its last session left.
    ///
    /// # Errors
    /// When the bus can't be asked, or the hub takes no more channels.
    fn attach<'a>(
        &'a self,
        channels: &'a [ChannelName],
        cursor: Option<&'a Cursor>,
    ) -> BoxFuture<'a, Result<Attached, BusError>>;

    /// Waits while `channel` moves faster than this instance's workers can pass on, a second at most: publishers
    /// call it before each message, so that sessions that keep up never fall off the log's end.
    fn paced<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, ()>;

    /// What is known of a channel, over all instances.
    ///
    /// # Errors
    /// When the bus can't be asked.
    fn describe<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<ChannelInfo, BusError>>;

    /// Whether it can be reached, as far as is known at this moment; asks nobody.
    ///
    /// # Errors
    /// When it can't, in the words for a publisher.
    fn health(&self) -> Result<(), BusError>;

    /// Remembers ids for another `window` (`publish.idempotency_window` was reloaded).
    fn set_window(&self, window: Duration);

    /// Says good-bye: other instances do not wait for this one's leases to end, connections are closed. Blocks for
    /// `patience` at most; called when no worker is left.
    fn shutdown(&self, patience: Duration);
}

impl std::fmt::Debug for dyn Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bus")
    }
}

/// What is known of a channel, over all instances.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelInfo {
    /// The newest message's place; `None` if nothing was ever published.
    pub position: Option<Position>,
    /// How many messages are kept.
    pub history_messages: usize,
    /// The instances with sessions on the channel, and how many each has; one that died is left out within its lease.
    pub instances: Vec<(Box<str>, usize)>,
    /// How old these counts may be.
    pub counted_within: Duration,
}

/// How long a publisher is held back at most while the workers catch up.
const PACE_MS_MAX: u64 = 1000;

/// [`Bus::paced`] for any bus: by the log of this instance.
pub(in crate::bus) fn paced_by<'a>(hub: &Hub, channel: &ChannelName) -> BoxFuture<'a, ()> {
    let channel = hub.find(channel.as_str()).filter(|channel| channel.is_congested());
    let Some(channel) = channel else { return Box::pin(std::future::ready(())) };
    Box::pin(async move {
        for _ in 0..PACE_MS_MAX {
            // The worker's other tasks run now: its pump, and the sessions that it wakes.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if !channel.is_congested() {
                break;
            }
        }
    })
}
