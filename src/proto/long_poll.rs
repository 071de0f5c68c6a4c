//! The answer of a long poll: `{"events":[{id, channel, event, data}], "next": cursor, "gap": null}`.

use crate::model::message::{Data, Message};
use crate::model::session::Gap;
use crate::proto::sse::gap_json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The media type.
pub const MEDIA_TYPE: &str = "application/json";

/// An answer as it grows, message by message.
#[derive(Debug, Default)]
pub struct Answer {
    events: String,
    gap: Option<Gap>,
}

impl Answer {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.gap.is_none()
    }

    /// The size so far, in bytes.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Adds a message; `cursor` is the place after it.
    pub fn push(&mut self, message: &Message, cursor: &str) {
        if !self.events.is_empty() {
            self.events.push(',');
        }
        self.events.push_str("{\"id\":\"");
        self.events.push_str(cursor);
        self.events.push_str("\",\"channel\":");
        push_json_string(&mut self.events, message.channel.as_str());
        self.events.push_str(",\"event\":");
        match &message.event {
            Some(event) => push_json_string(&mut self.events, event.as_str()),
            None => self.events.push_str("null"),
        }
        match &message.data {
            Data::Text(text) => {
                self.events.push_str(",\"data\":");
                push_json_string(&mut self.events, text);
            }
            Data::Json(text) => {
                self.events.push_str(",\"data\":");
                self.events.push_str(text);
            }
            Data::Binary(bytes) => {
                self.events.push_str(",\"data_base64\":\"");
                STANDARD.encode_string(bytes, &mut self.events);
                self.events.push('"');
            }
        }
        self.events.push('}');
    }

    /// Notes a gap before what follows; true if it fits into this answer: it must come first, and alone.
    pub fn push_gap(&mut self, gap: Gap) -> bool {
        let fits = self.is_empty();
        if fits {
            self.gap = Some(gap);
        }
        fits
    }

    /// The JSON text; `next` is the place after all of it.
    pub fn to_json(&self, next: &str) -> String {
        let gap = self.gap.as_ref().map_or_else(|| "null".to_owned(), gap_json);
        format!("{{\"events\":[{}],\"next\":\"{next}\",\"gap\":{gap}}}", self.events)
    }
}

fn push_json_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::channel::ChannelName;
    use crate::model::message::Label;
    use crate::model::session::GapReason;

    #[test]
    fn events_keep_their_data_as_it_was() {
        let channel = ChannelName::new("c").expect("a name");
        let message = |event: Option<&str>, data| Message {
            channel: channel.clone(),
            id: None,
            event: event.map(|event| Label::new(event).expect("a label")),
            data,
            cloudevent: None,
            grip: None,
        };
        let mut answer = Answer::default();
        assert!(answer.push_gap(Gap { channels: vec![channel.clone()], reason: GapReason::Evicted }));
        answer.push(&message(Some("e"), Data::Json("{\"b\":1.0,\"a\":2}".into())), "1");
        answer.push(&message(None, Data::Text("a\"b".into())), "2");
        answer.push(&message(None, Data::Binary([1].into())), "3");
        assert!(!answer.push_gap(Gap { channels: vec![], reason: GapReason::Slow }));
        assert_eq!(
            answer.to_json("3"),
            r#"{"events":[{"id":"1","channel":"c","event":"e","data":{"b":1.0,"a":2}},{"id":"2","channel":"c","event":null,"data":"a\"b"},{"id":"3","channel":"c","event":null,"data_base64":"AQ=="}],"next":"3","gap":{"channels":["c"],"reason":"evicted"}}"#
        );
        assert_eq!(Answer::default().to_json("9"), r#"{"events":[],"next":"9","gap":null}"#);
    }
}
