//! The counts of the whole process, and how they are written out.

use super::config::ConfigTotals;
use super::grip::GripTotals;
use super::histogram::Histogram;
use super::labels::{ComebackResult, KeepResult, PROTOCOLS, PublishResult, Refusal, STATUS_CLASSES, UpstreamResult};
use super::{Figures, page::Page};
use crate::model::drain::Phase;
use crate::model::session::{CloseReason, GapReason, SessionKind, Transport};
use crate::proto::websocket_over_http::Ignored;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// The most names of one kind (listeners, routes, upstreams); those beyond share the name `other`. Reloads may bring
/// new names for as long as the process lives.
pub(super) const NAMES_MAX: usize = 1000;

/// Stands for the names beyond [`NAMES_MAX`].
pub(super) const OTHER: &str = "other";

pub(super) const TRANSPORTS: usize = Transport::ALL.len();
pub(super) const CLOSES: usize = TRANSPORTS * CloseReason::ALL.len();

/// The index of a close among [`CLOSES`].
pub(super) fn close_index(transport: Transport, reason: CloseReason) -> usize {
    transport as usize * CloseReason::ALL.len() + reason as usize
}

/// Counts over a closed set of `N` label values.
#[derive(Debug)]
pub(super) struct Counts<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Counts<N> {
    pub(super) fn add(&self, index: usize, n: u64) {
        if let Some(count) = self.0.get(index) {
            count.fetch_add(n, Relaxed);
        }
    }

    pub(super) fn get(&self, index: usize) -> f64 {
        self.0.get(index).map_or(0, |count| count.load(Relaxed)) as f64
    }
}

/// Values by a name from the configuration, [`NAMES_MAX`] at most.
#[derive(Debug)]
pub(super) struct Named<T>(RwLock<BTreeMap<Box<str>, Arc<T>>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Default> Named<T> {
    /// The value of `name`, made at its first use.
    pub(super) fn of(&self, name: &str) -> Arc<T> {
        if let Some(known) = self.0.read().get(name) {
            return Arc::clone(known);
        }
        let mut values = self.0.write();
        let name = if values.len() < NAMES_MAX || values.contains_key(name) { name } else { OTHER };
        Arc::clone(values.entry(name.into()).or_default())
    }

    fn each(&self, mut write: impl FnMut(&str, &T)) {
        for (name, value) in self.0.read().iter() {
            write(name, value);
        }
    }
}

/// Connections of one listener, by protocol.
#[derive(Debug, Default)]
pub(super) struct ListenerTotals {
    pub(super) open: [AtomicI64; PROTOCOLS.len()],
    pub(super) accepted: Counts<{ PROTOCOLS.len() }>,
}

/// Requests to one upstream.
#[derive(Debug, Default)]
pub(super) struct UpstreamTotals {
    pub(super) results: Counts<{ UpstreamResult::ALL.len() }>,
    pub(super) duration: Histogram,
}

/// Requests of one route, by status class.
pub(super) type RouteTotals = Counts<{ STATUS_CLASSES.len() }>;

/// The drain under way, or the last.
#[derive(Debug, Default)]
pub(super) struct DrainTotals {
    /// The phase's place among [`Phase::ALL`].
    phase: AtomicU64,
    left: AtomicU64,
    duration_ms: AtomicU64,
    pub(super) forced: Counts<{ SessionKind::ALL.len() }>,
}

impl DrainTotals {
    pub(super) fn set(&self, phase: Phase, left: usize, duration_ms: u64) {
        self.phase.store(phase as u64, Relaxed);
        self.left.store(left as u64, Relaxed);
        self.duration_ms.store(duration_ms, Relaxed);
    }

    fn write(&self, page: &mut Page) {
        let mut family = page.gauge("pushbridge_drain_phase", "1 for the phase of the drain, else 0.");
        for phase in Phase::ALL {
            let is_now = self.phase.load(Relaxed) == phase as u64;
            family.sample(&[("phase", phase.as_str())], f64::from(u8::from(is_now)));
        }
        page.gauge("pushbridge_drain_sessions_left", "Sessions that the drain waits for; 0 while there is none.")
            .sample(&[], self.left.load(Relaxed) as f64);
        page.gauge("pushbridge_drain_duration_seconds", "How long the drain has taken so far, or took.")
            .sample(&[], self.duration_ms.load(Relaxed) as f64 / 1000.0);
        let mut family = page.counter("pushbridge_drain_forced_total", "Sessions that a drain had to cut.");
        for kind in SessionKind::ALL {
            family.sample(&[("transport", kind.as_str())], self.forced.get(kind.index()));
        }
    }
}

/// All counts of the process.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) listeners: Named<ListenerTotals>,
    pub(super) routes: Named<RouteTotals>,
    pub(super) upstreams: Named<UpstreamTotals>,
    pub(super) refusals: Counts<{ Refusal::ALL.len() }>,
    pub(super) sessions: [AtomicI64; TRANSPORTS],
    pub(super) opened: Counts<TRANSPORTS>,
    pub(super) closed: Counts<CLOSES>,
    pub(super) delivered_bytes: Counts<TRANSPORTS>,
    /// Its count is the number of messages delivered.
    pub(super) delivery: [Histogram; TRANSPORTS],
    pub(super) fan_out: Histogram,
    pub(super) gaps: Counts<{ GapReason::ALL.len() }>,
    pub(super) conflated: Counts<1>,
    pub(super) kept: Counts<{ KeepResult::ALL.len() }>,
    pub(super) comebacks: Counts<{ ComebackResult::ALL.len() }>,
    pub(super) bridge_ignored: Counts<{ Ignored::ALL.len() }>,
    pub(super) grip: GripTotals,
    pub(super) published: Counts<{ PublishResult::ALL.len() }>,
    pub(super) published_bytes: Counts<1>,
    pub(super) publish_requests: RouteTotals,
    pub(super) config: ConfigTotals,
    pub(super) drain: DrainTotals,
    connections_max: AtomicU64,
    by_worker: RwLock<Vec<u64>>,
    channels: AtomicU64,
    log_bytes: AtomicU64,
    log_messages: AtomicU64,
}

