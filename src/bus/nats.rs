//! NATS JetStream as the bus: one stream with all channels, and a subscription for each channel that has sessions here.
//!
//! ```text
//! publish ─▶ stream (number, condition, known ids) ─▶ repeated live, to every instance that follows the channel
//! attach  ─▶ subscribe ─▶ read the history ─▶ take what is live, each message with the number of the one before
//! ```
//!
//! Positions: the stream's creation time is the epoch, a message's number in the stream is its offset. Workers publish
//! over one connection that all share; a thread of its own keeps the connection and the followers. It does not know
//! sessions: it feeds the hub.

mod connect;
mod follow;
mod follower;
mod journal;
mod newest;
mod presence;
mod run;
pub mod store;
mod subject;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "these rules keep the workers fast; a test is no worker")]
mod tests;

use crate::bus::health::Health;
use crate::bus::settings::NatsSettings;
use crate::bus::thread::BusThread;
use crate::bus::{Attached, Bus, BusError, ChannelInfo, IfMatch, Published, paced_by};
use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::message::Message;
use crate::model::position::Position;
use follower::{Ask, Follower};
use futures_util::future::BoxFuture;
use journal::{Facts, Journal, Stored};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// How long a channel may take to become current.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
/// Sessions that wait for one channel.
const ASKS_MAX: usize = 4096;
/// Channels that are looked at in the stream at once.
const LOOKS_MAX: usize = 64;

/// A bus on NATS. Dropping it stops its thread.
pub struct NatsBus {
    shared: Arc<Shared>,
    thread: BusThread,
}

/// What the bus and its thread share.
struct Shared {
    settings: NatsSettings,
    hub: Arc<Hub>,
    window: Duration,
    health: Arc<Health>,
    /// There once the thread runs.
    journal: OnceLock<Arc<Journal>>,
    runtime: Handle,
    followers: Mutex<HashMap<ChannelName, Followed>>,
    looks: Arc<Semaphore>,
    /// Counts connections; 0 before the first.
    connection: watch::Sender<u64>,
    /// The life of the stream and its last number, as far as known under which connection.
    life: Mutex<(u64, Facts)>,
    instance: String,
}

/// A channel with a task.
struct Followed {
    channel: Weak<Channel>,
    asks: mpsc::Sender<Ask>,
    current: Arc<AtomicU64>,
    /// Since when no session was on it; `None` while there is one.
    idle_since_us: Option<u64>,
}

impl NatsBus {
    /// Starts the thread of the bus, which connects; ids are remembered for `window`.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start(settings: NatsSettings, hub: Arc<Hub>, window: Duration, health: Health) -> io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let nothing = Facts { epoch: 0, first: 0, last: 0, per_channel_max: None };
        let shared = Arc::new(Shared {
            settings,
            hub,
            window,
            health: Arc::new(health),
            journal: OnceLock::new(),
            runtime: runtime.handle().clone(),
            followers: Mutex::default(),
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            connection: watch::Sender::new(0),
            life: Mutex::new((0, nothing)),
            instance: fresh_name(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = BusThread::start("bus", runtime, |mut stopped| async move {
            tokio::select! {
                () = run::run(&of_thread) => {}
                () = stopped.wait() => {}
            }
            of_thread.followers.lock().clear();
        })?;
        Ok(Arc::new(Self { shared, thread }))
    }

    async fn publish_message(&self, message: Message, if_match: Option<IfMatch>) -> Result<Published, BusError> {
        let journal = self.shared.journal()?;
        let epoch = self.shared.life(None).await?.epoch;
        let expected = match if_match {
            None => None,
            Some(IfMatch::Empty) => Some(0),
            Some(IfMatch::At(position)) if position.epoch == epoch => Some(position.offset),
            Some(IfMatch::At(_)) => return Err(self.moved(&journal, &message.channel).await),
        };
        let stored = journal.store(&message, expected).await.map_err(|error| self.shared.failed(&error))?;
        let (number, duplicate) = match stored {
            Stored::At(number) => (number, false),
            Stored::Duplicate(number) => (number, true),
            Stored::Moved => return Err(self.moved(&journal, &message.channel).await),
        };
        if !duplicate {
            self.shared.health.metrics().published();
        }
        let epoch = self.shared.life((!duplicate).then_some(number)).await?.epoch;
        let local_sessions = self.shared.hub.find(message.channel.as_str()).map_or(0, |channel| channel.sessions());
        Ok(Published { position: Position { epoch, offset: number }, duplicate, local_sessions })
    }

    /// Says where the channel is.
    async fn moved(&self, journal: &Journal, channel: &ChannelName) -> BusError {
        match self.newest(journal, channel).await {
            Ok(position) => BusError::Moved { position },
            Err(error) => error,
        }
    }

    async fn newest(&self, journal: &Journal, channel: &ChannelName) -> Result<Option<Position>, BusError> {
        let epoch = self.shared.life(None).await?.epoch;
        let newest = journal.newest(channel).await.map_err(|error| self.shared.failed(&error))?;
        Ok(newest.map(|offset| Position { epoch, offset }))
    }

    async fn attach_all(&self, channels: &[ChannelName], cursor: Option<&Cursor>) -> Result<Attached, BusError> {
        let journal = self.shared.journal()?;
        let (mut opened, mut told) = (Vec::with_capacity(channels.len()), Vec::new());
        for name in channels {
            let channel = self.shared.hub.open(name)?;
            if let Some(soon) =
                self.shared.follow(&journal, &channel, cursor.and_then(|cursor| cursor.position(name)))?
            {
                told.push(soon);
            }
            opened.push(channel);
        }
        let all = async {
            for soon in told {
                soon.await.map_err(|_| "it was lost".to_owned())??;
            }
            Ok::<(), String>(())
        };
        match tokio::time::timeout(ATTACH_TIMEOUT, all).await {
            Ok(Ok(())) => Ok(Attached::new(opened)),
            Ok(Err(error)) => Err(down(&error)),
            Err(_) => Err(down("it takes too long")),
        }
    }

    async fn describe_channel(&self, channel: &ChannelName) -> Result<ChannelInfo, BusError> {
        let journal = self.shared.journal()?;
        let position = self.newest(&journal, channel).await?;
        let count = journal.count(channel).await.map_err(|error| self.shared.failed(&error))?;
        let instances = presence::ask(&self.shared, &journal, channel).await?;
        Ok(ChannelInfo { position, history_messages: count, instances, counted_within: presence::PATIENCE })
    }
}

impl Bus for NatsBus {
    fn publish(&self, message: Message, if_match: Option<IfMatch>) -> BoxFuture<'_, Result<Published, BusError>> {
        Box::pin(self.publish_message(message, if_match))
    }

    fn attach<'a>(
        &'a self,
        channels: &'a [ChannelName],
        cursor: Option<&'a Cursor>,
    ) -> BoxFuture<'a, Result<Attached, BusError>> {
        Box::pin(self.attach_all(channels, cursor))
    }

    fn paced<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, ()> {
        paced_by(&self.shared.hub, channel)
    }

    fn describe<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<ChannelInfo, BusError>> {
        Box::pin(self.describe_channel(channel))
    }

    fn health(&self) -> Result<(), BusError> {
        self.shared.journal().map(drop)
    }

    /// The stream keeps the window that it was made with: another one counts from the next start.
    fn set_window(&self, _: Duration) {}

    fn shutdown(&self, patience: Duration) {
        self.thread.stop(patience);
    }
}

