//! A client's WebSocket whose backend is told of it by CloudEvents, as Azure Web PubSub's event handlers are.
//!
//! ```text
//!  gateway ─▶ open: OPTIONS (once for a URL) ─▶ POST connect ─┬─ refused ─▶ the backend's answer, or a problem
//!                                                             └─ let in ──▶ head + Session ─▶ the loop of all bridged
//!                                                                                             WebSockets
//! ```
//!
//! [`crate::proto::websocket_cloudevents`] knows what is said and when. The loop, the client's frames and the hub are
//! those of [`crate::session::websocket_over_http`]; here is its other [`Dialect`]. It does not know which upstream a
//! [`Handler`] is.
//!
//! [`Dialect`]: crate::session::websocket_over_http::dialect::Dialect

pub mod exchange;
pub mod handler;
pub mod validations;

use crate::bus::{Bus, BusError};
use crate::hub::HubError;
use crate::hub::shard::Shard;
use crate::model::channel::{ChannelName, ChannelNameError};
use crate::proto::problem::Problem;
use crate::proto::websocket_cloudevents::connect::{self, Accept};
use crate::proto::websocket_cloudevents::machine::AnswerError;
use crate::proto::websocket_over_http::control::Subscribe;
use crate::proto::websocket_over_http::fields;
use crate::server::request_id::RequestId;
use crate::server::{Response, problem};
use crate::session::settings::{BridgeSettings, CloudEventsSettings};
use crate::session::websocket_over_http::conversation::NoRandomness;
use crate::session::websocket_over_http::seams::{Feed, HubFeed};
use crate::session::websocket_over_http::subscriptions::{SubscribeError, Subscriptions};
use crate::session::websocket_over_http::{BackendError, Session, Start};
use crate::telemetry::metrics::WorkerMetrics;
use exchange::{Exchange, SendError};
use handler::Handler;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use validations::{Refusal, Validations};

/// What such a WebSocket is opened with.
pub struct Opening<'a> {
    /// The client's fields, with `X-Forwarded-*` as the backend is to see them.
    pub fields: &'a HeaderMap,
    /// The query of the client's URL.
    pub query: Option<&'a str>,
    /// The head that accepts the client's handshake, without a subprotocol, which the backend chooses.
    pub head: http::Response<()>,
    /// How the session is run.
    pub session: BridgeSettings,
    /// How the backend is spoken to.
    pub settings: Arc<CloudEventsSettings>,
    /// The route's name.
    pub route: &'a str,
    /// Who answers.
    pub handler: Rc<dyn Handler>,
    /// Which URLs take events.
    pub validations: Rc<Validations>,
    /// Where channels are read.
    pub shard: Rc<Shard>,
    /// What follows them.
    pub bus: Arc<dyn Bus>,
    /// What is counted.
    pub metrics: Rc<WorkerMetrics>,
}