impl Totals {
    pub(super) fn set_hub(&self, channels: u64, log_bytes: u64, messages: u64) {
        self.channels.store(channels, Relaxed);
        self.log_bytes.store(log_bytes, Relaxed);
        self.log_messages.store(messages, Relaxed);
    }

    pub(super) fn set_connections_max(&self, connections: u64) {
        self.connections_max.store(connections, Relaxed);
    }

    pub(super) fn set_connections_by_worker(&self, connections: impl Iterator<Item = u64>) {
        let mut by_worker = self.by_worker.write();
        by_worker.clear();
        by_worker.extend(connections);
    }

    pub(super) fn figures(&self) -> Figures {
        let mut connections = 0;
        self.listeners.each(|_, listener| connections += listener.open.iter().map(open).sum::<u64>());
        Figures {
            connections,
            sessions: self.sessions.iter().map(open).sum(),
            channels: self.channels.load(Relaxed),
            published: self.published.get(PublishResult::Accepted as usize) as u64,
            delivered: self.delivery.iter().map(Histogram::count).sum(),
        }
    }

    /// Writes every family, in the order in which `docs/metrics.md` lists them.
    pub(super) fn write(&self, page: &mut Page) {
        write_build(page);
        self.config.write(page);
        self.write_connections(page);
        self.write_requests(page);
        self.write_sessions(page);
        self.write_deliveries(page);
        self.write_hub(page);
        self.write_publishes(page);
        self.write_upstreams(page);
        self.drain.write(page);
    }

