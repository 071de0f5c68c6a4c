//! Control messages: what a backend that speaks `grip` asks of pushbridge, as the JSON after `c:`.

use crate::model::channel::{ChannelName, ChannelNameError};
use crate::proto::websocket_over_http::close::lenient_number;
use crate::proto::websocket_over_http::scheduled::{Beat, Frame, Mode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

/// The longest control message, in bytes of JSON.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// The longest session id, and the longest name in `set-meta`, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest value in `set-meta`, in bytes.
pub const VALUE_BYTES_MAX: usize = 4096;
/// The most filters of a subscription.
pub const FILTERS_MAX: usize = 5;
/// The wait before a keep-alive when the message names none, in seconds.
const KEEP_ALIVE_DEFAULT_SECS: u64 = 55;
/// The wait before a delayed message when the message names none, in seconds.
const DELAYED_DEFAULT_SECS: u64 = 1;
/// The longest wait that a message can ask for, in seconds.
const TIMEOUT_SECS_MAX: u64 = 24 * 60 * 60;

/// What a backend asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Messages of a channel are to reach the client.
    Subscribe(Subscribe),
    /// No longer.
    Unsubscribe(ChannelName),
    /// The client stays, but the backend is asked no more.
    Detach,
    /// The name of the session.
    Session(Box<str>),
    /// Sets or deletes (`None`) a word about the session that filters look at.
    SetMeta(Box<str>, Option<Box<str>>),
    /// What the client is sent in silence; `None` ends it.
    KeepAlive(Option<Beat>),
    /// A message that the client gets after so many milliseconds, unless it is flushed before.
    SendDelayed(Frame, u64),
    /// Sends the delayed message now.
    FlushDelayed,
}

/// A subscription and how its messages are filtered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Which channel.
    pub channel: ChannelName,
    /// In their order, each once.
    pub filters: Vec<Filter>,
    /// How many filters pushbridge does not know.
    pub unknown_filters: usize,
}

/// What happens to a channel's message on its way to one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Drops what the subscription's own user sent.
    SkipSelf,
    /// Drops what names the subscription's user.
    SkipUsers,
    /// Delivers only if the connection has another channel too.
    RequireSub,
    /// Puts ids into the content.
    BuildId,
    /// Puts the subscription's meta into the content.
    VarSubst,
}

/// Why a control message is passed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Over [`CONTROL_BYTES_MAX`].
    #[error("a control message has {0} bytes; {CONTROL_BYTES_MAX} at most")]
    TooLong(usize),
    /// Not a JSON object. What stands there is payload, and is not told.
    #[error("a control message is no JSON object (column {0} after `c:`)")]
    NotJson(usize),
    /// The type is none that exists.
    #[error("unknown control type {0:?}")]
    UnknownType(String),
    /// A member is missing, or is of another type.
    #[error("control message {kind:?}: member {member:?} is missing or is not {expected}")]
    BadMember {
        /// The message's type.
        kind: &'static str,
        /// Which member.
        member: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// The channel's name is no channel name.
    #[error("control message {kind:?}: {cause}")]
    BadChannel {
        /// The message's type.
        kind: &'static str,
        /// What is wrong with the name.
        cause: ChannelNameError,
    },
}

impl Filter {
    /// The filter of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "skip-self" => Self::SkipSelf,
            "skip-users" => Self::SkipUsers,
            "require-sub" => Self::RequireSub,
            "build-id" => Self::BuildId,
            "var-subst" => Self::VarSubst,
            _ => return None,
        })
    }
}

