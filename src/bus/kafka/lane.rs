//! One partition, as all tasks of this instance share it: what is known of it, the channels that have sessions here, and
//! the publishers that wait for their records to be read.

use crate::bus::health::Health;
use crate::bus::kafka::knowledge::{Backlog, Judgement, Kept, Knowledge};
use crate::bus::kafka::record::{self, Incoming, Kind, Stamp, number_of};
use crate::clock::unix_ms;
use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::hub::log::LIVE_WINDOW_MESSAGES;
use crate::model::channel::ChannelName;
use crate::model::message::{Label, Message};
use crate::model::position::Position;
use crate::model::session::GapReason;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rskafka::client::partition::PartitionClient;
use rskafka::record::{Record, RecordAndOffset};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use tokio::sync::{mpsc, oneshot, watch};

/// Messages that wait to be written.
const QUEUE_MAX: usize = 4096;
/// Sessions that wait for one channel.
const ASKS_MAX: usize = 4096;

/// Who waits until a channel is current.
pub type Ask = oneshot::Sender<Result<(), String>>;
/// What became of a message that was written.
pub type Outcome = Result<(Position, Written), String>;

/// Whether a message counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is new.
    First,
    /// Its id was known.
    Duplicate,
}

/// A message that waits to be written.
#[derive(Debug)]
pub struct Queued {
    /// The message.
    pub message: Message,
    /// Who waits for it.
    pub told: oneshot::Sender<Outcome>,
}

/// One partition.
pub struct Lane {
    /// Which.
    pub index: i32,
    /// The hub.
    pub hub: Arc<Hub>,
    health: Arc<Health>,
    instance: u64,
    state: Mutex<State>,
    /// Where messages wait to be written.
    pub queue: mpsc::Sender<Queued>,
    /// Taken by the task that writes.
    pub queued: tokio::sync::Mutex<mpsc::Receiver<Queued>>,
    /// The number of the newest record read.
    read: watch::Sender<u64>,
    /// For looking back, while there is a connection.
    pub history: ArcSwapOption<PartitionClient>,
}

struct State {
    knowledge: Knowledge,
    /// All that there was at the beginning has been read.
    is_caught_up: bool,
    /// The life of the partition that open channels are in.
    told: Option<u64>,
    open: HashMap<ChannelName, Open>,
    pending: HashMap<u64, oneshot::Sender<Outcome>>,
    serial: u64,
    /// Records of others were told of.
    strangers_told: bool,
}

/// A channel with sessions here, or that had some a short while ago.
struct Open {
    channel: Weak<Channel>,
    phase: Phase,
    /// Since when no session was on it; `None` while there is one.
    idle_since_us: Option<u64>,
}

enum Phase {
    /// Its history is being read; meanwhile live messages wait, those up to `dropped` in vain.
    Filling { live: VecDeque<(Position, Message)>, dropped: u64, asks: Vec<Ask> },
    /// What comes goes into the hub.
    Live,
}

/// What has to be done for a channel to become current.
pub enum Follow {
    /// Nothing.
    Current,
    /// Somebody is at it: wait.
    Wait(oneshot::Receiver<Result<(), String>>),
    /// Its history has to be read, by the caller; then wait.
    Fill(oneshot::Receiver<Result<(), String>>),
}

