//! A request on a `websocket` route: opens it at the backend, then bridges each message to a POST.

use crate::gateway::comeback::{Comeback, Loan};
use crate::gateway::forward::{self, X_REQUEST_ID, hop};
use crate::gateway::respond::ClientError;
use crate::gateway::settings::{BridgeProtocol, GatewaySettings, WebSocketRoute};
use crate::gateway::{Exchange, Inner, cors, grip};
use crate::model::session_token::SessionToken;
use crate::proto::forwarded;
use crate::proto::subscribe;
use crate::proto::websocket::handshake::{self, Handshake};
use crate::server::body::Body;
use crate::server::request_id::RequestId;
use crate::server::{Answer, Hold, Request, Response};
use crate::session::keep::Keeper;
use crate::session::token;
use crate::session::websocket_over_http::{self as bridge, Backend, BackendError, Moving, Opening};
use crate::upstream::settings::UpstreamSettings;
use crate::upstream::{UpstreamError, Upstreams};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use h2::ext::Protocol;
use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use http_body::Body as _;
use std::rc::Rc;
use std::sync::Arc;

impl Inner {
    /// Opens a bridged WebSocket, or answers as the backend does.
    pub(in crate::gateway) async fn websocket(
        &self,
        route: &WebSocketRoute,
        mut request: Parts,
        body: &Body,
        exchange: Exchange<'_>,
    ) -> Result<Answer, ClientError> {
        let protocol = request.extensions.get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
        if !handshake::is_asked_for(&request, protocol.as_deref()) {
            return Err(ClientError::NoUpgrade);
        }
        // Its bytes would be taken for the first frames.
        if !body.is_end_stream() {
            return Err(ClientError::UnwantedBody);
        }
        let opened = Handshake::check(&request, protocol.as_deref(), &[]);
        let opened = opened.map_err(|error| ClientError::Handshake(error.into()))?;
        if !cors::may_open(&request, &route.allowed_origins) {
            return Err(ClientError::Origin);
        }
        self.takes_sessions()?;
        forwarded::request_head(&mut request, &hop(exchange.peer));
        request.headers.insert(X_REQUEST_ID, exchange.request_id.into());
        let backend = Rc::new(UpstreamBackend {
            upstreams: Rc::clone(&self.parts.upstreams),
            settings: Arc::clone(&self.parts.settings),
            upstream: Arc::clone(&route.upstream),
            target: forward::path_and_query(&request.uri).into(),
        });
        if let BridgeProtocol::CloudEvents(settings) = &route.protocol {
            return self.cloudevents(route, settings, &request.headers, opened.head(), backend, exchange).await;
        }
        // What refuses the client in any case came before its token is used up.
        let (moving, loan) = self.moving(backend.target(), exchange.route).await?;
        let opening = Opening {
            fields: &request.headers,
            head: opened.head(),
            settings: route.session(),
            route: exchange.route,
            backend,
            shard: Rc::clone(&self.parts.shard),
            bus: Arc::clone(&self.parts.bus),
            metrics: Rc::clone(&self.parts.metrics),
            moving,
        };
        match Box::pin(bridge::open(opening)).await {
            Ok(opened) => {
                loan.keep();
                Ok(Answer::Hold(Hold { head: opened.head, session: Box::new(opened.session) }))
            }
            Err(refused) => {
                // Before the client is answered: it may try again at once.
                loan.give_back().await;
                let by = if let bridge::Refused::ByBackend(_) = refused { By::Choice } else { By::Fault };
                note_refused(&route.upstream.name, exchange.request_id, by, &refused);
                Err(ClientError::Bridge(Box::new(refused)))
            }
        }
    }