impl Control {
    /// Reads the JSON after `c:`. Members that pushbridge does not know are passed over.
    ///
    /// # Errors
    /// What is wrong with it; the connection goes on without it.
    pub fn decode(json: &[u8]) -> Result<Self, ControlError> {
        if json.len() > CONTROL_BYTES_MAX {
            return Err(ControlError::TooLong(json.len()));
        }
        let members: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| ControlError::NotJson(error.column()))?;
        let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "subscribe" => Members { kind: "subscribe", members: &members }.subscribe().map(Self::Subscribe),
            "unsubscribe" => Members { kind: "unsubscribe", members: &members }.channel().map(Self::Unsubscribe),
            "detach" => Ok(Self::Detach),
            "session" => {
                let members = Members { kind: "session", members: &members };
                members.text("id", NAME_BYTES_MAX, "a text of 1 to 255 bytes").map(Self::Session)
            }
            "set-meta" => Members { kind: "set-meta", members: &members }.set_meta(),
            "keep-alive" => Members { kind: "keep-alive", members: &members }.keep_alive().map(Self::KeepAlive),
            "send-delayed" => Members { kind: "send-delayed", members: &members }.send_delayed(),
            "flush-delayed" => Ok(Self::FlushDelayed),
            other => Err(ControlError::UnknownType(other.chars().take(64).collect())),
        }
    }
}

struct Members<'a> {
    kind: &'static str,
    members: &'a Map<String, Value>,
}

