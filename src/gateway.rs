//! From a client's request to its answer; the file to read first.
//!
//! ```text
//! request ─▶ check ─▶ route ─┬─ push ──────▶ hub.subscribe ─▶ SSE · WebSocket · long poll
//!                            ├─ websocket ─▶ OPEN or connect to the backend ─▶ bridged session
//!                            └─ proxy ─────▶ upstream ─▶ its response, a tunnel, or what it holds (GRIP)
//! ```

mod cloudevents;
mod comeback;
pub mod cors;
mod ending;
pub mod forward;
mod grip;
mod polls;
pub mod push;
pub mod respond;
pub mod settings;
pub mod tunnel;
pub mod websocket;

use crate::bus::Bus;
use crate::bus::store::SessionStore;
use crate::drain::Drain;
use crate::hub::policy::ChannelPolicies;
use crate::hub::shard::Shard;
use crate::model::channel::ChannelName;
use crate::proto::request_check;
use crate::route::Route;
use crate::server::request_id::RequestId;
use crate::server::{Answer, Handler, Peer, Request};
use crate::session::websocket_cloudevents::validations::Validations;
use crate::telemetry::access;
use crate::telemetry::metrics::WorkerMetrics;
use crate::upstream::Upstreams;
use arc_swap::{ArcSwap, Cache};
use forward::Forwarded;
use futures_util::future::LocalBoxFuture;
use grip::Fetches;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode};
use polls::{Polled, Polls};
use push::{Outcome, Poll};
use respond::ClientError;
use settings::{Action, GatewaySettings};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Answers clients' requests; one a worker.
pub struct Gateway {
    inner: Rc<Inner>,
}

/// What the gateway works with.
pub struct Parts {
    /// Routes and upstreams; swapped whole by a reload.
    pub settings: Arc<ArcSwap<GatewaySettings>>,
    /// What channels allow; swapped with them.
    pub policies: Arc<ArcSwap<ChannelPolicies>>,
    /// The worker's part of the hub.
    pub shard: Rc<Shard>,
    /// Where clients' own messages go.
    pub bus: Arc<dyn Bus>,
    /// Where sessions that are lost wait for their clients.
    pub sessions: Arc<dyn SessionStore>,
    /// The worker's client of the backends.
    pub upstreams: Rc<Upstreams>,
    /// The worker's metrics.
    pub metrics: Rc<WorkerMetrics>,
    /// Whether sessions may begin.
    pub drain: Drain,
}

struct Inner {
    parts: Parts,
    /// The settings as of the last look.
    settings: RefCell<Cache<Arc<ArcSwap<GatewaySettings>>, Arc<GatewaySettings>>>,
    /// Requests of held sessions that are under way.
    fetches: Fetches,
    /// Which backends take CloudEvents of WebSockets.
    validations: Rc<Validations>,
}

impl Gateway {
    /// A gateway of these parts.
    pub fn new(parts: Parts) -> Self {
        let settings = RefCell::new(Cache::new(Arc::clone(&parts.settings)));
        Self { inner: Rc::new(Inner { parts, settings, fetches: Fetches::default(), validations: Rc::default() }) }
    }
}

impl Handler for Gateway {
    fn handle(&self, request: Request, peer: Rc<Peer>) -> LocalBoxFuture<'static, Answer> {
        let inner = Rc::clone(&self.inner);
        Box::pin(inner.answer(request, peer))
    }
}

impl Inner {
    /// The settings in force.
    fn settings(&self) -> Arc<GatewaySettings> {
        Arc::clone(self.settings.borrow_mut().load())
    }

    async fn answer(self: Rc<Self>, request: Request, peer: Rc<Peer>) -> Answer {
        let told = self.begin();
        let (parts, body) = request.into_parts();
        let seen = access::Line::enabled().then(|| Seen::new(&parts));
        let origin = parts.headers.get(ORIGIN).cloned();
        let settings = self.settings();
        let (route, result) = match self.find(&settings, &parts) {
            Ok((route, channels)) => {
                let exchange = Exchange { request_id: told.request_id, peer: &peer, route: &route.name };
                let result = match &route.action {
                    // Boxed: what is rarer than a proxied request is not to make room that each of those has to fill.
                    Action::Push(push) => match Box::pin(self.push(push, &channels, &parts, body, &route.name)).await {
                        Ok(Outcome::Poll(mut poll)) => {
                            if let Some(origin) = origin {
                                cors::allow(&mut poll.fields, push.cors.as_ref(), &origin);
                            }
                            let Poll { subscription, wait_ms, fields, cursor } = poll;
                            let inner = Rc::clone(&self);
                            let polled =
                                Polled { inner, settings, route, channels, peer, seen, cursor, wait_ms, fields };
                            return Answer::Later(Box::new(Polls { polled, subscription, told }));
                        }
                        Ok(Outcome::Answer(answer)) => Ok(answer),
                        Err(error) => Err(error),
                    },
                    Action::WebSocket(bridge) => Box::pin(self.websocket(bridge, parts, &body, exchange)).await,
                    Action::Proxy(proxy) => {
                        // Boxed, since it goes from hand to hand.
                        let request = Box::new(Request::from_parts(parts, body));
                        match self.forward(proxy, channels, request, exchange).await {
                            Ok(Forwarded::Waiting(waiting)) => {
                                return Answer::Waiting(Box::pin(async move {
                                    let answer = self.made(waiting.await, told);
                                    self.tell_answer(answer, seen.as_ref(), &peer, Some(&route), told)
                                }));
                            }
                            Ok(Forwarded::Answer(answer)) => Ok(answer),
                            Err(error) => Err(error),
                        }
                    }
                };
                (Some(route), result)
            }
            Err(error) => (None, Err(error)),
        };
        let mut answer = self.made(result, told);
        if let (Some(fields), Some(Action::Push(push)), Some(origin)) =
            (fields_mut(&mut answer), route.as_ref().map(|route| &route.action), origin)
        {
            cors::allow(fields, push.cors.as_ref(), &origin);
        }
        self.tell_answer(answer, seen.as_ref(), &peer, route.as_deref(), told)
    }

