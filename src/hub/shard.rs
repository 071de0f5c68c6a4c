//! One worker's part of the hub: a mirror of each log that its sessions read, and the sessions' places in them.
//!
//! It knows no runtime, clock or socket: the worker tells the time ([`Shard::tick`]) and polls [`Shard::poll_pump`].

mod ends;
pub mod reader;
mod resting;
mod routes;
pub mod subscription;

use crate::hub::channel::Channel;
use crate::hub::log::Entry;
use crate::hub::policy::{ChannelPolicy, Presence};
use crate::hub::roster::Entered;
use crate::hub::wheel::Wheel;
use crate::hub::{Hub, HubError};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::position::Position;
use crate::proto::drain_schedule::Dice;
use crate::proto::presence;
use ends::Ends;
use parking_lot::Mutex;
use reader::{Named, PendingGap, Read, Reader};
use resting::Resting;
use routes::Routes;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

pub use crate::hub::log::Start;
pub use ends::{EndOrder, Order};
pub use resting::{Carried, Carrier, NoCarrier, Outlet};
pub use subscription::{Delivery, Subscription};

/// Where the hub leaves word for a shard: which channels have moved. A channel stands in it once at most.
#[derive(Debug, Default)]
pub(in crate::hub) struct Inbox {
    state: Mutex<InboxState>,
}

#[derive(Debug, Default)]
struct InboxState {
    moved: Vec<ChannelName>,
    orders: Vec<Order>,
    waker: Option<Waker>,
}

