//! The one place that knows how frames look on the wire: bytes of a client become [`FromClient`], and what is for the
//! client becomes bytes (RFC 6455 §5).

use crate::model::message::Data;
use crate::model::session::CloseReason;
use crate::proto::websocket_over_http::bridge::FromClient;
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::scheduled::Frame;
use bytes::{Buf, Bytes, BytesMut};
use std::io::Cursor;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data as DataOp, OpCode};

/// Reads a client's frames.
#[derive(Debug)]
pub struct FrameReader {
    message_bytes_max: usize,
    message: Vec<u8>,
    kind: Option<DataOp>,
}

impl FrameReader {
    /// A reader of a new WebSocket's bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, message: Vec::new(), kind: None }
    }

    /// Takes the next frame out of `bytes`, which keeps what was not read; `None` if there is no whole one yet.
    ///
    /// # Errors
    /// Why the client is to be closed: it broke the protocol, or the limit of a message.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<FromClient>, CloseReason> {
        loop {
            let mut cursor = Cursor::new(&bytes[..]);
            let Some((head, len)) = FrameHeader::parse(&mut cursor).map_err(|_| CloseReason::Protocol)? else {
                return Ok(None);
            };
            let start = usize::try_from(cursor.position()).map_err(|_| CloseReason::Protocol)?;
            let len = usize::try_from(len).map_err(|_| CloseReason::TooBig)?;
            let is_control = matches!(head.opcode, OpCode::Control(_));
            if head.rsv1 || head.rsv2 || head.rsv3 || is_control && (len > 125 || !head.is_final) {
                return Err(CloseReason::Protocol);
            }
            if len > self.message_bytes_max.saturating_sub(self.message.len()) && !is_control {
                return Err(CloseReason::TooBig);
            }
            let Some(payload) = bytes.get(start..start + len) else { return Ok(None) };
            let mask = head.mask.ok_or(CloseReason::Protocol)?;
            let payload: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            bytes.advance(start + len);
            if let Some(frame) = self.take(head.opcode, head.is_final, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn take(&mut self, opcode: OpCode, is_final: bool, payload: Vec<u8>) -> Result<Option<FromClient>, CloseReason> {
        let kind = match (opcode, self.kind.take()) {
            (OpCode::Control(control), kind) => {
                self.kind = kind;
                return control_frame(control, payload).map(Some);
            }
            (OpCode::Data(DataOp::Continue), Some(kind)) => kind,
            (OpCode::Data(kind @ (DataOp::Text | DataOp::Binary)), None) => kind,
            _ => return Err(CloseReason::Protocol),
        };
        self.message.extend_from_slice(&payload);
        if !is_final {
            self.kind = Some(kind);
            return Ok(None);
        }
        let message = std::mem::take(&mut self.message);
        if kind == DataOp::Text {
            let text = String::from_utf8(message).map_err(|_| CloseReason::BadUtf8)?;
            return Ok(Some(FromClient::Text(text.into())));
        }
        Ok(Some(FromClient::Binary(message.into())))
    }
}

fn control_frame(control: Control, payload: Vec<u8>) -> Result<FromClient, CloseReason> {
    match control {
        Control::Ping => Ok(FromClient::Ping(payload.into())),
        Control::Pong => Ok(FromClient::Pong(payload.into())),
        Control::Close => Close::decode(&payload).map(FromClient::Close).map_err(|_| CloseReason::Protocol),
        Control::Reserved(_) => Err(CloseReason::Protocol),
    }
}

/// The bytes of a frame.
pub fn encode(frame: &Frame) -> Bytes {
    match frame {
        Frame::Text(content) => build(0x1, content),
        Frame::Binary(content) => build(0x2, content),
        Frame::Ping(content) => build(0x9, content),
        Frame::Pong(content) => build(0xa, content),
    }
}

/// The bytes of a channel's message.
pub fn encode_data(data: &Data) -> Bytes {
    match data {
        Data::Text(text) | Data::Json(text) => build(0x1, text.as_bytes()),
        Data::Binary(bytes) => build(0x2, bytes),
    }
}

/// The bytes of a close frame. The close has to be one [for the wire](Close::for_wire).
pub fn encode_close(close: &Close) -> Bytes {
    build(0x8, &close.encode())
}

fn build(opcode: u8, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(10 + payload.len());
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out.into()
}