impl Lane {
    /// A partition of so many, of which nothing is known yet.
    pub fn new(index: i32, partitions: u32, window_ms: u64, instance: u64, hub: Arc<Hub>, health: Arc<Health>) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let state = State {
            knowledge: Knowledge::new(partitions, window_ms),
            is_caught_up: false,
            told: None,
            open: HashMap::new(),
            pending: HashMap::new(),
            serial: 0,
            strangers_told: false,
        };
        Self {
            index,
            hub,
            health,
            instance,
            state: Mutex::new(state),
            queue,
            queued: tokio::sync::Mutex::new(queued),
            read: watch::Sender::new(0),
            history: ArcSwapOption::empty(),
        }
    }

    /// Reading begins after this number: for the first time, or since the end was lost.
    pub fn begin(&self, after: u64, warm_ms: u64) {
        let mut state = self.state.lock();
        state.is_caught_up = false;
        if state.knowledge.read() == 0 {
            state.knowledge.begin(after, warm_ms);
        } else {
            state.knowledge.begin_anew(after, warm_ms);
        }
        drop(state);
        self.read.send_replace(after);
    }

    /// The number of the newest record read.
    pub fn read(&self) -> u64 {
        self.state.lock().knowledge.read()
    }

    /// Remembers ids for another time.
    pub fn set_window(&self, window_ms: u64) {
        self.state.lock().knowledge.set_window(window_ms);
    }

    /// Whether all that there was at the beginning has been read.
    pub fn is_caught_up(&self) -> bool {
        self.state.lock().is_caught_up
    }

    /// Everything up to the end has been read; whether the life of the partition is known, so that it can be served.
    pub fn catch_up(&self) -> bool {
        let mut state = self.state.lock();
        state.knowledge.catch_up();
        state.is_caught_up = true;
        state.knowledge.epoch().is_some()
    }

    /// Records up to this number are gone: whoever is on a channel hears of it.
    pub fn miss(&self, through: u64) {
        let mut state = self.state.lock();
        state.knowledge.miss(through);
        if let Some(epoch) = state.knowledge.epoch() {
            state.skip_all(&self.hub, Position { epoch, offset: through });
        }
        self.health.metrics().history_missed();
    }

    /// Takes what was read.
    ///
    /// # Errors
    /// When the topic has other partitions than before.
    pub fn take(&self, records: &[RecordAndOffset]) -> Result<(), String> {
        let Some(newest) = records.last() else { return Ok(()) };
        {
            let mut state = self.state.lock();
            for read in records {
                match record::decode(read) {
                    Some(incoming) => self.take_one(&mut state, incoming)?,
                    None => self.pass_over(&mut state, read),
                }
            }
        }
        self.read.send_replace(number_of(newest.offset));
        Ok(())
    }

    fn pass_over(&self, state: &mut State, read: &RecordAndOffset) {
        state.knowledge.pass_over(number_of(read.offset));
        self.health.metrics().error();
        if !std::mem::replace(&mut state.strangers_told, true) {
            tracing::warn!(
                partition = self.index,
                offset = read.offset,
                "the topic has records that another program or release wrote; they are passed over"
            );
        }
    }

    fn take_one(&self, state: &mut State, incoming: Incoming) -> Result<(), String> {
        let (stamp, number, at_ms) = (incoming.stamp, incoming.number, incoming.at_ms);
        let keep = |channel: &ChannelName| self.hub.policy(channel).history_messages_max.max(LIVE_WINDOW_MESSAGES);
        let judgement = state.knowledge.take(incoming, keep);
        self.tell_life(state, number, &judgement);
        let outcome = match judgement {
            Judgement::Outdated => return Err("the topic has got more partitions".to_owned()),
            Judgement::Began | Judgement::Again => return Ok(()),
            Judgement::Void => Err("the topic lost data, or was made anew; nothing was published".to_owned()),
            Judgement::Duplicate(position) => Ok((position, Written::Duplicate)),
            Judgement::Published(position, message) => {
                self.deliver(state, position, at_ms, message);
                Ok((position, Written::First))
            }
        };
        if stamp.kind == Kind::Message
            && stamp.instance == self.instance
            && let Some(told) = state.pending.remove(&stamp.serial)
        {
            // Who published may have gone.
            let _ = told.send(outcome);
        }
        Ok(())
    }

    /// Where another life begins, open channels go on in it, after an announced gap.
    fn tell_life(&self, state: &mut State, number: u64, judgement: &Judgement) {
        let Some(epoch) = state.knowledge.epoch().filter(|epoch| state.told != Some(*epoch)) else { return };
        if state.told.replace(epoch).is_some() {
            tracing::warn!(partition = self.index, "the topic lost data, or was made anew; its channels begin again");
            self.health.metrics().history_missed();
            let offset = if *judgement == Judgement::Began { number } else { number - 1 };
            state.skip_all(&self.hub, Position { epoch, offset });
        }
    }

    fn deliver(&self, state: &mut State, position: Position, at_ms: u64, message: Message) {
        let Some(open) = state.open.get_mut(&message.channel) else { return };
        self.health.metrics().received(unix_ms().saturating_sub(at_ms).saturating_mul(1000));
        let Some(channel) = open.channel.upgrade() else { return };
        match &mut open.phase {
            Phase::Live => drop(self.hub.append_at(&channel, message, position)),
            Phase::Filling { live, dropped, .. } => {
                live.push_back((position, message));
                // The log keeps no more than that either.
                if live.len() > channel.policy().history_messages_max.max(LIVE_WINDOW_MESSAGES)
                    && let Some((oldest, _)) = live.pop_front()
                {
                    *dropped = oldest.offset;
                }
            }
        }
    }

    /// The records for messages, ready to be written, each with who waits for it noted.
    ///
    /// # Errors
    /// When the life of the partition is not known: those who wait are told.
    pub fn stamp(&self, batch: Vec<Queued>) -> Vec<Record> {
        let now_ms = unix_ms();
        let mut state = self.state.lock();
        let Some(epoch) = state.knowledge.epoch() else {
            for queued in batch {
                let _ = queued.told.send(Err("the topic lost data, or was made anew".to_owned()));
            }
            return Vec::new();
        };
        let mut records = Vec::with_capacity(batch.len());
        for queued in batch {
            let stamp = state.next_stamp(Kind::Message, epoch, self.instance);
            records.push(record::encode(stamp, Some(&queued.message), now_ms));
            state.pending.insert(stamp.serial, queued.told);
        }
        records
    }

    /// The record that begins another life of the partition; `None` if there is no need.
    pub fn stamp_epoch(&self) -> Option<Record> {
        let now_ms = unix_ms();
        let mut state = self.state.lock();
        if state.knowledge.epoch().is_some() {
            return None;
        }
        let epoch = now_ms.max(state.knowledge.over() + 1);
        let stamp = state.next_stamp(Kind::Epoch, epoch, self.instance);
        Some(record::encode(stamp, None, now_ms))
    }

    /// Tells all who wait for their records that they may wait in vain.
    pub fn fail_pending(&self, reason: &str) {
        self.refuse_pending(&format!("{reason}, so it may still be published"));
    }

    /// Tells all who wait for their records that those were refused.
    pub fn refuse_pending(&self, reason: &str) {
        let pending = std::mem::take(&mut self.state.lock().pending);
        for told in pending.into_values() {
            // Who published may have gone.
            let _ = told.send(Err(reason.to_owned()));
        }
    }

    /// Waits until the record with this number has been read.
    pub async fn reach(&self, number: u64) {
        // The sender lives as long as `self`.
        let _ = self.read.subscribe().wait_for(|read| *read >= number).await;
    }

    /// Whether a cursor's position lies ahead of what has been read.
    pub fn is_behind(&self, position: Position) -> bool {
        let state = self.state.lock();
        state.knowledge.epoch() == Some(position.epoch) && state.knowledge.read() < position.offset
    }

    /// Where the message with this id stands, if it was published within the window.
    pub fn find(&self, message: &Message) -> Option<Position> {
        let id: &Label = message.id.as_ref()?;
        self.state.lock().knowledge.find(&message.channel, id, unix_ms())
    }

    /// The channel's newest message, and how many are known.
    pub fn newest(&self, channel: &ChannelName) -> Option<(Position, usize)> {
        self.state.lock().knowledge.newest(channel)
    }

    /// Begins to follow a channel, or says that it is followed.
    ///
    /// # Errors
    /// When too many wait for it.
    pub fn follow(&self, channel: &Arc<Channel>) -> Result<Follow, String> {
        let mut state = self.state.lock();
        let open =
            state.open.get_mut(&channel.name).filter(|open| std::ptr::eq(open.channel.as_ptr(), Arc::as_ptr(channel)));
        if let Some(open) = open {
            open.idle_since_us = None;
            return match &mut open.phase {
                Phase::Live => {
                    self.advance(&state, channel);
                    Ok(Follow::Current)
                }
                Phase::Filling { asks, .. } if asks.len() < ASKS_MAX => {
                    let (ask, told) = oneshot::channel();
                    asks.push(ask);
                    Ok(Follow::Wait(told))
                }
                Phase::Filling { .. } => Err("too many wait for the channel".to_owned()),
            };
        }
        let (ask, told) = oneshot::channel();
        let phase = Phase::Filling { live: VecDeque::new(), dropped: 0, asks: vec![ask] };
        let open = Open { channel: Arc::downgrade(channel), phase, idle_since_us: None };
        state.open.insert(channel.name.clone(), open);
        Ok(Follow::Fill(told))
    }

    /// What a followed channel's log begins with; what is live meanwhile waits.
    pub fn backlog(&self, channel: &Channel) -> Option<Backlog> {
        let policy = channel.policy();
        let kept = Kept {
            messages_max: policy.history_messages_max.max(LIVE_WINDOW_MESSAGES),
            oldest_ms: unix_ms().saturating_sub(policy.history_age_ms_max),
        };
        let mut state = self.state.lock();
        let backlog = state.knowledge.backlog(&channel.name, kept)?;
        if let Some(Open { phase: Phase::Filling { live, dropped, .. }, .. }) = state.open.get_mut(&channel.name) {
            live.clear();
            *dropped = 0;
        }
        Some(backlog)
    }

    /// The history of a channel was read; whether it is current now. It is not if the partition has begun another life.
    pub fn fill(&self, channel: &Arc<Channel>, backlog: &Backlog, messages: Vec<(u64, Message)>) -> bool {
        let mut state = self.state.lock();
        if state.knowledge.epoch() != Some(backlog.epoch) {
            return false;
        }
        let Some(open) = state.open.get_mut(&channel.name) else { return true };
        let Phase::Filling { live, dropped, asks } = std::mem::replace(&mut open.phase, Phase::Live) else {
            return true;
        };
        let at = |offset| Position { epoch: backlog.epoch, offset };
        let after = at(backlog.after.max(dropped));
        if channel.last().offset == 0 && channel.messages() == 0 {
            self.hub.start_at(channel, after);
        } else {
            self.hub.skip_to(channel, after, GapReason::Bus);
        }
        for (number, message) in messages {
            // What stands before the place where the log begins is passed over.
            self.hub.append_at(channel, message, at(number));
        }
        for (position, message) in live {
            self.hub.append_at(channel, message, position);
        }
        self.advance(&state, channel);
        for ask in asks {
            let _ = ask.send(Ok(()));
        }
        true
    }

    /// The history of a channel could not be read: who waits is told, and the next one tries again.
    pub fn fail_fill(&self, channel: &ChannelName, reason: &str) {
        let Some(open) = self.state.lock().open.remove(channel) else { return };
        if let Phase::Filling { asks, .. } = open.phase {
            for ask in asks {
                let _ = ask.send(Err(reason.to_owned()));
            }
        }
    }

    /// Nothing of the channel stands between its newest message and what was read last.
    fn advance(&self, state: &State, channel: &Channel) {
        if let Some(epoch) = state.knowledge.epoch() {
            self.hub.advance_to(channel, Position { epoch, offset: state.knowledge.read() });
        }
    }

    /// Whether a channel without sessions, since `linger_us` ago, is to be let go; then it is.
    pub fn retire(&self, channel: &ChannelName, now_us: u64, linger_us: u64) -> bool {
        let mut state = self.state.lock();
        let Some(open) = state.open.get_mut(channel) else { return true };
        if matches!(open.phase, Phase::Filling { .. }) {
            return false;
        }
        let since_us = *open.idle_since_us.get_or_insert(now_us);
        let is_over = now_us.saturating_sub(since_us) >= linger_us;
        if is_over {
            state.open.remove(channel);
        }
        is_over
    }

    /// Forgets channels that the hub forgot by itself; how many are followed.
    pub fn tidy(&self) -> usize {
        let mut state = self.state.lock();
        state.open.retain(|_, open| open.channel.strong_count() > 0);
        state.open.len()
    }

    /// The channels that are followed.
    pub fn channels(&self) -> Vec<Arc<Channel>> {
        self.state.lock().open.values().filter_map(|open| open.channel.upgrade()).collect()
    }
}

impl State {
    fn next_stamp(&mut self, kind: Kind, epoch: u64, instance: u64) -> Stamp {
        self.serial += 1;
        Stamp {
            kind,
            epoch,
            after: self.knowledge.read(),
            partitions: self.knowledge.partitions(),
            instance,
            serial: self.serial,
        }
    }

    fn skip_all(&mut self, hub: &Hub, last: Position) {
        for open in self.open.values() {
            if let (Phase::Live, Some(channel)) = (&open.phase, open.channel.upgrade()) {
                hub.skip_to(&channel, last, GapReason::Bus);
            }
        }
    }
}