impl Inbox {
    pub(in crate::hub) fn push(&self, channel: &Channel) {
        let waker = {
            let mut state = self.state.lock();
            state.moved.push(channel.name.clone());
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(in crate::hub) fn order(&self, order: Order) {
        let waker = {
            let mut state = self.state.lock();
            state.orders.push(order);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take(&self, waker: &Waker, into: &mut Vec<ChannelName>) -> Vec<Order> {
        let mut state = self.state.lock();
        std::mem::swap(&mut state.moved, into);
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        std::mem::take(&mut state.orders)
    }
}

/// One worker's sessions, and its mirror of the logs that they read.
#[derive(Debug)]
pub struct Shard {
    hub: Arc<Hub>,
    worker: usize,
    now_us: Cell<u64>,
    looks: Cell<u32>,
    /// How often sessions had to look whether they ask their backends again.
    recoveries: Cell<u32>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    mirrors: Slab<Mirror>,
    by_name: HashMap<ChannelName, u32>,
    readers: Slab<Reader>,
    /// The mirrors with a pass over their resting sessions, in turn.
    passes: VecDeque<u32>,
    wheel: Wheel,
    moved: Vec<ChannelName>,
    routes: Routes,
    ends: Ends,
    dice: Dice,
}

/// A copy of the part of a channel's log that is kept now; each entry is shared.
#[derive(Debug)]
struct Mirror {
    channel: Arc<Channel>,
    first: u64,
    entries: VecDeque<Arc<Entry>>,
    last: Position,
    /// The end as of the last time that the readers were woken. Whoever joins or ends copies too, and leaves it to the
    /// pump to wake the others: the mark stays raised.
    told: Reach,
    /// The bytes that had ever been appended as of the last copy.
    appended_bytes: u64,
    policy: Arc<ChannelPolicy>,
    /// Sessions that are woken when there is something new.
    readers: Vec<u32>,
    /// All others.
    resting: Resting,
    /// Whether the log has moved since the pass over them began: it is looked at when the pass is over.
    has_moved: bool,
}

/// How far something has come in a log: the sequence number that is next, and all bytes before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reach {
    next: u64,
    bytes: u64,
}

impl Mirror {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The position before the oldest entry, or of the newest message ever where there is none.
    fn before_first(&self) -> Position {
        let offset = self.entries.front().map_or(self.last.offset, |entry| entry.position.offset - 1);
        Position { epoch: self.last.epoch, offset }
    }

    /// Copies what the log has that the mirror has not, and drops what the log has dropped.
    fn copy(&mut self) {
        let log = self.channel.log.lock();
        let end = self.end();
        if log.first() >= end {
            self.entries.clear();
            self.first = log.first();
        }
        while self.first < log.first() {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.extend(log.entries_from(self.end()).cloned());
        self.last = log.last();
        if !Arc::ptr_eq(&self.policy, log.policy()) {
            self.policy = Arc::clone(log.policy());
        }
        self.appended_bytes = log.extent().bytes;
    }

    fn reach(&self) -> Reach {
        Reach { next: self.end(), bytes: self.appended_bytes }
    }

    /// Wakes the sessions that wait to be woken, if something is new since they last were. `fanned_out` hears of each message.
    fn tell(&mut self, readers: &mut Slab<Reader>, mut fanned_out: impl FnMut(u64)) {
        let end = self.end();
        let is_new = self.told.next < end;
        let new = (end - self.told.next.clamp(self.first, end)) as usize;
        self.told = self.reach();
        for entry in self.entries.range(self.entries.len() - new..) {
            fanned_out(entry.published_us);
        }
        if is_new {
            for key in &self.readers {
                readers[*key as usize].wake();
            }
        }
    }

    /// Says how far this shard has come, for publishers who run ahead of it: as far as the last of its sessions that keep up.
    fn report(&self, worker: usize) {
        let told = (!self.readers.is_empty()).then_some(self.told);
        let reaches = [told, self.resting.reach()].into_iter().flatten();
        let Reach { next, bytes } = reaches.fold(self.reach(), |least, reach| match reach.next < least.next {
            true => reach,
            false => least,
        });
        let mark = &self.channel.marks[worker];
        mark.copied.store(next, Ordering::Relaxed);
        mark.copied_bytes.store(bytes, Ordering::Relaxed);
    }

    fn is_deserted(&self) -> bool {
        self.readers.is_empty() && self.resting.is_empty()
    }
}

impl Shard {
    /// The part of worker number `worker`; each number is taken once.
    pub fn new(hub: &Arc<Hub>, worker: usize) -> Rc<Self> {
        let now_us = hub.clock().now_us();
        let shard = Self {
            hub: Arc::clone(hub),
            worker,
            now_us: Cell::new(now_us),
            looks: Cell::new(0),
            recoveries: Cell::new(0),
            state: RefCell::default(),
        };
        // The wheel starts at the present tick.
        while shard.state.borrow_mut().wheel.advance(now_us / 1000).is_some() {}
        Rc::new(shard)
    }

    /// The hub's clock.
    pub fn clock(&self) -> crate::clock::Clock {
        self.hub.clock()
    }

    /// The hub.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// How often sessions had to look whether they ask their backends again ([`Hub::forget_ids`]).
    pub fn recoveries(&self) -> u32 {
        self.recoveries.get()
    }

    /// Milliseconds of the hub's clock, as of the last time the worker looked (coarse, cheap).
    pub fn now_ms(&self) -> u64 {
        self.now_us.get() / 1000
    }

    /// Microseconds of the hub's clock, looked up anew at every 16th call: for the latency of deliveries, of which
    /// there are many a moment.
    pub fn now_us(&self) -> u64 {
        let looks = self.looks.get().wrapping_add(1);
        self.looks.set(looks);
        if looks.is_multiple_of(16) {
            self.now_us.set(self.hub.clock().now_us());
        }
        self.now_us.get()
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.state.borrow().readers.len()
    }

    /// Joins channels, from a cursor or from `start`. Names that come twice count once.
    ///
    /// From this moment on nothing is missed: where the reader begins and the shard's interest in what follows are
    /// fixed under the log's lock.
    ///
    /// # Errors
    /// When there are too many channels.
    pub fn subscribe(
        self: &Rc<Self>,
        channels: &[ChannelName],
        cursor: Option<&Cursor>,
        start: Start,
    ) -> Result<Subscription, HubError> {
        let key = {
            let state = &mut *self.state.borrow_mut();
            let mut reader = Reader::new();
            state.ends.plan_newcomer(
                state.readers.vacant_key() as u32,
                &mut reader,
                self.now_us.get(),
                &mut state.dice,
            );
            state.readers.insert(reader) as u32
        };
        self.hub.sessions.fetch_add(1, Ordering::Relaxed);
        let mut subscription = Subscription::new(Rc::clone(self), key, cursor.is_some());
        for channel in channels {
            let position = cursor.map(|cursor| cursor.position(channel));
            subscription.join(channel, position, start)?;
        }
        subscription.begin();
        Ok(subscription)
    }

    /// Copies what has moved, wakes its sessions and hands it to those that rest, through `carrier`. Pending until something
    /// moves; ready when there is more to hand on, and others should have their turn before. `fanned_out` hears when each new
    /// message was published.
    pub fn poll_pump(
        &self,
        cx: &mut Context<'_>,
        mut fanned_out: impl FnMut(u64),
        carrier: &mut dyn Carrier,
    ) -> Poll<()> {
        self.now_us.set(self.hub.clock().now_us());
        let mut moved = std::mem::take(&mut self.state.borrow_mut().moved);
        for order in self.hub.inbox(self.worker).take(cx.waker(), &mut moved) {
            self.obey(order);
        }
        let state = &mut *self.state.borrow_mut();
        for name in moved.drain(..) {
            if let Some(key) = state.by_name.get(&name).copied() {
                self.bring(state, key, &mut fanned_out);
            }
        }
        state.moved = moved;
        for key in state.run_passes(self.now_ms(), carrier) {
            // What was copied beside the pass, for who joined or ended, comes first.
            let Some(mirror) = state.mirrors.get_mut(key as usize) else { continue };
            let has_moved = mirror.has_moved;
            mirror.tell(&mut state.readers, &mut fanned_out);
            state.begin_pass(key);
            if has_moved {
                self.bring(state, key, &mut fanned_out);
            }
            // Only now: what is not copied yet may go from the log once publishers know.
            state.mirrors[key as usize].report(self.worker);
        }
        if state.passes.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Brings what is new in a channel to its sessions, unless those that rest do not have all yet of what was new before:
    /// then after that, so that nobody falls off the mirror's end for the pump's slowness.
    fn bring(&self, state: &mut State, key: u32, fanned_out: impl FnMut(u64)) {
        let Some(mirror) = state.mirrors.get_mut(key as usize) else { return };
        mirror.has_moved = mirror.resting.has_pass();
        if mirror.has_moved {
            return;
        }
        mirror.channel.marks[self.worker].lower();
        mirror.copy();
        mirror.tell(&mut state.readers, fanned_out);
        mirror.report(self.worker);
        state.begin_pass(key);
    }

    /// Tells the time; wakes sessions whose deadline has come. Called about every [`crate::hub::wheel::TICK_MS`].
    pub fn tick(&self) {
        let _ = self.end_due();
        let now_ms = self.now_ms();
        let state = &mut *self.state.borrow_mut();
        while let Some((tick, keys)) = state.wheel.advance(now_ms) {
            for key in keys {
                if state.readers.get(key as usize).is_none_or(|reader| reader.tick != tick) {
                    continue;
                }
                let deadline_ms = state.deadline_of(key);
                let reader = &mut state.readers[key as usize];
                reader.deadline_ms = deadline_ms;
                if deadline_ms <= now_ms {
                    reader.tick = 0;
                    reader.wake_anyway();
                } else {
                    reader.tick = state.wheel.tick_of(deadline_ms);
                    state.wheel.file(key, reader.tick);
                }
            }
        }
    }

    /// A reader's read of a channel: makes the mirror if it is the first here, and fixes the place under the log's lock.
    fn join(
        &self,
        key: u32,
        name: &ChannelName,
        position: Option<Option<Position>>,
        start: Start,
    ) -> Result<(), HubError> {
        let channel = self.hub.open(name)?;
        let state = &mut *self.state.borrow_mut();
        let mirror_key = match state.by_name.get(name) {
            Some(known) => *known,
            None => {
                let policy = Arc::clone(channel.log.lock().policy());
                let mirror = Mirror {
                    first: 0,
                    entries: VecDeque::new(),
                    last: Position { epoch: 0, offset: 0 },
                    told: Reach::default(),
                    appended_bytes: 0,
                    policy,
                    readers: Vec::new(),
                    resting: Resting::default(),
                    has_moved: false,
                    channel: Arc::clone(&channel),
                };
                let mirror_key = state.mirrors.insert(mirror) as u32;
                state.by_name.insert(name.clone(), mirror_key);
                mirror_key
            }
        };
        let mirror = &mut state.mirrors[mirror_key as usize];
        let is_first = mirror.is_deserted();
        if is_first {
            // Interest before the copy: what is appended in between is copied now, and marked once more for nothing.
            channel.marks[self.worker].join();
        }
        mirror.copy();
        if is_first {
            mirror.told = mirror.reach();
        }
        mirror.report(self.worker);
        // A cursor that does not know the channel is of other channels: as one of another epoch.
        let cursor = position.map(|position| position.unwrap_or(Position { epoch: u64::MAX, offset: 0 }));
        // The log may have moved since the copy; the mark is raised then, and the next pump copies the rest.
        let place = channel.log.lock().place(cursor, start);
        let gap = place.gap.map(|reason| Box::new(PendingGap { reason, after: place.at }));
        let at = cursor.filter(|_| gap.is_some()).unwrap_or(place.at);
        let slot = mirror.readers.len() as u32;
        mirror.readers.push(key);
        channel.sessions.fetch_add(1, Ordering::Relaxed);
        if is_first && mirror.policy.presence.leave_after_ms().is_some() {
            self.hub.roster().attended(name);
        }
        let reader = &mut state.readers[key as usize];
        reader.reads.push(Read { mirror: mirror_key, slot, next: place.next, at, gap });
        if let Some(named) = &mut reader.named {
            self.enter(mirror_key, mirror, named);
        }
        Ok(())
    }

    /// Counts a session under its user's name, where the channel wants that.
    fn enter(&self, key: u32, mirror: &Mirror, named: &mut Named) {
        let roster = self.hub.roster();
        if mirror.policy.presence != Presence::Counts
            && roster.enter(&mirror.channel.name, &named.user) == Entered::Named
        {
            named.counted.push(key);
        }
    }

    /// Says whose session a reader is; `None`: nobody knows.
    fn name(&self, key: u32, user: Option<&str>) {
        let state = &mut *self.state.borrow_mut();
        let reader = &mut state.readers[key as usize];
        let user = user.filter(|user| presence::is_user(user));
        if reader.named.as_ref().map(|named| &*named.user) == user {
            return;
        }
        let mut named = user.map(|user| Box::new(Named { user: user.into(), counted: Vec::new() }));
        // The new name first, so that a session that only changes its case is never nobody's.
        if let Some(named) = &mut named {
            for read in reader.reads.as_slice() {
                self.enter(read.mirror, &state.mirrors[read.mirror as usize], named);
            }
        }
        if let Some(before) = std::mem::replace(&mut reader.named, named) {
            for mirror in &before.counted {
                self.hub.roster().leave(&state.mirrors[*mirror as usize].channel.name, &before.user);
            }
        }
    }

    /// Ends a reader's read of a mirror, and the mirror with its last reader.
    fn leave(&self, read: &Read, named: Option<&mut Named>) {
        let state = &mut *self.state.borrow_mut();
        let mirror = &mut state.mirrors[read.mirror as usize];
        if let Some(named) = named
            && let Some(at) = named.counted.iter().position(|counted| *counted == read.mirror)
        {
            named.counted.swap_remove(at);
            self.hub.roster().leave(&mirror.channel.name, &named.user);
        }
        mirror.readers.swap_remove(read.slot as usize);
        mirror.channel.sessions.fetch_sub(1, Ordering::Relaxed);
        if let Some(moved) = mirror.readers.get(read.slot as usize) {
            if let Some(other) = state.readers[*moved as usize].reads.of_mirror(read.mirror) {
                other.slot = read.slot;
            }
        } else if mirror.is_deserted() {
            mirror.channel.marks[self.worker].leave();
            let mirror = state.mirrors.remove(read.mirror as usize);
            state.by_name.remove(&mirror.channel.name);
        }
    }
}
