//! A message as a CloudEvent in the JSON format, for the WebSocket subprotocol `cloudevents.json`.

use crate::model::message::{Data, Message};
use crate::proto::cloudevents::push_member;
use crate::proto::json::push_string;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What may stand unescaped in a path segment: the unreserved characters (RFC 3986 §2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The message in structured mode (CloudEvents JSON Event Format 1.0 §3).
///
/// What was published as a CloudEvent keeps its attributes. Other messages get `id` (the cursor), `source`
/// (`/channels/<name>`, percent-encoded), `type` (the event's name, else `message`) and a `datacontenttype`:
/// `text/plain` for text, `application/json` for JSON, `application/octet-stream` for bytes.
pub fn structured(message: &Message, cursor: &str) -> String {
    let attributes = message.cloudevent.as_deref();
    let mut out = String::with_capacity(attributes.map_or(192, str::len) + message.data.as_bytes().len() * 3 / 2 + 32);
    out.push('{');
    match attributes {
        Some(attributes) => out.push_str(attributes),
        None => push_attributes(&mut out, message, cursor),
    }
    match message.websocket_data() {
        // A CloudEvent without data was published; an empty text says no more.
        Data::Text(text) if text.is_empty() && attributes.is_some() => {}
        Data::Text(text) => {
            out.push_str(",\"data\":");
            push_string(&mut out, text);
        }
        Data::Json(json) => {
            out.push_str(",\"data\":");
            out.push_str(json);
        }
        Data::Binary(bytes) => {
            out.push_str(",\"data_base64\":\"");
            STANDARD.encode_string(bytes, &mut out);
            out.push('"');
        }
    }
    out.push('}');
    out
}

fn push_attributes(out: &mut String, message: &Message, cursor: &str) {
    out.push_str("\"specversion\":\"1.0\"");
    push_member(out, "id", cursor);
    out.push_str(",\"source\":\"/channels/");
    out.extend(utf8_percent_encode(message.channel.as_str(), SEGMENT));
    out.push('"');
    push_member(out, "type", message.event.as_ref().map_or("message", |event| event.as_str()));
    push_member(
        out,
        "datacontenttype",
        match message.data {
            Data::Text(_) => "text/plain",
            Data::Json(_) => "application/json",
            Data::Binary(_) => "application/octet-stream",
        },
    );
}
