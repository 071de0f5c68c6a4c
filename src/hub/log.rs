//! The bounded log of one channel.

use crate::model::message::Message;
use crate::model::position::Position;
use crate::proto::chunk::Chunk;
use bytes::Bytes;
use std::sync::OnceLock;

/// A message in its channel's log, with its wire forms, each made once for all sessions.
#[derive(Debug)]
pub struct Entry {
    /// What was published.
    pub message: Message,
    /// Where it stands.
    pub position: Position,
    /// When it was published here, in microseconds of the hub's clock.
    pub published_us: u64,
    /// The SSE frame for sessions of this one channel.
    pub sse: OnceLock<Chunk>,
    /// The raw WebSocket frame.
    pub websocket: OnceLock<Bytes>,
    /// The `pushbridge.v1.json` frame for sessions of this one channel.
    pub websocket_v1: OnceLock<Bytes>,
    /// The `cloudevents.json` frame.
    pub websocket_cloudevents: OnceLock<Bytes>,
}
