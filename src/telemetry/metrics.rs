//! Every metric of the process, and each worker's cheap handles to them.

use crate::model::session::{CloseReason, GapReason, Transport};
use crate::proto::websocket_over_http::Ignored;
use std::rc::Rc;
use std::sync::Arc;

/// All metrics of one process, in a registry of their own.
#[derive(Debug)]
pub struct Metrics {}

/// A worker's handles: counts are kept in the worker and flushed by [`WorkerMetrics::flush`].
#[derive(Debug)]
pub struct WorkerMetrics {}

/// Why something was turned away before it became a request or a session. A closed set of label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `limits.connections`.
    Connections,
    /// `limits.connections_per_ip`.
    ConnectionsPerIp,
    /// The TLS handshake failed or took too long.
    TlsHandshake,
    /// No whole request head in time.
    HeaderTimeout,
    /// Not HTTP, or a head over the limit, or a smuggling shape.
    BadRequest,
    /// No route.
    NoRoute,
    /// 405, 406 or a bad parameter, cursor or origin on a push route.
    BadSubscribe,
    /// Authentication on any listener.
    Auth,
    /// Too many subscriptions or channels.
    Subscriptions,
    /// A body or message over its limit.
    TooLarge,
    /// A publish that was malformed.
    BadPublish,
    /// A webhook that did not verify.
    WebhookSignature,
}

impl Metrics {
    /// Fresh metrics at zero.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {})
    }

    /// Handles for one worker.
    pub fn worker(self: &Arc<Self>) -> Rc<WorkerMetrics> {
        Rc::new(WorkerMetrics {})
    }
}

impl WorkerMetrics {
    /// A connection stands; the guard's drop ends it.
    pub fn connection_opened(self: &Rc<Self>, _listener: &str, _protocol: &'static str) -> ConnectionGuard {
        ConnectionGuard {}
    }

    /// Counts something turned away.
    pub fn refused(&self, _reason: Refusal) {}

    /// A session stands.
    pub fn session_opened(&self, _transport: Transport) {}

    /// A session ended.
    pub fn session_closed(&self, _transport: Transport, _reason: CloseReason) {}

    /// A message was handed to a client's link, this long after it was published.
    pub fn delivered(&self, _transport: Transport, _bytes: usize, _latency_us: u64) {}

    /// The worker began to wake the sessions of a message, this long after it was published.
    pub fn fanned_out(&self, _lag_us: u64) {}

    /// A gap was announced.
    pub fn gap(&self, _reason: GapReason) {}

    /// The backend of a bridged WebSocket said something that was passed over.
    pub fn bridge_ignored(&self, _what: Ignored) {}

    /// Messages that conflation left out.
    pub fn conflated(&self, _messages: u64) {}

    /// A message was published (`duplicate`: not again), or refused by the bus.
    pub fn published(&self, _result: PublishResult, _bytes: usize) {}

    /// A publish request was answered.
    pub fn publish_request(&self, _status: u16) {}

    /// A request of a client was answered by a route.
    pub fn http_request(&self, _route: &str, _status: u16) {}

    /// A request to an upstream ended.
    pub fn upstream_request(&self, _upstream: &str, _result: UpstreamResult, _seconds: f64) {}

    /// Brings the worker's counts into the registry; called about every quarter of a second.
    pub fn flush(&self) {}
}

/// Counts a connection as open until dropped.
#[derive(Debug)]
pub struct ConnectionGuard {}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishResult {
    /// It has a position.
    Accepted,
    /// Its id was known.
    Duplicate,
    /// `If-Match` failed.
    Moved,
    /// The bus can't take it.
    Unavailable,
}

/// What became of an upstream request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamResult {
    /// A response with a status below 500.
    Ok,
    /// A response with a status of 500 or more.
    ServerError,
    /// No connection.
    ConnectFailed,
    /// No response head in time.
    Timeout,
    /// The connection broke, or the response was malformed.
    Broken,
    /// The client went first.
    Canceled,
}
