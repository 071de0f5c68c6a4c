//! Event-stream bytes (WHATWG HTML §9.2.6).

use crate::model::message::{Data, Message};
use crate::model::session::Gap;
use crate::proto::chunk::Chunk;
use crate::proto::decimal::push_decimal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The media type.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// A comment that keeps the connection from looking idle.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The first bytes of a stream: how long to wait before a reconnect, and the place before what follows. A client
/// stores the id although no event comes with it.
pub fn opening(retry_ms: u64, cursor: &str) -> Chunk {
    let mut text = String::with_capacity(64 + cursor.len());
    text.push_str(": open\nretry: ");
    push_decimal(&mut text, retry_ms);
    text.push_str("\nid: ");
    text.push_str(cursor);
    text.push_str("\n\n");
    Chunk::framed_from(text.as_bytes())
}

/// Tells a client how long to wait before it reconnects.
pub fn retry(retry_ms: u64) -> Chunk {
    Chunk::framed_from(format!("retry: {retry_ms}\n\n").as_bytes())
}

/// One message as a frame: `id`, `event` where it has one, and a `data` line for each line of its data.
pub fn frame(message: &Message, cursor: &str) -> Chunk {
    write(message, Some(cursor))
}

/// The same without an id: for streams whose ids are a backend's.
pub fn event(message: &Message) -> Chunk {
    write(message, None)
}

fn write(message: &Message, cursor: Option<&str>) -> Chunk {
    let encoded;
    let data = match &message.data {
        Data::Text(text) | Data::Json(text) => &**text,
        Data::Binary(bytes) => {
            encoded = STANDARD.encode(bytes);
            &encoded
        }
    };
    let mut out = Vec::with_capacity(data.len() + cursor.map_or(0, str::len) + 64);
    if let Some(cursor) = cursor {
        field(&mut out, b"id: ", cursor);
    }
    if let Some(event) = &message.event {
        field(&mut out, b"event: ", event.as_str());
    }
    for line in lines(data) {
        field(&mut out, b"data: ", line);
    }
    out.push(b'\n');
    Chunk::framed_from(&out)
}

/// A gap as an event that clients can listen to.
pub fn gap(gap: &Gap, cursor: &str) -> Chunk {
    Chunk::framed_from(format!("event: gap\nid: {cursor}\ndata: {}\n\n", gap_json(gap)).as_bytes())
}

/// The same without an id: for streams whose ids are a backend's.
pub fn gap_event(gap: &Gap) -> Chunk {
    Chunk::framed_from(format!("event: gap\ndata: {}\n\n", gap_json(gap)).as_bytes())
}

/// `{"channels":[…],"reason":"…"}`, on all transports.
pub fn gap_json(gap: &Gap) -> String {
    let channels: Vec<&str> = gap.channels.iter().map(|channel| channel.as_str()).collect();
    serde_json::json!({ "channels": channels, "reason": gap.reason.as_str() }).to_string()
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// Lines that end with CRLF, LF or CR: each of them would end a `data` line.
fn lines(data: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let text = rest?;
        match memchr::memchr2(b'\n', b'\r', text.as_bytes()) {
            None => {
                rest = None;
                Some(text)
            }
            Some(at) => {
                let end = if text[at..].starts_with("\r\n") { at + 2 } else { at + 1 };
                rest = Some(&text[end..]);
                Some(&text[..at])
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::channel::ChannelName;
    use crate::model::message::Label;
    use crate::model::session::GapReason;

    fn message(data: Data, event: Option<&str>) -> Message {
        Message {
            channel: ChannelName::new("c").expect("a name"),
            id: None,
            event: event.map(|event| Label::new(event).expect("a label")),
            data,
            cloudevent: None,
            grip: None,
        }
    }

    #[track_caller]
    fn check(data: Data, event: Option<&str>, expected: &str) {
        assert_eq!(frame(&message(data, event), "7").content(), expected);
    }

    #[test]
    fn every_line_of_the_data_is_a_field() {
        check(Data::Text("x".into()), None, "id: 7\ndata: x\n\n");
        check(Data::Text("".into()), None, "id: 7\ndata: \n\n");
        check(Data::Text("a\nb".into()), Some("e"), "id: 7\nevent: e\ndata: a\ndata: b\n\n");
        check(Data::Text("a\r\nb\rc\n".into()), None, "id: 7\ndata: a\ndata: b\ndata: c\ndata: \n\n");
        check(Data::Text(" a\n\n".into()), None, "id: 7\ndata:  a\ndata: \ndata: \n\n");
        check(Data::Json(r#"{"a":"\n"}"#.into()), None, "id: 7\ndata: {\"a\":\"\\n\"}\n\n");
        check(Data::Binary([0, 255].into()), None, "id: 7\ndata: AP8=\n\n");
    }

    #[test]
    fn a_gap_names_channels_and_reason() {
        let channels = vec![ChannelName::new("a\"b").expect("a name")];
        let chunk = gap(&Gap { channels, reason: GapReason::Slow }, "7");
        assert_eq!(chunk.content(), "event: gap\nid: 7\ndata: {\"channels\":[\"a\\\"b\"],\"reason\":\"slow\"}\n\n");
    }
}