    fn write_connections(&self, page: &mut Page) {
        let mut family = page.gauge("pushbridge_server_connections_open", "Client connections that are open.");
        self.listeners.each(|listener, totals| {
            for (protocol, count) in PROTOCOLS.iter().zip(&totals.open) {
                family.sample(&[("listener", listener), ("protocol", protocol)], open(count) as f64);
            }
        });
        let mut family = page.gauge("pushbridge_server_worker_connections", "Client connections that a worker has.");
        for (worker, connections) in self.by_worker.read().iter().enumerate() {
            family.sample(&[("worker", &worker.to_string())], *connections as f64);
        }
        let mut family = page.gauge("pushbridge_server_connections_max", "Client connections that there may be.");
        family.sample(&[], self.connections_max.load(Relaxed) as f64);
        let mut family =
            page.counter("pushbridge_server_connections_accepted_total", "Client connections that were accepted.");
        self.listeners.each(|listener, totals| {
            for (at, protocol) in PROTOCOLS.iter().enumerate() {
                family.sample(&[("listener", listener), ("protocol", protocol)], totals.accepted.get(at));
            }
        });
        let mut family = page.counter(
            "pushbridge_server_refusals_total",
            "What was turned away before it became a request or a session.",
        );
        for reason in Refusal::ALL {
            family.sample(&[("reason", reason.as_str())], self.refusals.get(reason as usize));
        }
    }

    fn write_requests(&self, page: &mut Page) {
        let mut family =
            page.counter("pushbridge_gateway_requests_total", "Requests of clients that a route answered.");
        self.routes.each(|route, totals| {
            for (at, class) in STATUS_CLASSES.iter().enumerate() {
                family.sample(&[("route", route), ("status_class", class)], totals.get(at));
            }
        });
    }

    fn write_sessions(&self, page: &mut Page) {
        let mut family = page.gauge("pushbridge_hub_sessions_open", "Sessions that are open.");
        for (transport, count) in Transport::ALL.iter().zip(&self.sessions) {
            family.sample(&[("transport", transport.as_str())], open(count) as f64);
        }
        let mut family = page.counter("pushbridge_hub_sessions_opened_total", "Sessions that began.");
        for transport in Transport::ALL {
            family.sample(&[("transport", transport.as_str())], self.opened.get(transport as usize));
        }
        let mut family = page.counter("pushbridge_hub_sessions_closed_total", "Sessions that ended.");
        for transport in Transport::ALL {
            for reason in CloseReason::ALL {
                let labels = [("transport", transport.as_str()), ("reason", reason.as_str())];
                family.sample(&labels, self.closed.get(close_index(transport, reason)));
            }
        }
        let mut family =
            page.counter("pushbridge_session_puts_total", "WebSocket sessions that were put into the session store.");
        for result in KeepResult::ALL {
            family.sample(&[("result", result.as_str())], self.kept.get(result as usize));
        }
        let mut family =
            page.counter("pushbridge_session_comebacks_total", "Clients that came back with a session's token.");
        for result in ComebackResult::ALL {
            family.sample(&[("result", result.as_str())], self.comebacks.get(result as usize));
        }
    }

    fn write_deliveries(&self, page: &mut Page) {
        let by_transport = || Transport::ALL.iter().zip(&self.delivery);
        let mut family =
            page.counter("pushbridge_hub_messages_delivered_total", "Messages that were handed to a client's link.");
        for (transport, delivery) in by_transport() {
            family.sample(&[("transport", transport.as_str())], delivery.count() as f64);
        }
        let mut family = page
            .counter("pushbridge_hub_delivered_bytes_total", "Bytes of messages that were handed to a client's link.");
        for transport in Transport::ALL {
            let bytes = self.delivered_bytes.get(transport as usize);
            family.sample(&[("transport", transport.as_str())], bytes);
        }
        let mut family = page.histogram(
            "pushbridge_hub_delivery_latency_seconds",
            "From the publish of a message to its hand-over to a client's link.",
        );
        for (transport, delivery) in by_transport() {
            family.buckets(&[("transport", transport.as_str())], &delivery.snapshot());
        }
        page.histogram(
            "pushbridge_hub_fanout_lag_seconds",
            "From the publish of a message to the moment a worker begins to wake its sessions.",
        )
        .buckets(&[], &self.fan_out.snapshot());
        let mut family = page.counter("pushbridge_hub_gaps_total", "Gaps that were announced to sessions.");
        for reason in GapReason::ALL {
            family.sample(&[("reason", reason.as_str())], self.gaps.get(reason as usize));
        }
        page.counter("pushbridge_hub_messages_conflated_total", "Messages that conflation left out for slow sessions.")
            .sample(&[], self.conflated.get(0));
        let mut family = page.counter(
            "pushbridge_bridge_ignored_total",
            "What a backend said over a bridged WebSocket that was passed over; the log has each.",
        );
        for what in Ignored::ALL {
            family.sample(&[("what", what.as_str())], self.bridge_ignored.get(what as usize));
        }
        self.grip.write(page);
    }

