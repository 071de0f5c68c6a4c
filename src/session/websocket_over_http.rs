//! A client's WebSocket that is plain POSTs to its backend.
//!
//! ```text
//!  gateway ─▶ open: POST OPEN ─┬─ refused ─▶ the client's handshake is answered by the backend's answer, or a problem
//!                              └─ opened ──▶ head (101 or 200) + Session ─▶ run: client ⇄ Bridge ⇄ backend
//!                                                                                ▲ hub: subscribed channels
//! ```
//!
//! [`crate::proto::websocket_over_http`] knows what is said and when; this folder keeps the sockets, the clock and the
//! hub around it. It does not know which upstream a [`Backend`] is, nor how a request is signed.

pub mod backend;
pub mod conversation;
pub mod dialect;
pub mod exchange;
pub mod frames;
pub mod liveness;
pub mod run;
pub mod seams;
pub mod subscriptions;

use crate::bus::Bus;
use crate::bus::store::StoredSession;
use crate::hub::shard::Shard;
use crate::model::session_token::SessionToken;
use crate::proto::problem::Problem;
use crate::proto::websocket_over_http::bridge::{Action, AnswerError};
use crate::proto::websocket_over_http::fields;
use crate::proto::websocket_over_http::meta::Meta;
use crate::server::request_id::RequestId;
use crate::server::{Held, Link, Response, problem};
use crate::session::keep::Keeper;
use crate::session::settings::BridgeSettings;
use crate::session::token;
use crate::telemetry::metrics::WorkerMetrics;
use conversation::{NoRandomness, Reply};
use dialect::Dialect;
use exchange::Exchange;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, StatusCode};
use seams::{Feed, HubFeed};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use subscriptions::Subscriptions;

pub use backend::{Backend, BackendError};

/// What a bridged WebSocket is opened with.
pub struct Opening<'a> {
    /// The client's fields, with `X-Forwarded-*` as the backend is to see them. Fields of the hop and of the handshake
    /// are taken out here.
    pub fields: &'a HeaderMap,
    /// The head that accepts the client's handshake: 101 with `Sec-WebSocket-Accept`, or 200 over HTTP/2, without a
    /// subprotocol, which the backend chooses.
    pub head: http::Response<()>,
    /// How the session is run.
    pub settings: BridgeSettings,
    /// The route's name.
    pub route: &'a str,
    /// Who answers.
    pub backend: Rc<dyn Backend>,
    /// Where channels are read.
    pub shard: Rc<Shard>,
    /// What follows them.
    pub bus: Arc<dyn Bus>,
    /// What is counted.
    pub metrics: Rc<WorkerMetrics>,
    /// From where it comes, and how it is kept to go on elsewhere.
    pub moving: Moving,
}

/// What makes a session one that its client gets back on any instance.
#[derive(Default)]
pub struct Moving {
    /// The session as it was before, if its client has come back with its token.
    pub before: Option<StoredSession>,
    /// Whether that was found; there if the client gave a token.
    pub resumed: Option<bool>,
    /// By what the client will get it back.
    pub token: Option<SessionToken>,
    /// What keeps it until then.
    pub keeper: Option<Keeper>,
}

/// A WebSocket that its backend accepted.
pub struct Opened {
    /// The answer to the client's handshake.
    pub head: http::Response<()>,
    /// What runs then. Dropped without having run, it gives the backend DISCONNECT.
    pub session: Session,
}

