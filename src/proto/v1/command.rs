//! What a `pushbridge.v1.json` client says.
//!
//! Members that a command does not have are skipped, so that later clients can speak to earlier servers. A member that
//! is there twice is an error, since two readers would disagree on it.

use crate::model::channel::ChannelName;
use crate::model::message::{Data, Label};
use crate::proto::v1::{ErrorCode, REFERENCE_BYTES_MAX, Reference};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::HashSet;

/// The most channels in one command.
pub const COMMAND_CHANNELS_MAX: usize = 1000;

/// A client's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Joins channels: all or none.
    Subscribe {
        /// Echoed.
        reference: Option<Reference>,
        /// 1 to 1000, each once.
        channels: Vec<ChannelName>,
    },
    /// Leaves channels.
    Unsubscribe {
        /// Echoed.
        reference: Option<Reference>,
        /// 1 to 1000, each once.
        channels: Vec<ChannelName>,
    },
    /// Publishes a message.
    Publish {
        /// Echoed.
        reference: Option<Reference>,
        /// Where.
        channel: ChannelName,
        /// The event's name.
        event: Option<Label>,
        /// The data.
        data: Data,
    },
    /// Asks for a `pong`.
    Ping {
        /// Echoed.
        reference: Option<Reference>,
    },
}

/// A text that is no command, or a command that is not carried out: what the `error` reply says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Rejected {
    /// The command's, if it could be read.
    pub reference: Option<Reference>,
    /// Why, for programs.
    pub code: ErrorCode,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// The members of all commands, each as its JSON text.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "present")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "ref", deserialize_with = "present")]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    channels: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    event: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data_base64: Option<&'a RawValue>,
}

impl Command {
    /// Reads a text frame.
    ///
    /// # Errors
    /// When it is no command; the code is [`ErrorCode::Malformed`].
    pub fn parse(text: &str) -> Result<Self, Rejected> {
        let malformed =
            |reference: Option<Reference>, message| Rejected { reference, code: ErrorCode::Malformed, message };
        // A struct could be read from an array, too.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(malformed(None, "no JSON object; send such as {\"type\":\"ping\"}".to_owned()));
        }
        let members: Members<'_> =
            serde_json::from_str(text).map_err(|error| malformed(None, format!("no valid command: {error}")))?;
        let reference = members.reference().map_err(|message| malformed(None, message))?;
        members.command(reference.clone()).map_err(|message| malformed(reference, message))
    }
}

impl Command {
    /// The client's own mark on it.
    pub fn into_reference(self) -> Option<Reference> {
        match self {
            Self::Subscribe { reference, .. }
            | Self::Unsubscribe { reference, .. }
            | Self::Publish { reference, .. }
            | Self::Ping { reference } => reference,
        }
    }
}

impl Members<'_> {
    fn reference(&self) -> Result<Option<Reference>, String> {
        match self.reference.map(RawValue::get) {
            None | Some("null") => Ok(None),
            Some(json) => Reference::of_json(json)
                .map(Some)
                .ok_or_else(|| format!("`ref` has to be a string or number of {REFERENCE_BYTES_MAX} bytes at most")),
        }
    }

    fn command(&self, reference: Option<Reference>) -> Result<Command, String> {
        let kind = string(self.kind, "type")?;
        Ok(match kind.as_str() {
            "subscribe" => Command::Subscribe { reference, channels: self.channels()? },
            "unsubscribe" => Command::Unsubscribe { reference, channels: self.channels()? },
            "publish" => {
                let channel = channel(&string(self.channel, "channel")?)?;
                Command::Publish { reference, channel, event: self.event()?, data: self.data()? }
            }
            "ping" => Command::Ping { reference },
            _ => {
                let kind: String = kind.chars().take(64).collect();
                return Err(format!("`type` {kind:?} is unknown; there are subscribe, unsubscribe, publish and ping"));
            }
        })
    }

    fn channels(&self) -> Result<Vec<ChannelName>, String> {
        let wrong = || "`channels` has to be an array of 1 to 1000 channel names".to_owned();
        let given: Vec<String> = serde_json::from_str(self.channels.ok_or_else(wrong)?.get()).map_err(|_| wrong())?;
        if given.is_empty() || given.len() > COMMAND_CHANNELS_MAX {
            return Err(wrong());
        }
        let mut seen = HashSet::new();
        given.iter().filter(|name| seen.insert(name.as_str())).map(|name| channel(name)).collect()
    }

    fn event(&self) -> Result<Option<Label>, String> {
        if self.event.is_none_or(|json| json.get() == "null") {
            return Ok(None);
        }
        let event = string(self.event, "event")?;
        Label::new(&event).map(Some).map_err(|error| format!("`event` {error}"))
    }

    fn data(&self) -> Result<Data, String> {
        match (self.data, self.data_base64) {
            (Some(json), None) if json.get().starts_with('"') => {
                Ok(Data::Text(string(Some(json), "data")?.into_boxed_str()))
            }
            (Some(json), None) => Ok(Data::Json(compact(json.get()).into_boxed_str())),
            (None, Some(_)) => {
                let text = string(self.data_base64, "data_base64")?;
                let bytes = STANDARD.decode(text).map_err(|error| format!("`data_base64` is no base64: {error}"))?;
                Ok(Data::Binary(bytes.into()))
            }
            _ => Err("a publish has either `data` or `data_base64`".to_owned()),
        }
    }
}

