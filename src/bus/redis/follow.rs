//! The channels that this instance follows on a bus that numbers each channel without holes: no I/O, no clock.
//!
//! ```text
//!              ┌──────────── lost ─────────────┐
//!              ▼                               │
//! wanted ─▶ Subscribing ─▶ Reading ─ merged ─▶ Live ─ hole, other epoch, a cursor ahead ─▶ Reading
//!                            ▲ └ history ─┐
//!                            └────────────┘
//! ```
//!
//! Live messages that come while the history is read wait, within a bound; what does not fit is read again. So nothing
//! is lost between the two, and nothing comes twice. A reader's answer covers all that came before it was asked for,
//! since Redis writes the history before it sends the live copy. So who asks while a history is read waits for the next
//! reading, and one that began before the channel was subscribed to, or was opened anew, counts for nothing.
//!
//! Locks are taken in the order hub, then here: no method of the hub's map is called while the state is locked.

use crate::bus::envelope;
use crate::bus::redis::script::{Known, Page, Stored};
use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::model::channel::ChannelName;
use crate::model::position::Position;
use crate::model::session::GapReason;
use crate::telemetry::metrics::BusMetrics;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, oneshot};

/// Live messages that wait for one channel's history, at most.
const WAITING_MAX: usize = 1024;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Requests that wait for one channel at most; beyond that they are turned away.
const WATCHERS_MAX: usize = 10_000;
/// How long a channel is followed after its last session left: clients come back.
pub const LINGER_US: u64 = 10_000_000;

/// All followed channels.
#[derive(Debug)]
pub struct Follows {
    hub: Arc<Hub>,
    metrics: Arc<BusMetrics>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    channels: HashMap<ChannelName, Followed>,
    queue: VecDeque<ChannelName>,
    /// The newest reading, of all channels.
    newest: Reading,
}

/// The reading of a channel's history: none has the number of another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading(u64);

#[derive(Debug)]
struct Followed {
    /// Weak, so that the hub knows that nobody holds the channel. Only compared: the hub may have forgotten it.
    channel: Weak<Channel>,
    phase: Phase,
    queued: bool,
    /// The one that is under way.
    reading: Option<Reading>,
    /// Whether the log's place is one of the bus.
    started: bool,
    /// When Redis took the newest message; 0 if unknown.
    taken_ms: u64,
    waiting: VecDeque<(u64, Stored)>,
    waiting_bytes: usize,
    /// Something came while the history was read that did not fit.
    again: bool,
    /// Each with the newest reading that began before it came.
    watchers: Vec<(Reading, oneshot::Sender<()>)>,
    idle_since_us: Option<u64>,
    told_sessions: usize,
    told_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Subscribing,
    Reading,
    Live,
}

/// Whether a channel is current.
#[derive(Debug)]
pub enum Wanted {
    /// It is.
    Current,
    /// It will be once this is told; if it is dropped, the bus was lost.
    Soon(oneshot::Receiver<()>),
    /// Too many wait already.
    Crowded,
}

/// What is to be done at the bus.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// To be subscribed to, then told by [`Follows::subscribed`].
    pub subscribe: Vec<ChannelName>,
    /// To be read: [`Follows::begin`], and if that says so pages, then [`Follows::finish`].
    pub read: Vec<ChannelName>,
}

impl Followed {
    fn new(channel: &Arc<Channel>) -> Self {
        Self {
            channel: Arc::downgrade(channel),
            phase: Phase::Subscribing,
            queued: false,
            reading: None,
            started: false,
            taken_ms: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            again: false,
            watchers: Vec::new(),
            idle_since_us: None,
            told_sessions: 0,
            told_us: 0,
        }
    }

    fn wait(&mut self, epoch: u64, stored: Stored) {
        if self.waiting.len() >= WAITING_MAX || self.waiting_bytes + stored.envelope.len() > WAITING_BYTES_MAX {
            self.again = true;
            return;
        }
        self.waiting_bytes += stored.envelope.len();
        self.waiting.push_back((epoch, stored));
    }

    fn clear_waiting(&mut self) {
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
        self.again = false;
    }

