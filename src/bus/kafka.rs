//! Kafka as the bus: one topic, in which a channel's messages stand in the partition that its name chooses.
//!
//! ```text
//! publish ─▶ queue ─▶ batch ─▶ partition ─▶ read back ─▶ judged: new, known id, void ─▶ answer
//!                                   └─────▶ read by every instance ─▶ judged alike ─▶ hub, if somebody listens
//! attach  ─▶ known numbers of the channel ─▶ look back for them ─▶ live
//! ```
//!
//! There is no consumer group: every instance reads all partitions, keeps what it has sessions for, and notes where each
//! channel's messages stand. Kafka has no writes on condition, so [`IfMatch`] is refused. Positions: the epoch is the
//! life of the partition, which a record begins; the offset is Kafka's and one. Sessions that were lost, and questions
//! between instances, are notes in the same topic.

mod connect;
mod knowledge;
mod lane;
mod note;
mod presence;
mod queue;
mod reader;
mod record;
mod run;
pub mod store;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "these rules keep the workers fast; a test is no worker")]
mod tests;
mod writer;

use crate::bus::health::Health;
use crate::bus::settings::KafkaSettings;
use crate::bus::store::SessionStore;
use crate::bus::store::memory::MemoryStore;
use crate::bus::thread::BusThread;
use crate::bus::{Attached, Bus, BusError, ChannelInfo, IfMatch, Published, paced_by};
use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::message::Message;
use crate::model::session_token::SessionKey;
use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use lane::follow::Follow;
use lane::{Around, Lane};
use note::Note;
use parking_lot::Mutex;
use queue::{Content, Queued, Told, Written};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// How long a channel may take to become current.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a message may take to be written and read back.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);
/// Channels whose history is read at once.
const LOOKS_MAX: usize = 16;
/// How long a broker holds a request for what comes next; what comes ends that at once.
const WAIT: Duration = Duration::from_millis(500);

/// A bus on Kafka. Dropping it stops its thread.
pub struct KafkaBus {
    shared: Arc<Shared>,
    thread: BusThread,
}

/// What the bus and its thread share.
struct Shared {
    settings: KafkaSettings,
    hub: Arc<Hub>,
    window_ms: AtomicU64,
    wait: Duration,
    health: Arc<Health>,
    runtime: Handle,
    looks: Arc<Semaphore>,
    /// There after the first connection.
    lanes: ArcSwapOption<Lanes>,
    /// Sessions that wait for their clients.
    sessions: Arc<MemoryStore>,
    /// Channels that were followed in partitions that are no more.
    orphans: Mutex<Vec<ChannelName>>,
}

/// All partitions.
struct Lanes {
    all: Vec<Arc<Lane>>,
}

impl Lanes {
    fn of(&self, channel: &ChannelName) -> &Arc<Lane> {
        self.at(channel.hash32())
    }

    fn at(&self, hash: u32) -> &Arc<Lane> {
        &self.all[hash as usize % self.all.len()]
    }
}

impl KafkaBus {
    /// Starts the thread of the bus, which connects; ids are remembered for `window`, sessions for `ttl`.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start(
        settings: KafkaSettings,
        hub: Arc<Hub>,
        window: Duration,
        ttl: Duration,
        health: Health,
    ) -> io::Result<Arc<Self>> {
        Self::start_waiting(settings, hub, (window, ttl), health, WAIT)
    }

    fn start_waiting(
        settings: KafkaSettings,
        hub: Arc<Hub>,
        (window, ttl): (Duration, Duration),
        health: Health,
        wait: Duration,
    ) -> io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sessions = Arc::new(MemoryStore::new(hub.clock(), ttl));
        let shared = Arc::new(Shared {
            settings,
            hub,
            sessions,
            window_ms: AtomicU64::new(window.as_millis() as u64),
            wait,
            health: Arc::new(health),
            runtime: runtime.handle().clone(),
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            lanes: ArcSwapOption::empty(),
            orphans: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = BusThread::start("bus", runtime, |mut stopped| async move {
            tokio::select! {
                () = run::run(&of_thread) => {}
                () = stopped.wait() => {}
            }
            of_thread.stop();
        })?;
        Ok(Arc::new(Self { shared, thread }))
    }

    async fn publish_message(&self, message: Message, if_match: Option<IfMatch>) -> Result<Published, BusError> {
        if if_match.is_some() {
            return Err(BusError::NoConditions);
        }
        let lanes = self.shared.lanes()?;
        let lane = lanes.of(&message.channel);
        let local_sessions = self.shared.hub.find(message.channel.as_str()).map_or(0, |channel| channel.sessions());
        if let Some(position) = lane.find(&message) {
            return Ok(Published { position, duplicate: true, local_sessions });
        }
        let Told::At(position, written) = self.write(lane, Content::Message(message)).await? else {
            return Err(down("another answer than was asked for"));
        };
        if written == Written::First {
            self.shared.health.metrics().published();
        }
        Ok(Published { position, duplicate: written == Written::Duplicate, local_sessions })
    }

    /// Writes something, and waits until it has been read.
    async fn write(&self, lane: &Lane, content: Content) -> Result<Told, BusError> {
        let (told, outcome) = oneshot::channel();
        lane.queue.try_send(Queued { content, told: Some(told) }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => down("too many messages wait to be written"),
            mpsc::error::TrySendError::Closed(_) => down("it was stopped"),
        })?;
        let outcome = match tokio::time::timeout(PUBLISH_TIMEOUT, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("it was stopped".to_owned()),
            Err(_) => Err("it takes too long, so it may still be published".to_owned()),
        };
        outcome.map_err(|error| self.shared.failed(&error))
    }

    /// Writes what becomes of a session.
    async fn write_session(&self, key: &SessionKey, note: Note) -> Result<Told, BusError> {
        let lanes = self.shared.lanes()?;
        self.write(lanes.at(key.hash32()), Content::Note(note)).await
    }

    /// How long sessions are kept.
    fn sessions_ttl(&self) -> Duration {
        self.shared.sessions.ttl()
    }

    async fn attach_all(&self, channels: &[ChannelName], cursor: Option<&Cursor>) -> Result<Attached, BusError> {
        let lanes = self.shared.lanes()?;
        let (mut opened, mut soon) = (Vec::with_capacity(channels.len()), Vec::new());
        for name in channels {
            let channel = self.shared.hub.open(name)?;
            let lane = lanes.of(name);
            let position = cursor.and_then(|cursor| cursor.position(name));
            let (lanes, channel_here) = (&lanes, Arc::clone(&channel));
            soon.push(async move {
                if let Some(position) = position.filter(|position| lane.is_behind(*position)) {
                    let lane = Arc::clone(lane);
                    let reach = self.shared.runtime.spawn(async move { reader::reach(&lane, position.offset).await });
                    reach.await.unwrap_or_else(|_| Err("it was lost".to_owned()))?;
                }
                self.shared.follow(lanes, &channel_here).await
            });
            opened.push(channel);
        }
        match tokio::time::timeout(ATTACH_TIMEOUT, futures_util::future::try_join_all(soon)).await {
            Ok(Ok(_)) => Ok(Attached::new(opened)),
            Ok(Err(error)) => Err(self.shared.failed(&error)),
            Err(_) => Err(down("it takes too long")),
        }
    }

    async fn describe_channel(&self, channel: &ChannelName) -> Result<ChannelInfo, BusError> {
        let lanes = self.shared.lanes()?;
        let lane = lanes.of(channel);
        let instances = presence::ask(lane, channel).await?;
        let newest = lane.newest(channel);
        Ok(ChannelInfo {
            position: newest.map(|(position, _)| position),
            history_messages: newest.map_or(0, |(_, count)| count),
            instances,
            counted_within: presence::PATIENCE,
        })
    }
}

