//! Sessions at rest: they have all of their one channel, and the pump hands them what comes without waking their tasks.
//!
//! To wake a session is to touch its place here, its task, its future and its socket, all of them cold. A resting session is
//! an entry of one dense list for each channel and a socket; where it stands is where all of the list stand. It rises when its
//! task is polled, for whatever reason, and when the pump can't hand it all of a message.
//!
//! ```text
//!   list   │ served ──────────────▶ │ not yet ─────▶ │
//!   stands │ after the pass's part  │ before it      │      one pass at a time; without one, all stand at `next`
//! ```
//!
//! Invariant: a pass has entries of its own, so that what the log drops meanwhile is delivered all the same, and a session that
//! rises in the middle of one stands after it or before it, never between.

use crate::hub::log::Entry;
use crate::hub::shard::reader::Backlog;
use crate::hub::shard::{Reach, State};
use crate::model::position::Position;
use std::sync::Arc;

/// Messages that one pass takes at most, and their bytes (one larger message is taken alone).
const PASS_MESSAGES_MAX: usize = 256;
const PASS_BYTES_MAX: usize = 64 * 1024;
/// Sessions that the pump serves before the worker's other tasks have their turn; each so many bytes count as one more.
const TURN_SESSIONS_MAX: usize = 64;
const TURN_BYTES: usize = 16 * 1024;

/// Where a resting session's messages go: a number of the [`Carrier`]'s.
pub type Outlet = u32;

/// Hands messages to the clients of resting sessions.
pub trait Carrier {
    /// Hands `entries`, in their order, to an outlet that the session with this key lent.
    fn carry(&mut self, outlet: Outlet, owner: u32, entries: &[Arc<Entry>]) -> Carried;
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// All is on its way to the client.
    All,
    /// All is taken, but some of it waits for the client: the session is to see to that.
    Stuck,
    /// Nothing of it is taken: the session is to read it itself.
    Refused,
}

/// For shards none of whose sessions rest.
#[derive(Debug)]
pub struct NoCarrier;

impl Carrier for NoCarrier {
    fn carry(&mut self, _outlet: Outlet, _owner: u32, _entries: &[Arc<Entry>]) -> Carried {
        Carried::Refused
    }
}

/// The sessions that rest on one channel.
#[derive(Debug)]
pub(in crate::hub::shard) struct Resting {
    list: Vec<Rest>,
    stand: Stand,
    pass: Option<Pass>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    key: u32,
    outlet: Outlet,
}

/// Where sessions stand.
#[derive(Debug, Clone, Copy)]
pub(in crate::hub::shard) struct Stand {
    /// Before their next entry.
    pub(in crate::hub::shard) reach: Reach,
    /// The position of their last delivery, if there was one since the first of them lay down.
    pub(in crate::hub::shard) at: Option<Position>,
    /// When something was last handed to them, in milliseconds of the shard's clock.
    pub(in crate::hub::shard) sent_ms: u64,
}

impl Stand {
    fn at(reach: Reach) -> Self {
        Self { reach, at: None, sent_ms: 0 }
    }
}

/// A part of the log on its way to all of the list.
#[derive(Debug)]
struct Pass {
    entries: Vec<Arc<Entry>>,
    /// How much of a turn it takes to hand it to one session.
    cost: usize,
    /// So many of the list have it.
    served: usize,
    after: Stand,
}

/// Sessions whose place in the list has changed: their keys, and where they are now.
type Moves = [Option<(u32, u32)>; 2];

impl Default for Resting {
    fn default() -> Self {
        Self { list: Vec::new(), stand: Stand::at(Reach::default()), pass: None }
    }
}

impl Resting {
    pub(in crate::hub::shard) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(in crate::hub::shard) fn keys(&self) -> impl Iterator<Item = u32> {
        self.list.iter().map(|rest| rest.key)
    }

    /// Up to where all of them have everything; `None` if there are none.
    pub(in crate::hub::shard) fn reach(&self) -> Option<Reach> {
        (!self.list.is_empty()).then_some(self.stand.reach)
    }

    pub(in crate::hub::shard) fn has_pass(&self) -> bool {
        self.pass.is_some()
    }

    /// Whether a session whose next entry is `next` may lie down here.
    fn admits(&self, next: u64) -> bool {
        self.list.is_empty() || next == self.pass.as_ref().map_or(self.stand, |pass| pass.after).reach.next
    }

