//! Where the next pages of a held stream come from: its upstream, asked with the fields of the client's request.

use crate::gateway::grip::read;
use crate::gateway::settings::ProxyRoute;
use crate::gateway::{Inner, grip};
use crate::model::channel::ChannelName;
use crate::proto::grip::LAST;
use crate::proto::grip::instruct::{self, Instruct};
use crate::proto::grip::kept::Kept;
use crate::proto::grip::link::{self, LinkError};
use crate::proto::grip::pages::Arrived;
use crate::server::body::Body;
use crate::server::{Request, Response};
use crate::session::grip::{Page, Source, SourceError};
use crate::telemetry::metrics::GripRefusal;
use crate::upstream::settings::UpstreamSettings;
use futures_util::future::LocalBoxFuture;
use http::header::{CONTENT_ENCODING, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use std::rc::Rc;
use std::sync::Arc;

/// The largest page after the first, in bytes.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One client's links. There is one for each session that has any, so it is kept small.
pub(super) struct Links {
    pub(super) inner: Rc<Inner>,
    pub(super) route: Arc<ProxyRoute>,
    /// The route's name.
    pub(super) name: Arc<str>,
    /// The route's own channels.
    pub(super) implicit: Rc<[ChannelName]>,
    /// The client's target, from which links are seen.
    pub(super) base: PathAndQuery,
    /// The client's fields, as the backend is to see them.
    pub(super) fields: Kept,
}

impl Links {
    fn resolve(&self, link: &str, fields: &HeaderMap) -> Result<PathAndQuery, LinkError> {
        let servers: Vec<String> = self.route.upstream.servers.iter().map(ToString::to_string).collect();
        let host = fields.get(HOST).and_then(|host| host.to_str().ok());
        let hosts: Vec<&str> = servers.iter().map(String::as_str).chain(host).collect();
        link::resolve(link, &self.base, &hosts).inspect_err(|error| {
            self.inner.parts.metrics.grip_refused(GripRefusal::Link);
            tracing::warn!(upstream = &*self.route.upstream.name, route = &*self.name, %error, "a grip link is refused");
        })
    }
}

impl Source for Links {
    fn page(&self, link: &str, last: Vec<HeaderValue>) -> LocalBoxFuture<'static, Result<Rc<Page>, SourceError>> {
        let mut fields = self.fields.fields_for_link();
        let target = match self.resolve(link, &fields) {
            Ok(target) => target,
            Err(error) => return Box::pin(std::future::ready(Err(SourceError::Refused(error)))),
        };
        let mut key = self.fields.identity();
        for part in [self.route.upstream.name.as_bytes(), self.name.as_bytes(), target.as_str().as_bytes()] {
            key.push(0);
            key.extend_from_slice(part);
        }
        for value in &last {
            key.push(0);
            key.extend_from_slice(value.as_bytes());
        }
        fields.extend(last.into_iter().map(|value| (LAST, value)));
        let (inner, route, implicit) = (Rc::clone(&self.inner), Arc::clone(&self.route), Rc::clone(&self.implicit));
        Box::pin(self.inner.fetches.share(key.into(), move || {
            Box::pin(async move {
                fetch(&inner, &route, &implicit, request(Method::GET, target, fields)).await.map(Rc::new)
            })
        }))
    }

    fn gone(&self, link: &str) {
        let fields = self.fields.fields_for_link();
        let Ok(target) = self.resolve(link, &fields) else { return };
        let (inner, upstream) = (Rc::clone(&self.inner), self.inner.current(&self.route.upstream));
        tokio::task::spawn_local(async move {
            let mut request = request(Method::POST, target, fields);
            grip::sign(request.headers_mut(), &upstream);
            let _permit = inner.fetches.permit(&upstream.name).await;
            if let Err(error) = inner.parts.upstreams.send(&upstream, request).await {
                tracing::debug!(upstream = &*upstream.name, %error, "a backend could not be told of a client's end");
            }
        });
    }
}

fn request(method: Method, target: PathAndQuery, fields: HeaderMap) -> Request {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = target.into();
    *request.headers_mut() = fields;
    request
}

/// Asks for a page and reads it.
async fn fetch(
    inner: &Inner,
    route: &ProxyRoute,
    implicit: &[ChannelName],
    mut request: Request,
) -> Result<Page, SourceError> {
    let upstream = inner.current(&route.upstream);
    let _permit = inner.fetches.permit(&upstream.name).await;
    grip::sign(request.headers_mut(), &upstream);
    let response = inner.parts.upstreams.send(&upstream, request).await.map_err(failed)?;
    read_page(inner, route, implicit, &upstream, response).await
}

async fn read_page(
    inner: &Inner,
    route: &ProxyRoute,
    implicit: &[ChannelName],
    upstream: &UpstreamSettings,
    response: Response,
) -> Result<Page, SourceError> {
    let status = response.status();
    if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
        return Err(SourceError::Failed(format!("upstream {}: status {status}", upstream.name).into()));
    }
    if !status.is_success() {
        return Err(SourceError::Unusable(format!("upstream {}: status {status}", upstream.name).into()));
    }
    if response.headers().contains_key(CONTENT_ENCODING) {
        return Err(unusable(&read::GripError::Compressed));
    }
    let has_instruct = instruct::is_instruct(response.headers());
    let (instruct, body) = if has_instruct {
        let read = read::instruct(response).await.map_err(|error| broken(&error))?;
        (read.instruct, read.body)
    } else {
        let nothing = Instruct::from_fields(&HeaderMap::new()).map_err(|error| unusable(&error))?;
        (nothing, response.into_body())
    };
    let holds = match instruct.hold {
        Some(instruct::Mode::Stream) => true,
        None => false,
        Some(instruct::Mode::Response) => {
            return Err(SourceError::Unusable("a next page holds a response, but a stream goes on".into()));
        }
    };
    let body = read::whole(body, PAGE_BYTES_MAX).await.map_err(|error| broken(&error))?;
    let grip = route.grip.as_ref();
    let holding = match holds {
        true => read::holding(&instruct, implicit, grip).map_err(|error| unusable(&error))?,
        false => read::words(&instruct, grip),
    };
    let channels: Vec<ChannelName> = if holds { holding.channels().cloned().collect() } else { Vec::new() };
    let attached = inner.parts.bus.attach(&channels, None).await.map_err(failed)?;
    Ok(Page {
        arrived: Arrived { holds, is_empty: body.is_empty(), next: instruct.next },
        holding,
        keep_alive: instruct.keep_alive,
        body,
        attached,
    })
}

fn failed(error: impl std::fmt::Display) -> SourceError {
    SourceError::Failed(error.to_string().into())
}

fn unusable(error: &impl std::fmt::Display) -> SourceError {
    SourceError::Unusable(error.to_string().into())
}

/// A body that breaks off or does not come may come whole the next time.
fn broken(error: &read::GripError) -> SourceError {
    use crate::server::body::ReadError;
    match error {
        read::GripError::Body(ReadError::Broken(_)) | read::GripError::BodyStalled => failed(error),
        _ => unusable(error),
    }
}
