//! Answers: what was published, or the one place that turns what went wrong into a status and a problem document.

use crate::bus::BusError;
use crate::model::channel::ChannelName;
use crate::model::position::Position;
use crate::proto::decimal::push_decimal;
use crate::proto::events::EventError;
use crate::proto::grip::items::ItemsError;
use crate::proto::json::push_string;
use crate::proto::problem::Problem;
use crate::proto::webhook::FillError;
use crate::publish::auth::Credential;
use crate::publish::condition::ConditionError;
use crate::publish::media;
use crate::publish::send::Outcome;
use crate::publish::webhook::VerifyError;
use crate::server::body::Body;
use crate::server::request_id::RequestId;
use crate::server::{Response, problem};
use crate::telemetry::metrics::{Refusal, WorkerMetrics};
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, StatusCode};
use std::fmt::Write;
use std::time::Duration;

/// How long a publisher is asked to wait when the bus is down, in seconds.
const RETRY_AFTER_SECS: &str = "1";

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    /// Nothing is at the path.
    #[error("nothing is at {0:?}; POST events to /v1/events, webhooks to a path of publish.webhooks")]
    NotFound(String),
    /// Another method.
    #[error("only {} here", allow(.0).replace(", ", " and "))]
    Method(&'static [Method]),
    /// Another media type.
    #[error("{} not taken; give one of {}, or a CloudEvent in binary mode (ce-specversion), all in UTF-8", content_type(.0), media::TAKEN)]
    MediaType(String),
    /// A webhook that is not JSON.
    #[error(
        "a webhook that is not verified must have Content-Type: application/json, which web pages can't send unasked"
    )]
    WebhookMediaType,
    /// A compressed body.
    #[error("compressed bodies are not taken; send it without Content-Encoding")]
    Coding,
    /// No credential, or none that is accepted.
    #[error("{}", credential(.0))]
    Unauthorized(Credential),
    /// A webhook that did not verify.
    #[error("the webhook did not verify: {0}")]
    Verify(#[from] VerifyError),
    /// `publish.max_body`.
    #[error(
        "the body is over {0} bytes (publish.max_body); send several requests, or stream it as application/x-ndjson"
    )]
    BodyTooLarge(usize),
    /// A line over `publish.max_body`.
    #[error("the line is over {0} bytes (publish.max_body)")]
    LineTooLarge(usize),
    /// `channels[].max_message`.
    #[error("{}{bytes} bytes of data are over the {bytes_max} that {channel:?} takes (channels[].max_message)", event(.index))]
    MessageTooLarge {
        /// Which event of several.
        index: Option<usize>,
        /// The channel that does not take it.
        channel: ChannelName,
        /// The size of its data.
        bytes: usize,
        /// What the channel takes.
        bytes_max: usize,
    },
    /// No progress of the body.
    #[error("nothing more of the body came for {} s", .0.as_secs_f32())]
    BodyStalled(Duration),
    /// The body broke off.
    #[error("the body broke off: {0}")]
    BodyBroken(String),
    /// An event that can't be used.
    #[error(transparent)]
    Event(#[from] EventError),
    /// GRIP items that can't be used.
    #[error(transparent)]
    Items(#[from] ItemsError),
    /// A web page's form.
    #[error("a request with Origin must have Content-Type: application/json, which web pages can't send unasked")]
    FormOfPage,
    /// A webhook that the templates don't fit.
    #[error("webhook {field}: {error}")]
    Fill {
        /// Which template.
        field: &'static str,
        /// Why.
        error: FillError,
    },
    /// An `If-Match` that can't be used.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// A path that names no channel.
    #[error("no channel has this name: {0}; percent-encode it as one segment")]
    Channel(String),
    /// A `limit` out of range.
    #[error("limit has to be a number of 1 to {0}")]
    Limit(usize),
    /// The bus can't tell of a channel.
    #[error("{0}; ask again soon")]
    Undescribed(BusError),
    /// The channel has moved.
    #[error("the channel has moved; \"position\" is where it is now: look at what is new, then try again with it")]
    Moved(Option<Position>),
    /// The bus can't publish on condition at all.
    #[error(transparent)]
    NoConditions(BusError),
    /// The bus did not take it, or not all.
    #[error("{cause}; try again soon, with the same ids{}", if .accepted.is_empty() { "" } else { " (\"results\" are published)" })]
    Unavailable {
        /// Why.
        cause: BusError,
        /// What was published before.
        accepted: Vec<Outcome>,
    },
}

impl PublishError {
    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::MediaType(_) | Self::WebhookMediaType | Self::FormOfPage | Self::Coding => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Unauthorized(_) | Self::Verify(_) => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge(_) | Self::LineTooLarge(_) | Self::MessageTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::BodyStalled(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken(_)
            | Self::Event(_)
            | Self::Items(_)
            | Self::Fill { .. }
            | Self::Condition(_)
            | Self::Channel(_)
            | Self::Limit(_) => StatusCode::BAD_REQUEST,
            Self::Moved(_) => StatusCode::PRECONDITION_FAILED,
            Self::NoConditions(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable { .. } | Self::Undescribed(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Counts it by its reason. What reached the bus is counted there.
    pub(super) fn count(&self, metrics: &WorkerMetrics) {
        metrics.refused(match self {
            Self::NotFound(_) => Refusal::NoRoute,
            Self::Unauthorized(_) => Refusal::Auth,
            Self::Verify(_) => Refusal::WebhookSignature,
            Self::BodyTooLarge(_) | Self::LineTooLarge(_) | Self::MessageTooLarge { .. } => Refusal::TooLarge,
            Self::Moved(_) | Self::Unavailable { .. } | Self::Undescribed(_) => return,
            Self::Channel(_) | Self::Limit(_) => Refusal::BadRequest,
            _ => Refusal::BadPublish,
        });
    }

    /// The problem document.
    fn problem(&self) -> Problem {
        let problem = Problem::new(self.status(), self.to_string());
        match self {
            Self::Event(error) => {
                let problem = match error.index {
                    Some(index) => problem.with("index", index),
                    None => problem,
                };
                match &error.field {
                    Some(field) => problem.with("field", &**field),
                    None => problem,
                }
            }
            Self::Items(ItemsError { index: Some(index), .. }) => problem.with("index", *index),
            Self::MessageTooLarge { index, channel, bytes_max, .. } => {
                let problem = problem.with("channel", channel.as_str()).with("max_bytes", *bytes_max);
                match index {
                    Some(index) => problem.with("index", *index),
                    None => problem,
                }
            }
            Self::BodyTooLarge(bytes_max) => problem.with("max_bytes", *bytes_max),
            Self::Moved(position) => problem.with("position", position.map_or("0".to_owned(), |p| p.to_string())),
            Self::Unavailable { accepted, .. } => {
                let mut results = String::new();
                push_results(&mut results, accepted);
                problem.with("results", serde_json::from_str::<serde_json::Value>(&results).unwrap_or_default())
            }
            _ => problem,
        }
    }

    fn field(&self) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::Method(allowed) => (ALLOW, HeaderValue::try_from(allow(allowed)).ok()?),
            Self::MediaType(_) => (ACCEPT, HeaderValue::from_static(media::TAKEN)),
            Self::WebhookMediaType => (ACCEPT, HeaderValue::from_static("application/json")),
            Self::Unauthorized(Credential::Missing) => {
                (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pushbridge\""))
            }
            Self::Unauthorized(Credential::Wrong) => {
                (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pushbridge\", error=\"invalid_token\""))
            }
            // A 401 must name a scheme (RFC 9110 §15.5.2), and webhooks' signatures have no registered one.
            Self::Verify(_) => (WWW_AUTHENTICATE, HeaderValue::from_static("Webhook-Signature")),
            Self::Unavailable { .. } | Self::Undescribed(_) => {
                (RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS))
            }
            _ => return None,
        })
    }
}