    /// Lays a session down that [`Resting::admits`]: its slot.
    fn insert(&mut self, key: u32, outlet: Outlet, reach: Reach) -> (u32, Moves) {
        if self.list.is_empty() {
            self.stand = Stand::at(reach);
            self.pass = None;
        }
        let last = self.list.len();
        self.list.push(Rest { key, outlet });
        let Some(pass) = &mut self.pass else { return (last as u32, [None, None]) };
        // It has what the pass brings.
        let slot = pass.served;
        pass.served += 1;
        self.list.swap(slot, last);
        let moved = (slot != last).then(|| (self.list[last].key, last as u32));
        (slot as u32, [moved, None])
    }

    /// Where the session at `slot` stands.
    pub(in crate::hub::shard) fn stand_of(&self, slot: u32) -> Stand {
        self.pass.as_ref().filter(|pass| (slot as usize) < pass.served).map_or(self.stand, |pass| pass.after)
    }

    /// Takes the session at `slot` out: where it stands, and what the pass under way has not brought to it yet.
    fn remove(&mut self, slot: u32) -> (Stand, Option<&Pass>, Moves) {
        let slot = slot as usize;
        let (mut hole, mut stand, mut moves) = (slot, self.stand, [None, None]);
        let is_served = self.pass.as_ref().is_none_or(|pass| slot < pass.served);
        if let Some(pass) = &mut self.pass
            && slot < pass.served
        {
            stand = pass.after;
            pass.served -= 1;
            // The last of the served takes its place, and leaves its own to the last of all.
            hole = pass.served;
            if hole != slot {
                self.list.swap(slot, hole);
                moves[0] = Some((self.list[slot].key, slot as u32));
            }
        }
        self.list.swap_remove(hole);
        moves[1] = self.list.get(hole).map(|rest| (rest.key, hole as u32));
        (stand, self.pass.as_ref().filter(|_| !is_served), moves)
    }

    /// Begins to bring them what follows in `entries`, the first of which has the number `first`. Without a session, or
    /// anything that follows, there is nothing to bring.
    fn begin<'a>(&mut self, first: u64, entries: impl Iterator<Item = &'a Arc<Entry>>) -> bool {
        if self.list.is_empty() {
            return false;
        }
        debug_assert!(self.pass.is_none() && self.stand.reach.next >= first);
        let mut bytes = 0;
        let part: Vec<_> = entries
            .skip((self.stand.reach.next - first) as usize)
            .take(PASS_MESSAGES_MAX)
            .take_while(|entry| {
                let size = entry.message.size_bytes().max(1);
                let fits = bytes == 0 || bytes + size <= PASS_BYTES_MAX;
                bytes += if fits { size } else { 0 };
                fits
            })
            .cloned()
            .collect();
        let Some(last) = part.last() else { return false };
        let Reach { next, bytes: before } = self.stand.reach;
        let sizes = part.iter().map(|entry| entry.message.size_bytes() as u64);
        let reach = Reach { next: next + part.len() as u64, bytes: before + sizes.sum::<u64>() };
        let after = Stand { reach, at: Some(last.position), sent_ms: self.stand.sent_ms };
        self.pass = Some(Pass { entries: part, cost: 1 + bytes / TURN_BYTES, served: 0, after });
        true
    }
}

impl State {
    /// Whether a session may rest: it waits, on one channel, and stands where those stand that rest there.
    pub(in crate::hub::shard) fn may_rest(&self, key: u32) -> bool {
        self.readers[key as usize].may_rest().is_some_and(|read| {
            let mirror = &self.mirrors[read.mirror as usize];
            read.next == mirror.end() && mirror.resting.admits(read.next)
        })
    }

    /// Lets a session rest that [`State::may_rest`], whose deadline comes so long after the last message.
    pub(in crate::hub::shard) fn rest(&mut self, key: u32, outlet: Outlet, quiet_ms: Option<u64>) {
        let Some(read) = self.readers[key as usize].may_rest() else { return };
        let (mirror_key, before) = (read.mirror, read.slot);
        let mirror = &mut self.mirrors[mirror_key as usize];
        mirror.readers.swap_remove(before as usize);
        let moved = mirror.readers.get(before as usize).map(|key| (*key, before));
        let (slot, moves) = mirror.resting.insert(key, outlet, mirror.reach());
        self.settle(mirror_key, &[moved, moves[0], moves[1], Some((key, slot))]);
        let reader = &mut self.readers[key as usize];
        reader.is_resting = true;
        reader.quiet_ms = quiet_ms.and_then(|ms| u32::try_from(ms).ok()).unwrap_or(u32::MAX);
    }

