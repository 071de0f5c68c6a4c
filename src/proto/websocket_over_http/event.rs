//! Events as the bytes of an `application/websocket-events` body: `NAME[ SP hex-length]\r\n[content\r\n]`.

use crate::proto::websocket_over_http::ANSWER_EVENTS_MAX;
use crate::proto::websocket_over_http::close::{Close, CloseError};
use bytes::{Bytes, BytesMut};

/// The longest first line of an event, in bytes: the longest name, a space and eight digits.
const LINE_BYTES_MAX: usize = 19;
/// The longest content of PING and PONG (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// One thing that happened on a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The WebSocket is to open, or may.
    Open,
    /// A text message: UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping of 125 bytes at most.
    Ping(Bytes),
    /// A pong of 125 bytes at most.
    Pong(Bytes),
    /// A close handshake's half.
    Close(Close),
    /// The connection is gone without a close.
    Disconnect,
}

/// What is wrong with a body, and at which byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (at byte {at} of the body)")]
pub struct EventError {
    /// The offset of the byte where it goes wrong, from 0.
    pub at: usize,
    /// What is wrong there.
    pub fault: EventFault,
}

/// What is wrong with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventFault {
    /// The body ends within an event's first line, or the line is too long for any event.
    #[error("an event's first line does not end with CR LF")]
    NoLineEnd,
    /// Not one of the seven names.
    #[error("unknown event name; OPEN, TEXT, BINARY, PING, PONG, CLOSE and DISCONNECT exist, in capitals")]
    UnknownName,
    /// The length is not 1 to 8 hexadecimal digits.
    #[error("an event's length is not 1 to 8 hexadecimal digits")]
    BadLength,
    /// The body ends before the content that was announced does.
    #[error("the body ends within an event's content")]
    Truncated,
    /// No CR LF after the content: the length is wrong, most likely counted in characters.
    #[error("no CR LF after an event's content; its length must count bytes, without the CR LF")]
    NoContentEnd,
    /// OPEN or DISCONNECT with content.
    #[error("OPEN and DISCONNECT have no content")]
    UnexpectedContent,
    /// A text that is no UTF-8.
    #[error("a TEXT is no UTF-8")]
    NotUtf8,
    /// Over 125 bytes of PING or PONG.
    #[error("a PING or PONG has over {CONTROL_BYTES_MAX} bytes")]
    ControlTooLong,
    /// A CLOSE with half a code, or a reason that is no UTF-8.
    #[error("a CLOSE {0}")]
    BadClose(CloseError),
    /// Over [`ANSWER_EVENTS_MAX`].
    #[error("over {ANSWER_EVENTS_MAX} events in one body")]
    TooManyEvents,
}