    fn known(&self, channel: &Channel) -> Known {
        Known { position: self.started.then(|| channel.last()), taken_ms: self.taken_ms }
    }

    fn is_of(&self, channel: &Arc<Channel>) -> bool {
        std::ptr::eq(self.channel.as_ptr(), Arc::as_ptr(channel))
    }
}

impl State {
    /// The channel, if this reading of it is under way.
    fn read_by(&mut self, channel: &Arc<Channel>, reading: Reading) -> Option<&mut Followed> {
        let followed = self.channels.get_mut(&channel.name)?;
        (followed.is_of(channel) && followed.reading == Some(reading)).then_some(followed)
    }

    fn enqueue(&mut self, name: &ChannelName) {
        if let Some(followed) = self.channels.get_mut(name)
            && !followed.queued
        {
            followed.queued = true;
            self.queue.push_back(name.clone());
        }
    }
}

impl Follows {
    /// No channel yet.
    pub fn new(hub: Arc<Hub>, metrics: Arc<BusMetrics>) -> Self {
        Self { hub, metrics, state: Mutex::default(), wake: Notify::new() }
    }

    /// The hub that is fed.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Asks for a channel to be current, and as current as `cursor`. The caller holds the channel until it is.
    pub fn want(&self, channel: &Arc<Channel>, cursor: Option<Position>) -> Wanted {
        let state = &mut *self.state.lock();
        let followed = state.channels.entry(channel.name.clone()).or_insert_with(|| Followed::new(channel));
        if !followed.is_of(channel) {
            // The hub forgot the channel and opened it anew: an empty log that knows no place.
            let phase = if followed.phase == Phase::Subscribing { Phase::Subscribing } else { Phase::Reading };
            let watchers = std::mem::take(&mut followed.watchers);
            *followed = Followed { phase, watchers, queued: followed.queued, ..Followed::new(channel) };
        }
        followed.idle_since_us = None;
        if followed.phase == Phase::Live {
            // Of another epoch: this instance may not know yet that there is a new one.
            if cursor.is_none_or(|cursor| channel.knows(cursor)) {
                return Wanted::Current;
            }
            followed.phase = Phase::Reading;
        }
        if followed.watchers.len() >= WATCHERS_MAX {
            return Wanted::Crowded;
        }
        let (tell, told) = oneshot::channel();
        followed.watchers.push((state.newest, tell));
        state.enqueue(&channel.name);
        self.metrics.set_channels(state.channels.len());
        self.wake.notify_one();
        Wanted::Soon(told)
    }

    /// What is to be done next: channels that have to be subscribed to, then read, `reads_max` at most.
    pub fn work(&self, subscribes_max: usize, reads_max: usize) -> Work {
        let state = &mut *self.state.lock();
        let mut work = Work::default();
        while work.subscribe.len() < subscribes_max && work.read.len() < reads_max {
            let Some(name) = state.queue.pop_front() else { break };
            let Some(followed) = state.channels.get_mut(&name) else { continue };
            followed.queued = false;
            match followed.phase {
                Phase::Subscribing => work.subscribe.push(name),
                Phase::Reading if followed.reading.is_none() => work.read.push(name),
                // The end of the reading says what follows.
                Phase::Reading | Phase::Live => {}
            }
        }
        work
    }

    /// Waits until there may be work.
    pub async fn worked_up(&self) {
        self.wake.notified().await;
    }

    /// The channels are subscribed to: from now on nothing that is published is missed unknowingly.
    pub fn subscribed(&self, names: &[ChannelName]) {
        let state = &mut *self.state.lock();
        for name in names {
            if let Some(followed) = state.channels.get_mut(name) {
                followed.phase = Phase::Reading;
                state.enqueue(name);
            }
        }
        self.wake.notify_one();
    }

