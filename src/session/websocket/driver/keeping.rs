//! A session's part in being kept: what of it is put, and that it is put before its client can be back.

use crate::bus::store::StoredSession;
use crate::hub::shard::Delivery;
use crate::model::session::CloseReason;
use crate::session::keep::{Keeper, PUT_MS_MAX};
use crate::session::websocket::driver::Driver;
use crate::session::websocket::seam::{Feed, Place, Wire};
use crate::session::websocket::socket::Phase;
use std::task::Context;

/// How a session is kept for its client.
pub(super) struct Keeping {
    pub(super) keeper: Keeper,
    /// Whether it was put as it is at its end.
    pub(super) last: bool,
    /// What ends the session once that is done: who hears of the end may be back at once.
    pub(super) ending: Option<Delivery>,
}

impl Keeping {
    pub(super) fn new(keeper: Keeper) -> Self {
        Self { keeper, last: false, ending: None }
    }
}

impl<W: Wire, F: Feed> Driver<W, F> {
    /// Keeps the session while it lives.
    pub(super) fn keep(&mut self, now_ms: u64, cx: &mut Context<'_>) {
        let changed = self.machine.take_changed();
        let Some(Keeping { keeper, last: false, .. }) = self.keeping.as_deref_mut() else { return };
        if self.machine.phase() != Phase::Open {
            return;
        }
        if changed {
            keeper.change(now_ms);
        }
        let feed = &self.feed;
        keeper.poll(now_ms, || stored(feed), |ms| feed.sleep_ms(ms), cx);
    }

    /// Keeps the session as it is at its end, or takes it out if it ends for good; how, if it is kept at all.
    pub(super) fn keep_last(&mut self, now_ms: u64, reason: CloseReason) -> Option<&mut Keeping> {
        let keeping = self.keeping.as_deref_mut()?;
        if !keeping.last {
            keeping.last = true;
            let timeout = self.feed.sleep_ms(PUT_MS_MAX);
            match reason.may_come_back() {
                true => keeping.keeper.put(now_ms, stored(&self.feed), timeout),
                false => keeping.keeper.forget(timeout),
            }
        }
        Some(keeping)
    }
}

/// Why a delivery ends the session.
pub(super) fn reason_of(delivery: &Delivery) -> CloseReason {
    match delivery {
        Delivery::End(reason) => *reason,
        Delivery::Gap(_) | Delivery::Message(_) | Delivery::Conflated(_) => CloseReason::Gap,
    }
}

/// What the session is now, as its client would have it back.
fn stored(place: &dyn Place) -> StoredSession {
    StoredSession { channels: place.channels(), cursor: place.cursor(), meta: Vec::new() }
}