    /// The session that the client comes back to, and how the new one is kept: by the route and the path.
    async fn moving(&self, target: &Uri, route: &str) -> Result<(Moving, Loan), ClientError> {
        let (store, metrics) = (&self.parts.sessions, &self.parts.metrics);
        let (path, given) = (target.path(), subscribe::session(target.query()));
        if given.as_deref().and_then(SessionToken::parse).is_some() {
            // A token that can't be looked up is not used up.
            self.parts.bus.health()?;
        }
        let key = |token: &SessionToken| token.key_on_path(route, path);
        let comeback = Comeback::take_by(&**store, given.as_deref(), key, route, metrics).await;
        let loan = comeback.lend(store, given.as_deref(), key);
        let (before, resumed) = match comeback {
            Comeback::New => (None, None),
            Comeback::Found(session) => (Some(session), Some(true)),
            Comeback::Lost => (None, Some(false)),
        };
        let token = token::new();
        let keeper = token.as_ref().map(|token| Keeper::new(Arc::clone(store), key(token), Rc::clone(metrics)));
        Ok((Moving { before, resumed, token, keeper }, loan))
    }
}

/// Why a backend's client was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum By {
    /// The backend did not want it.
    Choice,
    /// Something went wrong that somebody has to look at.
    Fault,
}

/// Says why a WebSocket did not open. Clients are told less.
pub(in crate::gateway) fn note_refused(upstream: &str, request_id: RequestId, by: By, error: &dyn std::error::Error) {
    match by {
        By::Choice => tracing::debug!(upstream, request.id = %request_id, %error, "bridged websocket refused"),
        By::Fault => tracing::warn!(upstream, request.id = %request_id, %error, "bridged websocket refused"),
    }
}

/// The route's upstream, for one client's path and query. A session may outlive many reloads: it follows its upstream
/// by name for as long as there is one of that name.
pub(in crate::gateway) struct UpstreamBackend {
    upstreams: Rc<Upstreams>,
    settings: Arc<ArcSwap<GatewaySettings>>,
    upstream: Arc<UpstreamSettings>,
    target: Uri,
}

impl UpstreamBackend {
    fn current(&self) -> Arc<UpstreamSettings> {
        let settings = self.settings.load();
        let current = settings.upstreams.iter().find(|current| current.name == self.upstream.name);
        Arc::clone(current.unwrap_or(&self.upstream))
    }

    /// The path and query of the client's request.
    pub(in crate::gateway) fn target(&self) -> &Uri {
        &self.target
    }

    /// The upstream's name.
    pub(in crate::gateway) fn name(&self) -> &Arc<str> {
        &self.upstream.name
    }

    /// Sends a request; its target and fields are final.
    pub(in crate::gateway) fn carry(
        &self,
        request: Request,
    ) -> LocalBoxFuture<'static, Result<Response, BackendError>> {
        let (upstreams, upstream) = (Rc::clone(&self.upstreams), self.current());
        Box::pin(async move { upstreams.send(&upstream, request).await.map_err(failed) })
    }
}

impl Backend for UpstreamBackend {
    fn upstream(&self) -> Arc<str> {
        Arc::clone(self.name())
    }

    fn post(&self, fields: HeaderMap, body: Bytes) -> LocalBoxFuture<'static, Result<Response, BackendError>> {
        let mut fields = fields;
        // Signed anew each time: a session lives longer than a signature.
        grip::sign(&mut fields, &self.current());
        let mut request = Request::new(Body::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = fields;
        self.carry(request)
    }
}

/// Whether the backend may have processed the request: what surely was not may be sent again.
fn failed(error: UpstreamError) -> BackendError {
    match &error {
        UpstreamError::NoServer { .. }
        | UpstreamError::Dns { .. }
        | UpstreamError::Connect { .. }
        | UpstreamError::ConnectTimeout { .. }
        | UpstreamError::BadHost { .. } => BackendError::NotProcessed(Box::new(error)),
        UpstreamError::ResponseTimeout { .. } | UpstreamError::RequestStalled { .. } => {
            BackendError::TimedOut(Box::new(error))
        }
        UpstreamError::Broken { .. }
        | UpstreamError::BadResponse { .. }
        | UpstreamError::BadUpgrade { .. }
        | UpstreamError::NoUpgrade { .. }
        | UpstreamError::RequestBroken { .. } => BackendError::Broken(Box::new(error)),
    }
}
