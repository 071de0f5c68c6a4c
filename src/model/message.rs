//! What is published: a message, its id, its event name and its data.

use crate::model::channel::ChannelName;
use crate::model::grip::{GripFormats, ResponseForm, StreamForm, WebSocketForm};
use crate::model::session::Transport;
use std::fmt;
use std::sync::Arc;

/// The longest event id or event name, in bytes.
pub const LABEL_BYTES_MAX: usize = 255;

/// A short text that may stand on one SSE line: 1 to 255 bytes, no CR, LF or NUL (WHATWG HTML §9.2.6).
///
/// It serves as the publisher's id of an event (the idempotency key) and as an event's name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Label(Arc<str>);

/// Why a text can be no [`Label`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// No character at all.
    #[error("is empty; leave it out instead")]
    Empty,
    /// Over [`LABEL_BYTES_MAX`].
    #[error("has {0} bytes; {LABEL_BYTES_MAX} at most")]
    TooLong(usize),
    /// CR, LF or NUL, which would break an SSE stream.
    #[error("holds a CR, LF or NUL, which may not appear")]
    LineBreak,
}

impl Label {
    /// Checks `text` and makes it a label.
    ///
    /// # Errors
    /// When it is empty, too long or holds CR, LF or NUL.
    pub fn new(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError::Empty);
        }
        if text.len() > LABEL_BYTES_MAX {
            return Err(LabelError::TooLong(text.len()));
        }
        if text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return Err(LabelError::LineBreak);
        }
        Ok(Self(text.into()))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The data of a message, as the publisher meant it.
#[derive(Clone, PartialEq, Eq)]
pub enum Data {
    /// The characters of a JSON string, raw.
    Text(Box<str>),
    /// Compact JSON text of anything else: key order, number text and string escapes are the publisher's.
    Json(Box<str>),
    /// Bytes (`data_base64`).
    Binary(Box<[u8]>),
}

impl Data {
    /// The data's bytes, as a raw WebSocket frame carries them.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Data::Text(text) | Data::Json(text) => text.as_bytes(),
            Data::Binary(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Data {
    /// Payloads stay out of logs: only the kind and the size are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Data::Text(_) => "Text",
            Data::Json(_) => "Json",
            Data::Binary(_) => "Binary",
        };
        write!(f, "{kind}({} bytes)", self.as_bytes().len())
    }
}

/// One published message on one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub channel: ChannelName,
    /// The publisher's id: a second publish of it to the channel within the idempotency window is a duplicate.
    pub id: Option<Label>,
    /// The event's name, SSE's `event` field.
    pub event: Option<Label>,
    /// The data.
    pub data: Data,
    /// The attributes of the CloudEvent that it was published as: JSON members without braces
    /// (`"specversion":"1.0","id":"7",…`), without `data`; `None` for what was no CloudEvent.
    pub cloudevent: Option<Box<str>>,
    /// What GRIP sessions get, of what was published as a GRIP item; `data` is then what event streams and long polls
    /// get.
    pub grip: Option<Box<GripFormats>>,
}

impl Message {
    /// The data that a push route's session gets on this transport; `None` where the message has no form for it.
    ///
    /// What was published natively fits everywhere. Of a GRIP item WebSockets take the `ws-message`; event streams and
    /// long polls take the `http-stream`, or else the `http-response`.
    pub fn data_for(&self, transport: Transport) -> Option<&Data> {
        let Some(grip) = &self.grip else { return Some(&self.data) };
        match transport {
            Transport::WebSocket => match &grip.websocket {
                Some(WebSocketForm::Send { data, .. }) => Some(data),
                _ => None,
            },
            Transport::Sse | Transport::LongPoll => {
                let has_content = matches!(grip.stream, Some(StreamForm::Send { .. }))
                    || matches!(grip.response, Some(ResponseForm::Send(_)));
                has_content.then_some(&self.data)
            }
        }
    }

    /// The data in a WebSocket frame; of a message without a form for WebSockets, its data.
    pub fn websocket_data(&self) -> &Data {
        self.data_for(Transport::WebSocket).unwrap_or(&self.data)
    }

    /// The bytes that the message counts for in its channel's `max_bytes`: texts and data, not wire forms.
    pub fn size_bytes(&self) -> usize {
        let label = |label: &Option<Label>| label.as_ref().map_or(0, |l| l.as_str().len());
        self.data.as_bytes().len()
            + label(&self.id)
            + label(&self.event)
            + self.cloudevent.as_ref().map_or(0, |attributes| attributes.len())
            + self.grip.as_ref().map_or(0, |grip| grip.size_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stay_on_one_line() {
        assert!(Label::new("price 1").is_ok());
        assert_eq!(Label::new(""), Err(LabelError::Empty));
        for text in ["a\rb", "a\nb", "a\0b"] {
            assert_eq!(Label::new(text), Err(LabelError::LineBreak));
        }
        assert_eq!(Label::new(&"x".repeat(256)), Err(LabelError::TooLong(256)));
    }

    #[test]
    fn payloads_stay_out_of_debug_output() {
        assert_eq!(format!("{:?}", Data::Text("secret".into())), "Text(6 bytes)");
    }
}
