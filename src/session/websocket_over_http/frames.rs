//! The one place that knows how frames look on the wire: bytes of a client become [`FromClient`], and what is for the
//! client becomes bytes.

use crate::model::message::Data;
use crate::model::session::CloseReason;
use crate::proto::websocket::{self, Event, Input, Reader, frame};
use crate::proto::websocket_over_http::bridge::FromClient;
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::scheduled::Frame;
use bytes::{Buf, Bytes, BytesMut};

/// Reads a client's frames.
#[derive(Debug)]
pub struct FrameReader(Reader);

impl FrameReader {
    /// A reader of a new WebSocket's bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self(Reader::new(message_bytes_max))
    }

    /// Takes the next frame out of `bytes`, which keeps what was not read; `None` if there is no whole one yet.
    ///
    /// # Errors
    /// Why the client is to be closed: it broke the protocol, or the limit of a message.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<FromClient>, CloseReason> {
        let mut input = Input::new(bytes);
        let frame = match self.0.next(&mut input) {
            Ok(event) => Ok(event.map(owned)),
            Err(violation) => Err(violation.reason()),
        };
        let left = input.rest().len();
        bytes.advance(bytes.len() - left);
        frame
    }
}

fn owned(event: Event<'_>) -> FromClient {
    match event {
        Event::Text(text) => FromClient::Text(Bytes::copy_from_slice(text.as_bytes())),
        Event::Binary(content) => FromClient::Binary(Bytes::copy_from_slice(content)),
        Event::Ping(content) => FromClient::Ping(Bytes::copy_from_slice(content)),
        Event::Pong(content) => FromClient::Pong(Bytes::copy_from_slice(content)),
        Event::Close(None) => FromClient::Close(Close::default()),
        Event::Close(Some(close)) => FromClient::Close(Close::new(close.code, close.reason)),
    }
}

/// The bytes of a frame.
pub fn encode(frame: &Frame) -> Bytes {
    match frame {
        Frame::Text(content) => frame::frame(websocket::Opcode::Text, content),
        Frame::Binary(content) => frame::frame(websocket::Opcode::Binary, content),
        Frame::Ping(content) => frame::frame(websocket::Opcode::Ping, content),
        Frame::Pong(content) => frame::pong(content),
    }
}

/// The bytes of a channel's message.
pub fn encode_data(data: &Data) -> Bytes {
    match data {
        Data::Text(text) | Data::Json(text) => frame::text(text),
        Data::Binary(bytes) => frame::binary(bytes),
    }
}

/// The bytes of a close frame. The close has to be one [for the wire](Close::for_wire).
pub fn encode_close(close: &Close) -> Bytes {
    // Code 0 may not be sent: it makes the frame an empty one.
    websocket::close::encode(close.code.unwrap_or(0), &close.reason)
}
