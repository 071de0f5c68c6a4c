//! A session's hold on its channels: reading, waiting, joining and leaving.

use crate::hub::HubError;
use crate::hub::log::{Entry, Start};
use crate::hub::policy::SlowConsumer;
use crate::hub::shard::reader::{Backlog, Ending, Read, Reader};
use crate::hub::shard::{Mirror, Outlet, Shard, State};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::position::Position;
use crate::model::session::{CloseReason, Gap, GapReason, SessionKind};
use slab::Slab;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// What a session reads.
#[derive(Debug)]
pub enum Delivery {
    /// The next message of one of its channels.
    Message(Arc<Entry>),
    /// Something is missing before what follows.
    Gap(Gap),
    /// Newer messages of the same keys stand for this many, which a slow session does not get.
    Conflated(u64),
    /// The session is to end.
    End(CloseReason),
}

/// A session's place in its channels. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    shard: Rc<Shard>,
    key: u32,
    /// Which read is looked at first, so that a busy channel does not starve the others.
    turn: u32,
    resumed: Option<Resumed>,
}

/// What became of the cursor that the session came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resumed {
    InFull,
    WithGap,
}

impl Subscription {
    pub(in crate::hub::shard) fn new(shard: Rc<Shard>, key: u32, with_cursor: bool) -> Self {
        Self { shard, key, turn: 0, resumed: with_cursor.then_some(Resumed::InFull) }
    }

    pub(in crate::hub::shard) fn join(
        &mut self,
        channel: &ChannelName,
        position: Option<Option<Position>>,
        start: Start,
    ) -> Result<(), HubError> {
        if self.index_of(channel).is_some() {
            return Ok(());
        }
        self.shard.state.borrow_mut().rise(self.key);
        self.shard.join(self.key, channel, position, start)
    }

    /// Fixes whether the cursor was honoured, once all channels are joined.
    pub(in crate::hub::shard) fn begin(&mut self) {
        let state = self.shard.state.borrow();
        let gap = state.readers[self.key as usize].reads.as_slice().iter().any(|read| read.gap.is_some());
        if gap && self.resumed.is_some() {
            self.resumed = Some(Resumed::WithGap);
        }
    }

    /// The shard that the session lives in.
    pub fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    /// Whether the cursor was honoured in full; `None` if there was none.
    pub fn resumed(&self) -> Option<bool> {
        self.resumed.map(|resumed| resumed == Resumed::InFull)
    }

    /// Says that the client came with more than its cursor, and that this could not be honoured.
    pub fn was_lost(&mut self) {
        self.resumed = Some(Resumed::WithGap);
    }

    /// Says whose session it is, so that it can be closed with others of its kind or route.
    pub fn label(&mut self, kind: SessionKind, route: &str) {
        let state = &mut *self.shard.state.borrow_mut();
        let reader = &mut state.readers[self.key as usize];
        if let Some(before) = reader.route.take() {
            state.routes.leave(before);
        }
        (reader.kind, reader.route) = (Some(kind), state.routes.join(route));
    }

    /// Plans the session's end for a moment of the hub's clock in microseconds, unless an earlier one is planned; such as
    /// when its credential ends. It may come a quarter of a second late.
    pub fn end_at(&mut self, at_us: u64, reason: CloseReason) {
        let state = &mut *self.shard.state.borrow_mut();
        state.ends.plan(self.key, &mut state.readers[self.key as usize], at_us, reason);
    }

    /// Says whose session it is, as far as its backend said: on channels that know their members it is counted under
    /// that name. `None`, and what can be no name, is nobody's.
    pub fn name(&mut self, user: Option<&str>) {
        self.shard.name(self.key, user);
    }

    /// Whether the session's time is over: it is to be dropped as it is.
    pub fn is_cut(&self) -> bool {
        self.shard.state.borrow().readers[self.key as usize].ending == Ending::Cut
    }

    /// A number of the range by chance, such as for how long a client should wait.
    pub fn chance(&self, range: Range<u64>) -> u64 {
        range.start + self.shard.state.borrow_mut().dice.below(range.end.saturating_sub(range.start))
    }

    /// The next thing to send, if there is any.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: it may have more later")]
    pub fn next(&mut self) -> Option<Delivery> {
        match self.next_copied() {
            // What was published until now comes before the end, also what this shard has not copied yet.
            Some(Delivery::End(_)) if self.shard.catch_up(self.key) => self.next_copied(),
            next => next,
        }
    }