impl Members<'_> {
    fn bad(&self, member: &'static str, expected: &'static str) -> ControlError {
        ControlError::BadMember { kind: self.kind, member, expected }
    }

    /// A member, where `null` is as good as none.
    fn get(&self, member: &str) -> Option<&Value> {
        self.members.get(member).filter(|value| !value.is_null())
    }

    fn text(&self, member: &'static str, max: usize, expected: &'static str) -> Result<Box<str>, ControlError> {
        match self.get(member).and_then(Value::as_str) {
            Some(text) if !text.is_empty() && text.len() <= max => Ok(text.into()),
            _ => Err(self.bad(member, expected)),
        }
    }

    fn channel(&self) -> Result<ChannelName, ControlError> {
        let name = self.get("channel").and_then(Value::as_str).ok_or_else(|| self.bad("channel", "a text"))?;
        ChannelName::new(name).map_err(|cause| ControlError::BadChannel { kind: self.kind, cause })
    }

    fn subscribe(&self) -> Result<Subscribe, ControlError> {
        const EXPECTED: &str = "a list of at most 5 filter names";
        let mut subscribe = Subscribe { channel: self.channel()?, filters: Vec::new(), unknown_filters: 0 };
        let Some(value) = self.get("filters") else { return Ok(subscribe) };
        let names = value.as_array().filter(|names| names.len() <= FILTERS_MAX);
        for name in names.ok_or_else(|| self.bad("filters", EXPECTED))? {
            match Filter::from_name(name.as_str().ok_or_else(|| self.bad("filters", EXPECTED))?) {
                Some(filter) if subscribe.filters.contains(&filter) => {}
                Some(filter) => subscribe.filters.push(filter),
                None => subscribe.unknown_filters += 1,
            }
        }
        Ok(subscribe)
    }

    fn set_meta(&self) -> Result<Control, ControlError> {
        let name = self.text("name", NAME_BYTES_MAX, "a text of 1 to 255 bytes")?;
        let value = match self.get("value") {
            None => None,
            Some(Value::String(value)) if value.len() <= VALUE_BYTES_MAX => Some(value.as_str().into()),
            Some(_) => return Err(self.bad("value", "a text of at most 4096 bytes")),
        };
        Ok(Control::SetMeta(name, value))
    }

    fn keep_alive(&self) -> Result<Option<Beat>, ControlError> {
        if self.get("content").is_none() && self.get("content-bin").is_none() {
            return Ok(None);
        }
        let mode = match self.get("mode").map(Value::as_str) {
            None | Some(Some("idle")) => Mode::Idle,
            Some(Some("interval")) => Mode::Interval,
            _ => return Err(self.bad("mode", "\"idle\" or \"interval\"")),
        };
        let every_ms = self.timeout_ms(KEEP_ALIVE_DEFAULT_SECS)?;
        Ok(Some(Beat { frame: self.frame()?, every_ms, mode }))
    }

    fn send_delayed(&self) -> Result<Control, ControlError> {
        Ok(Control::SendDelayed(self.frame()?, self.timeout_ms(DELAYED_DEFAULT_SECS)?))
    }

    fn timeout_ms(&self, default_secs: u64) -> Result<u64, ControlError> {
        let secs = self.get("timeout").map_or(Some(default_secs), lenient_number);
        secs.filter(|secs| (1..=TIMEOUT_SECS_MAX).contains(secs))
            .map(|secs| secs * 1000)
            .ok_or_else(|| self.bad("timeout", "1 to 86400 seconds"))
    }

    fn frame(&self) -> Result<Frame, ControlError> {
        let (content, default) = match (self.get("content"), self.get("content-bin")) {
            (Some(Value::String(text)), _) => (Bytes::copy_from_slice(text.as_bytes()), "text"),
            (None, Some(Value::String(text))) => {
                let bytes = STANDARD.decode(text).map_err(|_| self.bad("content-bin", "base64"))?;
                (bytes.into(), "binary")
            }
            (None, Some(_)) => return Err(self.bad("content-bin", "base64")),
            _ => return Err(self.bad("content", "a text")),
        };
        let is_control_sized = content.len() <= 125;
        match self.get("message-type").map_or(Some(default), Value::as_str) {
            Some("text") if std::str::from_utf8(&content).is_ok() => Ok(Frame::Text(content)),
            Some("binary") => Ok(Frame::Binary(content)),
            Some("ping") if is_control_sized => Ok(Frame::Ping(content)),
            Some("pong") if is_control_sized => Ok(Frame::Pong(content)),
            Some("text") => Err(self.bad("content-bin", "UTF-8, as its message-type text needs")),
            Some("ping" | "pong") => Err(self.bad("content", "at most 125 bytes, as a ping or pong needs")),
            _ => Err(self.bad("message-type", "\"text\", \"binary\", \"ping\" or \"pong\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(json: &str, expected: Control) {
        assert_eq!(Control::decode(json.as_bytes()), Ok(expected), "{json}");
    }

    #[track_caller]
    fn check_refused(json: &str, error: &str) {
        match Control::decode(json.as_bytes()) {
            Err(actual) => assert!(actual.to_string().contains(error), "{json}: {actual}"),
            Ok(control) => panic!("{json}: {control:?}"),
        }
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::new(name).expect("a channel name")
    }

    fn subscribe(filters: &[Filter], unknown_filters: usize) -> Control {
        Control::Subscribe(Subscribe { channel: channel("a"), filters: filters.to_vec(), unknown_filters })
    }

    #[test]
    fn each_control_message_is_read() {
        check(r#"{"type":"subscribe","channel":"a"}"#, subscribe(&[], 0));
        check(r#"{"type":"subscribe","channel":"a","filters":null,"new":1}"#, subscribe(&[], 0));
        check(
            r#"{"type":"subscribe","channel":"a","filters":["skip-self","x","require-sub","skip-self"]}"#,
            subscribe(&[Filter::SkipSelf, Filter::RequireSub], 1),
        );
        check(r#"{"type":"unsubscribe","channel":"a"}"#, Control::Unsubscribe(channel("a")));
        check(r#"{"type":"detach"}"#, Control::Detach);
        check(r#"{"type":"session","id":"s1"}"#, Control::Session("s1".into()));
        check(
            r#"{"type":"set-meta","name":"user","value":"bob"}"#,
            Control::SetMeta("user".into(), Some("bob".into())),
        );
        check(r#"{"type":"set-meta","name":"user"}"#, Control::SetMeta("user".into(), None));
        check(r#"{"type":"flush-delayed"}"#, Control::FlushDelayed);
    }

    #[test]
    fn keep_alives_and_delayed_messages_are_read() {
        let beat = |frame, every_ms, mode| Control::KeepAlive(Some(Beat { frame, every_ms, mode }));
        check(r#"{"type":"keep-alive"}"#, Control::KeepAlive(None));
        check(r#"{"type":"keep-alive","content":"k"}"#, beat(Frame::Text("k".into()), 55_000, Mode::Idle));
        check(
            r#"{"type":"keep-alive","content-bin":"AAE=","timeout":"20","mode":"interval"}"#,
            beat(Frame::Binary(Bytes::from_static(&[0, 1])), 20_000, Mode::Interval),
        );
        check(
            r#"{"type":"keep-alive","content":"","message-type":"ping","timeout":1}"#,
            beat(Frame::Ping(Bytes::new()), 1000, Mode::Idle),
        );
        check(r#"{"type":"send-delayed","content":"x"}"#, Control::SendDelayed(Frame::Text("x".into()), 1000));
        check(
            r#"{"type":"send-delayed","content":"x","message-type":"binary","timeout":5}"#,
            Control::SendDelayed(Frame::Binary("x".into()), 5000),
        );
    }

    #[test]
    fn what_is_wrong_with_a_control_message_is_said() {
        check_refused("", "no JSON object");
        check_refused("[1]", "no JSON object");
        check_refused(r#"{"type":"subscribe","channel":"a"} x"#, "no JSON object");
        check_refused("{}", "unknown control type \"\"");
        check_refused(r#"{"type":"Detach"}"#, "unknown control type \"Detach\"");
        check_refused(r#"{"type":"subscribe"}"#, "member \"channel\"");
        check_refused(r#"{"type":"subscribe","channel":7}"#, "member \"channel\"");
        check_refused(r#"{"type":"subscribe","channel":""}"#, "empty");
        check_refused(r#"{"type":"subscribe","channel":"a","filters":["a","b","c","d","e","f"]}"#, "at most 5");
        check_refused(r#"{"type":"subscribe","channel":"a","filters":[7]}"#, "at most 5");
        check_refused(r#"{"type":"session","id":""}"#, "member \"id\"");
        check_refused(r#"{"type":"set-meta","name":"n","value":1}"#, "member \"value\"");
        check_refused(r#"{"type":"keep-alive","content":"k","timeout":0}"#, "member \"timeout\"");
        check_refused(r#"{"type":"keep-alive","content":"k","timeout":86401}"#, "member \"timeout\"");
        check_refused(r#"{"type":"keep-alive","content":"k","mode":"x"}"#, "member \"mode\"");
        check_refused(r#"{"type":"keep-alive","content-bin":"*"}"#, "base64");
        check_refused(r#"{"type":"keep-alive","content":"k","message-type":"x"}"#, "message-type");
        check_refused(r#"{"type":"keep-alive","content-bin":"/w==","message-type":"text"}"#, "UTF-8");
        check_refused(r#"{"type":"send-delayed"}"#, "member \"content\"");
        let long_ping = format!(r#"{{"type":"send-delayed","content":"{}","message-type":"ping"}}"#, "x".repeat(126));
        check_refused(&long_ping, "125 bytes");
        check_refused(&" ".repeat(CONTROL_BYTES_MAX + 1), "65536 at most");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(json in r#"[{}\[\]",:a-z0-9\\ -]{0,80}"#) {
            let _ = Control::decode(json.as_bytes());
        }

        #[test]
        fn any_subscription_survives_its_json(name in "[^\\p{Cc}]{1,40}", filters in proptest::collection::vec("[a-z-]{1,12}", 0..6)) {
            let json = serde_json::json!({"type": "subscribe", "channel": name, "filters": filters}).to_string();
            let expected_unknown = filters.iter().filter(|f| Filter::from_name(f).is_none()).count();
            match Control::decode(json.as_bytes()) {
                Ok(Control::Subscribe(subscribe)) => {
                    prop_assert_eq!(subscribe.channel.as_str(), name);
                    prop_assert_eq!(subscribe.unknown_filters, expected_unknown);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
