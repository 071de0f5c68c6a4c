//! The client of the backends: picks a server, keeps connections, bounds every wait.
//!
//! One [`Upstreams`] a worker; nothing is shared between workers. It carries requests and responses as they are: which
//! fields a proxy takes out or adds is the gateway's business, what a failure means for a client is too.

mod balance;
mod connect;
mod download;
#[cfg(feature = "kube")]
mod endpoint_slices;
mod error;
mod exchange;
mod http1;
mod lease;
mod names;
mod outgoing;
mod pool;
mod roster;
mod sending;
pub mod settings;
pub mod signature;
mod upgrade;
mod upload;

#[cfg(test)]
mod tests;

pub use error::UpstreamError;
pub use upgrade::{Upgraded, UpstreamIo};

use crate::model::name_map::NameMap;
use crate::server::{Request, Response};
use crate::telemetry::metrics::{UpstreamResult, WorkerMetrics};
use download::response;
use exchange::{Answered, Outgoing, exchange};
use names::Names;
use roster::Roster;
use settings::{UpstreamProtocol, UpstreamSettings};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// A worker's connections to all upstreams.
///
/// Upstreams are known by name and follow the settings that come with a request, so that a reload needs no call: servers
/// that stay keep their connections, and requests under way keep the settings that they began with.
pub struct Upstreams {
    metrics: Rc<WorkerMetrics>,
    names: Rc<Names>,
    by_name: RefCell<NameMap<Arc<str>, Rc<Backend>>>,
}

/// One upstream, as of one configuration.
struct Backend {
    settings: Arc<UpstreamSettings>,
    roster: Rc<Roster>,
    turn: Cell<usize>,
}

impl Upstreams {
    /// Without connections yet.
    pub fn new(metrics: Rc<WorkerMetrics>) -> Self {
        Self::with_names(metrics, Names::of_the_system())
    }

    fn with_names(metrics: Rc<WorkerMetrics>, names: Names) -> Self {
        Self { metrics, names: Rc::new(names), by_name: RefCell::default() }
    }

    /// Sends a request and waits for the head of the response; its body streams.
    ///
    /// The request has its final fields, except those of framing: the body's size rules. Its target's path and query are
    /// sent, and its `Host`, or the server's own address if it has none. What surely was not processed is tried again,
    /// up to `retry_attempts_max` times. Cancel-safe: dropping the future, or later the response's body, closes the
    /// HTTP/1.1 connection or resets the HTTP/2 stream.
    ///
    /// # Errors
    /// When there is no response.
    pub fn send(
        &self,
        upstream: &Arc<UpstreamSettings>,
        request: Request,
    ) -> impl Future<Output = Result<Response, UpstreamError>> {
        let request = Outgoing::new(request);
        async move {
            let (mut count, answered) = self.answered(upstream, request).await?;
            if answered.head.status == http::StatusCode::SWITCHING_PROTOCOLS {
                count.result = UpstreamResult::Broken;
                return Err(unasked(upstream, &answered));
            }
            count.note(answered.head.status);
            Ok(response(answered))
        }
    }

    /// Sends an upgrade request, with its `Connection: upgrade` and `Upgrade`, and takes the connection over if the
    /// server switches protocols (RFC 9110 §7.8). The request's body must be empty. Cancel-safe like [`Self::send`].
    ///
    /// # Errors
    /// When there is no response, or the upstream speaks HTTP/2.
    pub async fn upgrade(&self, upstream: &Arc<UpstreamSettings>, request: Request) -> Result<Upgraded, UpstreamError> {
        if upstream.protocol == UpstreamProtocol::H2 {
            return Err(UpstreamError::NoUpgrade { upstream: Arc::clone(&upstream.name) });
        }
        let (mut count, answered) = self.answered(upstream, Outgoing::new(request)).await?;
        count.note(answered.head.status);
        if answered.head.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Upgraded::Answered(response(answered)));
        }
        let error = unasked(upstream, &answered);
        let Answered { mut head, lease, .. } = answered;
        let Some(io) = UpstreamIo::take(lease) else {
            count.result = UpstreamResult::Broken;
            return Err(error);
        };
        head.extensions.clear();
        Ok(Upgraded::Switched { head: http::Response::from_parts(head, ()), io })
    }

    /// Closes the idle connections of upstreams that are not among `current`; for after a reload.
    pub fn keep_only(&self, current: &[Arc<UpstreamSettings>]) {
        self.by_name.borrow_mut().retain(|name, _| current.iter().any(|settings| settings.name == *name));
    }

    async fn answered(
        &self,
        upstream: &Arc<UpstreamSettings>,
        request: Outgoing,
    ) -> Result<(Count, Answered), UpstreamError> {
        let backend = self.backend(upstream);
        let mut count = Count::start(&self.metrics, &upstream.name);
        let turn = backend.turn.replace(backend.turn.get().wrapping_add(1));
        let servers = backend.roster.current(backend.settings.connect_timeout).await;
        // Boxed: the future is large, and many callers hold it for long.
        match Box::pin(exchange(&backend.settings, &servers, turn, request)).await {
            Ok(answered) => Ok((count, answered)),
            Err(error) => {
                count.result = error.result();
                Err(error)
            }
        }
    }

    /// The upstream under these settings; servers that it had before keep their connections.
    fn backend(&self, settings: &Arc<UpstreamSettings>) -> Rc<Backend> {
        let mut by_name = self.by_name.borrow_mut();
        let known = by_name.get(&settings.name);
        if let Some(backend) = known.filter(|backend| Arc::ptr_eq(&backend.settings, settings)) {
            return Rc::clone(backend);
        }
        let before = known.filter(|backend| backend.settings.protocol == settings.protocol);
        let roster = Roster::new(&settings.servers, &self.names, before.map(|backend| &*backend.roster));
        let turn = Cell::new(before.map_or(0, |backend| backend.turn.get()));
        let backend = Rc::new(Backend { settings: Arc::clone(settings), roster, turn });
        by_name.insert(Arc::clone(&settings.name), Rc::clone(&backend));
        backend
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("names", &self.by_name.borrow().len()).finish_non_exhaustive()
    }
}

fn unasked(upstream: &Arc<UpstreamSettings>, answered: &Answered) -> UpstreamError {
    UpstreamError::BadResponse {
        upstream: Arc::clone(&upstream.name),
        server: answered.lease.address().clone(),
        what: "it switched protocols where it may not",
    }
}

/// Counts one request when it ends: at the response's head, at the failure, or when the client leaves before.
struct Count {
    metrics: Rc<WorkerMetrics>,
    upstream: Arc<str>,
    started: Instant,
    result: UpstreamResult,
}

impl Count {
    fn start(metrics: &Rc<WorkerMetrics>, upstream: &Arc<str>) -> Self {
        Self {
            metrics: Rc::clone(metrics),
            upstream: Arc::clone(upstream),
            started: Instant::now(),
            result: UpstreamResult::Canceled,
        }
    }

    fn note(&mut self, status: http::StatusCode) {
        self.result = if status.is_server_error() { UpstreamResult::ServerError } else { UpstreamResult::Ok };
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.metrics.upstream_request(&self.upstream, self.result, self.started.elapsed().as_secs_f64());
    }
}
