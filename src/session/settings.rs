//! The checked settings of push and websocket routes.

use crate::hub::shard::Start;
use crate::model::pattern::ChannelPattern;
use crate::model::secret::Secret;
use crate::model::session::Transport;
use crate::proto::websocket_over_http::bridge::Pings;
use std::time::Duration;

/// The checked `push` section of a route, without what matching and CORS need.
#[derive(Debug, Clone)]
pub struct PushSettings {
    /// In the order of preference.
    pub transports: Vec<Transport>,
    /// A comment, ping or nothing is sent after this much silence.
    pub keep_alive: Duration,
    /// The longest that a long poll waits.
    pub long_poll_timeout: Duration,
    /// Where a client without a cursor starts.
    pub start: Start,
    /// Channels that a `pushbridge.v1.json` client may subscribe to, beside the route's own.
    pub client_subscribe: Vec<ChannelPattern>,
    /// Channels that such a client may publish to.
    pub client_publish: Vec<ChannelPattern>,
    /// Channels of one session.
    pub subscriptions_max: usize,
    /// Messages of a WebSocket client, in a second on average.
    pub messages_per_second_max: u32,
}

/// The checked `websocket` section of a route, as far as its sessions go.
#[derive(Debug, Clone, Copy)]
pub struct BridgeSettings {
    /// A ping is sent after this much silence of the client; as much again, and it is closed.
    pub keep_alive: Duration,
    /// The largest message of a client, in bytes.
    pub message_bytes_max: usize,
    /// Who answers a client's pings.
    pub pings: Pings,
    /// Channels of one session.
    pub subscriptions_max: usize,
}

/// How a `websocket` route with `protocol: cloudevents` speaks to its backend.
#[derive(Debug, Clone)]
pub struct CloudEventsSettings {
    /// `ce-hub`, and what stands before the channels of its users and connections.
    pub hub: Box<str>,
    /// Where events are posted, perhaps with `{event}`.
    pub path: Box<str>,
    /// `WebHook-Request-Origin`.
    pub origin: Box<str>,
    /// What signs, the primary key first; two at most.
    pub keys: Vec<Secret>,
}