    fn next_copied(&mut self) -> Option<Delivery> {
        let state = &mut *self.shard.state.borrow_mut();
        state.rise(self.key);
        let reader = &mut state.readers[self.key as usize];
        if let Some(gap) = announce(reader, &state.mirrors) {
            return Some(Delivery::Gap(gap));
        }
        if let Some(entry) = next_of_backlog(reader) {
            return Some(Delivery::Message(entry));
        }
        let count = reader.reads.as_slice().len();
        for step in 0..count {
            let index = (self.turn as usize + step) % count;
            let read = &mut reader.reads.as_mut_slice()[index];
            let mirror = &state.mirrors[read.mirror as usize];
            if read.next < mirror.first {
                return Some(fall_off(reader, index, mirror));
            }
            if let Some(entry) = mirror.entries.get((read.next - mirror.first) as usize) {
                read.next += 1;
                read.at = entry.position;
                self.turn = (index + 1) as u32;
                return Some(Delivery::Message(Arc::clone(entry)));
            }
        }
        reader.end().map(Delivery::End)
    }

    /// Ready when [`Subscription::next`] has something or the deadline has passed; else the task is woken then.
    pub fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.shard.state.borrow_mut();
        state.rise(self.key);
        let reader = &mut state.readers[self.key as usize];
        if reader.deadline_ms <= self.shard.now_ms() || has_next(reader, &state.mirrors) {
            return Poll::Ready(());
        }
        reader.sleep(cx.waker());
        Poll::Pending
    }

    /// Lets a session rest that waits (its last [`Subscription::poll_wait`] was pending): until it rises, what comes is handed
    /// to the outlet that `lend` gives for the session's key. It can't where it is on several channels, or where others rest
    /// who have less; then it goes on waiting, and `lend` is not asked or gives nothing.
    ///
    /// With `quiet_ms` its deadline moves as messages are handed on: it comes so many milliseconds after the last.
    pub fn rest(&mut self, quiet_ms: Option<u64>, lend: impl FnOnce(u32) -> Option<Outlet>) {
        let state = &mut *self.shard.state.borrow_mut();
        if state.may_rest(self.key)
            && let Some(outlet) = lend(self.key)
        {
            state.rest(self.key, outlet, quiet_ms);
        }
    }

    /// Ends the session's rest, if it rests: the first thing that its task does when it is polled, before it uses what it has
    /// lent. When a message was last handed to its client meanwhile, in milliseconds of [`Shard::now_ms`]; 0 if never.
    pub fn rise(&mut self) -> u64 {
        let state = &mut *self.shard.state.borrow_mut();
        state.rise(self.key);
        state.readers[self.key as usize].sent_ms
    }

    /// Waits for the deadline or the end only: for a session whose client does not take what it has already.
    pub fn stall(&mut self, cx: &mut Context<'_>) {
        let state = &mut *self.shard.state.borrow_mut();
        state.rise(self.key);
        state.readers[self.key as usize].stall(cx.waker());
    }

    /// Whether the session has fallen behind on a channel that closes slow sessions.
    pub fn is_too_slow(&self) -> bool {
        let state = &mut *self.shard.state.borrow_mut();
        state.rise(self.key);
        state.readers[self.key as usize].reads.as_slice().iter().any(|read| {
            let mirror = &state.mirrors[read.mirror as usize];
            mirror.policy.slow_consumer == SlowConsumer::Close
                && read.next < mirror.first
                && mirror.channel.log.lock().reason_of_fall(read.next) == GapReason::Slow
        })
    }

    /// Wakes the session at about this time of [`Shard::now_ms`] (within a quarter of a second).
    pub fn set_deadline(&mut self, at_ms: u64) {
        let state = &mut *self.shard.state.borrow_mut();
        let reader = &mut state.readers[self.key as usize];
        reader.deadline_ms = at_ms;
        if at_ms == u64::MAX {
            return;
        }
        let tick = state.wheel.tick_of(at_ms);
        // A hint that fires earlier serves as well: it is filed anew then.
        if reader.tick == 0 || tick < reader.tick {
            reader.tick = tick;
            state.wheel.file(self.key, tick);
        }
    }

    /// The place of the session: after the last delivery of each channel.
    pub fn cursor(&self) -> Cursor {
        let state = &mut *self.shard.state.borrow_mut();
        state.rise(self.key);
        let reads = state.readers[self.key as usize].reads.as_slice();
        Cursor::of(reads.iter().map(|read| (&state.mirrors[read.mirror as usize].channel.name, read.at)))
    }

    /// How many channels there are.
    pub fn len(&self) -> usize {
        self.shard.state.borrow().readers[self.key as usize].reads.as_slice().len()
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The channels, in the order they were joined.
    pub fn channels(&self) -> Vec<ChannelName> {
        let state = self.shard.state.borrow();
        let reads = state.readers[self.key as usize].reads.as_slice();
        reads.iter().map(|read| state.mirrors[read.mirror as usize].channel.name.clone()).collect()
    }

    /// Joins another channel, from now on. A channel that the session is on already is no error.
    ///
    /// # Errors
    /// When there are too many channels in the hub.
    pub fn add(&mut self, channel: &ChannelName) -> Result<(), HubError> {
        self.join(channel, None, Start::Now)
    }

    /// Goes on in a channel after `position`, which is joined if need be; without one, from now on.
    ///
    /// # Errors
    /// When there are too many channels in the hub.
    pub fn go_on(&mut self, channel: &ChannelName, position: Option<Position>) -> Result<(), HubError> {
        if position.is_some() {
            self.remove(channel);
        }
        self.join(channel, position.map(Some), Start::Now)
    }

    /// Why the session is to end, if it is; also where it has not got everything yet.
    pub fn is_asked_to_end(&self) -> Option<CloseReason> {
        self.shard.state.borrow().readers[self.key as usize].end()
    }

    /// Leaves a channel; whether the session was on it.
    pub fn remove(&mut self, channel: &ChannelName) -> bool {
        let Some(index) = self.index_of(channel) else { return false };
        self.shard.state.borrow_mut().rise(self.key);
        let read = {
            let reader = &mut self.shard.state.borrow_mut().readers[self.key as usize];
            // What conflation picked is of one channel only; indexes behind the removed one move down.
            match &mut reader.backlog {
                Some(backlog) if backlog.read == index => reader.backlog = None,
                Some(backlog) if backlog.read > index => backlog.read -= 1,
                _ => {}
            }
            reader.reads.take(index)
        };
        if let Some(read) = read {
            let mut named = self.shard.state.borrow_mut().readers[self.key as usize].named.take();
            self.shard.leave(&read, named.as_deref_mut());
            self.shard.state.borrow_mut().readers[self.key as usize].named = named;
        }
        true
    }

    fn index_of(&self, channel: &ChannelName) -> Option<usize> {
        let state = self.shard.state.borrow();
        let mirror = *state.by_name.get(channel)?;
        state.readers[self.key as usize].reads.as_slice().iter().position(|read| read.mirror == mirror)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (reads, mut named) = {
            let state: &mut State = &mut self.shard.state.borrow_mut();
            state.rise(self.key);
            let reader = state.readers.remove(self.key as usize);
            if let Some(route) = reader.route {
                state.routes.leave(route);
            }
            (reader.reads, reader.named)
        };
        self.shard.hub.sessions.fetch_sub(1, Ordering::Relaxed);
        for read in reads.as_slice() {
            self.shard.leave(read, named.as_deref_mut());
        }
    }
}

