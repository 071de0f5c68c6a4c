//! Every metric of the process, and each worker's cheap handles to them.
//!
//! A worker counts in plain cells of its own ([`WorkerMetrics`]) and brings them here a few times a second, so that
//! counting a delivery touches no memory that another core writes. Labels come from closed sets; the only names
//! from outside are those of listeners, routes and upstreams, which the configuration bounds, and so does this room.
//! It does not know who asks: [`Metrics::render`] is a text, whoever serves it. `docs/metrics.md` lists each metric.

mod bus;
mod config;
mod grip;
mod histogram;
mod labels;
mod page;
mod presence;
mod totals;
mod worker;

pub use bus::BusMetrics;
pub use config::RunningConfig;
pub use grip::{GripPage, GripRefusal};
pub use labels::{ComebackResult, KeepResult, PublishResult, Refusal, ReloadResult, UpstreamResult};
pub use presence::PresenceMetrics;
pub use worker::{ConnectionGuard, WorkerMetrics};

use crate::model::drain::Phase;
use crate::model::session::SessionKind;
use page::Page;
use prometheus::{Registry, TextEncoder};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use totals::Totals;

/// The media type of [`Metrics::render`]: the text exposition format 0.0.4.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of one process, in a registry of their own.
pub struct Metrics {
    totals: Totals,
    bus: Arc<BusMetrics>,
    presence: Arc<PresenceMetrics>,
    /// What others measure: the process itself.
    registry: Registry,
}

/// A few totals, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Open client connections.
    pub connections: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Channels with a log on this instance.
    pub channels: u64,
    /// Messages accepted since the start.
    pub published: u64,
    /// Messages handed to clients since the start.
    pub delivered: u64,
}

impl Metrics {
    /// Fresh metrics at zero.
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        register_process(&registry);
        Arc::new(Self { totals: Totals::default(), bus: Arc::default(), presence: Arc::default(), registry })
    }

    /// Handles for one worker.
    pub fn worker(self: &Arc<Self>) -> Rc<WorkerMetrics> {
        Rc::new(WorkerMetrics::new(Arc::clone(self)))
    }

    /// What the shared bus counts.
    pub fn bus(&self) -> &Arc<BusMetrics> {
        &self.bus
    }

    /// What is counted of who is on channels.
    pub fn presence(&self) -> &Arc<PresenceMetrics> {
        &self.presence
    }

    /// Says how large the hub is; called about once a second.
    pub fn set_hub(&self, channels: u64, log_bytes: u64, messages: u64) {
        self.totals.set_hub(channels, log_bytes, messages);
    }

    /// Says how many client connections there may be; called about once a second.
    pub fn set_connections_max(&self, connections: u64) {
        self.totals.set_connections_max(connections);
    }

    /// Says how many client connections each worker has; called about once a second.
    pub fn set_connections_by_worker(&self, connections: impl Iterator<Item = u64>) {
        self.totals.set_connections_by_worker(connections);
    }

    /// Says how far the drain is, how many sessions it waits for, and for how long it has gone on.
    pub fn set_drain(&self, phase: Phase, left: usize, duration: Duration) {
        self.totals.drain.set(phase, left, u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    /// Counts sessions that a drain had to cut.
    pub fn drain_forced(&self, kind: SessionKind, sessions: usize) {
        self.totals.drain.forced.add(kind.index(), sessions as u64);
    }

    /// Makes a listener's metrics appear at zero, before its first connection.
    pub fn declare_listener(&self, listener: &str) {
        let _ = self.totals.listeners.of(listener);
    }

    /// Makes a route's metrics appear at zero, before its first request.
    pub fn declare_route(&self, route: &str) {
        let _ = self.totals.routes.of(route);
    }

    /// Makes an upstream's metrics appear at zero, before its first request.
    pub fn declare_upstream(&self, upstream: &str) {
        let _ = self.totals.upstreams.of(upstream);
    }

    /// Says which configuration runs from now on.
    pub fn run_config(&self, config: RunningConfig) {
        self.totals.config.run(config);
    }

    /// A reload came to something.
    pub fn reloaded(&self, result: ReloadResult) {
        self.totals.config.reloaded(result);
    }

    /// A few totals, for people; a quarter of a second old at most.
    pub fn figures(&self) -> Figures {
        self.totals.figures()
    }

    /// Everything in the text exposition format 0.0.4, as of the workers' last flush.
    pub fn render(&self) -> String {
        let mut page = Page::default();
        self.totals.write(&mut page);
        self.bus.write(&mut page);
        self.presence.write(&mut page);
        let mut families = page.into_families();
        families.extend(self.registry.gather());
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

/// CPU, memory, file descriptors and threads of this process; only Linux tells them.
#[cfg(target_os = "linux")]
fn register_process(registry: &Registry) {
    let process = prometheus::process_collector::ProcessCollector::for_self();
    if let Err(error) = registry.register(Box::new(process)) {
        tracing::warn!(%error, "process metrics are missing");
    }
}

#[cfg(not(target_os = "linux"))]
fn register_process(_registry: &Registry) {}

#[cfg(test)]
mod tests;
