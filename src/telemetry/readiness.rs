//! Whether this instance should get new clients, as several rooms know it together.
//!
//! Each room holds a guard for as long as something is so, and drops it when it is over: a [`Latch`] while something
//! has yet to happen, a [`Degraded`] while something is lost, a [`Draining`] while the instance empties. Nobody has to
//! know of the others, and a task that dies gives its guard back. It does not know how a probe asks.
//!
//! ```text
//!             a latch          no latch, no guard       a degraded guard
//! state:   starting (503)         ready (200)            degraded (200)       and before all: draining (503)
//! ```

use parking_lot::Mutex;
use std::sync::Arc;

/// A handle to the readiness of the process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

/// What the readiness is made of. The lists are as long as there are guards.
#[derive(Debug, Default)]
struct State {
    latches: Vec<&'static str>,
    degraded: Vec<(u64, String)>,
    draining: usize,
    next: u64,
}

/// What a probe is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Something has yet to happen before clients may come.
    Starting {
        /// What, each once, in the order in which it was asked for.
        waiting_for: Vec<&'static str>,
    },
    /// Clients may come.
    Ready,
    /// Clients may come, since elsewhere it would be no better, but something is lost.
    Degraded {
        /// The oldest loss that still stands.
        reason: String,
    },
    /// Clients should go elsewhere.
    Draining,
}

/// Keeps the instance `starting` until dropped.
#[derive(Debug)]
#[must_use = "dropping it says that the thing has happened"]
pub struct Latch {
    readiness: Readiness,
    what: &'static str,
}

/// Keeps the instance `degraded` until dropped.
#[derive(Debug)]
#[must_use = "dropping it says that all is well again"]
pub struct Degraded {
    readiness: Readiness,
    id: u64,
}

/// Keeps the instance `draining` until dropped.
#[derive(Debug)]
#[must_use = "dropping it takes the drain back"]
pub struct Draining(Readiness);

impl Readiness {
    /// A readiness without guards: ready. Whoever starts the process takes the first latch before anybody can ask.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `what` (such as `bus`) has to happen before clients may come; it has when the latch is dropped.
    pub fn latch(&self, what: &'static str) -> Latch {
        self.0.lock().latches.push(what);
        Latch { readiness: self.clone(), what }
    }

    /// Says that something is lost, in words for an operator, until the guard is dropped.
    pub fn degrade(&self, reason: impl Into<String>) -> Degraded {
        let mut state = self.0.lock();
        let id = state.next;
        state.next = state.next.wrapping_add(1);
        state.degraded.push((id, reason.into()));
        Degraded { readiness: self.clone(), id }
    }

    /// Says that the instance empties, until the guard is dropped.
    pub fn drain(&self) -> Draining {
        self.0.lock().draining += 1;
        Draining(self.clone())
    }

    /// What a probe is told now: draining before starting before degraded before ready.
    pub fn status(&self) -> Status {
        let state = self.0.lock();
        if state.draining > 0 {
            return Status::Draining;
        }
        if !state.latches.is_empty() {
            let mut waiting_for: Vec<&'static str> = Vec::new();
            for what in &state.latches {
                if !waiting_for.contains(what) {
                    waiting_for.push(what);
                }
            }
            return Status::Starting { waiting_for };
        }
        match state.degraded.first() {
            Some((_, reason)) => Status::Degraded { reason: reason.clone() },
            None => Status::Ready,
        }
    }
}

impl Status {
    /// The word in the probe's answer.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Ready => "ready",
            Self::Degraded { .. } => "degraded",
            Self::Draining => "draining",
        }
    }

    /// Whether new clients may come.
    pub fn takes_clients(&self) -> bool {
        matches!(self, Self::Ready | Self::Degraded { .. })
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        let latches = &mut self.readiness.0.lock().latches;
        if let Some(at) = latches.iter().position(|what| *what == self.what) {
            latches.remove(at);
        }
        if latches.is_empty() {
            tracing::info!("ready");
        }
    }
}

impl Drop for Degraded {
    fn drop(&mut self) {
        self.readiness.0.lock().degraded.retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.draining = state.draining.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_come_once_the_last_latch_is_dropped() {
        let readiness = Readiness::new();
        let listeners = readiness.latch("listeners");
        let first = readiness.latch("bus");
        let second = readiness.latch("bus");
        assert_eq!(readiness.status(), Status::Starting { waiting_for: vec!["listeners", "bus"] });
        drop(listeners);
        drop(first);
        assert_eq!(readiness.status(), Status::Starting { waiting_for: vec!["bus"] });
        drop(second);
        assert_eq!(readiness.status(), Status::Ready);
    }

    #[test]
    fn the_oldest_loss_that_still_stands_is_told() {
        let readiness = Readiness::new();
        let bus = readiness.degrade("the bus is down");
        let other = readiness.degrade("the bus is down");
        let disk = readiness.degrade("the disk is full");
        drop(bus);
        assert_eq!(readiness.status(), Status::Degraded { reason: "the bus is down".into() });
        drop(other);
        assert_eq!(readiness.status(), Status::Degraded { reason: "the disk is full".into() });
        assert!(readiness.status().takes_clients());
        drop(disk);
        assert_eq!(readiness.status(), Status::Ready);
    }

    #[test]
    fn a_drain_comes_before_all_and_can_be_taken_back() {
        let readiness = Readiness::new();
        let latch = readiness.latch("bus");
        let by_request = readiness.drain();
        let by_signal = readiness.drain();
        assert_eq!(readiness.status(), Status::Draining);
        assert!(!readiness.status().takes_clients());
        drop(by_request);
        assert_eq!(readiness.status(), Status::Draining);
        drop(by_signal);
        assert_eq!(readiness.status().as_str(), "starting");
        drop(latch);
        assert_eq!(readiness.status().as_str(), "ready");
    }
}
