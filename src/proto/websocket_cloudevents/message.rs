//! The body of a user event `message`, and what its answer has for the client.

use crate::proto::websocket_over_http::scheduled::Frame;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

/// How much of a media type of the backend is shown.
const SHOWN_BYTES_MAX: usize = 100;

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A text message: UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
}

impl Payload {
    /// The event's `Content-Type`.
    pub fn media_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text(_) => "text/plain; charset=utf-8",
            Self::Binary(_) => "application/octet-stream",
        })
    }

    /// The event's body.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Text(content) | Self::Binary(content) => content,
        }
    }
}

/// Why an answer can't be sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A media type that makes no frame.
    #[error(
        "the backend answered with {0:?}; text/plain and application/json make text messages, application/octet-stream binary ones"
    )]
    MediaType(Box<str>),
    /// A text that is none.
    #[error("the backend's text is no UTF-8")]
    NotUtf8,
}

/// The frame that an answer has for the client: none if its body is empty. Without a media type it is bytes.
///
/// # Errors
/// When its media type makes no frame, or a text is no UTF-8.
pub fn reply(fields: &HeaderMap, body: &Bytes) -> Result<Option<Frame>, ReplyError> {
    if body.is_empty() {
        return Ok(None);
    }
    let value = fields.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    match &*essence {
        b"" | b"application/octet-stream" => Ok(Some(Frame::Binary(body.clone()))),
        b"text/plain" | b"application/json" => match std::str::from_utf8(body) {
            Ok(_) => Ok(Some(Frame::Text(body.clone()))),
            Err(_) => Err(ReplyError::NotUtf8),
        },
        _ => {
            let shown = String::from_utf8_lossy(&essence[..essence.len().min(SHOWN_BYTES_MAX)]);
            Err(ReplyError::MediaType(shown.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(media_type: Option<&str>, body: &'static [u8], expected: Result<Option<Frame>, ReplyError>) {
        let value = media_type.map(|value| (CONTENT_TYPE, HeaderValue::from_str(value).expect("a value")));
        let fields = value.into_iter().collect();
        assert_eq!(reply(&fields, &Bytes::from_static(body)), expected, "{media_type:?}");
    }

    #[test]
    fn the_media_type_of_an_answer_makes_the_frame() {
        let text = |content: &'static str| Ok(Some(Frame::Text(Bytes::from_static(content.as_bytes()))));
        let binary = |content: &'static [u8]| Ok(Some(Frame::Binary(Bytes::from_static(content))));
        check(Some("text/plain"), b"hi", text("hi"));
        check(Some("Text/Plain ; charset=utf-8"), b"hi", text("hi"));
        check(Some("application/json; charset=utf-8"), b"{\"a\": 1}", text("{\"a\": 1}"));
        check(Some("application/octet-stream"), b"\xff", binary(b"\xff"));
        check(None, b"hi", binary(b"hi"));
        for media_type in [Some("text/html"), Some("text/plain"), None] {
            check(media_type, b"", Ok(None));
        }
        check(Some("text/html"), b"<p>", Err(ReplyError::MediaType("text/html".into())));
        check(Some("text/plain"), b"\xff", Err(ReplyError::NotUtf8));
        check(Some("application/json"), b"\"\xff\"", Err(ReplyError::NotUtf8));
    }

    #[test]
    fn messages_say_what_they_are() {
        let text = Payload::Text(Bytes::from_static(b"a"));
        assert_eq!((text.media_type().as_bytes(), &text.bytes()[..]), (&b"text/plain; charset=utf-8"[..], &b"a"[..]));
        assert_eq!(Payload::Binary(Bytes::new()).media_type(), "application/octet-stream");
    }
}
