//! What the server says to a `pushbridge.v1.json` client.

use crate::model::channel::ChannelName;
use crate::model::message::{Data, Message};
use crate::model::position::Position;
use crate::model::session::Gap;
use crate::proto::v1::{Reference, Rejected};
use crate::proto::websocket::frame;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// One message of the server. Cursors and ids are opaque texts.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    /// The first one.
    Welcome {
        /// What a reconnect gives back as `?session=`.
        session: &'a str,
        /// The place before what follows.
        cursor: &'a str,
        /// Whether the client's cursor was honoured in full; false if it gave none.
        resumed: bool,
    },
    /// A published message.
    Event {
        /// What was published.
        message: &'a Message,
        /// The cursor after it.
        id: &'a str,
    },
    /// The session is on a channel.
    Subscribed {
        /// The command's.
        reference: Option<&'a Reference>,
        /// Which.
        channel: &'a ChannelName,
    },
    /// The session is not on a channel, any more.
    Unsubscribed {
        /// The command's.
        reference: Option<&'a Reference>,
        /// Which.
        channel: &'a ChannelName,
    },
    /// The client's message has its place.
    Published {
        /// The command's.
        reference: Option<&'a Reference>,
        /// Where.
        position: Position,
    },
    /// Something is missing before what follows.
    Gap {
        /// Where and why.
        gap: &'a Gap,
        /// The cursor after the gap.
        id: &'a str,
    },
    /// Answers a `ping`.
    Pong {
        /// The command's.
        reference: Option<&'a Reference>,
    },
    /// A command was not carried out.
    Error(&'a Rejected),
    /// This end closes soon: the client is to come back.
    Reconnect {
        /// How long to wait first.
        after_ms: u64,
        /// Where to resume.
        cursor: &'a str,
    },
}

impl Reply<'_> {
    /// The whole text frame.
    pub fn frame(&self) -> Bytes {
        let data_bytes = match self {
            Self::Event { message, .. } => message.data.as_bytes().len(),
            _ => 0,
        };
        frame::text_with(160 + data_bytes, |out| self.write(out))
    }

    /// Appends the JSON text.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(self.kind().as_bytes());
        out.push(b'"');
        match self {
            Self::Welcome { session, cursor, resumed } => {
                member(out, "session", session);
                member(out, "cursor", cursor);
                raw_member(out, "resumed", if *resumed { "true" } else { "false" });
            }
            Self::Event { message, id } => {
                member(out, "channel", message.channel.as_str());
                member(out, "id", id);
                if let Some(event) = &message.event {
                    member(out, "event", event.as_str());
                }
                put_data(out, message.websocket_data());
            }
            Self::Subscribed { reference, channel } | Self::Unsubscribed { reference, channel } => {
                put_reference(out, *reference);
                member(out, "channel", channel.as_str());
            }
            Self::Published { reference, position } => {
                put_reference(out, *reference);
                member(out, "position", &position.to_string());
            }
            Self::Gap { gap, id } => {
                name(out, "channels");
                for (at, channel) in gap.channels.iter().enumerate() {
                    out.push(if at == 0 { b'[' } else { b',' });
                    string(out, channel.as_str());
                }
                out.extend_from_slice(if gap.channels.is_empty() { b"[]" } else { b"]" });
                member(out, "reason", gap.reason.as_str());
                member(out, "id", id);
            }
            Self::Pong { reference } => put_reference(out, *reference),
            Self::Error(rejected) => {
                put_reference(out, rejected.reference.as_ref());
                member(out, "code", rejected.code.as_str());
                member(out, "message", &rejected.message);
            }
            Self::Reconnect { after_ms, cursor } => {
                raw_member(out, "after_ms", itoa::Buffer::new().format(*after_ms));
                member(out, "cursor", cursor);
            }
        }
        out.push(b'}');
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Welcome { .. } => "welcome",
            Self::Event { .. } => "event",
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribed { .. } => "unsubscribed",
            Self::Published { .. } => "published",
            Self::Gap { .. } => "gap",
            Self::Pong { .. } => "pong",
            Self::Error(_) => "error",
            Self::Reconnect { .. } => "reconnect",
        }
    }
}

fn put_reference(out: &mut Vec<u8>, reference: Option<&Reference>) {
    if let Some(reference) = reference {
        raw_member(out, "ref", reference.as_json());
    }
}