impl Event {
    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Open => "OPEN",
            Event::Text(_) => "TEXT",
            Event::Binary(_) => "BINARY",
            Event::Ping(_) => "PING",
            Event::Pong(_) => "PONG",
            Event::Close(_) => "CLOSE",
            Event::Disconnect => "DISCONNECT",
        }
    }

    /// Appends the event's bytes. A message that is empty has the length 0; OPEN, DISCONNECT and a CLOSE without a
    /// code have none.
    pub fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.name().as_bytes());
        let content = match self {
            Event::Open | Event::Disconnect => None,
            Event::Text(content) | Event::Binary(content) | Event::Ping(content) | Event::Pong(content) => {
                Some(content.clone())
            }
            Event::Close(close) => close.code.map(|_| close.encode()),
        };
        if let Some(content) = &content {
            out.extend_from_slice(format!(" {:x}\r\n", content.len()).as_bytes());
            out.extend_from_slice(content);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads a whole body: any number of events, [`ANSWER_EVENTS_MAX`] at most. Contents share the body's memory.
///
/// # Errors
/// What is wrong and at which byte; then nothing of the body counts.
pub fn decode(body: &Bytes) -> Result<Vec<Event>, EventError> {
    let mut events = Vec::new();
    let mut at = 0;
    while at < body.len() {
        if events.len() == ANSWER_EVENTS_MAX {
            return Err(EventError { at, fault: EventFault::TooManyEvents });
        }
        events.push(decode_one(body, &mut at)?);
    }
    Ok(events)
}

fn decode_one(body: &Bytes, at: &mut usize) -> Result<Event, EventError> {
    let start = *at;
    let fault = |at, fault| EventError { at, fault };
    let rest = &body[start..];
    let window = &rest[..rest.len().min(LINE_BYTES_MAX + 2)];
    let Some(line_len) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return Err(fault(start, EventFault::NoLineEnd));
    };
    let line = &rest[..line_len];
    let name_len = line.iter().position(|&b| b == b' ').unwrap_or(line_len);
    let (name, digits) = (&line[..name_len], line.get(name_len + 1..));
    if !NAMES.contains(&name) {
        return Err(fault(start, EventFault::UnknownName));
    }
    let content_at = start + line_len + 2;
    *at = content_at;
    let content = match digits {
        None => Bytes::new(),
        Some(digits) => {
            let len = hex(digits).ok_or(fault(start + name_len + 1, EventFault::BadLength))?;
            let after = &body[content_at..];
            if after.len() < len {
                return Err(fault(body.len(), EventFault::Truncated));
            }
            match &after[len..] {
                [b'\r', b'\n', ..] => {}
                [] | [b'\r'] => return Err(fault(body.len(), EventFault::Truncated)),
                _ => return Err(fault(content_at + len, EventFault::NoContentEnd)),
            }
            *at = content_at + len + 2;
            body.slice(content_at..content_at + len)
        }
    };
    event(name, content).map_err(|(offset, kind)| fault(content_at + offset, kind))
}

const NAMES: [&[u8]; 7] = [b"OPEN", b"TEXT", b"BINARY", b"PING", b"PONG", b"CLOSE", b"DISCONNECT"];

fn hex(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits
        .iter()
        .try_fold(0usize, |value, &digit| Some(value << 4 | usize::try_from(char::from(digit).to_digit(16)?).ok()?))
}