    /// The answer that a result makes.
    fn made(&self, result: Result<Answer, ClientError>, told: Told) -> Answer {
        result.unwrap_or_else(|error| {
            if let Some(reason) = error.refusal() {
                self.parts.metrics.refused(reason);
            }
            Answer::Response(error.response(told.request_id))
        })
    }

    /// [`Inner::tell`] of an answer that there is.
    fn tell_answer(
        &self,
        answer: Answer,
        seen: Option<&Seen>,
        peer: &Peer,
        route: Option<&Route<Action>>,
        told: Told,
    ) -> Answer {
        let status = match &answer {
            Answer::Response(response) => response.status(),
            Answer::Hold(hold) => hold.head.status(),
            Answer::Later(_) | Answer::Waiting(_) => return answer,
        };
        self.tell(seen, peer, route, status, told);
        answer
    }

    /// A request begins.
    fn begin(&self) -> Told {
        Told { request_id: RequestId::next(), started_us: self.parts.shard.clock().now_us() }
    }

    /// Counts and logs a request that was answered.
    fn tell(
        &self,
        seen: Option<&Seen>,
        peer: &Peer,
        route: Option<&Route<Action>>,
        status: StatusCode,
        Told { request_id, started_us }: Told,
    ) {
        self.parts.metrics.http_request(route.map_or("", |route| &route.name), status.as_u16());
        if let Some(seen) = seen {
            let duration_us = self.parts.shard.clock().now_us() - started_us;
            seen.emit(peer, route, status.as_u16(), duration_us, request_id);
        }
    }

    /// Refuses a session that would begin while sessions end.
    fn takes_sessions(&self) -> Result<(), ClientError> {
        match self.parts.drain.phase().takes_sessions() {
            true => Ok(()),
            false => Err(ClientError::Draining),
        }
    }

    /// The route of a request, once its head is found sound, and the channels of a push route.
    fn find(
        &self,
        settings: &GatewaySettings,
        parts: &http::request::Parts,
    ) -> Result<(Arc<Route<Action>>, Vec<ChannelName>), ClientError> {
        request_check::check(parts)?;
        let host = parts.uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| parts.headers.get(HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
        // An extended CONNECT asks for what a GET with an upgrade asks for (RFC 8441 §5).
        let method = if parts.method == Method::CONNECT { &Method::GET } else { &parts.method };
        let (route, params) = settings.routes.find(host, parts.uri.path(), method, &parts.headers)?;
        let channels = match &route.action {
            Action::Push(push) => {
                push.channels.iter().map(|channel| channel.fill(&params)).collect::<Result<_, _>>()?
            }
            Action::Proxy(proxy) => {
                let implicit = proxy.grip.iter().flat_map(|grip| &grip.channels);
                implicit.map(|channel| channel.fill(&params)).collect::<Result<_, _>>()?
            }
            Action::WebSocket(_) => Vec::new(),
        };
        Ok((Arc::clone(route), channels))
    }
}

/// What a request comes with beside itself.
#[derive(Clone, Copy)]
struct Exchange<'a> {
    request_id: RequestId,
    peer: &'a Peer,
    /// The route's name.
    route: &'a Arc<str>,
}

/// By what a request's end is told of.
#[derive(Clone, Copy)]
struct Told {
    request_id: RequestId,
    started_us: u64,
}

/// What the access log tells of a request.
struct Seen {
    method: Method,
    path: String,
    protocol: &'static str,
}

impl Seen {
    fn new(parts: &http::request::Parts) -> Self {
        let protocol = match parts.version {
            http::Version::HTTP_2 => "h2",
            http::Version::HTTP_10 => "http/1.0",
            _ => "http/1.1",
        };
        Self { method: parts.method.clone(), path: parts.uri.path().to_owned(), protocol }
    }

    fn emit(&self, peer: &Peer, route: Option<&Route<Action>>, status: u16, duration_us: u64, request_id: RequestId) {
        access::Line {
            client: peer.address,
            method: &self.method,
            path: &self.path,
            route: route.map(|route| &*route.name),
            status: Some(status),
            bytes: None,
            duration: Duration::from_micros(duration_us),
            request_id: &request_id,
            protocol: self.protocol,
        }
        .emit();
    }
}

/// The fields of an answer that there is.
fn fields_mut(answer: &mut Answer) -> Option<&mut HeaderMap> {
    match answer {
        Answer::Response(response) => Some(response.headers_mut()),
        Answer::Hold(hold) => Some(hold.head.headers_mut()),
        Answer::Later(_) | Answer::Waiting(_) => None,
    }
}