    /// A reading begins: what has come so far will be in it. `None` if there is nothing to be read: the channel is
    /// followed no more, or is being read.
    pub fn begin(&self, name: &ChannelName) -> Option<(Reading, Known)> {
        let channel = self.hub.find(name.as_str())?;
        let state = &mut *self.state.lock();
        let followed = state.channels.get_mut(name).filter(|followed| followed.is_of(&channel))?;
        if followed.phase != Phase::Reading || followed.reading.is_some() {
            return None;
        }
        state.newest.0 += 1;
        followed.reading = Some(state.newest);
        followed.clear_waiting();
        Some((state.newest, followed.known(&channel)))
    }

    /// The place of the channel's log. `None` if the reading counts for nothing any more.
    pub fn known(&self, name: &ChannelName, reading: Reading) -> Option<Known> {
        let channel = self.hub.find(name.as_str())?;
        let mut state = self.state.lock();
        Some(state.read_by(&channel, reading)?.known(&channel))
    }

    /// Takes a page of the history.
    pub fn page(&self, name: &ChannelName, reading: Reading, page: Page) {
        let Some(channel) = self.hub.find(name.as_str()) else { return };
        let mut state = self.state.lock();
        let Some(followed) = state.read_by(&channel, reading) else { return };
        let before_first = page.entries.first().map_or(page.last.offset, |entry| entry.offset.saturating_sub(1));
        let start = Position { epoch: page.last.epoch, offset: before_first };
        let last = channel.last();
        let is_new = !followed.started || last.epoch != page.last.epoch;
        if !followed.started {
            self.hub.start_at(&channel, start);
            followed.started = true;
            followed.taken_ms = 0;
        } else if !page.goes_on_from(last) {
            tracing::warn!(channel = %name, "the bus lost a channel's data; a gap is announced");
            self.metrics.history_missed();
            self.hub.skip_to(&channel, start, GapReason::Epoch);
            followed.taken_ms = 0;
        } else if before_first > last.offset {
            self.metrics.history_missed();
            self.hub.skip_to(&channel, start, GapReason::Bus);
            followed.taken_ms = 0;
        }
        if is_new {
            self.hub.renew(&channel, page.last.epoch, page.past.into());
        }
        for entry in page.entries {
            self.append(&channel, followed, page.last.epoch, entry);
        }
    }

    /// The history is read: merges what came meanwhile. Reads again if some of that was lost, or somebody came since.
    pub fn finish(&self, name: &ChannelName, reading: Reading) {
        let Some(channel) = self.hub.find(name.as_str()) else { return };
        let state = &mut *self.state.lock();
        let Some(followed) = state.read_by(&channel, reading) else { return };
        followed.reading = None;
        if !followed.started {
            return;
        }
        let mut again = followed.again;
        for (epoch, stored) in std::mem::take(&mut followed.waiting) {
            again |= !self.follow(&channel, followed, epoch, stored);
        }
        followed.clear_waiting();
        if !again {
            for (_, watcher) in followed.watchers.extract_if(.., |(before, _)| *before < reading) {
                let _ = watcher.send(());
            }
        }
        if again || !followed.watchers.is_empty() {
            state.enqueue(name);
            self.wake.notify_one();
        } else {
            followed.phase = Phase::Live;
        }
    }

    /// Takes a live message.
    pub fn live(&self, name: &ChannelName, epoch: u64, stored: Stored) {
        let Some(channel) = self.hub.find(name.as_str()) else { return };
        let state = &mut *self.state.lock();
        let Some(followed) = state.channels.get_mut(name).filter(|followed| followed.is_of(&channel)) else { return };
        if followed.phase != Phase::Live {
            followed.wait(epoch, stored);
        } else if !self.follow(&channel, followed, epoch, stored) {
            self.metrics.repaired();
            followed.phase = Phase::Reading;
            state.enqueue(name);
            self.wake.notify_one();
        }
    }

    /// The bus is lost: every channel has to be subscribed to anew, and nobody waits in vain.
    pub fn lose(&self) {
        let state = &mut *self.state.lock();
        state.queue.clear();
        for followed in state.channels.values_mut() {
            followed.phase = Phase::Subscribing;
            followed.queued = false;
            followed.reading = None;
            followed.clear_waiting();
            followed.watchers.clear();
        }
    }

