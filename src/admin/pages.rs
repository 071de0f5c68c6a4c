//! The pages for machines: metrics, probes and the configuration.

use crate::server::Response;
use crate::server::body::Body;
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::readiness::Status;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// A page: never cached, never guessed at, never part of another site's page.
pub(super) fn page(status: StatusCode, media_type: &'static str, text: String) -> Response {
    let mut response = http::Response::new(Body::full(text));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// All metrics as text.
pub(super) fn metrics(metrics: &Metrics) -> Response {
    page(StatusCode::OK, metrics::MEDIA_TYPE, metrics.render())
}

/// A probe's answer.
#[derive(Serialize)]
struct Probe<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Whoever reads this knows that the process turns over.
pub(super) fn live() -> Response {
    probe(StatusCode::OK, &Probe { status: "alive", waiting_for: None, reason: None })
}

/// 200 while new clients may come, else 503.
pub(super) fn ready(status: &Status) -> Response {
    let (waiting_for, reason) = match status {
        Status::Starting { waiting_for } => (Some(waiting_for.as_slice()), None),
        Status::Degraded { reason } => (None, Some(reason.as_str())),
        Status::Ready | Status::Draining => (None, None),
    };
    let code = if status.takes_clients() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    probe(code, &Probe { status: status.as_str(), waiting_for, reason })
}

/// The running configuration, secrets masked (RFC 9512 names the type).
pub(super) fn config(text: &str) -> Response {
    page(StatusCode::OK, "application/yaml", text.to_owned())
}

fn probe(code: StatusCode, probe: &Probe<'_>) -> Response {
    // Texts alone always make JSON; were it not so, the code would still tell.
    page(code, "application/json", serde_json::to_string(probe).unwrap_or_default())
}
