//! The channels and sessions of this instance.
//!
//! **A channel is a log, a session is a cursor with a waker.** Only the bus appends. Each worker has a [`shard::Shard`]
//! with its own mirror of the logs its sessions read, so that reading takes no lock:
//!
//! ```text
//! bus ── append ──▶ Channel { log } ── mark ──▶ Inbox of each interested shard ── wake ──▶ pump
//!                        │                                                          │
//!                        └───────────── copies what is new ─────▶ mirror ── wake ──▶ sessions read
//! ```

pub mod channel;
pub use crate::clock;
pub mod conflate;
pub mod ids;
pub mod log;
pub mod policy;
pub mod roster;
pub mod shard;
pub mod wheel;

use crate::model::channel::ChannelName;
use crate::model::message::Message;
use crate::model::position::{IfMatch, Position};
use crate::model::session::{GapReason, SessionKind};
use crate::proto::drain_schedule::Dice;
use arc_swap::ArcSwap;
use channel::Channel;
use clock::Clock;
use log::{Log, Pressure};
use parking_lot::Mutex;
use policy::ChannelPolicies;
use roster::Roster;
use shard::{EndOrder, Inbox, Order};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How long a channel without sessions and history is remembered after its last message: until then its numbering
/// goes on, so that no cursor of it turns into a gap.
pub const REMEMBERED_US: u64 = 3_600_000_000;

const PARTITIONS: usize = 64;

/// Hears how many sessions one worker will end.
pub type Counted = Arc<dyn Fn(usize) + Send + Sync>;

/// Why the hub can't open a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// `limits.channels` is reached.
    #[error("there are {0} channels, the most allowed (limits.channels)")]
    TooManyChannels(usize),
}

/// The checked bounds of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubLimits {
    /// Channels with a session, a history or a remembered position.
    pub channels_max: usize,
    /// Bytes of all channels' messages together (`Message::size_bytes`); over it, channels keep only their newest.
    pub history_bytes_max: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self { channels_max: 1_000_000, history_bytes_max: 256 * 1024 * 1024 }
    }
}

/// Figures of the hub, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubFigures {
    /// Open channels.
    pub channels: usize,
    /// Their messages.
    pub messages: usize,
    /// Bytes of their messages.
    pub history_bytes: usize,
}

/// The condition under which a message is appended failed: the channel is at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved(pub Position);

/// All channels of this instance; shared by its workers and its bus.
#[derive(Debug)]
pub struct Hub {
    clock: Clock,
    limits: ArcSwap<HubLimits>,
    policies: Arc<ArcSwap<ChannelPolicies>>,
    partitions: Vec<Mutex<HashMap<ChannelName, Arc<Channel>>>>,
    inboxes: Vec<Arc<Inbox>>,
    channels: AtomicUsize,
    bytes: AtomicUsize,
    messages: AtomicUsize,
    /// Sessions of all shards.
    sessions: AtomicUsize,
    epoch: AtomicU64,
    /// Ids of messages from before, in microseconds of the clock, are forgotten.
    ids_since_us: AtomicU64,
    roster: Roster,
}

