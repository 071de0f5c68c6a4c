//! Why an upstream gave no response. Texts name the upstream and the server, never what was sent.

use crate::server::body::BodyError;
use crate::telemetry::metrics::UpstreamResult;
use crate::upstream::settings::ServerAddress;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no response, or no switched protocol.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream lists no server.
    #[error("upstream {upstream}: it has no server; list one under `servers`")]
    NoServer {
        /// The upstream's name.
        upstream: Arc<str>,
    },
    /// The server's name has no address.
    #[error("upstream {upstream}: the name of {server} can't be resolved: {source}")]
    Dns {
        /// The upstream's name.
        upstream: Arc<str>,
        /// The server that was tried last.
        server: ServerAddress,
        /// What the resolver said.
        source: io::Error,
    },
    /// Refused, unreachable, or ended before a request was taken.
    #[error("upstream {upstream}: {server} can't be reached: {source}")]
    Connect {
        /// The upstream's name.
        upstream: Arc<str>,
        /// The server that was tried last.
        server: ServerAddress,
        /// What the system said.
        source: io::Error,
    },
    /// No connection in time.
    #[error("upstream {upstream}: {server} took no connection within {limit:?} (`timeouts.connect`)")]
    ConnectTimeout {
        /// The upstream's name.
        upstream: Arc<str>,
        /// The server that was tried last.
        server: ServerAddress,
        /// The limit.
        limit: Duration,
    },
    /// No response head in time, or the request was not taken in time.
    #[error("upstream {upstream}: {server} did not answer within {limit:?} (`timeouts.response`)")]
    ResponseTimeout {
        /// The upstream's name.
        upstream: Arc<str>,
        /// The server that has the request.
        server: ServerAddress,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke before the response head, or what came is not HTTP.
    #[error("upstream {upstream}: {server} broke the exchange: {}", causes(.source))]
    Broken {
        /// The upstream's name.
        upstream: Arc<str>,
        /// The server that has the request.
        server: ServerAddress,
        /// What was seen.
        source: BodyError,
    },
    /// It is HTTP, but not an answer to this request.
    #[error("upstream {upstream}: {server} answered wrongly: {what}")]
    BadResponse {
        /// The upstream's name.
        upstream: Arc<str>,
        /// The server that has the request.
        server: ServerAddress,
        /// What is wrong.
        what: &'static str,
    },
    /// It switched protocols, but not to what was asked, or accepted without switching.
    #[error("upstream {upstream}: its answer to an upgrade is wrong: {what}")]
    BadUpgrade {
        /// The upstream's name.
        upstream: Arc<str>,
        /// What is wrong.
        what: &'static str,
    },
    /// The upstream is configured to speak HTTP/2, where no upgrade exists.
    #[error("upstream {upstream}: no upgrades over `protocol: h2`; set `protocol: http/1.1`")]
    NoUpgrade {
        /// The upstream's name.
        upstream: Arc<str>,
    },
    /// The client broke its request body off.
    #[error("upstream {upstream}: the client broke off its request body")]
    RequestBroken {
        /// The upstream's name.
        upstream: Arc<str>,
    },
    /// The client stopped sending its request body.
    #[error("upstream {upstream}: the client sent nothing of its request body for {limit:?}")]
    RequestStalled {
        /// The upstream's name.
        upstream: Arc<str>,
        /// The limit.
        limit: Duration,
    },
    /// The request has a `Host` that can't be an authority.
    #[error("upstream {upstream}: the request's host can't be sent on")]
    BadHost {
        /// The upstream's name.
        upstream: Arc<str>,
    },
}

impl UpstreamError {
    /// The upstream's name.
    pub fn upstream(&self) -> &Arc<str> {
        match self {
            Self::NoServer { upstream }
            | Self::Dns { upstream, .. }
            | Self::Connect { upstream, .. }
            | Self::ConnectTimeout { upstream, .. }
            | Self::ResponseTimeout { upstream, .. }
            | Self::Broken { upstream, .. }
            | Self::BadResponse { upstream, .. }
            | Self::BadUpgrade { upstream, .. }
            | Self::NoUpgrade { upstream }
            | Self::RequestBroken { upstream }
            | Self::RequestStalled { upstream, .. }
            | Self::BadHost { upstream } => upstream,
        }
    }

    /// How it is counted.
    pub(super) fn result(&self) -> UpstreamResult {
        match self {
            Self::NoServer { .. } | Self::Dns { .. } | Self::Connect { .. } | Self::ConnectTimeout { .. } => {
                UpstreamResult::ConnectFailed
            }
            Self::ResponseTimeout { .. } => UpstreamResult::Timeout,
            Self::Broken { .. } | Self::BadResponse { .. } | Self::BadUpgrade { .. } | Self::NoUpgrade { .. } => {
                UpstreamResult::Broken
            }
            Self::RequestBroken { .. } | Self::RequestStalled { .. } | Self::BadHost { .. } => UpstreamResult::Canceled,
        }
    }
}

/// An error with all that caused it.
fn causes(error: &BodyError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}
