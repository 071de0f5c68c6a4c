//! How messages reach the hub: the one way in, whether from this instance or from others.
//!
//! A bus gives each message its position, remembers ids for the idempotency window, and feeds the hub in order.

pub mod memory;
pub mod sequences;

use crate::hub::HubError;
use crate::hub::channel::Channel;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use crate::model::position::Position;
use futures_util::future::BoxFuture;
use std::sync::Arc;

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
pub trait Bus: Send + Sync + 'static {
    /// Publishes one message: gives it a position and brings it to every instance's hub.
    ///
    /// # Errors
    /// When the condition fails or the bus can't take it. Then nothing was published.
    fn publish(&self, message: Message, if_match: Option<IfMatch>) -> BoxFuture<'_, Result<Published, BusError>>;

    /// Makes this instance follow the channels, so that sessions may join them: each one's log is current from then on
    /// for as long as a session is on it, or the answer is held.
    ///
    /// # Errors
    /// When the bus can't be asked, or the hub takes no more channels.
    fn attach<'a>(&'a self, channels: &'a [ChannelName]) -> BoxFuture<'a, Result<Attached, BusError>>;

    /// Waits while `channel` moves faster than this instance's workers can pass on, a second at most: publishers
    /// call it before each message, so that sessions that keep up never fall off the log's end.
    fn paced<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, ()>;
}