    /// The bus is there: every channel that is not current becomes work; how many.
    pub fn resume(&self) -> usize {
        let state = &mut *self.state.lock();
        let names: Vec<_> = state.channels.keys().cloned().collect();
        names.iter().for_each(|name| state.enqueue(name));
        self.wake.notify_one();
        names.len()
    }

    /// Live messages may have been missed on any channel: each is read.
    pub fn doubt(&self) {
        let state = &mut *self.state.lock();
        let mut names = Vec::new();
        for (name, followed) in &mut state.channels {
            if followed.phase == Phase::Live {
                followed.phase = Phase::Reading;
                names.push(name.clone());
            }
        }
        names.iter().for_each(|name| state.enqueue(name));
        self.wake.notify_one();
    }

    /// Doubts one channel, if it is current: to renew its life on the bus, or since the bus ended its subscription.
    pub fn doubt_one(&self, name: &ChannelName, unsubscribed: Option<()>) {
        let state = &mut *self.state.lock();
        if let Some(followed) = state.channels.get_mut(name) {
            match (unsubscribed, followed.phase) {
                (Some(()), _) => {
                    followed.phase = Phase::Subscribing;
                    followed.reading = None;
                }
                (None, Phase::Live) => followed.phase = Phase::Reading,
                (None, _) => return,
            }
            state.enqueue(name);
            self.wake.notify_one();
        }
    }

    /// Stops following channels that had no session for [`LINGER_US`], of one of the hub's partitions; which.
    pub fn retire(&self, turn: usize, now_us: u64) -> Vec<ChannelName> {
        let mut retired = Vec::new();
        self.hub.retire(turn, |channel| {
            let mut state = self.state.lock();
            let Some(followed) = state.channels.get_mut(&channel.name) else { return true };
            let since_us = *followed.idle_since_us.get_or_insert(now_us);
            if now_us.saturating_sub(since_us) < LINGER_US {
                return false;
            }
            state.channels.remove(&channel.name);
            retired.push(channel.name.clone());
            true
        });
        retired
    }

    /// Stops following channels that the hub forgot by itself; which.
    pub fn forget_forgotten(&self) -> Vec<ChannelName> {
        let mut state = self.state.lock();
        let gone = state.channels.extract_if(|_, followed| followed.channel.strong_count() == 0);
        let gone: Vec<_> = gone.map(|(name, _)| name).collect();
        self.metrics.set_channels(state.channels.len());
        gone
    }

    /// The channels, for the keeper of time.
    pub fn names(&self) -> Vec<ChannelName> {
        self.state.lock().channels.keys().cloned().collect()
    }

    /// Channels whose number of sessions has to be told, as it changed or was told before `stale_us`; `max` at most.
    pub fn presence(&self, now_us: u64, stale_us: u64, max: usize) -> Vec<(ChannelName, usize)> {
        let mut state = self.state.lock();
        let due = state.channels.iter_mut().filter_map(|(name, followed)| {
            let sessions = followed.channel.upgrade().map_or(0, |channel| channel.sessions());
            let stale = sessions > 0 && now_us.saturating_sub(followed.told_us) > stale_us;
            (sessions != followed.told_sessions || stale).then_some((name, followed, sessions))
        });
        let mut due: Vec<_> = due.collect();
        if due.len() > max {
            // Those that waited longest, so that none waits for ever.
            due.select_nth_unstable_by_key(max, |(_, followed, _)| followed.told_us);
            due.truncate(max);
        }
        let told = due.into_iter().map(|(name, followed, sessions)| {
            (followed.told_sessions, followed.told_us) = (sessions, now_us);
            (name.clone(), sessions)
        });
        told.collect()
    }

    /// The channels that others believe sessions to be on.
    pub fn told(&self) -> Vec<ChannelName> {
        let state = self.state.lock();
        state.channels.iter().filter(|(_, one)| one.told_sessions > 0).map(|(name, _)| name.clone()).collect()
    }

