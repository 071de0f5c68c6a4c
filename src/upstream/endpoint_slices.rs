//! From a Service of Kubernetes to the addresses of its pods, by its EndpointSlices. Knows nothing of servers.
//!
//! A worker watches each Service that its requests need, over a connection of its own, and ends the watch when nobody has
//! asked for a while. What was seen last holds while the API server can't be reached.
//!
//! ```text
//! look ─▶ Cluster ─ none yet? ─▶ watch::follow ─▶ list, then watch ─▶ Slices ─▶ sockets
//!            └──────────────────── what was seen last ◀──────────────────────────┘
//! ```

mod api_server;
mod slices;
#[cfg(test)]
mod tests;
mod watch;

use crate::upstream::names::{Found, LookError};
use crate::upstream::settings::ServerAddress;
use api_server::ApiServer;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::{Receiver, channel};
use tokio::time::Instant;

/// How long what was seen holds: the next look is no more than a glance at the watch.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Between two watches of a Service; longer after failures.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The addresses that a watch has seen; none before its first list.
type Seen = Option<Rc<[SocketAddr]>>;

/// A port of a Service: `shop.web:http` is `http` of `shop` in the namespace `web`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ServiceName {
    service: String,
    namespace: String,
    /// The name of a port, or its number in the pods.
    port: String,
}

/// A worker's way to the cluster that its pod is in.
pub(super) struct Cluster {
    server: Option<Rc<ApiServer>>,
    pause_min: Duration,
    watches: RefCell<HashMap<Arc<str>, Watch>>,
}

struct Watch {
    seen: Receiver<Seen>,
    last_look: Rc<Cell<Instant>>,
}

impl Cluster {
    /// As the environment of a pod says; outside of one every look fails.
    pub(super) fn of_the_pod() -> Self {
        Self::new(ApiServer::of_the_pod(), PAUSE_MIN)
    }

    fn new(server: Option<ApiServer>, pause_min: Duration) -> Self {
        Self { server: server.map(Rc::new), pause_min, watches: RefCell::default() }
    }

    /// Whether the Service's pods are known here, rather than by the DNS.
    pub(super) fn knows(address: &ServerAddress) -> bool {
        ServiceName::of(address).is_some()
    }

    /// The addresses of a Service's pods; the first look waits for the first list, without end. Cancel-safe.
    ///
    /// # Errors
    /// When this is no pod.
    pub(super) async fn look(&self, address: &ServerAddress) -> Result<Found, LookError> {
        let name = ServiceName::of(address).ok_or(LookError::NoName)?;
        let server = self.server.as_ref().ok_or(LookError::NoCluster)?;
        let mut seen = self.seen(&address.host, name, server);
        let seen = seen.wait_for(Option::is_some).await.map_err(|_| LookError::NoCluster)?;
        let sockets = seen.as_deref().unwrap_or_default().to_vec();
        Ok(Found { sockets, ttl: LOOK_AGAIN_AFTER })
    }

    /// What the watch of a Service sees; begins one if there is none.
    fn seen(&self, text: &Arc<str>, name: ServiceName, server: &Rc<ApiServer>) -> Receiver<Seen> {
        let mut watches = self.watches.borrow_mut();
        // Those that have ended by themselves.
        watches.retain(|_, watch| watch.seen.has_changed().is_ok());
        let watch = watches.entry(Arc::clone(text)).or_insert_with(|| {
            let (tell, seen) = channel(None);
            let last_look = Rc::new(Cell::new(Instant::now()));
            let follow = watch::follow(Rc::clone(server), name, tell, Rc::clone(&last_look), self.pause_min);
            tokio::task::spawn_local(follow);
            Watch { seen, last_look }
        });
        watch.last_look.set(Instant::now());
        watch.seen.clone()
    }
}

impl ServiceName {
    fn of(address: &ServerAddress) -> Option<Self> {
        let (name, port) = address.host.split_once(':').filter(|_| address.is_service())?;
        let (service, namespace) = name.split_once('.')?;
        Some(Self { service: service.into(), namespace: namespace.into(), port: port.into() })
    }
}
