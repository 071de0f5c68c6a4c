//! The checked `upstreams` section.

use crate::upstream::signature::Key;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A named backend: one or more servers that answer alike.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Its name in routes, logs and metrics.
    pub name: Arc<str>,
    /// Where it listens: `http://host:port`, `http+srv://name`, or `http+kube://service.namespace:port`.
    pub servers: Vec<ServerAddress>,
    /// Which server gets the next request.
    pub balance: Balance,
    /// What it speaks.
    pub protocol: UpstreamProtocol,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the response.
    pub response_timeout: Duration,
    /// How often a request that surely was not processed is tried again.
    pub retry_attempts_max: u32,
    /// How it is told that GRIP is spoken.
    pub grip: Option<Arc<GripUpstream>>,
}

/// What a backend that speaks GRIP is told.
#[derive(Debug, Clone)]
pub struct GripUpstream {
    /// Who signs: the `iss` of `Grip-Sig`.
    pub issuer: Box<str>,
    /// What `Grip-Sig` is signed with; without it nothing is signed.
    pub key: Option<Key>,
    /// How long ids of published items are remembered.
    pub id_cache: Duration,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// A host name or an IP address, or the name of a service: `_http._tcp.name`, or `service.namespace:port` of Kubernetes.
    pub host: Arc<str>,
    /// The TCP port; 0 for a service, whose SRV records (RFC 2782) or EndpointSlices have hosts and ports.
    pub port: u16,
}

impl ServerAddress {
    /// Whether it names a service.
    pub fn is_service(&self) -> bool {
        self.port == 0
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_service() {
            return f.write_str(&self.host);
        }
        let bare = self.host.contains(':') && !self.host.starts_with('[');
        let (open, close) = if bare { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// How the next server is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests under way from this worker.
    LeastRequests,
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    H2,
}
