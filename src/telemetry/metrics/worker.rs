//! One worker's handles: what happens for each message is counted in plain cells, the rest at once.

use super::Metrics;
use super::grip::{GripPage, GripRefusal};
use super::histogram::LocalHistogram;
use super::labels::{
    ComebackResult, KeepResult, PROTOCOLS, PublishResult, Refusal, STATUS_CLASSES, UpstreamResult, protocol,
    status_class,
};
use super::totals::{
    CLOSES, Counts, ListenerTotals, NAMES_MAX, Named, OTHER, RouteTotals, TRANSPORTS, UpstreamTotals, close_index,
};
use crate::model::name_map::NameMap;
use crate::model::session::{CloseReason, GapReason, Transport};
use crate::proto::grip::filters::Dropped;
use crate::proto::websocket_over_http::Ignored;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A worker's handles: counts are kept in the worker and flushed by [`WorkerMetrics::flush`], and by its drop.
pub struct WorkerMetrics {
    metrics: Arc<Metrics>,
    listeners: Cache<ListenerTotals>,
    routes: Cache<RouteTotals>,
    upstreams: Cache<UpstreamTotals>,
    refusals: LocalCounts<{ Refusal::ALL.len() }>,
    opened: LocalCounts<TRANSPORTS>,
    closed: LocalCounts<CLOSES>,
    delivered_bytes: LocalCounts<TRANSPORTS>,
    delivery: [LocalHistogram; TRANSPORTS],
    fan_out: LocalHistogram,
    gaps: LocalCounts<{ GapReason::ALL.len() }>,
    conflated: LocalCounts<1>,
    kept: LocalCounts<{ KeepResult::ALL.len() }>,
    comebacks: LocalCounts<{ ComebackResult::ALL.len() }>,
    bridge_ignored: LocalCounts<{ Ignored::ALL.len() }>,
    grip_pages: LocalCounts<{ GripPage::ALL.len() }>,
    grip_refused: LocalCounts<{ GripRefusal::ALL.len() }>,
    grip_dropped: LocalCounts<{ Dropped::ALL.len() }>,
    published: LocalCounts<{ PublishResult::ALL.len() }>,
    published_bytes: LocalCounts<1>,
    publish_requests: LocalCounts<{ STATUS_CLASSES.len() }>,
}

