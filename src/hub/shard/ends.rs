//! The planned ends of sessions: one heap of moments for a shard, instead of a timer for each session.
//!
//! An entry is a hint, as in the wheel: it counts only while the session that it names still has that very moment.

use crate::hub::Counted;
use crate::hub::shard::reader::Reader;
use crate::hub::shard::{Shard, State};
use crate::model::session::{CloseReason, Selector, SessionKind};
use crate::proto::drain_schedule::{Dice, moments};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

/// Sessions are to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOrder {
    /// Which.
    pub selector: Selector,
    /// Why: what their clients are told.
    pub reason: CloseReason,
    /// Over how long, in microseconds; 0 is at once.
    pub window_us: u64,
    /// Where their moments come from.
    pub seed: u64,
}

/// What the hub asks of a shard.
pub enum Order {
    /// End sessions.
    End(EndOrder, Counted),
    /// Have every session look whether it has to ask its backend again.
    Recover,
    /// Drop what is left.
    Cut(Arc<dyn Fn([usize; SessionKind::ALL.len()]) + Send + Sync>),
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End(order, _) => order.fmt(f),
            Self::Recover => f.write_str("Recover"),
            Self::Cut(_) => f.write_str("Cut"),
        }
    }
}

/// When which session is to end.
#[derive(Debug, Default)]
pub(in crate::hub::shard) struct Ends {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    /// What holds for sessions that come now: all others are ending.
    newcomers: Option<(u64, CloseReason)>,
}

impl Ends {
    /// Gives a session that comes while all are ending a moment of its own, in what is left of the window.
    pub(in crate::hub::shard) fn plan_newcomer(&mut self, key: u32, reader: &mut Reader, now_us: u64, dice: &mut Dice) {
        if let Some((until_us, reason)) = self.newcomers {
            let at_us = now_us + dice.below(until_us.saturating_sub(now_us));
            self.plan(key, reader, at_us, reason);
        }
    }

    /// Plans an end, unless an earlier one is planned.
    pub(in crate::hub::shard) fn plan(&mut self, key: u32, reader: &mut Reader, at_us: u64, reason: CloseReason) {
        if at_us < reader.ends_us && reader.end().is_none() {
            (reader.ends_us, reader.reason) = (at_us, reason);
            self.heap.push(Reverse((at_us, key)));
        }
    }
}

impl Shard {
    /// Plans the ends of sessions from now on; how many there are. Each ends after what is already there for it.
    pub fn end_sessions(&self, order: &EndOrder) -> usize {
        let now_us = self.hub.clock().now_us();
        let state = &mut *self.state.borrow_mut();
        state.dice = Dice::new(order.seed);
        if order.selector == Selector::All {
            state.ends.newcomers = Some((now_us.saturating_add(order.window_us), order.reason));
        }
        let keys: Vec<u32> = selected(state, &order.selector);
        for (key, after_us) in keys.iter().zip(moments(keys.len(), order.window_us, order.seed)) {
            let reader = &mut state.readers[*key as usize];
            match order.window_us {
                0 => reader.ask(order.reason),
                _ => state.ends.plan(*key, reader, now_us.saturating_add(after_us), order.reason),
            }
        }
        keys.len()
    }

    /// Asks sessions to end whose moment has come; when the next moment is, in microseconds of the hub's clock.
    pub fn end_due(&self) -> Option<u64> {
        let now_us = self.hub.clock().now_us();
        self.now_us.set(now_us);
        let state = &mut *self.state.borrow_mut();
        while let Some(Reverse((at_us, key))) = state.ends.heap.peek().copied() {
            if at_us > now_us {
                return Some(at_us);
            }
            state.ends.heap.pop();
            if let Some(reader) = state.readers.get_mut(key as usize).filter(|reader| reader.ends_us == at_us) {
                let reason = reader.reason;
                reader.ask(reason);
            }
        }
        // What a window of many sessions needed is not kept.
        state.ends.heap.shrink_to(0);
        None
    }

    /// Ends every session's time; how many there were of each kind, in the order of [`SessionKind::ALL`].
    pub fn cut_sessions(&self) -> [usize; SessionKind::ALL.len()] {
        let mut counts = [0; SessionKind::ALL.len()];
        for (_, reader) in &mut self.state.borrow_mut().readers {
            counts[reader.kind.unwrap_or(SessionKind::Proxied).index()] += 1;
            reader.cut();
        }
        counts
    }

    /// Copies what a session's channels have by now; whether the session has something to read again.
    pub(in crate::hub::shard) fn catch_up(&self, key: u32) -> bool {
        let state = &mut *self.state.borrow_mut();
        let mut any = false;
        for read in state.readers[key as usize].reads.as_slice() {
            let mirror = &mut state.mirrors[read.mirror as usize];
            mirror.copy();
            mirror.report(self.worker);
            any |= read.next < mirror.end();
        }
        any
    }

    pub(in crate::hub::shard) fn obey(&self, order: Order) {
        match order {
            Order::End(order, counted) => counted(self.end_sessions(&order)),
            Order::Recover => {
                self.recoveries.set(self.recoveries.get().wrapping_add(1));
                for (_, reader) in &mut self.state.borrow_mut().readers {
                    reader.wake_anyway();
                }
            }
            Order::Cut(counted) => counted(self.cut_sessions()),
        }
    }
}

/// The keys of the sessions that are meant.
fn selected(state: &State, selector: &Selector) -> Vec<u32> {
    let of = |fits: &dyn Fn(&Reader) -> bool| {
        state.readers.iter().filter(|(_, reader)| fits(reader)).map(|(key, _)| key as u32).collect()
    };
    match selector {
        Selector::All => of(&|_| true),
        Selector::Kind(kind) => of(&|reader| reader.kind == Some(*kind)),
        Selector::Route(name) => match state.routes.find(name) {
            Some(route) => of(&|reader| reader.route == Some(route)),
            None => Vec::new(),
        },
        Selector::Channel(name) => {
            let mirror = state.by_name.get(name).and_then(|key| state.mirrors.get(*key as usize));
            mirror.map_or_else(Vec::new, |mirror| mirror.readers.iter().copied().chain(mirror.resting.keys()).collect())
        }
    }
}