    /// When a session's deadline is: what was handed to it while it rests may have moved it.
    pub(in crate::hub::shard) fn deadline_of(&self, key: u32) -> u64 {
        let reader = &self.readers[key as usize];
        let [read] = reader.reads.as_slice() else { return reader.deadline_ms };
        if !reader.is_resting || reader.quiet_ms == u32::MAX {
            return reader.deadline_ms;
        }
        let stand = self.mirrors[read.mirror as usize].resting.stand_of(read.slot);
        let moved_ms = stand.at.map_or(0, |_| stand.sent_ms + u64::from(reader.quiet_ms));
        reader.deadline_ms.max(moved_ms)
    }

    /// Ends a session's rest, if it rests.
    #[inline]
    pub(in crate::hub::shard) fn rise(&mut self, key: u32) {
        if self.readers[key as usize].is_resting {
            self.get_up(key);
        }
    }

    fn get_up(&mut self, key: u32) {
        let reader = &mut self.readers[key as usize];
        reader.is_resting = false;
        let Some(read) = reader.reads.as_mut_slice().first_mut() else { return };
        let mirror_key = read.mirror;
        let mirror = &mut self.mirrors[mirror_key as usize];
        let (stand, missing, moves) = mirror.resting.remove(read.slot);
        if let Some(at) = stand.at
            && stand.reach.next > read.next
        {
            (read.next, read.at) = (stand.reach.next, at);
            reader.sent_ms = stand.sent_ms;
        }
        if let Some(pass) = missing
            && read.next < mirror.first
        {
            // The log has dropped it by now, but it was on its way.
            read.next = pass.after.reach.next;
            reader.backlog = Some(Box::new(Backlog { read: 0, entries: pass.entries.iter().cloned().collect() }));
        }
        read.slot = mirror.readers.len() as u32;
        mirror.readers.push(key);
        self.settle(mirror_key, &moves);
    }

    fn settle(&mut self, mirror_key: u32, moves: &[Option<(u32, u32)>]) {
        for (key, slot) in moves.iter().flatten() {
            if let Some(read) = self.readers[*key as usize].reads.of_mirror(mirror_key) {
                read.slot = *slot;
            }
        }
    }

    /// Begins a pass over a mirror's resting sessions, if there is something new for them.
    pub(in crate::hub::shard) fn begin_pass(&mut self, mirror_key: u32) {
        let Some(mirror) = self.mirrors.get_mut(mirror_key as usize) else { return };
        if mirror.resting.has_pass() {
            return;
        }
        if mirror.resting.reach().is_some_and(|reach| reach.next < mirror.first) {
            // They fell off the log's end, as they would awake, and hear of it as their channel says.
            let keys: Vec<u32> = mirror.resting.keys().collect();
            for key in keys {
                self.rise(key);
                self.readers[key as usize].wake();
            }
        } else if mirror.resting.begin(mirror.first, mirror.entries.iter()) {
            self.passes.push_back(mirror_key);
        }
    }

    /// Brings passes on, for one turn of the pump; the mirrors whose pass came to its end.
    pub(in crate::hub::shard) fn run_passes(&mut self, now_ms: u64, carrier: &mut dyn Carrier) -> Vec<u32> {
        let mut done = Vec::new();
        let mut turns = TURN_SESSIONS_MAX;
        while turns > 0
            && let Some(mirror_key) = self.passes.pop_front()
        {
            // The mirror may be gone, or be another one by now; its pass ends early when all have risen.
            let is_over = loop {
                let Some(mirror) = self.mirrors.get_mut(mirror_key as usize) else { break false };
                let resting = &mut mirror.resting;
                let Some(pass) = &mut resting.pass else { break true };
                let Some(rest) = resting.list.get(pass.served).copied() else {
                    resting.stand = pass.after;
                    resting.pass = None;
                    break true;
                };
                if turns == 0 {
                    self.passes.push_back(mirror_key);
                    break false;
                }
                turns = turns.saturating_sub(pass.cost);
                pass.after.sent_ms = now_ms;
                let carried = carrier.carry(rest.outlet, rest.key, &pass.entries);
                if carried != Carried::Refused {
                    pass.served += 1;
                }
                if carried != Carried::All {
                    self.rise(rest.key);
                    self.readers[rest.key as usize].wake();
                }
            };
            if is_over {
                done.push(mirror_key);
            }
        }
        done
    }
}
