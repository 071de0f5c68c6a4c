//! The checked `routes`: what the gateway does with a request.

use crate::bus::sequences::ID_CACHE_DEFAULT;
use crate::route::RouteTable;
use crate::session::settings::{BridgeSettings, CloudEventsSettings, PushSettings};
use crate::upstream::settings::UpstreamSettings;
use std::sync::Arc;
use std::time::Duration;

pub use crate::proto::websocket_over_http::bridge::Pings;

/// All that one configuration says about clients' requests; swapped whole.
#[derive(Debug)]
pub struct GatewaySettings {
    /// Routes in their order.
    pub routes: RouteTable<Action>,
    /// Upstreams by name, each once, whether a route uses it or not.
    pub upstreams: Vec<Arc<UpstreamSettings>>,
}

impl GatewaySettings {
    /// How long ids of GRIP items are remembered: the longest of all upstreams counts, since an item does not say which
    /// one publishes it.
    pub fn id_cache(&self) -> Duration {
        let caches = self.upstreams.iter().filter_map(|upstream| Some(upstream.grip.as_ref()?.id_cache));
        caches.max().unwrap_or(ID_CACHE_DEFAULT)
    }
}

/// What a route does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Holds the client on channels.
    Push(Arc<PushRoute>),
    /// Makes each WebSocket message a POST to a backend.
    WebSocket(Arc<WebSocketRoute>),
    /// Passes the request on.
    Proxy(Arc<ProxyRoute>),
}

/// A `push` route.
#[derive(Debug)]
pub struct PushRoute {
    /// Channel names with `{parameter}`s of the path.
    pub channels: Vec<crate::route::Template>,
    /// How sessions are run.
    pub session: Arc<PushSettings>,
    /// Which pages of other origins may read it by fetch and EventSource.
    pub cors: Option<Cors>,
    /// Which pages may open WebSockets.
    pub allowed_origins: AllowedOrigins,
}

/// Cross-origin reads (WHATWG Fetch §3.3).
#[derive(Debug, Clone)]
pub struct Cors {
    /// Exact origins, or `*`.
    pub origins: Vec<Box<str>>,
    /// Whether cookies may come along.
    pub credentials: Credentials,
}

/// Whether cookies may come along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// `Access-Control-Allow-Credentials: true`.
    Allowed,
    /// Not allowed.
    Omitted,
}

/// Which pages may open a WebSocket (RFC 6455 §10.2). Clients that send no `Origin` are no pages, and pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `Origin`'s host and port are those of the request.
    Same,
    /// Exact origins; `*` is all.
    List(Vec<Box<str>>),
}

/// A `websocket` route.
#[derive(Debug)]
pub struct WebSocketRoute {
    /// Who gets the POSTs.
    pub upstream: Arc<UpstreamSettings>,
    /// How they look.
    pub protocol: BridgeProtocol,
    /// Which pages may open it.
    pub allowed_origins: AllowedOrigins,
    /// A ping is sent after this much silence.
    pub keep_alive: Duration,
    /// The largest message of a client, in bytes.
    pub message_bytes_max: usize,
    /// Who answers a client's pings.
    pub pings: Pings,
    /// Channels of one session.
    pub subscriptions_max: usize,
}

/// How a client's messages reach a backend.
#[derive(Debug, Clone)]
pub enum BridgeProtocol {
    /// WebSocket over HTTP.
    Grip,
    /// CloudEvents, as Azure Web PubSub sends them.
    CloudEvents(Arc<CloudEventsSettings>),
}

impl WebSocketRoute {
    /// How its sessions are run.
    pub fn session(&self) -> BridgeSettings {
        BridgeSettings {
            keep_alive: self.keep_alive,
            message_bytes_max: self.message_bytes_max,
            pings: self.pings,
            subscriptions_max: self.subscriptions_max,
        }
    }
}

/// A `proxy` route.
#[derive(Debug)]
pub struct ProxyRoute {
    /// Who answers.
    pub upstream: Arc<UpstreamSettings>,
    /// How its answers may hold clients, if they may.
    pub grip: Option<GripRoute>,
}

/// How a route's answers may hold clients.
#[derive(Debug, Clone, Default)]
pub struct GripRoute {
    /// What stands before the names of the backend's channels.
    pub channel_prefix: Box<str>,
    /// Channels of every hold, beside the backend's own.
    pub channels: Vec<crate::route::Template>,
    /// Channels of one session.
    pub subscriptions_max: usize,
}
