//! A `websocket` route with `protocol: cloudevents`: asks the backend by `connect`, then tells it of each message.

use crate::gateway::respond::ClientError;
use crate::gateway::settings::WebSocketRoute;
use crate::gateway::websocket::{By, UpstreamBackend, note_refused};
use crate::gateway::{Exchange, Inner};
use crate::server::body::Body;
use crate::server::{Answer, Hold, Request, Response};
use crate::session::settings::CloudEventsSettings;
use crate::session::websocket_cloudevents::handler::Handler;
use crate::session::websocket_cloudevents::{self as cloudevents, Opening};
use crate::session::websocket_over_http::BackendError;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, Method, Uri};
use std::rc::Rc;
use std::sync::Arc;

impl Inner {
    /// Opens a WebSocket whose backend gets CloudEvents, or answers as the backend does.
    pub(in crate::gateway) async fn cloudevents(
        &self,
        route: &WebSocketRoute,
        settings: &Arc<CloudEventsSettings>,
        fields: &HeaderMap,
        head: http::Response<()>,
        backend: Rc<UpstreamBackend>,
        exchange: Exchange<'_>,
    ) -> Result<Answer, ClientError> {
        let target = backend.target().clone();
        let opening = Opening {
            fields,
            query: target.query(),
            head,
            session: route.session(),
            settings: Arc::clone(settings),
            route: exchange.route,
            handler: backend,
            validations: Rc::clone(&self.validations),
            shard: Rc::clone(&self.parts.shard),
            bus: Arc::clone(&self.parts.bus),
            metrics: Rc::clone(&self.parts.metrics),
        };
        match Box::pin(cloudevents::open(opening)).await {
            Ok((head, session)) => Ok(Answer::Hold(Hold { head, session: Box::new(session) })),
            Err(refused) => {
                let by = if let cloudevents::Refused::ByBackend(_) = refused { By::Choice } else { By::Fault };
                note_refused(&route.upstream.name, exchange.request_id, by, &refused);
                Err(ClientError::CloudEvents(Box::new(refused)))
            }
        }
    }
}

impl Handler for UpstreamBackend {
    fn upstream(&self) -> Arc<str> {
        Arc::clone(self.name())
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        fields: HeaderMap,
        body: Bytes,
    ) -> LocalBoxFuture<'static, Result<Response, BackendError>> {
        let mut request = Request::new(Body::full(body));
        *request.method_mut() = method;
        match path.parse::<Uri>() {
            Ok(target) => *request.uri_mut() = target,
            Err(error) => return Box::pin(async { Err(BackendError::NotProcessed(Box::new(error))) }),
        }
        *request.headers_mut() = fields;
        self.carry(request)
    }
}
