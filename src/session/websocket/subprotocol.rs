//! The three ways to carry a message in a WebSocket frame, and the frames, each made once where sessions can share it.

use crate::hub::log::Entry;
use crate::model::cursor::Cursor;
use crate::model::message::Data;
use crate::model::session::Transport;
use crate::proto::cloudevents::structured;
use crate::proto::v1::{self, Reply};
use crate::proto::websocket::frame;
use crate::server::fan_out::Form;
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
        match (self, breadth) {
            (Self::V1, Breadth::Several) => {
                Reply::Event { message: &entry.message, id: &place.cursor().encode() }.frame()
            }
            (Self::V1, Breadth::OneChannel) => v1_frame(entry).clone(),
            (Self::Raw, _) => raw_frame(entry).clone(),
            (Self::CloudEvents, _) => cloudevents_frame(entry).clone(),
        }
    }

    /// What goes to a client over HTTP/1.1 while its session of one channel rests.
    pub fn form(self) -> &'static Form {
        match self {
            Self::Raw => &RAW,
            Self::V1 => &V1,
            Self::CloudEvents => &CLOUDEVENTS,
        }
    }
}

static RAW: Form = Form { transport: Transport::WebSocket, frame: |entry| counted(entry, raw_frame) };
static V1: Form = Form { transport: Transport::WebSocket, frame: |entry| counted(entry, v1_frame) };
static CLOUDEVENTS: Form = Form { transport: Transport::WebSocket, frame: |entry| counted(entry, cloudevents_frame) };

/// The frame, and how many bytes it counts for, of a message that has a form for WebSockets.
fn counted<'a>(entry: &'a Entry, frame: fn(&'a Entry) -> &'a Bytes) -> Option<(&'a Bytes, usize)> {
    let frame = entry.message.data_for(Transport::WebSocket).map(|_| frame(entry))?;
    Some((frame, frame.len()))
}

fn raw_frame(entry: &Entry) -> &Bytes {
    entry.websocket.get_or_init(|| match entry.message.websocket_data() {
        Data::Text(text) | Data::Json(text) => frame::text(text),
        Data::Binary(bytes) => frame::binary(bytes),
    })
}

fn v1_frame(entry: &Entry) -> &Bytes {
    entry.websocket_v1.get_or_init(|| Reply::Event { message: &entry.message, id: &own_cursor(entry) }.frame())
}

fn cloudevents_frame(entry: &Entry) -> &Bytes {
    entry.websocket_cloudevents.get_or_init(|| frame::text(&structured(&entry.message, &own_cursor(entry))))
}

fn own_cursor(entry: &Entry) -> String {
    Cursor::one(&entry.message.channel, entry.position).encode()
}