impl Hub {
    /// An empty hub for so many workers.
    pub fn new(workers: usize, clock: Clock, limits: HubLimits, policies: Arc<ArcSwap<ChannelPolicies>>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            limits: ArcSwap::from_pointee(limits),
            policies,
            partitions: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            inboxes: (0..workers).map(|_| Arc::default()).collect(),
            channels: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            epoch: AtomicU64::new(clock::unix_ms()),
            ids_since_us: AtomicU64::new(0),
            roster: Roster::default(),
        })
    }

    /// The hub's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The users that have sessions here.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The policy of a channel, whether it is open or not.
    pub fn policy(&self, name: &ChannelName) -> Arc<policy::ChannelPolicy> {
        self.policies.load().of(name)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.inboxes.len()
    }

    pub(in crate::hub) fn inbox(&self, worker: usize) -> &Arc<Inbox> {
        &self.inboxes[worker]
    }

    /// The channel of this name, opened if need be. While the `Arc` is held, the channel is not forgotten.
    ///
    /// # Errors
    /// When there are too many channels.
    pub fn open(&self, name: &ChannelName) -> Result<Arc<Channel>, HubError> {
        let mut partition = self.partition(name).lock();
        if let Some(channel) = partition.get(name) {
            return Ok(Arc::clone(channel));
        }
        let channels_max = self.limits.load().channels_max;
        if self.channels.fetch_add(1, Ordering::Relaxed) >= channels_max {
            self.channels.fetch_sub(1, Ordering::Relaxed);
            return Err(HubError::TooManyChannels(channels_max));
        }
        let log = Log::new(self.epoch.load(Ordering::Relaxed), self.policies.load().of(name));
        let channel = Arc::new(Channel::new(name.clone(), log, self.workers(), self.clock.now_us()));
        partition.insert(name.clone(), Arc::clone(&channel));
        Ok(channel)
    }

    /// The channel of this name, if it is open.
    pub fn find(&self, name: &str) -> Option<Arc<Channel>> {
        self.partitions[partition_of(name)].lock().get(name).cloned()
    }

    /// The policies of all channels, as they are now.
    pub fn policies(&self) -> Arc<ChannelPolicies> {
        self.policies.load_full()
    }

    /// Appends a message at the channel's next position, if the condition holds, and marks it for its sessions.
    ///
    /// # Errors
    /// When the condition fails.
    pub fn append(&self, channel: &Channel, message: Message, if_match: Option<IfMatch>) -> Result<Position, Moved> {
        let now_us = self.clock.now_us();
        let position = {
            let mut log = channel.log.lock();
            let last = log.last();
            let holds = match if_match {
                None => true,
                Some(IfMatch::Empty) => last.offset == 0,
                Some(IfMatch::At(position)) => position == last,
            };
            if !holds {
                return Err(Moved(last));
            }
            let position = log.next_position();
            let before = Size::of(&log);
            log.append(message, position, now_us, self.pressure());
            self.account(before, Size::of(&log));
            channel.moved_us.store(now_us, Ordering::Relaxed);
            position
        };
        self.mark(channel);
        Ok(position)
    }

    /// Appends a message at the position that the bus gave it, and marks it for its sessions. What is not after the
    /// channel's last position, in its epoch, was there already and is passed over; whether it was appended.
    pub fn append_at(&self, channel: &Channel, message: Message, position: Position) -> bool {
        let now_us = self.clock.now_us();
        {
            let mut log = channel.log.lock();
            if position.epoch != log.last().epoch || position.offset <= log.last().offset {
                return false;
            }
            let before = Size::of(&log);
            log.append(message, position, now_us, self.pressure());
            self.account(before, Size::of(&log));
            channel.moved_us.store(now_us, Ordering::Relaxed);
        }
        self.mark(channel);
        true
    }

    /// Goes on after a stretch that the bus can't deliver: `last` is the position before what follows. Every session
    /// that is on the channel hears of a gap.
    pub fn skip_to(&self, channel: &Channel, last: Position, reason: GapReason) {
        {
            let mut log = channel.log.lock();
            let before = Size::of(&log);
            log.skip_to(last, reason);
            self.account(before, Size::of(&log));
        }
        self.mark(channel);
    }

    /// Says where a channel starts that this instance begins to follow: everything up to `last` is not here. Only for
    /// a channel that has no messages and no sessions yet.
    pub fn start_at(&self, channel: &Channel, last: Position) {
        channel.log.lock().start_at(last);
    }

    /// Says that nothing stands in the channel between its newest message and `last`, where offsets are shared by many
    /// channels: what other instances gave to clients as the channel's place is then known here, too.
    pub fn advance_to(&self, channel: &Channel, last: Position) {
        channel.log.lock().advance_to(last);
    }

    /// Says that the channel goes on in another epoch with all that it has: `past` is how far each earlier one reached
    /// into it. Nobody has missed anything.
    pub fn renew(&self, channel: &Channel, epoch: u64, past: Box<[Position]>) {
        channel.log.lock().renew(epoch, past);
    }

    /// Channels that no session is on, and no one else holds: a bus may stop following them. `forget` says yes for
    /// those that are then removed.
    pub fn retire(&self, turn: usize, mut forget: impl FnMut(&Channel) -> bool) {
        let mut partition = self.partitions[turn % PARTITIONS].lock();
        partition.retain(|_, channel| {
            let idle = Arc::strong_count(channel) == 1 && forget(channel);
            if idle {
                let log = channel.log.lock();
                self.account(Size::of(&log), Size { bytes: 0, messages: 0 });
                self.channels.fetch_sub(1, Ordering::Relaxed);
            }
            !idle
        });
    }

    /// How many sessions there are, on all workers; tunnels and backends' event streams count too.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Ends sessions on all workers, each at its own moment in a window. `counted` hears from each worker how many
    /// it has; it must not block.
    pub fn end_sessions(&self, order: &EndOrder, counted: &Counted) {
        let mut dice = Dice::new(order.seed);
        for inbox in &self.inboxes {
            let order = EndOrder { seed: dice.below(u64::MAX), ..order.clone() };
            inbox.order(Order::End(order, Arc::clone(counted)));
        }
    }

    /// Cuts what sessions are left, on all workers. `counted` hears from each worker how many of each kind.
    pub fn cut_sessions(&self, counted: &Arc<dyn Fn([usize; SessionKind::ALL.len()]) + Send + Sync>) {
        for inbox in &self.inboxes {
            inbox.order(Order::Cut(Arc::clone(counted)));
        }
    }

    /// Adopts other limits.
    pub fn set_limits(&self, limits: HubLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// Gives every open channel its policy anew, after the policies were swapped.
    pub fn apply_policies(&self) {
        let policies = self.policies.load_full();
        for partition in &self.partitions {
            let channels: Vec<_> = partition.lock().values().cloned().collect();
            for channel in channels {
                channel.log.lock().set_policy(policies.of(&channel.name));
            }
        }
    }

    /// Lets one partition's messages grow old and forgets its idle channels; called in turn, so that each is visited
    /// about once a second.
    pub fn sweep(&self, turn: usize) {
        let now_us = self.clock.now_us();
        let mut partition = self.partitions[turn % PARTITIONS].lock();
        partition.retain(|_, channel| {
            let mut log = channel.log.lock();
            let (before, first) = (Size::of(&log), log.first());
            log.expire(now_us, self.pressure());
            self.account(before, Size::of(&log));
            let (evicted, never, empty) = (log.first() > first, log.last().offset == 0, log.is_empty());
            drop(log);
            if evicted {
                self.mark(channel);
            }
            let idle_us = now_us.saturating_sub(channel.moved_us.load(Ordering::Relaxed));
            // No one can get hold of the channel while this partition is locked; the map's own count is 1.
            let forget = Arc::strong_count(channel) == 1 && empty && (never || idle_us > REMEMBERED_US);
            if forget {
                self.channels.fetch_sub(1, Ordering::Relaxed);
                if !never {
                    // A later channel of that name must not continue old positions: it belongs to another epoch.
                    self.epoch.fetch_max(clock::unix_ms(), Ordering::Relaxed);
                }
            }
            !forget
        });
    }

    /// How many partitions [`Hub::sweep`] goes through.
    pub fn partitions(&self) -> usize {
        PARTITIONS
    }

    /// Figures for metrics.
    pub fn figures(&self) -> HubFigures {
        HubFigures {
            channels: self.channels.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            history_bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn partition(&self, name: &ChannelName) -> &Mutex<HashMap<ChannelName, Arc<Channel>>> {
        &self.partitions[partition_of(name.as_str())]
    }

    fn pressure(&self) -> Pressure {
        let over = self.bytes.load(Ordering::Relaxed) > self.limits.load().history_bytes_max;
        if over { Pressure::High } else { Pressure::None }
    }

    fn account(&self, before: Size, after: Size) {
        // Wrapping: a sum of differences, each of which may be below zero.
        self.bytes.fetch_add(after.bytes.wrapping_sub(before.bytes), Ordering::Relaxed);
        self.messages.fetch_add(after.messages.wrapping_sub(before.messages), Ordering::Relaxed);
    }

    /// Tells each shard with sessions on the channel that its log has moved.
    fn mark(&self, channel: &Channel) {
        if channel.name.is_own() {
            self.roster.moved(&channel.name);
        }
        for (worker, mark) in channel.marks.iter().enumerate() {
            if mark.raise() {
                self.inboxes[worker].push(channel);
            }
        }
    }
}

/// How much a log holds.
#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    messages: usize,
}

impl Size {
    fn of(log: &Log) -> Self {
        Self { bytes: log.bytes(), messages: log.len() }
    }
}

fn partition_of(name: &str) -> usize {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32) as usize % PARTITIONS
}

#[cfg(test)]
mod tests;