/// The answer to a request that published.
pub(super) fn accepted(outcomes: &[Outcome]) -> Response {
    let mut json = String::with_capacity(16 + 128 * outcomes.len());
    json.push_str("{\"results\":");
    push_results(&mut json, outcomes);
    json.push('}');
    let mut response = Response::new(Body::full(json));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer in JSON, as of now.
pub(super) fn json(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::full(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The answer to a request that did not.
pub(super) fn refused(error: &PublishError, request_id: RequestId) -> Response {
    let mut response = problem::response(&error.problem(), request_id);
    response.headers_mut().extend(error.field());
    response
}

/// A refusal as text, with the fields of `response`.
pub(super) fn plainly(response: Response, error: &PublishError) -> Response {
    let (mut head, _) = response.into_parts();
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Response::from_parts(head, Body::full(format!("{error}\n")))
}

/// A text answer.
pub(super) fn text(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Appends the answer line to an NDJSON line, counted from 1.
pub(super) fn push_line(out: &mut String, line: u64, result: &Result<Vec<Outcome>, PublishError>) {
    match result {
        Ok(outcomes) => {
            out.push_str("{\"results\":");
            push_results(out, outcomes);
        }
        Err(error) => {
            out.push_str("{\"error\":");
            push_string(out, &error.to_string());
            // Writing to a String can't fail.
            let _ = write!(out, ",\"status\":{},\"line\":{line}", error.status().as_u16());
            if let PublishError::Unavailable { accepted, .. } = error {
                out.push_str(",\"results\":");
                push_results(out, accepted);
            }
        }
    }
    out.push_str("}\n");
}

fn push_results(out: &mut String, outcomes: &[Outcome]) {
    out.push('[');
    for (number, Outcome { channel, published }) in outcomes.iter().enumerate() {
        out.push_str(if number > 0 { ",{\"channel\":" } else { "{\"channel\":" });
        push_string(out, channel.as_str());
        out.push_str(",\"position\":\"");
        // Writing to a String can't fail.
        let _ = published.position.write_to(out);
        out.push_str(if published.duplicate { "\",\"duplicate\":true" } else { "\",\"duplicate\":false" });
        out.push_str(",\"local_sessions\":");
        push_decimal(out, published.local_sessions as u64);
        out.push('}');
    }
    out.push(']');
}

fn allow(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

fn content_type(given: &str) -> String {
    match given {
        "" => "a request without Content-Type is".to_owned(),
        given => format!("Content-Type {given:?} is"),
    }
}

fn credential(given: &Credential) -> &'static str {
    match given {
        Credential::Missing => "publishing needs a credential; send Authorization: Bearer <token> (publish.auth)",
        Credential::Wrong => {
            "the Authorization field has no token that is accepted here; check it against publish.auth"
        }
    }
}

fn event(index: &Option<usize>) -> String {
    index.map_or_else(String::new, |index| format!("event {index}: "))
}
