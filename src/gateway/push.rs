//! A request on a push route: which transport, from where on, and the session that serves it.

use crate::drain::Phase;
use crate::gateway::Inner;
use crate::gateway::comeback::Comeback;
use crate::gateway::cors;
use crate::gateway::respond::ClientError;
use crate::gateway::settings::PushRoute;
use crate::hub::shard::Subscription;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::session::{SessionKind, Transport};
use crate::model::session_token::SessionToken;
use crate::proto::accept;
use crate::proto::subscribe::{self, last_event_id, wait_ms};
use crate::proto::websocket::handshake;
use crate::server::body::Body;
use crate::server::{Answer, Hold, Response};
use crate::session::keep::Keeper;
use crate::session::settings::PushSettings;
use crate::session::sse::Sse;
use crate::session::token;
use crate::session::websocket::{Opening, Setup};
use h2::ext::Protocol;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Body as _;
use std::rc::Rc;
use std::sync::Arc;

pub(in crate::gateway) const RESUMED: HeaderName = HeaderName::from_static("pushbridge-resumed");
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The longest that a poll waits which comes while the instance settles; with the wheel's tick still under a second.
const SETTLE_WAIT_MS_MAX: u64 = 500;

/// The fields of a stream's head, with those that the connection adds and those of CORS: room for all at once.
const STREAM_FIELDS: usize = 12;

/// What a request on a push route leads to.
pub(in crate::gateway) enum Outcome {
    Answer(Answer),
    Poll(Poll),
}

/// A long poll that waits.
pub(in crate::gateway) struct Poll {
    pub(in crate::gateway) subscription: Subscription,
    pub(in crate::gateway) wait_ms: u64,
    /// The fields that its answer has, whatever it is.
    pub(in crate::gateway) fields: HeaderMap,
    /// The cursor's text.
    pub(in crate::gateway) cursor: Option<Box<[u8]>>,
}

impl Inner {
    /// Answers a request on a push route.
    pub(in crate::gateway) async fn push(
        &self,
        route: &PushRoute,
        channels: &[ChannelName],
        request: &Parts,
        body: Body,
        name: &str,
    ) -> Result<Outcome, ClientError> {
        let protocol = request.extensions.get::<Protocol>().map(Protocol::as_str);
        if handshake::is_asked_for(request, protocol) {
            // Its bytes would be taken for the first frames.
            if !body.is_end_stream() {
                return Err(ClientError::UnwantedBody);
            }
            return self.push_websocket(route, channels, request, protocol, name).await.map(Outcome::Answer);
        }
        match request.method {
            Method::OPTIONS => return Ok(Outcome::Answer(cors::options().into())),
            Method::GET | Method::HEAD => {}
            _ => return Err(ClientError::PushMethod),
        }
        if !body.is_end_stream() {
            return Err(ClientError::UnwantedBody);
        }
        let settings = &route.session;
        let fields = request.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let wanted = fields.collect::<Vec<_>>().join(",");
        let transport = accept::choose(Some(&wanted), &settings.transports)
            .ok_or_else(|| ClientError::NotAcceptable { transports: settings.transports.clone() })?;
        let cursor = cursor(request, transport)?;
        if request.method == Method::HEAD {
            return Ok(Outcome::Answer(head_only(transport).into()));
        }
        let mut subscription = self.subscribe(channels, cursor.as_ref(), settings).await?;
        subscription.label(SessionKind::Push(transport), name);
        match transport {
            Transport::LongPoll => Ok(Outcome::Poll(self.long_poll(request, subscription, settings))),
            Transport::Sse | Transport::WebSocket => Ok(Outcome::Answer(self.event_stream(subscription, settings))),
        }
    }

