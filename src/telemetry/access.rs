//! The access log: one line for each request or session, at its end.
//!
//! A line never has the query, a payload or a header field: tokens travel in them.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

/// The target of access lines, for filters.
pub const TARGET: &str = "pushbridge::access";

/// The most of a path that is logged, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// What a line says.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// Whom the request came from: the client, as far as trusted proxies tell.
    pub client: SocketAddr,
    /// The request's method.
    pub method: &'a http::Method,
    /// The request's target; all from the first `?` on is left out.
    pub path: &'a str,
    /// The route's name, if one was found.
    pub route: Option<&'a str>,
    /// The response's status; `None` if the client went before there was one.
    pub status: Option<u16>,
    /// Bytes of the response's body, if they were counted.
    pub bytes: Option<u64>,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// The request's id.
    pub request_id: &'a dyn Display,
    /// `http/1.1` or `h2`.
    pub protocol: &'a str,
}

impl Line<'_> {
    /// Writes the line, if the access log is on; else it costs one look at a flag.
    pub fn emit(&self) {
        tracing::info!(
            target: TARGET,
            {
                client.addr = %self.client,
                method = self.method.as_str(),
                path = loggable(self.path),
                route = self.route,
                status = self.status,
                bytes = self.bytes,
                duration_ms = self.duration.as_secs_f64() * 1000.0,
                request_id = %self.request_id,
                protocol = self.protocol,
            },
            "request"
        );
    }

    /// Whether lines are written at all, for callers that would have to prepare one.
    pub fn enabled() -> bool {
        tracing::enabled!(target: TARGET, tracing::Level::INFO)
    }
}

/// The path without its query, cut to [`PATH_BYTES_MAX`] at a character's border.
fn loggable(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.get(..path.floor_char_boundary(PATH_BYTES_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_loses_its_query_and_its_length() {
        assert_eq!(loggable("/prices/a?token=secret"), "/prices/a");
        assert_eq!(loggable("?token=secret"), "");
        let long = format!("/{}é", "x".repeat(PATH_BYTES_MAX - 2));
        assert_eq!(loggable(&long).len(), PATH_BYTES_MAX - 1);
    }
}
