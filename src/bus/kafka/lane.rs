//! One partition, as all tasks of this instance share it: what is known of it, the channels that have sessions here, and
//! the publishers that wait for their records to be read.

pub mod follow;

use crate::bus::health::Health;
use crate::bus::kafka::knowledge::{Judgement, Knowledge};
use crate::bus::kafka::note::Note;
use crate::bus::kafka::presence::{self, Here};
use crate::bus::kafka::queue::{Content, Outcome, Queued, Told, Written};
use crate::bus::kafka::record::{self, Incoming, Kind, Noted, Read, Stamp, number_of};
use crate::bus::store::memory::MemoryStore;
use crate::bus::store::{SessionStore, StoredSession};
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
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// What the bus says when it begins anew for other partitions.
const OUTDATED: &str = "the topic has got more partitions";
/// Messages and notes that wait to be written.
const QUEUE_MAX: usize = 4096;

/// Answers of other instances that wait to be read.
const ANSWERS_MAX: usize = 1024;

/// Who waits until a channel is current.
pub type Ask = oneshot::Sender<Result<(), String>>;
/// What a partition's records are for.
pub struct Around {
    /// Where messages go.
    pub hub: Arc<Hub>,
    /// Who counts.
    pub health: Arc<Health>,
    /// Where sessions go, of all partitions.
    pub sessions: Arc<MemoryStore>,
}

/// One partition.
pub struct Lane {
    /// Which.
    pub index: i32,
    /// The hub.
    pub hub: Arc<Hub>,
    health: Arc<Health>,
    /// This instance, to others.
    pub instance: u64,
    state: Mutex<State>,
    sessions: Arc<MemoryStore>,
    /// What other instances answer.
    pub here: broadcast::Sender<Here>,
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

impl Lane {
    /// A partition of so many, of which nothing is known yet.
    pub fn new(index: i32, partitions: u32, window_ms: u64, instance: u64, around: Around) -> Self {
        let Around { hub, health, sessions } = around;
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
            sessions,
            here: broadcast::Sender::new(ANSWERS_MAX),
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

    /// How long sessions are kept.
    pub fn sessions_ttl_ms(&self) -> u64 {
        self.sessions.ttl().as_millis() as u64
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
                    Some(Read::Incoming(incoming)) => self.take_one(&mut state, incoming)?,
                    Some(Read::Note(noted)) => self.take_note(&mut state, noted)?,
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
            Judgement::Outdated => return Err(OUTDATED.to_owned()),
            Judgement::Began | Judgement::Again => return Ok(()),
            Judgement::Void => Err("the topic lost data, or was made anew; nothing was published".to_owned()),
            Judgement::Duplicate(position) => Ok(Told::At(position, Written::Duplicate)),
            Judgement::Published(position, message) => {
                self.deliver(state, position, at_ms, message);
                Ok(Told::At(position, Written::First))
            }
        };
        self.tell(state, stamp, outcome);
        Ok(())
    }

    /// Tells who wrote a record, if that was somebody here, what became of it.
    fn tell(&self, state: &mut State, stamp: Stamp, outcome: Outcome) {
        if stamp.instance == self.instance
            && let Some(told) = state.pending.remove(&stamp.serial)
        {
            // Who published may have gone.
            let _ = told.send(outcome);
        }
    }

    fn take_note(&self, state: &mut State, noted: Noted) -> Result<(), String> {
        let Noted { number, at_ms, stamp, note } = noted;
        state.knowledge.pass_over(number);
        if stamp.partitions > state.knowledge.partitions() {
            return Err(OUTDATED.to_owned());
        }
        if stamp.partitions < state.knowledge.partitions() {
            // For its writer the session may stand in another partition.
            self.tell(state, stamp, Err(OUTDATED.to_owned()));
            return Ok(());
        }
        // All instances go by the time of the writer, and so judge alike.
        let at_us = at_ms.saturating_mul(1000);
        match note {
            Note::Put(key, text) => {
                let put = StoredSession::decode(&text).map(|session| self.sessions.put_at(&key, session, at_us));
                let outcome = put.map(Told::Put).ok_or_else(|| "the session can't be read".to_owned());
                self.tell(state, stamp, outcome);
            }
            Note::Back(key, text) => {
                let back = StoredSession::decode(&text).map(|session| self.sessions.give_back_at(&key, session, at_us));
                let outcome = back.map(Told::Back).ok_or_else(|| "the session can't be read".to_owned());
                self.tell(state, stamp, outcome);
            }
            Note::Take(key) => self.tell(state, stamp, Ok(Told::Taken(self.sessions.take_at(&key, at_us)))),
            Note::Who(channel) => {
                let is_asking = unix_ms().saturating_sub(at_ms) < presence::QUESTION_MS_MAX;
                if stamp.instance != self.instance && is_asking {
                    presence::answer(self, channel);
                }
            }
            Note::Here(channel, sessions) => {
                // Nobody may be waiting.
                let _ = self.here.send(Here { channel, instance: stamp.instance, sessions });
            }
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
            for told in batch.into_iter().filter_map(|queued| queued.told) {
                let _ = told.send(Err("the topic lost data, or was made anew".to_owned()));
            }
            return Vec::new();
        };
        let mut records = Vec::with_capacity(batch.len());
        for queued in batch {
            let stamp = state.next_stamp(epoch, self.instance);
            let kind = match &queued.content {
                Content::Message(message) => Kind::Message(message),
                Content::Note(note) => Kind::Note(note),
            };
            records.push(record::encode(stamp, kind, now_ms));
            if let Some(told) = queued.told {
                state.pending.insert(stamp.serial, told);
            }
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
        let stamp = state.next_stamp(epoch, self.instance);
        Some(record::encode(stamp, Kind::Epoch, now_ms))
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
}

impl State {
    fn next_stamp(&mut self, epoch: u64, instance: u64) -> Stamp {
        self.serial += 1;
        Stamp {
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