impl Shared {
    /// The stream, while it can be reached.
    fn journal(&self) -> Result<Arc<Journal>, BusError> {
        let journal = self.journal.get().filter(|_| self.health.is_up());
        journal.map(Arc::clone).ok_or_else(|| down("it is not connected"))
    }

    fn failed(&self, error: &str) -> BusError {
        self.health.metrics().error();
        down(error)
    }

    /// The life of the stream. It is asked for once a connection, and where a new message's number shows that the
    /// stream began anew.
    async fn life(&self, number: Option<u64>) -> Result<Facts, BusError> {
        let connection = *self.connection.borrow();
        {
            let mut life = self.life.lock();
            let known = life.0 == connection && number.is_none_or(|number| number + REORDERED_MAX > life.1.last);
            if known {
                life.1.last = life.1.last.max(number.unwrap_or(0));
                return Ok(life.1);
            }
        }
        let facts = self.journal()?.facts().await.map_err(|error| self.failed(&error))?;
        *self.life.lock() = (connection, facts);
        Ok(facts)
    }

    /// Sees to it that the channel has a task; who has to be waited for until it is as current as `position`.
    fn follow(
        &self,
        journal: &Arc<Journal>,
        channel: &Arc<Channel>,
        position: Option<Position>,
    ) -> Result<Option<oneshot::Receiver<Result<(), String>>>, BusError> {
        let mut followers = self.followers.lock();
        let known = followers
            .get(&channel.name)
            .is_some_and(|known| std::ptr::eq(known.channel.as_ptr(), Arc::as_ptr(channel)) && !known.asks.is_closed());
        if !known {
            followers.insert(channel.name.clone(), self.start_follower(journal, channel));
            self.health.metrics().set_channels(followers.len());
        }
        let Some(followed) = followers.get_mut(&channel.name) else { return Err(down("it was lost")) };
        followed.idle_since_us = None;
        let last = channel.last();
        let reaches = position.is_none_or(|position| position.epoch == last.epoch && position.offset <= last.offset);
        if reaches && followed.current.load(Ordering::Acquire) == *self.connection.borrow() {
            return Ok(None);
        }
        let (ask, told) = oneshot::channel();
        followed.asks.try_send(ask).map_err(|_| down("too many wait for it"))?;
        Ok(Some(told))
    }

    fn start_follower(&self, journal: &Arc<Journal>, channel: &Arc<Channel>) -> Followed {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let current = Arc::new(AtomicU64::new(0));
        let follower = Follower {
            hub: Arc::clone(&self.hub),
            journal: Arc::clone(journal),
            health: Arc::clone(&self.health),
            looks: Arc::clone(&self.looks),
            connection: self.connection.subscribe(),
            current: Arc::clone(&current),
            channel: Arc::downgrade(channel),
            name: channel.name.clone(),
            asks: asked,
        };
        self.runtime.spawn(follower.run());
        Followed { channel: Arc::downgrade(channel), asks, current, idle_since_us: None }
    }
}

/// Publishes that are answered in another order than they were stored in are no sign of a new life.
const REORDERED_MAX: u64 = 10_000;

/// A name for this instance that no other has.
fn fresh_name() -> String {
    let mut bytes = [0u8; 6];
    // Without randomness the process and the time have to do.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return format!("{}-{}", std::process::id(), crate::hub::clock::unix_ms());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn down(error: &str) -> BusError {
    BusError::Down(format!("NATS: {error}"))
}