    async fn push_websocket(
        &self,
        route: &PushRoute,
        channels: &[ChannelName],
        request: &Parts,
        protocol: Option<&str>,
        name: &str,
    ) -> Result<Answer, ClientError> {
        let settings = &route.session;
        if !settings.transports.contains(&Transport::WebSocket) {
            return Err(ClientError::NotAcceptable { transports: settings.transports.clone() });
        }
        let opening = Opening::check(request, protocol).map_err(ClientError::Handshake)?;
        if !cors::may_open(request, &route.allowed_origins) {
            return Err(ClientError::Origin);
        }
        let cursor = cursor(request, Transport::WebSocket)?;
        // What refuses the client in any case comes before its token is used up.
        self.takes_sessions()?;
        self.parts.bus.health()?;
        let token = subscribe::session(request.uri.query());
        let comeback =
            Comeback::take(&*self.parts.sessions, token.as_deref(), (name, channels), &self.parts.metrics).await;
        let lost = comeback == Comeback::Lost;
        let loan =
            comeback.lend(&self.parts.sessions, token.as_deref(), |token: &SessionToken| token.key(name, channels));
        let beginning = comeback.begin(channels, cursor, settings);
        let subscribed = self.subscribe(&beginning.channels, beginning.cursor.as_ref(), settings).await;
        let mut subscription = match subscribed {
            Ok(subscription) => subscription,
            Err(error) => {
                loan.give_back().await;
                return Err(error);
            }
        };
        loan.keep();
        if lost {
            subscription.was_lost();
        }
        subscription.label(SessionKind::Push(Transport::WebSocket), name);
        let token = token::new();
        let keeper = token.as_ref().map(|token| {
            let (store, key) = (Arc::clone(&self.parts.sessions), token.key(name, channels));
            Keeper::new(store, key, Rc::clone(&self.parts.metrics))
        });
        let setup = Setup {
            subscription,
            shard: Rc::clone(&self.parts.shard),
            settings: Arc::clone(settings),
            policies: self.parts.policies.load_full(),
            bus: Arc::clone(&self.parts.bus),
            metrics: Rc::clone(&self.parts.metrics),
            own: channels.to_vec(),
            token,
            keeper,
        };
        Ok(Answer::Hold(opening.hold(setup)))
    }

    fn event_stream(&self, subscription: Subscription, settings: &PushSettings) -> Answer {
        let mut head = http::Response::new(());
        head.headers_mut().reserve(STREAM_FIELDS);
        stream_fields(head.headers_mut());
        set_resumed(head.headers_mut(), &subscription);
        let session = Sse {
            subscription,
            keep_alive_ms: settings.keep_alive.as_millis() as u64,
            metrics: Rc::clone(&self.parts.metrics),
        };
        Answer::Hold(Hold { head, session: Box::new(session) })
    }

    fn long_poll(&self, request: &Parts, subscription: Subscription, settings: &PushSettings) -> Poll {
        let mut longest_ms = settings.long_poll_timeout.as_millis() as u64;
        if self.parts.drain.phase() != Phase::Serving {
            longest_ms = longest_ms.min(SETTLE_WAIT_MS_MAX);
        }
        let preferred_ms = wait_ms(&request.headers);
        let wait_ms = preferred_ms.unwrap_or(longest_ms).min(longest_ms);
        let mut fields = HeaderMap::new();
        if preferred_ms.is_some() {
            let applied = HeaderValue::from_str(&format!("wait={}", wait_ms / 1000));
            fields.extend(applied.ok().map(|applied| (APPLIED, applied)));
        }
        answer_fields(&mut fields);
        let cursor = last_event_id(&request.headers, request.uri.query(), Transport::LongPoll);
        Poll { subscription, wait_ms, fields, cursor: cursor.map(|text| text.into_owned().into()) }
    }

    pub(in crate::gateway) async fn subscribe(
        &self,
        channels: &[ChannelName],
        cursor: Option<&Cursor>,
        settings: &PushSettings,
    ) -> Result<Subscription, ClientError> {
        self.takes_sessions()?;
        // Held over the join, so that none is forgotten in between.
        let _attached = self.parts.bus.attach(channels, cursor).await?;
        Ok(self.parts.shard.subscribe(channels, cursor, settings.start)?)
    }
}

fn cursor(request: &Parts, transport: Transport) -> Result<Option<Cursor>, ClientError> {
    match last_event_id(&request.headers, request.uri.query(), transport) {
        None => Ok(None),
        Some(text) => Ok(Some(Cursor::decode(&text)?)),
    }
}

/// What a GET would be answered with, but for the session.
fn head_only(transport: Transport) -> Response {
    let mut response = Response::new(Body::empty());
    match transport {
        Transport::Sse | Transport::WebSocket => stream_fields(response.headers_mut()),
        Transport::LongPoll => {
            let json = HeaderValue::from_static(crate::proto::long_poll::MEDIA_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, json);
            answer_fields(response.headers_mut());
        }
    }
    response
}

fn stream_fields(fields: &mut HeaderMap) {
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(crate::proto::sse::MEDIA_TYPE));
    fields.insert(BUFFERING, HeaderValue::from_static("no"));
    answer_fields(fields);
}

fn answer_fields(fields: &mut HeaderMap) {
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.append(VARY, HeaderValue::from_static("accept"));
}

fn set_resumed(fields: &mut HeaderMap, subscription: &Subscription) {
    if let Some(resumed) = subscription.resumed() {
        fields.insert(RESUMED, HeaderValue::from_static(if resumed { "true" } else { "false" }));
    }
}