impl WorkerMetrics {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            listeners: Cache::default(),
            routes: Cache::default(),
            upstreams: Cache::default(),
            refusals: LocalCounts::default(),
            opened: LocalCounts::default(),
            closed: LocalCounts::default(),
            delivered_bytes: LocalCounts::default(),
            delivery: Default::default(),
            fan_out: LocalHistogram::default(),
            gaps: LocalCounts::default(),
            conflated: LocalCounts::default(),
            kept: LocalCounts::default(),
            comebacks: LocalCounts::default(),
            bridge_ignored: LocalCounts::default(),
            grip_pages: LocalCounts::default(),
            grip_refused: LocalCounts::default(),
            grip_dropped: LocalCounts::default(),
            published: LocalCounts::default(),
            published_bytes: LocalCounts::default(),
            publish_requests: LocalCounts::default(),
        }
    }

    /// A connection stands; the guard's drop ends it. `protocol` is `h2` or `http/1.1`.
    pub fn connection_opened(self: &Rc<Self>, listener: &str, protocol_name: &'static str) -> ConnectionGuard {
        let listener = self.listeners.of(listener, &self.metrics.totals.listeners);
        let protocol = protocol(protocol_name);
        listener.accepted.add(protocol, 1);
        ConnectionGuard::new(listener, protocol)
    }

    /// Counts something turned away.
    pub fn refused(&self, reason: Refusal) {
        self.refusals.add(reason as usize, 1);
    }

    /// A session stands.
    pub fn session_opened(&self, transport: Transport) {
        self.opened.add(transport as usize, 1);
    }

    /// A session ended.
    pub fn session_closed(&self, transport: Transport, reason: CloseReason) {
        self.closed.add(close_index(transport, reason), 1);
    }

    /// A message was handed to a client's link, this long after it was published.
    #[inline]
    pub fn delivered(&self, transport: Transport, bytes: usize, latency_us: u64) {
        if let Some(delivery) = self.delivery.get(transport as usize) {
            delivery.observe(latency_us);
        }
        self.delivered_bytes.add(transport as usize, bytes as u64);
    }

    /// The worker began to wake the sessions of a message, this long after it was published.
    #[inline]
    pub fn fanned_out(&self, lag_us: u64) {
        self.fan_out.observe(lag_us);
    }

    /// A gap was announced.
    pub fn gap(&self, reason: GapReason) {
        self.gaps.add(reason as usize, 1);
    }

    /// Messages that conflation left out.
    pub fn conflated(&self, messages: u64) {
        self.conflated.add(0, messages);
    }

    /// A session was put into the store, or was not.
    pub fn session_kept(&self, result: KeepResult) {
        self.kept.add(result as usize, 1);
    }

    /// A client came back with a session's token.
    pub fn came_back(&self, result: ComebackResult) {
        self.comebacks.add(result as usize, 1);
    }

    /// The backend of a bridged WebSocket said something that was passed over.
    pub fn bridge_ignored(&self, what: Ignored) {
        self.bridge_ignored.add(what as usize, 1);
    }

    /// A held session asked for a page.
    pub fn grip_page(&self, result: GripPage) {
        self.grip_pages.add(result as usize, 1);
    }

    /// Something of a backend's hold was refused or passed over.
    pub fn grip_refused(&self, what: GripRefusal) {
        self.grip_refused.add(what as usize, 1);
    }

    /// A session did not get a message.
    pub fn grip_dropped(&self, reason: Dropped) {
        self.grip_dropped.add(reason as usize, 1);
    }

    /// A message was published (`duplicate`: not again), or refused by the bus.
    pub fn published(&self, result: PublishResult, bytes: usize) {
        self.published.add(result as usize, 1);
        if result == PublishResult::Accepted {
            self.published_bytes.add(0, bytes as u64);
        }
    }

    /// A publish request was answered.
    pub fn publish_request(&self, status: u16) {
        self.publish_requests.add(status_class(status), 1);
    }

    /// A request of a client was answered by a route.
    pub fn http_request(&self, route: &str, status: u16) {
        self.routes.of(route, &self.metrics.totals.routes).add(status_class(status), 1);
    }

    /// A request to an upstream ended, this long after it began.
    pub fn upstream_request(&self, upstream: &str, result: UpstreamResult, seconds: f64) {
        let totals = self.upstreams.of(upstream, &self.metrics.totals.upstreams);
        totals.results.add(result as usize, 1);
        // A cast from f64 saturates: nonsense becomes 0 or the last bucket.
        totals.duration.observe((seconds * 1e6) as u64);
    }

    /// Brings the worker's counts into the registry; called about every quarter of a second.
    pub fn flush(&self) {
        let totals = &self.metrics.totals;
        for (transport, sessions) in totals.sessions.iter().enumerate() {
            let closed = (0..CloseReason::ALL.len()).map(|reason| transport * CloseReason::ALL.len() + reason);
            let closed: u64 = closed.map(|index| self.closed.get(index)).sum();
            let change = self.opened.get(transport) as i64 - closed as i64;
            if change != 0 {
                sessions.fetch_add(change, Relaxed);
            }
        }
        self.refusals.flush(&totals.refusals);
        self.opened.flush(&totals.opened);
        self.closed.flush(&totals.closed);
        self.delivered_bytes.flush(&totals.delivered_bytes);
        for (local, total) in self.delivery.iter().zip(&totals.delivery) {
            local.flush(total);
        }
        self.fan_out.flush(&totals.fan_out);
        self.gaps.flush(&totals.gaps);
        self.conflated.flush(&totals.conflated);
        self.kept.flush(&totals.kept);
        self.comebacks.flush(&totals.comebacks);
        self.bridge_ignored.flush(&totals.bridge_ignored);
        self.grip_pages.flush(&totals.grip.pages);
        self.grip_refused.flush(&totals.grip.refused);
        self.grip_dropped.flush(&totals.grip.dropped);
        self.published.flush(&totals.published);
        self.published_bytes.flush(&totals.published_bytes);
        self.publish_requests.flush(&totals.publish_requests);
    }
}

impl Drop for WorkerMetrics {
    /// The last counts of a worker that ends are not lost.
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").finish_non_exhaustive()
    }
}

/// Counts a connection as open until dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    listener: Arc<ListenerTotals>,
    protocol: usize,
}

impl ConnectionGuard {
    fn new(listener: Arc<ListenerTotals>, protocol: usize) -> Self {
        debug_assert!(protocol < PROTOCOLS.len());
        let guard = Self { listener, protocol };
        guard.add(1);
        guard
    }

    fn add(&self, change: i64) {
        if let Some(open) = self.listener.open.get(self.protocol) {
            open.fetch_add(change, Relaxed);
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.add(-1);
    }
}

/// One worker's counts over a closed set of `N` label values.
struct LocalCounts<const N: usize>([Cell<u64>; N]);

impl<const N: usize> Default for LocalCounts<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Cell::new(0)))
    }
}

impl<const N: usize> LocalCounts<N> {
    #[inline]
    fn add(&self, index: usize, n: u64) {
        if let Some(count) = self.0.get(index) {
            count.set(count.get().wrapping_add(n));
        }
    }

    fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, Cell::get)
    }

    fn flush(&self, total: &Counts<N>) {
        for (index, count) in self.0.iter().enumerate() {
            let count = count.take();
            if count != 0 {
                total.add(index, count);
            }
        }
    }
}

/// The named totals that this worker has used, so that it takes the shared lock once for each name.
struct Cache<T>(RefCell<NameMap<Box<str>, Arc<T>>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Default> Cache<T> {
    fn of(&self, name: &str, named: &Named<T>) -> Arc<T> {
        let mut cached = self.0.borrow_mut();
        if let Some(totals) = cached.get(name) {
            return Arc::clone(totals);
        }
        let name = if cached.len() < NAMES_MAX { name } else { OTHER };
        Arc::clone(cached.entry(name.into()).or_insert_with(|| named.of(name)))
    }
}