impl Bus for KafkaBus {
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
        self.shared.lanes().map(drop)
    }

    fn set_window(&self, window: Duration) {
        let window_ms = window.as_millis() as u64;
        self.shared.window_ms.store(window_ms, Ordering::Relaxed);
        if let Some(lanes) = self.shared.lanes.load_full() {
            lanes.all.iter().for_each(|lane| lane.set_window(window_ms));
        }
    }

    fn shutdown(&self, patience: Duration) {
        self.thread.stop(patience);
    }
}

impl Shared {
    fn window_ms(&self) -> u64 {
        self.window_ms.load(Ordering::Relaxed)
    }

    /// The partitions, while they can be reached.
    fn lanes(&self) -> Result<Arc<Lanes>, BusError> {
        let lanes = self.lanes.load_full().filter(|_| self.health.is_up());
        lanes.ok_or_else(|| down("it is not connected"))
    }

    /// The partitions, if there are so many; others are begun anew.
    fn lanes_of(&self, count: usize) -> Arc<Lanes> {
        let known = self.lanes.load_full();
        if let Some(lanes) = known.as_ref().filter(|lanes| lanes.all.len() == count) {
            return Arc::clone(lanes);
        }
        let instance = fresh_number();
        let lane = |index| {
            let around = Around {
                hub: Arc::clone(&self.hub),
                health: Arc::clone(&self.health),
                sessions: Arc::clone(&self.sessions),
            };
            Arc::new(Lane::new(index as i32, count as u32, self.window_ms(), instance, around))
        };
        let lanes = Arc::new(Lanes { all: (0..count).map(lane).collect() });
        self.lanes.store(Some(Arc::clone(&lanes)));
        if let Some(old) = known {
            let names = old.all.iter().flat_map(|lane| lane.channels()).map(|channel| channel.name.clone());
            self.orphans.lock().extend(names);
        }
        lanes
    }

    /// Follows the channel, until it is current.
    async fn follow(&self, lanes: &Lanes, channel: &Arc<Channel>) -> Result<(), String> {
        let lane = lanes.of(&channel.name);
        let told = match lane.follow(channel)? {
            Follow::Current => return Ok(()),
            Follow::Wait(told) => told,
            Follow::Fill(told) => {
                let fill = reader::fill(Arc::clone(lane), Arc::clone(channel), Arc::clone(&self.looks));
                self.runtime.spawn(fill);
                told
            }
        };
        told.await.unwrap_or_else(|_| Err("it was lost".to_owned()))
    }

    /// Follows channels with sessions, whose partitions are no more, in others.
    fn adopt_orphans(self: &Arc<Self>, lanes: &Arc<Lanes>) {
        for name in std::mem::take(&mut *self.orphans.lock()) {
            self.runtime.spawn(run::refollow(Arc::clone(self), Arc::clone(lanes), name));
        }
    }

    /// Nothing is read or written any more.
    fn stop(&self) {
        self.health.down("it was stopped");
        if let Some(lanes) = self.lanes.swap(None) {
            lanes.all.iter().for_each(|lane| lane.fail_pending("it was stopped"));
        }
    }

    fn failed(&self, error: &str) -> BusError {
        self.health.metrics().error();
        down(error)
    }
}

/// A number that no other instance has.
fn fresh_number() -> u64 {
    let mut bytes = [0u8; 8];
    // Without randomness the process and the time have to do.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => crate::clock::unix_ms() << 20 | u64::from(std::process::id() & 0xf_ffff),
    }
}

fn down(error: &str) -> BusError {
    BusError::Down(format!("Kafka: {error}"))
}
