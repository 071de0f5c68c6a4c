//! Who is on a channel, over all instances: users with their sessions, and joins and leaves as messages.
//!
//! ```text
//! sessions ─▶ hub::Roster ─▶ run ─▶ Room::write ─▶ bus: the channel's companion ─▶ Room::read, in every instance
//!                             │                                                        │
//!                             └────────────── presence.join, presence.leave ◀──────────┘  on the channel itself
//! ```
//!
//! What follows from what is [`crate::proto::presence`]'s; here is the thread that carries it. A companion is followed while
//! this instance has users on its channel, while the channel announces and has sessions here, and a while after it was
//! asked about. It lies on the bus as any other channel, so that this works alike on each.

mod event;
mod run;

use crate::bus::thread::BusThread;
use crate::bus::{Bus, BusError};
use crate::hub::Hub;
use crate::model::channel::ChannelName;
use crate::proto::presence::room::Listed;
use crate::telemetry::metrics::PresenceMetrics;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait.
const ASKS_MAX: usize = 1_000;
/// How old what is told of other instances may be: a change is written within a moment, and the users of an instance that
/// crashed are left out after as many beats as it may miss.
pub const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// Some of a channel's users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// How many there are.
    pub users: usize,
    /// Some of them, by name.
    pub page: Vec<Listed>,
    /// Whether there are more after these.
    pub more: bool,
}

/// What is asked of a channel.
struct Ask {
    channel: ChannelName,
    after: Box<str>,
    limit: usize,
    tell: oneshot::Sender<Members>,
}

/// Knows who is on channels. Dropping it stops its thread.
#[derive(Debug)]
pub struct Presence {
    asks: mpsc::Sender<Ask>,
    bus: Arc<dyn Bus>,
    thread: BusThread,
}

impl Presence {
    /// Starts the thread, which has nothing to do until a channel that knows its members has a user.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start(bus: Arc<dyn Bus>, hub: Arc<Hub>, metrics: Arc<PresenceMetrics>) -> io::Result<Arc<Self>> {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of_thread = Arc::clone(&bus);
        let thread =
            BusThread::start("presence", runtime, |stopped| run::run(of_thread, hub, metrics, asked, stopped))?;
        Ok(Arc::new(Self { asks, bus, thread }))
    }

    /// The users of a channel after `after`, in the order of their names, `limit` at most.
    ///
    /// # Errors
    /// When the bus can't be asked.
    pub async fn members(&self, channel: &ChannelName, after: &str, limit: usize) -> Result<Members, BusError> {
        self.bus.health()?;
        let (tell, told) = oneshot::channel();
        let ask = Ask { channel: channel.clone(), after: after.into(), limit, tell };
        self.asks.try_send(ask).map_err(|_| BusError::Down("too many ask who is there".to_owned()))?;
        told.await.map_err(|_| BusError::Down("this instance ends".to_owned()))
    }

    /// Says good-bye to the other instances; blocks for `patience` at most. Called before the bus is shut down.
    pub fn shutdown(&self, patience: Duration) {
        self.thread.stop(patience);
    }
}