    fn write_hub(&self, page: &mut Page) {
        let mut gauge = |name, help, value: &AtomicU64| page.gauge(name, help).sample(&[], value.load(Relaxed) as f64);
        gauge("pushbridge_hub_channels", "Channels that have a log on this instance.", &self.channels);
        gauge("pushbridge_hub_log_messages", "Messages in the channels' logs.", &self.log_messages);
        gauge("pushbridge_hub_log_bytes", "Bytes of the messages in the channels' logs.", &self.log_bytes);
    }

    fn write_publishes(&self, page: &mut Page) {
        let mut family = page.counter("pushbridge_publish_messages_total", "Messages that were given to the bus.");
        for result in PublishResult::ALL {
            family.sample(&[("result", result.as_str())], self.published.get(result as usize));
        }
        page.counter("pushbridge_publish_bytes_total", "Bytes of the messages that were accepted.")
            .sample(&[], self.published_bytes.get(0));
        let mut family = page.counter("pushbridge_publish_requests_total", "Requests to the publish listener.");
        for (at, class) in STATUS_CLASSES.iter().enumerate() {
            family.sample(&[("status_class", class)], self.publish_requests.get(at));
        }
    }

    fn write_upstreams(&self, page: &mut Page) {
        let mut family = page.counter("pushbridge_upstream_requests_total", "Requests to upstreams that ended.");
        self.upstreams.each(|upstream, totals| {
            for result in UpstreamResult::ALL {
                let labels = [("upstream", upstream), ("result", result.as_str())];
                family.sample(&labels, totals.results.get(result as usize));
            }
        });
        let mut family = page.histogram(
            "pushbridge_upstream_request_duration_seconds",
            "From the start of a request to an upstream to the head of its response, or to its failure.",
        );
        self.upstreams.each(|upstream, totals| {
            family.buckets(&[("upstream", upstream)], &totals.duration.snapshot());
        });
    }
}

fn write_build(page: &mut Page) {
    let labels =
        [("version", env!("CARGO_PKG_VERSION")), ("commit", option_env!("PUSHBRIDGE_COMMIT").unwrap_or("unknown"))];
    page.gauge("pushbridge_build_info", "Always 1; the labels say what is running.").sample(&labels, 1.0);
}

/// How many are open. What one worker's flush has added, another's may not yet have taken away: never below zero.
fn open(count: &AtomicI64) -> u64 {
    u64::try_from(count.load(Relaxed)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_share_one() {
        let named: Named<Counts<1>> = Named::default();
        for n in 0..NAMES_MAX + 10 {
            named.of(&format!("r{n}")).add(0, 1);
        }
        named.of("r0").add(0, 1);
        let mut seen = BTreeMap::new();
        named.each(|name, counts| {
            seen.insert(name.to_owned(), counts.get(0));
        });
        assert_eq!(seen.len(), NAMES_MAX + 1);
        assert_eq!(seen.get("other"), Some(&10.0));
        assert_eq!(seen.get("r0"), Some(&2.0));
    }
}