/// The gaps of all reads that share the first one's reason, as one.
fn announce(reader: &mut Reader, mirrors: &Slab<Mirror>) -> Option<Gap> {
    let reads = reader.reads.as_mut_slice();
    let reason = reads.iter().find_map(|read| read.gap.as_ref()).map(|gap| gap.reason)?;
    let mut channels = Vec::new();
    for read in reads {
        if let Some(gap) = read.gap.take_if(|gap| gap.reason == reason) {
            read.at = gap.after;
            channels.push(mirrors[read.mirror as usize].channel.name.clone());
        }
    }
    Some(Gap { channels, reason })
}

fn next_of_backlog(reader: &mut Reader) -> Option<Arc<Entry>> {
    let backlog = reader.backlog.as_mut()?;
    let entry = backlog.entries.pop_front();
    match &entry {
        Some(entry) => reader.reads.as_mut_slice()[backlog.read].at = entry.position,
        None => reader.backlog = None,
    }
    entry
}

/// The session has fallen off the log's end: what its channel says happens.
fn fall_off(reader: &mut Reader, index: usize, mirror: &Mirror) -> Delivery {
    let read: &mut Read = &mut reader.reads.as_mut_slice()[index];
    let missed = mirror.first - read.next;
    let reason = mirror.channel.log.lock().reason_of_fall(read.next);
    let conflated = match mirror.policy.slow_consumer {
        _ if reason != GapReason::Slow => None,
        SlowConsumer::Close => return Delivery::End(CloseReason::Slow),
        SlowConsumer::Gap => None,
        SlowConsumer::Conflate(_) => mirror.channel.log.lock().conflated(read.at),
    };
    read.next = mirror.first;
    let Some(picked) = conflated else {
        read.at = mirror.before_first();
        return Delivery::Gap(Gap { channels: vec![mirror.channel.name.clone()], reason });
    };
    // The log may have dropped more than the mirror by now: what the mirror still has comes from there.
    let before = mirror.before_first();
    let entries: VecDeque<_> = picked.into_iter().filter(|entry| entry.position.offset <= before.offset).collect();
    let left_out = missed.saturating_sub(entries.len() as u64);
    if entries.is_empty() {
        read.at = before;
    } else {
        reader.backlog = Some(Box::new(Backlog { read: index, entries }));
    }
    Delivery::Conflated(left_out)
}

fn has_next(reader: &Reader, mirrors: &Slab<Mirror>) -> bool {
    reader.end().is_some()
        || reader.backlog.is_some()
        || reader.reads.as_slice().iter().any(|read| {
            let mirror = &mirrors[read.mirror as usize];
            read.gap.is_some() || read.next < mirror.end() || read.next < mirror.first
        })
}