/// Why a client's handshake is not accepted.
#[derive(thiserror::Error)]
pub enum Refused {
    /// The backend's own answer, for the client as it is.
    #[error("the backend answered {} to OPEN", .0.status())]
    ByBackend(Box<Response>),
    /// The backend did not answer.
    #[error(transparent)]
    NoAnswer(#[from] BackendError),
    /// It answered, but not as WebSocket over HTTP asks.
    #[error(transparent)]
    BadAnswer(#[from] AnswerError),
    /// It chose a subprotocol that no client would accept.
    #[error("the backend chose a Sec-WebSocket-Protocol that the client did not offer")]
    Subprotocol,
    /// The connection can't have an id.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The hub takes no more sessions.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Refused {
    /// The status of the answer to the client's handshake.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ByBackend(response) => response.status(),
            Self::NoAnswer(BackendError::TimedOut(_)) => StatusCode::GATEWAY_TIMEOUT,
            Self::NoAnswer(BackendError::NotProcessed(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoAnswer(BackendError::Broken(_)) | Self::BadAnswer(_) | Self::Subprotocol => StatusCode::BAD_GATEWAY,
            Self::NoRandomness(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Hub(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer to the client's handshake.
    pub fn response(self, request_id: RequestId) -> Response {
        let status = self.status();
        match self {
            Self::ByBackend(response) => *response,
            // Names of servers are for the log, not for clients.
            Self::NoAnswer(_) => problem::response(&Problem::new(status, "the backend did not answer"), request_id),
            other => problem::response(&Problem::new(status, other.to_string()), request_id),
        }
    }
}

/// A bridged WebSocket whose backend has opened it.
pub struct Session(Start<HubFeed>);

impl Session {
    /// A session of any dialect.
    pub fn new(start: Start<HubFeed>) -> Self {
        Self(start)
    }
}

/// What [`run::run`] starts with.
pub struct Start<F> {
    exchange: Box<dyn Dialect>,
    subscriptions: Subscriptions<F>,
    /// What the answer to OPEN has for the client; its subscriptions stand already.
    early: VecDeque<Action>,
    settings: BridgeSettings,
    metrics: Rc<WorkerMetrics>,
    keeper: Option<Keeper>,
    /// How long the client may take for its part of the close, in milliseconds.
    leave_ms: u64,
}

impl<F> Start<F> {
    /// A session that is open at its backend, and on its channels.
    pub fn new(
        exchange: Box<dyn Dialect>,
        subscriptions: Subscriptions<F>,
        settings: BridgeSettings,
        metrics: Rc<WorkerMetrics>,
    ) -> Self {
        Self {
            exchange,
            subscriptions,
            early: VecDeque::new(),
            settings,
            metrics,
            keeper: None,
            leave_ms: run::LEAVE_MS,
        }
    }
}

impl Held for Session {
    fn run(self: Box<Self>, link: Link) -> LocalBoxFuture<'static, ()> {
        Box::pin(run::run(self.0, link))
    }
}

/// Asks the backend whether the WebSocket may open.
///
/// Cancel-safe: when the future is dropped because the client is gone, a task of its own waits for the backend's answer
/// and gives it DISCONNECT, if it may have opened the connection.
///
/// # Errors
/// What to answer the client instead.
pub async fn open(opening: Opening<'_>) -> Result<Opened, Refused> {
    let Opening { fields, head, settings, route, backend, shard, bus, metrics, moving } = opening;
    let places = moving.before.as_ref().map(StoredSession::places).unwrap_or_default();
    let feed = HubFeed::new(shard, bus, route, places)?;
    let (head, start) = open_with(fields, head, settings, backend, metrics, feed, moving).await?;
    Ok(Opened { head, session: Session(start) })
}

async fn open_with<F: Feed>(
    client: &HeaderMap,
    mut head: http::Response<()>,
    settings: BridgeSettings,
    backend: Rc<dyn Backend>,
    metrics: Rc<WorkerMetrics>,
    feed: F,
    moving: Moving,
) -> Result<(http::Response<()>, Start<F>), Refused> {
    let meta = moving.before.as_ref().map(|before| Meta::restored(&before.meta)).unwrap_or_default();
    let mut exchange = Exchange::new(backend, client, settings, meta)?;
    // The machine's first action is the POST of OPEN, which the exchange does by itself.
    let _ = exchange.next_action();
    let reply = std::future::poll_fn(|cx| exchange.poll_reply(cx)).await;
    let result = exchange.take_in(&reply);
    let reply = reply?;
    match result {
        Err(AnswerError::Status(status)) if !status.is_informational() && !status.is_success() => {
            return Err(Refused::ByBackend(Box::new(for_client(reply))));
        }
        other => other?,
    }
    if !fields::is_offered_protocol(client, &reply.fields) {
        return Err(Refused::Subprotocol);
    }
    for (name, value) in &fields::for_handshake(&reply.fields) {
        head.headers_mut().append(name.clone(), value.clone());
    }
    token::tell(head.headers_mut(), moving.token.as_ref(), moving.resumed);
    let mut subscriptions = Subscriptions::new(feed, settings.subscriptions_max);
    let early = subscribe_early(&mut exchange, &mut subscriptions).await;
    subscriptions.feed.name(exchange.user());
    let start = Start::new(Box::new(exchange), subscriptions, settings, metrics);
    Ok((head, Start { early, keeper: moving.keeper, ..start }))
}

/// Joins the channels that the answer to OPEN names, before the client is told: what is published from here on reaches
/// it. Gives back what else the answer has.
async fn subscribe_early<F: Feed>(exchange: &mut Exchange, subscriptions: &mut Subscriptions<F>) -> VecDeque<Action> {
    let mut early = VecDeque::new();
    while let Some(action) = exchange.next_action() {
        match action {
            // One that is refused is tried again, counted and logged when the session runs.
            Action::Subscribe(subscribe) => {
                let attached = subscriptions.feed.attach(&subscribe.channel).await;
                if attached.is_err() || subscriptions.subscribe(subscribe.clone()).is_err() {
                    early.push_back(Action::Subscribe(subscribe));
                }
            }
            Action::Unsubscribe(channel) => subscriptions.unsubscribe(&channel),
            other => early.push_back(other),
        }
    }
    early
}

fn for_client(reply: Reply) -> Response {
    let mut response = http::Response::new(reply.unread);
    *response.status_mut() = reply.status;
    *response.headers_mut() = fields::for_response(&reply.fields);
    response
}

#[cfg(test)]
mod tests;