    /// Appends a message that comes next, or passes over one that is there; false if something is missing before it.
    fn follow(&self, channel: &Arc<Channel>, followed: &mut Followed, epoch: u64, stored: Stored) -> bool {
        let last = channel.last();
        if epoch != last.epoch || stored.offset > last.offset + 1 {
            return false;
        }
        if stored.offset > last.offset {
            self.append(channel, followed, epoch, stored);
        }
        true
    }

    fn append(&self, channel: &Arc<Channel>, followed: &mut Followed, epoch: u64, stored: Stored) {
        let position = Position { epoch, offset: stored.offset };
        followed.taken_ms = stored.taken_ms;
        match envelope::decode(channel.name.clone(), &stored.envelope) {
            Ok(message) => {
                self.hub.append_at(channel, message, position);
            }
            Err(error) => {
                tracing::error!(channel = %channel.name, %error, "a message of the bus can't be read; a gap is announced");
                self.metrics.error();
                self.hub.skip_to(channel, position, GapReason::Bus);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::HubLimits;
    use crate::hub::clock::Clock;
    use crate::model::message::{Data, Message};
    use tokio::sync::oneshot::error::TryRecvError;

    struct World {
        follows: Follows,
        channel: Arc<Channel>,
    }

    impl World {
        fn new() -> Self {
            let hub = Hub::new(1, Clock::start(), HubLimits::default(), Arc::default());
            let channel = hub.open(&ChannelName::new("c").expect("a name")).expect("room");
            Self { follows: Follows::new(hub, Arc::default()), channel }
        }

        fn want(&self, cursor: Option<Position>) -> oneshot::Receiver<()> {
            match self.follows.want(&self.channel, cursor) {
                Wanted::Soon(told) => told,
                other => panic!("{other:?}"),
            }
        }

        fn subscribe(&self) {
            assert_eq!(self.follows.work(1, 1).subscribe, std::slice::from_ref(&self.channel.name));
            self.follows.subscribed(std::slice::from_ref(&self.channel.name));
        }

        fn begin(&self) -> Reading {
            assert_eq!(self.follows.work(1, 1).read, std::slice::from_ref(&self.channel.name));
            self.follows.begin(&self.channel.name).expect("it is to be read").0
        }

        /// Takes the channel's messages up to this one, and ends the reading.
        fn read_to(&self, reading: Reading, offset: u64) {
            let entries = (self.channel.last().offset + 1..=offset).map(stored).collect();
            let page = Page { last: at(offset), past: Vec::new(), entries };
            self.follows.page(&self.channel.name, reading, page);
            self.follows.finish(&self.channel.name, reading);
        }
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 1, offset }
    }

    fn stored(offset: u64) -> Stored {
        let channel = ChannelName::new("c").expect("a name");
        let data = Data::Text("x".into());
        let message = Message { channel, id: None, event: None, data, cloudevent: None, grip: None };
        Stored { offset, taken_ms: offset, envelope: envelope::encode(&message) }
    }

    #[test]
    fn who_comes_while_a_history_is_read_waits_for_the_next_reading() {
        let world = World::new();
        let mut first = world.want(None);
        world.subscribe();
        let reading = world.begin();
        let mut second = world.want(Some(at(2)));
        assert_eq!(world.follows.work(1, 1), Work::default(), "one reading at a time");
        world.read_to(reading, 1);
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(()), Err(TryRecvError::Empty)));
        let reading = world.begin();
        world.read_to(reading, 2);
        assert_eq!(second.try_recv(), Ok(()));
        assert!(matches!(world.follows.want(&world.channel, Some(at(2))), Wanted::Current));
    }

    #[test]
    fn a_reading_from_before_the_subscription_counts_for_nothing() {
        let world = World::new();
        let mut told = world.want(None);
        world.subscribe();
        let early = world.begin();
        world.follows.doubt_one(&world.channel.name, Some(()));
        world.subscribe();
        let reading = world.begin();
        world.read_to(early, 1);
        assert_eq!((told.try_recv(), world.channel.last().offset), (Err(TryRecvError::Empty), 0));
        world.read_to(reading, 2);
        assert_eq!((told.try_recv(), world.channel.last()), (Ok(()), at(2)));
    }
}
