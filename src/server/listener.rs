//! Where clients connect: the checked listener and its accept loop.

use crate::server::tls::TlsSettings;
use std::net::SocketAddr;
use std::sync::Arc;

/// A checked listener.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocols: Protocols,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// TLS, or cleartext.
    pub tls: Option<Arc<TlsSettings>>,
}

/// The HTTP versions of a listener, in the order they are offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocols(pub Vec<Protocol>);

/// An HTTP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 (RFC 9113), ALPN `h2`.
    H2,
    /// HTTP/1.1 (RFC 9112), ALPN `http/1.1`.
    Http1,
}
