//! What clients see of a failed upstream: its name, never the addresses behind it.

use crate::proto::problem::Problem;
use crate::server::Response;
use crate::server::problem::response;
use crate::server::request_id::RequestId;
use crate::upstream::UpstreamError;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

/// When a client may ask again for what no server could take, in seconds.
const RETRY_AFTER_SECS: u32 = 1;

/// The answer when an upstream gave none (RFC 9110 §15.6): 502 it broke the exchange, 503 it can't be reached, 504 it
/// took too long; 400 and 408 where the client's own body was the cause. The error's full text goes to the log.
pub fn upstream_failed(error: &UpstreamError, request_id: RequestId) -> Response {
    let (status, what) = verdict(error);
    let upstream = &**error.upstream();
    if status.is_server_error() {
        tracing::warn!(upstream, request.id = %request_id, %error, "upstream request failed");
    } else {
        tracing::debug!(upstream, request.id = %request_id, %error, "upstream request ended by its client");
    }
    let problem = Problem::new(status, format!("upstream {upstream}: {what}")).with("upstream", upstream);
    let mut response = response(&problem, request_id);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
    }
    response
}

/// The status of a failure.
pub fn status(error: &UpstreamError) -> StatusCode {
    verdict(error).0
}

fn verdict(error: &UpstreamError) -> (StatusCode, &'static str) {
    use UpstreamError as E;
    match error {
        E::Broken { .. } => (StatusCode::BAD_GATEWAY, "the connection broke or the answer was no HTTP; see its log"),
        E::BadResponse { .. } | E::BadUpgrade { .. } => (StatusCode::BAD_GATEWAY, "its answer was wrong; see our log"),
        E::NoServer { .. } => (StatusCode::SERVICE_UNAVAILABLE, "it has no server"),
        E::Dns { .. } => (StatusCode::SERVICE_UNAVAILABLE, "its name can't be resolved; try again later"),
        E::Connect { .. } => (StatusCode::SERVICE_UNAVAILABLE, "none of its servers can be reached; try again later"),
        E::ConnectTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "it took no connection in time"),
        E::ResponseTimeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "it did not answer in time"),
        E::NoUpgrade { .. } => (StatusCode::NOT_IMPLEMENTED, "it takes no WebSockets and no other upgrades"),
        E::RequestBroken { .. } => (StatusCode::BAD_REQUEST, "the request body broke off"),
        E::RequestStalled { .. } => (StatusCode::REQUEST_TIMEOUT, "the request body stopped coming"),
        E::BadHost { .. } => (StatusCode::BAD_REQUEST, "the request's host can't be sent on"),
    }
}

/// The answer to an extended CONNECT for anything but a WebSocket (RFC 8441 §4).
pub fn protocol_unknown(request_id: RequestId) -> Response {
    response(&Problem::new(StatusCode::NOT_IMPLEMENTED, "the only `:protocol` served is `websocket`"), request_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::settings::ServerAddress;
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    #[track_caller]
    fn check(error: UpstreamError, status: u16) {
        let response = upstream_failed(&error, RequestId::next());
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let body = runtime.block_on(crate::server::body::read_whole(response.into_body(), 4096)).expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert!(text.contains("\"upstream\":\"shop\"") && !text.contains("10.9.8.7"), "{text}");
    }

    #[test]
    fn failures_of_upstreams_are_told_apart_without_addresses() {
        let upstream: Arc<str> = "shop".into();
        let server = ServerAddress { host: "10.9.8.7".into(), port: 3000 };
        let limit = Duration::from_secs(1);
        let source = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let name = || (Arc::clone(&upstream), server.clone());
        let (u, s) = name();
        check(UpstreamError::Connect { upstream: u, server: s, source: source() }, 503);
        let (u, s) = name();
        check(UpstreamError::Dns { upstream: u, server: s, source: source() }, 503);
        check(UpstreamError::NoServer { upstream: name().0 }, 503);
        let (u, s) = name();
        check(UpstreamError::ConnectTimeout { upstream: u, server: s, limit }, 504);
        let (u, s) = name();
        check(UpstreamError::ResponseTimeout { upstream: u, server: s, limit }, 504);
        let (u, s) = name();
        check(UpstreamError::BadResponse { upstream: u, server: s, what: "it" }, 502);
        check(UpstreamError::BadUpgrade { upstream: name().0, what: "it" }, 502);
        check(UpstreamError::NoUpgrade { upstream: name().0 }, 501);
        check(UpstreamError::RequestBroken { upstream: name().0 }, 400);
        check(UpstreamError::RequestStalled { upstream: name().0, limit }, 408);
    }
}
