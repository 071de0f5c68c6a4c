//! The three ways to carry a message in a WebSocket frame, and the frames, each made once where sessions can share it.

use crate::hub::log::Entry;
use crate::model::cursor::Cursor;
use crate::model::message::Data;
use crate::proto::cloudevents::structured;
use crate::proto::v1::{self, Reply};
use crate::proto::websocket::frame;
use crate::session::websocket::seam::Place;
use bytes::Bytes;

/// What is spoken inside of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// None: each message's data is a text or binary frame.
    Raw,
    /// `pushbridge.v1.json`.
    V1,
    /// `cloudevents.json`: each message is a text frame with a structured CloudEvent (CloudEvents WebSocket binding §3).
    CloudEvents,
}

const CLOUDEVENTS_NAME: &str = "cloudevents.json";

/// How many channels a session has: what it can share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// One: its ids are those of every session of the channel.
    OneChannel,
    /// None or several: its ids are its own.
    Several,
}

impl Subprotocol {
    /// The names of those that have one, in the order of preference.
    pub const NAMES: [&'static str; 2] = [v1::NAME, CLOUDEVENTS_NAME];

    /// The subprotocol of this name; none is [`Subprotocol::Raw`].
    pub fn of_name(name: Option<&str>) -> Self {
        match name {
            Some(v1::NAME) => Self::V1,
            Some(CLOUDEVENTS_NAME) => Self::CloudEvents,
            _ => Self::Raw,
        }
    }

    /// The frame of a message that was just taken from `place`.
    pub fn frame(self, entry: &Entry, breadth: Breadth, place: &dyn Place) -> Bytes {
        let message = &entry.message;
        let own_cursor = || Cursor::one(&message.channel, entry.position).encode();
        let shared = match (self, breadth) {
            (Self::Raw, _) => entry.websocket.get_or_init(|| match message.websocket_data() {
                Data::Text(text) | Data::Json(text) => frame::text(text),
                Data::Binary(bytes) => frame::binary(bytes),
            }),
            (Self::V1, Breadth::OneChannel) => {
                entry.websocket_v1.get_or_init(|| Reply::Event { message, id: &own_cursor() }.frame())
            }
            (Self::V1, Breadth::Several) => {
                return Reply::Event { message, id: &place.cursor().encode() }.frame();
            }
            (Self::CloudEvents, _) => {
                entry.websocket_cloudevents.get_or_init(|| frame::text(&structured(message, &own_cursor())))
            }
        };
        shared.clone()
    }
}
