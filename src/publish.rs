//! The publish listener: where backends POST events.
//!
//! `POST /v1/events` takes JSON events, NDJSON and CloudEvents; `POST /publish/` takes GRIP items; each webhook of the
//! configuration has a path of its own; `GET /v1/channels/…` tells of a channel. A request is authenticated, read within
//! bounds, decoded as a whole, checked against each channel's policy, and only then given to the bus. This room knows no
//! sessions and no routes.

mod auth;
mod body;
mod channels;
mod condition;
mod events;
mod grip;
mod media;
mod ndjson;
mod respond;
mod send;
pub mod settings;
#[cfg(test)]
mod tests;
mod webhook;

use crate::bus::Bus;
use crate::bus::sequences::Sequences;
use crate::hub::policy::ChannelPolicies;
use crate::presence::Presence;
use crate::server::body::Body;
use crate::server::request_id::RequestId;
use crate::server::{Answer, Handler, Peer, Request, Response};
use crate::telemetry::metrics::WorkerMetrics;
use arc_swap::{ArcSwap, Cache};
use futures_util::future::LocalBoxFuture;
use http::Method;
use respond::PublishError;
use settings::PublishSettings;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Where events are POSTed.
pub const EVENTS_PATH: &str = "/v1/events";

const WELCOME: &str = "pushbridge: this is where events are published.

  curl http://127.0.0.1:5561/v1/events -H 'Content-Type: application/json' \\
    -d '{\"channel\": \"news\", \"data\": \"hello\"}'
";

/// Answers the publish listener's requests; one value a worker.
pub struct PublishHandler {
    room: Rc<Room>,
}

/// What every publish request needs.
struct Room {
    /// The settings as of the last look.
    settings: RefCell<Cache<Arc<ArcSwap<PublishSettings>>, Arc<PublishSettings>>>,
    policies: Arc<ArcSwap<ChannelPolicies>>,
    bus: Arc<dyn Bus>,
    sequences: Arc<Sequences>,
    presence: Arc<Presence>,
    metrics: Rc<WorkerMetrics>,
    waits: body::Waits,
    now_secs: fn() -> u64,
}

impl PublishHandler {
    /// A handler that publishes to `bus`; settings and policies may be swapped at any time.
    pub fn new(
        settings: Arc<ArcSwap<PublishSettings>>,
        policies: Arc<ArcSwap<ChannelPolicies>>,
        bus: Arc<dyn Bus>,
        sequences: Arc<Sequences>,
        presence: Arc<Presence>,
        metrics: Rc<WorkerMetrics>,
    ) -> Self {
        let settings = RefCell::new(Cache::new(settings));
        let (waits, now_secs) = (body::Waits::default(), unix_secs as fn() -> u64);
        Self { room: Rc::new(Room { settings, policies, bus, sequences, presence, metrics, waits, now_secs }) }
    }
}

impl Handler for PublishHandler {
    fn handle(&self, request: Request, _peer: Rc<Peer>) -> LocalBoxFuture<'static, Answer> {
        let room = Rc::clone(&self.room);
        Box::pin(async move {
            let plain = grip::answers_plainly(&request);
            let response = match answer(&room, request).await {
                Ok(response) => response,
                Err(error) => {
                    error.count(&room.metrics);
                    let refused = respond::refused(&error, RequestId::next());
                    if plain { respond::plainly(refused, &error) } else { refused }
                }
            };
            room.metrics.publish_request(response.status().as_u16());
            Answer::Response(response)
        })
    }
}

async fn answer(room: &Rc<Room>, request: Request) -> Result<Response, PublishError> {
    let settings = Arc::clone(room.settings.borrow_mut().load());
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if path == EVENTS_PATH {
        only(&head.method, &[Method::POST])?;
        return events::answer(room, &settings, &head, body).await;
    }
    if let Some(rest) = path.strip_prefix(channels::CHANNELS_PATH) {
        only(&head.method, &[Method::GET, Method::HEAD])?;
        return Box::pin(channels::answer(room, &settings, &head, rest)).await;
    }
    if grip::PUBLISH_PATHS.contains(&path) {
        only(&head.method, &[Method::POST])?;
        return Box::pin(grip::publish(room, &settings, &head.headers, body)).await;
    }
    if path == grip::RECOVER_PATH {
        only(&head.method, &[Method::POST])?;
        return grip::recover(room, &settings, &head.headers).await;
    }
    if let Some(hook) = settings.webhooks.iter().find(|hook| *hook.path == *path) {
        only(&head.method, &[Method::POST])?;
        // Boxed, so that the common request's future stays small.
        return Box::pin(webhook::answer(room, &settings, hook, &head.headers, body)).await;
    }
    if path == "/" {
        only(&head.method, &[Method::GET, Method::HEAD])?;
        return Ok(respond::text(if head.method == Method::GET { Body::full(WELCOME) } else { Body::empty() }));
    }
    Err(PublishError::NotFound(path.chars().take(128).collect()))
}

fn only(method: &Method, allowed: &'static [Method]) -> Result<(), PublishError> {
    if allowed.contains(method) { Ok(()) } else { Err(PublishError::Method(allowed)) }
}

fn unix_secs() -> u64 {
    crate::clock::unix_ms() / 1000
}