/// Why a client's handshake is not accepted.
#[derive(thiserror::Error)]
pub enum Refused {
    /// The backend's own answer, for the client as it is.
    #[error("the backend answered {} to connect", .0.status())]
    ByBackend(Box<Response>),
    /// The backend takes no events, or does not say so.
    #[error(transparent)]
    NotAsked(#[from] Refusal),
    /// The backend did not answer.
    #[error(transparent)]
    NoAnswer(#[from] BackendError),
    /// It answered, but not as an event handler does.
    #[error(transparent)]
    BadAnswer(#[from] AnswerError),
    /// It chose a subprotocol that the client would not accept.
    #[error("the backend chose the subprotocol {0:?}, which the client did not offer")]
    NotOffered(Box<str>),
    /// It chose one that is not spoken here.
    #[error("the backend chose the subprotocol {0:?}, which is not spoken here; choose one of your own, or none")]
    NotSpoken(Box<str>),
    /// The client's id makes no channel.
    #[error("the backend chose a userId that can't be in a channel's name: {0}")]
    User(ChannelNameError),
    /// More channels than a session may have.
    #[error("the backend put the client in too many groups: {0}; its user and connection count, too")]
    TooManyGroups(SubscribeError),
    /// The connection can't have an id.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The hub takes no more.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The bus can't follow the client's channels now.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<SendError> for Refused {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Refused(refusal) => Self::NotAsked(refusal),
            SendError::Backend(error) => Self::NoAnswer(error),
        }
    }
}

impl Refused {
    /// The status of the answer to the client's handshake.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ByBackend(response) => response.status(),
            Self::NotAsked(Refusal::NoAnswer(error)) => unanswered(error),
            Self::NoAnswer(error) => unanswered(error),
            Self::Hub(_) | Self::Bus(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotAsked(Refusal::Denied(_))
            | Self::BadAnswer(_)
            | Self::NotOffered(_)
            | Self::NotSpoken(_)
            | Self::User(_)
            | Self::TooManyGroups(_) => StatusCode::BAD_GATEWAY,
            Self::NoRandomness(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer to the client's handshake.
    pub fn response(self, request_id: RequestId) -> Response {
        let status = self.status();
        match self {
            Self::ByBackend(response) => *response,
            // Names of servers are for the log, not for clients.
            Self::NoAnswer(_) | Self::NotAsked(Refusal::NoAnswer(_)) => {
                problem::response(&Problem::new(status, "the backend did not answer"), request_id)
            }
            other => problem::response(&Problem::new(status, other.to_string()), request_id),
        }
    }
}

fn unanswered(error: &BackendError) -> StatusCode {
    match error {
        BackendError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        BackendError::NotProcessed(_) => StatusCode::SERVICE_UNAVAILABLE,
        BackendError::Broken(_) => StatusCode::BAD_GATEWAY,
    }
}

/// Asks the backend whether the WebSocket may open.
///
/// Cancel-safe: when the future is dropped because the client is gone, a task of its own waits for the backend's answer
/// and sends `disconnected`, if it may have let the client in.
///
/// # Errors
/// What to answer the client instead.
pub async fn open(opening: Opening<'_>) -> Result<(http::Response<()>, Session), Refused> {
    let feed = HubFeed::new(Rc::clone(&opening.shard), Arc::clone(&opening.bus), opening.route, Vec::new())?;
    let (head, start) = open_with(opening, feed).await?;
    Ok((head, Session::new(start)))
}

async fn open_with<F: Feed>(opening: Opening<'_>, feed: F) -> Result<(http::Response<()>, Start<F>), Refused> {
    let mut head = opening.head;
    let mut exchange = Exchange::new(exchange::Parts {
        connect: connect::encode(opening.query, opening.fields),
        settings: Arc::clone(&opening.settings),
        handler: opening.handler,
        validations: opening.validations,
        message_bytes_max: opening.session.message_bytes_max,
        metrics: Rc::clone(&opening.metrics),
    })?;
    let accept = match exchange.connect().await? {
        Ok(accept) => accept,
        Err(response) => return Err(Refused::ByBackend(response)),
    };
    let mut subscriptions = Subscriptions::new(feed, opening.session.subscriptions_max);
    subscriptions.feed.name(accept.user_id.as_deref());
    let fitted = match fit(&accept, opening.fields, &mut head) {
        Ok(()) => join(&accept, &opening.settings.hub, exchange.id(), &mut subscriptions).await,
        Err(refused) => Err(refused),
    };
    if let Err(refused) = fitted {
        exchange.refuse();
        return Err(refused);
    }
    exchange.name(&accept);
    let start = Start::new(Box::new(exchange), subscriptions, opening.session, opening.metrics);
    Ok((head, start))
}

/// Adds the subprotocol that the backend chose to the head, if it may choose it.
fn fit(accept: &Accept, client: &HeaderMap, head: &mut http::Response<()>) -> Result<(), Refused> {
    let Some(subprotocol) = &accept.subprotocol else { return Ok(()) };
    if connect::is_of_the_service(subprotocol) {
        return Err(Refused::NotSpoken(subprotocol.clone()));
    }
    let mut chosen = HeaderMap::new();
    match HeaderValue::from_str(subprotocol) {
        Ok(value) => chosen.insert(SEC_WEBSOCKET_PROTOCOL, value),
        Err(_) => return Err(Refused::NotOffered(subprotocol.clone())),
    };
    if !fields::is_offered_protocol(client, &chosen) {
        return Err(Refused::NotOffered(subprotocol.clone()));
    }
    head.headers_mut().extend(chosen);
    Ok(())
}

/// Joins the channels of the groups, of the user and of the connection, before the client is told: what is published
/// from here on reaches it.
async fn join<F: Feed>(
    accept: &Accept,
    hub: &str,
    connection_id: &str,
    subscriptions: &mut Subscriptions<F>,
) -> Result<(), Refused> {
    let mut channels = accept.groups.clone();
    let user = accept.user_id.as_ref().map(|user_id| ChannelName::new(&format!("{hub}.user.{user_id}")));
    channels.extend(user.transpose().map_err(Refused::User)?);
    channels.extend(ChannelName::new(&format!("{hub}.connection.{connection_id}")));
    for channel in channels {
        // What was attached is held until the session is on it.
        let _attached = subscriptions.feed.attach(&channel).await?;
        let subscribe = Subscribe { channel, filters: Vec::new(), unknown_filters: 0 };
        subscriptions.subscribe(subscribe).map_err(|error| match error {
            SubscribeError::Hub(error) => Refused::Hub(error),
            error @ SubscribeError::TooMany(_) => Refused::TooManyGroups(error),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