fn event(name: &[u8], content: Bytes) -> Result<Event, (usize, EventFault)> {
    match name {
        b"OPEN" | b"DISCONNECT" if !content.is_empty() => Err((0, EventFault::UnexpectedContent)),
        b"OPEN" => Ok(Event::Open),
        b"DISCONNECT" => Ok(Event::Disconnect),
        b"TEXT" => match std::str::from_utf8(&content) {
            Ok(_) => Ok(Event::Text(content)),
            Err(error) => Err((error.valid_up_to(), EventFault::NotUtf8)),
        },
        b"BINARY" => Ok(Event::Binary(content)),
        b"CLOSE" => Close::decode(&content).map(Event::Close).map_err(|error| (0, EventFault::BadClose(error))),
        _ if content.len() > CONTROL_BYTES_MAX => Err((CONTROL_BYTES_MAX, EventFault::ControlTooLong)),
        b"PING" => Ok(Event::Ping(content)),
        _ => Ok(Event::Pong(content)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(body: &[u8], expected: &[Event]) {
        assert_eq!(decode(&Bytes::copy_from_slice(body)).as_deref(), Ok(expected), "{}", body.escape_ascii());
    }

    #[track_caller]
    fn check_fault(body: &[u8], at: usize, fault: EventFault) {
        let result = decode(&Bytes::copy_from_slice(body));
        assert_eq!(result, Err(EventError { at, fault }), "{}", body.escape_ascii());
    }

    fn text(content: &'static str) -> Event {
        Event::Text(Bytes::from_static(content.as_bytes()))
    }

    #[test]
    fn bodies_become_events() {
        check(b"", &[]);
        check(b"OPEN\r\n", &[Event::Open]);
        check(b"OPEN 0\r\n\r\n", &[Event::Open]);
        check(b"TEXT 5\r\nhello\r\n", &[text("hello")]);
        check(b"TEXT\r\n", &[text("")]);
        check(b"TEXT 0\r\n\r\nTEXT 00000001\r\nx\r\n", &[text(""), text("x")]);
        check(b"TEXT 4\r\n\r\n\r\n\r\n", &[text("\r\n\r\n")]);
        check(b"BINARY A\r\n0123456789\r\n", &[Event::Binary(Bytes::from_static(b"0123456789"))]);
        check(b"CLOSE\r\n", &[Event::Close(Close::default())]);
        check(b"CLOSE 4\r\n\x03\xe8ok\r\nDISCONNECT\r\n", &[Event::Close(Close::new(1000, "ok")), Event::Disconnect]);
        check(b"PING 1\r\na\r\nPONG\r\n", &[Event::Ping(Bytes::from_static(b"a")), Event::Pong(Bytes::new())]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_byte() {
        check_fault(b"OPEN", 0, EventFault::NoLineEnd);
        check_fault(b"OPEN\n", 0, EventFault::NoLineEnd);
        check_fault(b"OPEN\r\nTEXT 00000000000000000001\r\n", 6, EventFault::NoLineEnd);
        check_fault(b"open\r\n", 0, EventFault::UnknownName);
        check_fault(b"\r\n", 0, EventFault::UnknownName);
        check_fault(b"OPEN\r\nOPENED\r\n", 6, EventFault::UnknownName);
        check_fault(b"TEXT \r\n", 5, EventFault::BadLength);
        check_fault(b"TEXT 0x1\r\na\r\n", 5, EventFault::BadLength);
        check_fault(b"TEXT 1 \r\na\r\n", 5, EventFault::BadLength);
        check_fault(b"TEXT -1\r\n", 5, EventFault::BadLength);
        check_fault(b"TEXT 000000001\r\na\r\n", 5, EventFault::BadLength);
        check_fault(b"TEXT ffffffff\r\na\r\n", 18, EventFault::Truncated);
        check_fault(b"TEXT 1\r\na", 9, EventFault::Truncated);
        check_fault(b"TEXT 1\r\na\r", 10, EventFault::Truncated);
        check_fault(b"TEXT 1\r\nabc\r\n", 9, EventFault::NoContentEnd);
        check_fault(b"OPEN 1\r\na\r\n", 8, EventFault::UnexpectedContent);
        check_fault(b"DISCONNECT 1\r\na\r\n", 14, EventFault::UnexpectedContent);
        check_fault(b"TEXT 3\r\nab\xff\r\n", 10, EventFault::NotUtf8);
        check_fault(b"CLOSE 1\r\n\x03\r\n", 9, EventFault::BadClose(CloseError::HalfCode));
        let ping = [&b"PING 7e\r\n"[..], &[b'x'; 126], b"\r\n"].concat();
        check_fault(&ping, 9 + 125, EventFault::ControlTooLong);
        let many = b"PING\r\n".repeat(ANSWER_EVENTS_MAX + 1);
        check_fault(&many, 6 * ANSWER_EVENTS_MAX, EventFault::TooManyEvents);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from);
        prop_oneof![
            Just(Event::Open),
            Just(Event::Disconnect),
            ".{0,300}".prop_map(|text| Event::Text(text.into())),
            bytes(70_000).prop_map(Event::Binary),
            bytes(126).prop_map(Event::Ping),
            bytes(126).prop_map(Event::Pong),
            Just(Event::Close(Close::default())),
            (any::<u16>(), ".{0,40}").prop_map(|(code, reason)| Event::Close(Close::new(code, &reason))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn events_survive_their_bytes(events in proptest::collection::vec(any_event(), 0..8)) {
            let mut body = BytesMut::new();
            events.iter().for_each(|event| event.encode(&mut body));
            let body = body.freeze();
            prop_assert_eq!(decode(&body), Ok(events.clone()));
            // A body that is cut anywhere but between events is refused, at a byte within it.
            for cut in (0..body.len()).step_by(1 + body.len() / 50) {
                match decode(&body.slice(..cut)) {
                    Ok(fewer) => prop_assert!(events.starts_with(&fewer)),
                    Err(error) => prop_assert!(error.at <= cut),
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&body.into());
        }

        #[test]
        fn event_like_bytes_decode_or_are_refused(body in "(OPEN|TEXT|CLOSE|PING|DISCONNECT| ?[0-9a-f]{1,3}|\r\n|x){0,30}") {
            if let Err(error) = decode(&body.clone().into()) {
                prop_assert!(error.at <= body.len());
            }
        }
    }
}
