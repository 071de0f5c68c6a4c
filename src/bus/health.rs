//! Whether a bus can be reached: told to probes, logs and metrics together.
//!
//! A driver owns one [`Health`] and says what it sees. Each change of state is one log line; before the first connection
//! the instance is starting, after a loss it is degraded (its clients would find it no better elsewhere).

use crate::telemetry::metrics::BusMetrics;
use crate::telemetry::readiness::{Degraded, Latch, Readiness};
use parking_lot::Mutex;
use std::sync::Arc;

/// The state of one bus; shared by its tasks.
#[derive(Debug)]
pub struct Health {
    kind: &'static str,
    readiness: Readiness,
    metrics: Arc<BusMetrics>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Connecting { _latch: Latch, told: bool },
    Connected,
    Lost { _degraded: Degraded },
}

impl Health {
    /// A bus that is not connected yet; `kind` is its key in the configuration.
    pub fn new(kind: &'static str, readiness: Readiness, metrics: Arc<BusMetrics>) -> Self {
        let state = State::Connecting { _latch: readiness.latch("bus"), told: false };
        metrics.declare();
        metrics.set_connected(false);
        Self { kind, readiness, metrics, state: Mutex::new(state) }
    }

    /// Says that the bus is connected.
    pub fn up(&self) {
        let mut state = self.state.lock();
        if !matches!(*state, State::Connected) {
            tracing::info!(bus = self.kind, "bus connected");
            *state = State::Connected;
            self.metrics.set_connected(true);
        }
    }

    /// Says that the bus is not connected, and why.
    pub fn down(&self, reason: &str) {
        let mut state = self.state.lock();
        match &mut *state {
            State::Connecting { told, .. } => {
                if !*told {
                    tracing::warn!(bus = self.kind, error = reason, "bus can't be reached yet; trying on");
                    *told = true;
                }
            }
            State::Connected => {
                tracing::warn!(bus = self.kind, error = reason, "bus lost; publishes are refused until it is back");
                let degraded = self.readiness.degrade(format!("the bus ({}) is down: {reason}", self.kind));
                *state = State::Lost { _degraded: degraded };
                self.metrics.set_connected(false);
            }
            State::Lost { .. } => {}
        }
    }

    /// Whether it is connected.
    pub fn is_up(&self) -> bool {
        matches!(*self.state.lock(), State::Connected)
    }

    /// The bus's metrics.
    pub fn metrics(&self) -> &Arc<BusMetrics> {
        &self.metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::readiness::Status;

    #[test]
    fn a_bus_is_awaited_at_first_and_missed_later() {
        let readiness = Readiness::new();
        let health = Health::new("redis", readiness.clone(), Arc::default());
        health.down("refused");
        assert_eq!(readiness.status(), Status::Starting { waiting_for: vec!["bus"] });
        health.up();
        assert_eq!(readiness.status(), Status::Ready);
        health.down("refused");
        health.down("still refused");
        assert_eq!(readiness.status(), Status::Degraded { reason: "the bus (redis) is down: refused".into() });
        assert!(!health.is_up());
        health.up();
        assert_eq!(readiness.status(), Status::Ready);
    }
}