/// Tells `null` from nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn string(json: Option<&RawValue>, name: &str) -> Result<String, String> {
    let json = json.ok_or_else(|| format!("`{name}` is missing"))?;
    serde_json::from_str(json.get()).map_err(|_| format!("`{name}` has to be a string of valid characters"))
}

fn channel(name: &str) -> Result<ChannelName, String> {
    ChannelName::new(name).map_err(|error| error.to_string())
}

/// Leaves the white space between tokens out of valid JSON text, and all else as it is.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if !in_string && matches!(c, ' ' | '\t' | '\n' | '\r') {
            continue;
        }
        out.push(c);
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn name(text: &str) -> ChannelName {
        ChannelName::new(text).expect("a name")
    }

    fn reference(json: &str) -> Option<Reference> {
        Some(Reference::of_json(json).expect("a reference"))
    }

    #[track_caller]
    fn check(text: &str, expected: Command) {
        assert_eq!(Command::parse(text), Ok(expected), "{text}");
    }

    #[track_caller]
    fn rejected(text: &str, reference: Option<Reference>, part: &str) {
        let error = Command::parse(text).expect_err("a rejection");
        assert_eq!((error.code, error.reference), (ErrorCode::Malformed, reference), "{text}");
        assert!(error.message.contains(part), "{text}: {}", error.message);
    }

    #[track_caller]
    fn publishes(members: &str, expected: Data) {
        let text = format!(r#"{{"type":"publish","channel":"a",{members}}}"#);
        check(&text, Command::Publish { reference: None, channel: name("a"), event: None, data: expected });
    }

    #[test]
    fn commands_are_read() {
        let channels = vec![name("a"), name("b")];
        check(
            r#"{"type":"subscribe","ref":7,"channels":["a","b","a"]}"#,
            Command::Subscribe { reference: reference("7"), channels: channels.clone() },
        );
        check(
            "\n { \"channels\" : [ \"a\", \"b\" ], \"ref\": \"x\\\"y\", \"type\":\"unsubscribe\", \"later\": {} } ",
            Command::Unsubscribe { reference: reference(r#""x\"y""#), channels },
        );
        check(
            r#"{"type":"publish","ref":-1.50e3,"channel":"a","event":"e","data":"x"}"#,
            Command::Publish {
                reference: reference("-1.50e3"),
                channel: name("a"),
                event: Some(Label::new("e").expect("a label")),
                data: Data::Text("x".into()),
            },
        );
        check(r#"{"type":"ping"}"#, Command::Ping { reference: None });
        check(r#"{"type":"p\u0069ng","ref":null}"#, Command::Ping { reference: None });
    }

    #[test]
    fn data_is_kept_as_the_client_meant_it() {
        publishes(r#""data":"a\nb\u00e9""#, Data::Text("a\nb\u{e9}".into()));
        publishes(r#""data":null"#, Data::Json("null".into()));
        publishes(r#""data":12345678901234567890.10"#, Data::Json("12345678901234567890.10".into()));
        publishes(
            "\"data\": { \"b\" : [ 1.0 ,\t\"a \\\" b\\\\\" ],\n\"a\":\"\\u0041\" }",
            Data::Json(r#"{"b":[1.0,"a \" b\\"],"a":"\u0041"}"#.into()),
        );
        publishes(r#""data_base64":"AP8=","event":null"#, Data::Binary([0, 255].into()));
    }

    #[test]
    fn what_is_no_command_is_rejected_with_its_reference() {
        for text in ["", "ping", "[]", r#"["ping"]"#, "1", "null", r#""ping""#] {
            rejected(text, None, "no JSON object");
        }
        rejected("{", None, "no valid command");
        rejected(r#"{"type":"ping"} x"#, None, "no valid command");
        rejected(r#"{"type":"ping","type":"ping"}"#, None, "duplicate field");
        rejected("{}", None, "`type` is missing");
        rejected(r#"{"ref":1,"type":7}"#, reference("1"), "`type` has to be a string");
        rejected(r#"{"ref":1,"type":"nope"}"#, reference("1"), "\"nope\" is unknown");
        for wrong in ["{}", "[1]", "true", &format!("\"{}\"", "x".repeat(255))] {
            rejected(&format!(r#"{{"type":"ping","ref":{wrong}}}"#), None, "`ref` has to be");
        }
        for wrong in ["", r#","channels":[]"#, r#","channels":"a""#, r#","channels":[1]"#, r#","channels":null"#] {
            rejected(
                &format!(r#"{{"type":"subscribe","ref":"s"{wrong}}}"#),
                reference(r#""s""#),
                "`channels` has to be",
            );
        }
        rejected(r#"{"type":"subscribe","channels":["a","b\n"]}"#, None, "control character");
        rejected(r#"{"type":"unsubscribe","channels":[""]}"#, None, "empty");
        let many = json!({"type": "subscribe", "channels": (0..1001).map(|n| n.to_string()).collect::<Vec<_>>()});
        rejected(&many.to_string(), None, "1 to 1000");
    }

    #[test]
    fn a_publish_without_clear_data_is_rejected() {
        let publish = |members: &str| format!(r#"{{"type":"publish","channel":"a","ref":1{members}}}"#);
        rejected(r#"{"type":"publish","ref":1,"data":1}"#, reference("1"), "`channel` is missing");
        rejected(&publish(""), reference("1"), "either `data` or");
        rejected(&publish(r#","data":1,"data_base64":"AA==""#), reference("1"), "either `data` or");
        rejected(&publish(r#","data_base64":"A""#), reference("1"), "no base64");
        rejected(&publish(r#","data_base64":1"#), reference("1"), "`data_base64` has to be a string");
        rejected(&publish(r#","data":"\ud800""#), reference("1"), "valid characters");
        rejected(&publish(r#","data":1,"event":"a\nb""#), reference("1"), "`event` holds a CR");
        rejected(&publish(r#","data":1,"event":3"#), reference("1"), "`event` has to be a string");
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = "[".repeat(30_000);
        assert!(Command::parse(&format!(r#"{{"type":"publish","channel":"a","data":{deep}}}"#)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_rejected(text in r#"[\{\}\[\]:,"\\a-z0-9 ]{0,60}"#) {
            let _ = Command::parse(&text);
        }

        #[test]
        fn json_members_of_any_kind_parse_or_are_rejected(
            kind in prop::sample::select(vec!["subscribe", "unsubscribe", "publish", "ping"]),
            member in prop::sample::select(vec!["ref", "channels", "channel", "event", "data", "data_base64"]),
            value in prop::sample::select(vec!["null", "1", "\"a\"", "[]", "[\"a\"]", "{}", "true", "\"\\ud800\""]),
        ) {
            let _ = Command::parse(&format!(r#"{{"type":"{kind}","channel":"a","{member}":{value}}}"#));
        }

        #[test]
        fn compact_text_means_the_same(strings in proptest::collection::vec(".*", 0..4), number: i64) {
            let value = json!({"b": strings, "a": [number, {" ": null}]});
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            prop_assert_eq!(compact(&pretty), value.to_string());
        }
    }
}
