//! The JSON forms in which events come: long poll answers and `pushbridge.v1.json` messages.

use crate::cli::subscribe::print::{Gap, Received};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A long poll's answer.
#[derive(Debug, Deserialize)]
pub struct PollAnswer {
    /// What was published, in order.
    pub events: Vec<EventIn>,
    /// The cursor for the next poll.
    pub next: String,
    /// What is lost before the events.
    #[serde(default)]
    pub gap: Option<Gap>,
}

/// An event in JSON.
#[derive(Debug, Deserialize)]
pub struct EventIn {
    #[serde(default)]
    id: String,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    data_base64: Option<String>,
}

/// The head of a message of the server in `pushbridge.v1.json`; which fields are there depends on `kind`.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `welcome`, `reconnect`: where to go on.
    #[serde(default)]
    pub cursor: Option<String>,
    /// `gap`: the cursor after it.
    #[serde(default)]
    pub id: Option<String>,
    /// `reconnect`: when to come again.
    #[serde(default)]
    pub after_ms: Option<u64>,
    /// `error`: why.
    #[serde(default)]
    pub message: Option<String>,
}

impl From<EventIn> for Received {
    /// A JSON string becomes its characters, other JSON stays as it was written, bytes stay base64: as SSE has it.
    fn from(event: EventIn) -> Self {
        let data = match (event.data, event.data_base64) {
            (Some(data), _) => serde_json::from_str(data.get()).unwrap_or_else(|_| data.get().to_owned()),
            (None, base64) => base64.unwrap_or_default(),
        };
        Self { id: event.id, event: event.event, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, id: &str, event: Option<&str>, data: &str) {
        let read: EventIn = serde_json::from_str(json).expect("an event");
        let expected = Received { id: id.into(), event: event.map(str::to_owned), data: data.into() };
        assert_eq!(Received::from(read), expected);
    }

    #[test]
    fn data_of_every_kind_becomes_text() {
        check(r#"{"id":"c","channel":"a","event":"e","data":"x\ny"}"#, "c", Some("e"), "x\ny");
        check(r#"{"id":"c","channel":"a","data":{"z":1.10,"a":"\u00e9"}}"#, "c", None, r#"{"z":1.10,"a":"\u00e9"}"#);
        check(r#"{"id":"c","channel":"a","event":null,"data":12e3}"#, "c", None, "12e3");
        check(r#"{"id":"c","channel":"a","data_base64":"AAE="}"#, "c", None, "AAE=");
        check(r#"{"type":"event","id":"c","data":null}"#, "c", None, "");
    }
}
