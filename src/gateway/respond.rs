//! The one place where an error becomes a client's answer.

mod upstream;

use crate::bus::BusError;
use crate::drain;
use crate::gateway::cors;
use crate::gateway::grip::GripError;
use crate::hub::HubError;
use crate::model::cursor::CursorError;
use crate::model::session::Transport;
use crate::proto::drain_schedule::Dice;
use crate::proto::problem::Problem;
use crate::proto::request_check::RequestError;
use crate::route::Miss;
use crate::route::template::ParamError;
use crate::server::request_id::RequestId;
use crate::server::{Response, problem};
use crate::session::websocket::Refused;
use crate::session::{websocket_cloudevents as cloudevents, websocket_over_http as bridge};
use crate::telemetry::metrics::Refusal;
use crate::upstream::UpstreamError;
use http::header::{ALLOW, CONNECTION, RETRY_AFTER, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::ops::Range;
use std::sync::Arc;

pub use upstream::protocol_unknown;

/// How long a client should wait before it asks a busy instance again.
const RETRY_AFTER_SECS: u64 = 5;

/// How long a client should wait before it asks another instance: one of these, by chance.
const DRAINING_RETRY_SECS: Range<u64> = 1..6;

/// Why a client's request is not answered as it wished.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request's head is unsound.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No route takes it.
    #[error(transparent)]
    Route(#[from] Miss),
    /// Its path makes no channel name.
    #[error(transparent)]
    Parameter(#[from] ParamError),
    /// Its cursor is none.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// A method that push routes don't have.
    #[error("a push route is read with GET; events are published on the publish listener")]
    PushMethod,
    /// A body where there is none to take.
    #[error("a WebSocket's handshake and a request on a push route have no body; send none")]
    UnwantedBody,
    /// No transport of the route fits.
    #[error("this route can't be read that way; ask for one of its transports")]
    NotAcceptable {
        /// The transports that it has.
        transports: Vec<Transport>,
    },
    /// A page that may not open the route's WebSocket.
    #[error("pages of this origin may not open this WebSocket; list it in the route's allowed_origins")]
    Origin,
    /// No valid WebSocket handshake.
    #[error("{}", .0.problem.detail())]
    Handshake(Box<Refused>),
    /// The hub takes no more.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The bus can't bring the channels.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Sessions end here; none begins.
    #[error("this instance is going; connect again, another will serve")]
    Draining,
    /// The backend.
    #[error(transparent)]
    Upstream(UpstreamError),
    /// A bridged WebSocket that its backend did not open.
    #[error("{0}")]
    Bridge(Box<bridge::Refused>),
    /// A backend's answer that asks for a hold which can't be.
    #[error("upstream {upstream}: its answer asks for a hold (GRIP) in a way that can't be followed; see our log")]
    Grip {
        /// The upstream's name.
        upstream: Arc<str>,
        /// Why, for the log.
        error: Box<GripError>,
    },
    /// The same, of a backend that gets CloudEvents.
    #[error("{0}")]
    CloudEvents(Box<cloudevents::Refused>),
    /// A route that has WebSockets only.
    #[error("this route is a WebSocket; open it with an upgrade (RFC 6455), or over HTTP/2 by RFC 8441")]
    NoUpgrade,
}

impl ClientError {
    /// The status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Request(error) => error.status(),
            Self::Route(Miss::NoRoute) => StatusCode::NOT_FOUND,
            Self::Route(Miss::Method { .. }) | Self::PushMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Route(Miss::DotSegment) | Self::Parameter(_) | Self::Cursor(_) | Self::UnwantedBody => {
                StatusCode::BAD_REQUEST
            }
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::Handshake(refused) => refused.problem.status(),
            Self::Hub(HubError::TooManyChannels(_)) | Self::Bus(_) | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(error) => upstream::status(error),
            Self::Bridge(refused) => refused.status(),
            Self::Grip { error, .. } => error.status(),
            Self::CloudEvents(refused) => refused.status(),
            Self::NoUpgrade => StatusCode::UPGRADE_REQUIRED,
        }
    }

    /// What it counts as in `pushbridge_refused_total`; what a backend did is counted elsewhere.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Request(_) => Some(Refusal::BadRequest),
            Self::Route(_) => Some(Refusal::NoRoute),
            Self::Parameter(_)
            | Self::Cursor(_)
            | Self::PushMethod
            | Self::UnwantedBody
            | Self::NotAcceptable { .. }
            | Self::Origin
            | Self::NoUpgrade
            | Self::Handshake(_) => Some(Refusal::BadSubscribe),
            Self::Hub(_) | Self::Bus(_) => Some(Refusal::Subscriptions),
            Self::Draining => Some(Refusal::Draining),
            Self::Upstream(_) | Self::Bridge(_) | Self::CloudEvents(_) | Self::Grip { .. } => None,
        }
    }

    /// The answer.
    pub fn response(self, request_id: RequestId) -> Response {
        let document = match &self {
            Self::Bridge(_) | Self::CloudEvents(_) => return self.bridge_response(request_id),
            Self::Handshake(refused) => refused.problem.clone(),
            Self::NotAcceptable { transports } => {
                let names: Vec<&str> = transports.iter().map(|transport| transport.as_str()).collect();
                Problem::new(self.status(), self.to_string()).with("transports", names)
            }
            Self::Upstream(error) => return upstream::upstream_failed(error, request_id),
            Self::Grip { upstream, error } => {
                tracing::warn!(upstream = &**upstream, request.id = %request_id, %error, "grip answer refused");
                Problem::new(self.status(), self.to_string()).with("upstream", &**upstream)
            }
            _ => Problem::new(self.status(), self.to_string()),
        };
        let mut response = problem::response(&document, request_id);
        self.add_fields(response.headers_mut());
        response
    }

    fn bridge_response(self, request_id: RequestId) -> Response {
        match self {
            Self::Bridge(refused) => refused.response(request_id),
            Self::CloudEvents(refused) => refused.response(request_id),
            other => problem::response(&Problem::new(other.status(), other.to_string()), request_id),
        }
    }

    fn add_fields(&self, fields: &mut HeaderMap) {
        match self {
            Self::Route(Miss::Method { allow }) => {
                let names: Vec<&str> = allow.iter().map(Method::as_str).collect();
                fields.extend(HeaderValue::from_str(&names.join(", ")).ok().map(|names| (ALLOW, names)));
            }
            Self::PushMethod => {
                fields.insert(ALLOW, HeaderValue::from_static(cors::METHODS));
            }
            Self::NoUpgrade => {
                fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
                fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            }
            Self::Handshake(refused) => fields.extend(refused.fields.clone()),
            // What follows on the connection can't be told apart from the request's body.
            Self::Request(_) => {
                fields.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Hub(_) | Self::Bus(_) => {
                fields.insert(RETRY_AFTER, RETRY_AFTER_SECS.into());
            }
            Self::Draining => {
                let Range { start, end } = DRAINING_RETRY_SECS;
                let secs = start + Dice::new(drain::seed()).below(end - start);
                fields.insert(RETRY_AFTER, secs.into());
            }
            _ => {}
        }
    }
}