fn put_data(out: &mut Vec<u8>, data: &Data) {
    match data {
        Data::Text(text) => member(out, "data", text),
        Data::Json(json) => raw_member(out, "data", json),
        Data::Binary(bytes) => {
            name(out, "data_base64");
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

fn member(out: &mut Vec<u8>, key: &str, value: &str) {
    name(out, key);
    string(out, value);
}

fn raw_member(out: &mut Vec<u8>, key: &str, json: &str) {
    name(out, key);
    out.extend_from_slice(json.as_bytes());
}

/// A further member's name, which needs no escapes.
fn name(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

fn string(out: &mut Vec<u8>, text: &str) {
    // Neither a text nor a vector can fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Label;
    use crate::model::session::GapReason;
    use crate::proto::v1::ErrorCode;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn channel() -> ChannelName {
        ChannelName::new("a\"b").expect("a name")
    }

    fn message(event: Option<&str>, data: Data) -> Message {
        let event = event.map(|event| Label::new(event).expect("a label"));
        Message { channel: channel(), id: None, event, data, cloudevent: None, grip: None }
    }

    #[track_caller]
    fn check(reply: Reply<'_>, expected: &str) {
        let mut out = Vec::new();
        reply.write(&mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
        assert_eq!(reply.frame(), frame::text(expected));
    }

    #[test]
    fn replies_have_their_members() {
        let reference = Reference::of_json("7").expect("a reference");
        let (channel, reference) = (channel(), Some(&reference));
        check(
            Reply::Welcome { session: "s", cursor: "c", resumed: true },
            r#"{"type":"welcome","session":"s","cursor":"c","resumed":true}"#,
        );
        check(Reply::Subscribed { reference: None, channel: &channel }, r#"{"type":"subscribed","channel":"a\"b"}"#);
        check(
            Reply::Unsubscribed { reference, channel: &channel },
            r#"{"type":"unsubscribed","ref":7,"channel":"a\"b"}"#,
        );
        let position = Position { epoch: 36, offset: 4 };
        check(Reply::Published { reference, position }, r#"{"type":"published","ref":7,"position":"10-4"}"#);
        check(Reply::Pong { reference }, r#"{"type":"pong","ref":7}"#);
        check(Reply::Pong { reference: None }, r#"{"type":"pong"}"#);
        check(Reply::Reconnect { after_ms: 1500, cursor: "c" }, r#"{"type":"reconnect","after_ms":1500,"cursor":"c"}"#);
        let rejected = Rejected { reference: None, code: ErrorCode::TooBig, message: "no \"x\"".to_owned() };
        check(Reply::Error(&rejected), r#"{"type":"error","code":"too_big","message":"no \"x\""}"#);
    }

    #[test]
    fn a_gap_lists_its_channels() {
        let gap = |channels| Gap { channels, reason: GapReason::Slow };
        let head = r#"{"type":"gap","channels":"#;
        check(Reply::Gap { gap: &gap(vec![]), id: "c" }, &format!(r#"{head}[],"reason":"slow","id":"c"}}"#));
        let other = ChannelName::new("z").expect("a name");
        check(
            Reply::Gap { gap: &gap(vec![channel(), other]), id: "c" },
            &format!(r#"{head}["a\"b","z"],"reason":"slow","id":"c"}}"#),
        );
    }

    #[test]
    fn data_is_embedded_by_its_kind() {
        let head = r#"{"type":"event","channel":"a\"b","id":"c""#;
        let json = message(None, Data::Json(r#"{"b":1.0,"a":"\u0041"}"#.into()));
        check(Reply::Event { message: &json, id: "c" }, &format!(r#"{head},"data":{{"b":1.0,"a":"\u0041"}}}}"#));
        let text = message(Some("e"), Data::Text("x\ny".into()));
        check(Reply::Event { message: &text, id: "c" }, &format!(r#"{head},"event":"e","data":"x\ny"}}"#));
        let binary = message(None, Data::Binary([0, 255].into()));
        check(Reply::Event { message: &binary, id: "c" }, &format!(r#"{head},"data_base64":"AP8="}}"#));
    }

    #[test]
    fn codes_are_words() {
        let words: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words, ["malformed", "not_allowed", "too_many_subscriptions", "too_big", "rate", "bus_down"]);
    }

    proptest! {
        #[test]
        fn any_event_is_valid_json(text in ".*", event in "[^\r\n\0]{1,60}", id in ".*") {
            let message = message(Some(&event), Data::Text(text.clone().into()));
            let mut out = Vec::new();
            Reply::Event { message: &message, id: &id }.write(&mut out);
            let read: Value = serde_json::from_slice(&out).expect("JSON");
            let expected = json!({"type": "event", "channel": "a\"b", "id": id, "event": event, "data": text});
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_survive_base64(bytes: Vec<u8>) {
            let message = message(None, Data::Binary(bytes.clone().into()));
            let mut out = Vec::new();
            Reply::Event { message: &message, id: "c" }.write(&mut out);
            let read: Value = serde_json::from_slice(&out).expect("JSON");
            let text = read["data_base64"].as_str().expect("a string");
            prop_assert_eq!(STANDARD.decode(text).expect("base64"), bytes);
        }
    }
}
