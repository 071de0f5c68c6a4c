//! The fields of an event: who it is about, and which one it is (CloudEvents HTTP binding 1.0.2 §3.1, binary mode).

use crate::proto::websocket_cloudevents::machine::{Event, Request};
use crate::proto::websocket_cloudevents::signature::sign;
use crate::proto::websocket_cloudevents::state::State;
use crate::proto::websocket_cloudevents::validation;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What does not stand as it is in a field: the percent sign, since it begins an escape; all that is not ASCII besides.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// A connection as its events name it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The fields that are the same in all of them.
    fields: HeaderMap,
}

impl Identity {
    /// A connection of a hub, from `origin`, that nothing is known about yet.
    pub fn new<'a>(hub: &str, origin: &str, connection_id: &str, keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut identity = Self { fields: validation::question(origin) };
        identity.set("ce-specversion", "1.0");
        identity.set("ce-source", &format!("/hubs/{hub}/client/{connection_id}"));
        identity.set("ce-hub", hub);
        identity.set("ce-connectionid", connection_id);
        if let Some(signature) = sign(keys, connection_id) {
            identity.set("ce-signature", &signature);
        }
        identity
    }

    /// Who the client is. What can't stand in a field is percent-encoded (§3.1.3.2).
    pub fn name_user(&mut self, user_id: &str) {
        let mut text = utf8_percent_encode(user_id, ESCAPED).to_string();
        // Fields have no spaces at their ends.
        if text.starts_with(' ') || text.ends_with(' ') {
            text = text.replace(' ', "%20");
        }
        self.set("ce-userid", &text);
    }

    /// Which subprotocol the client speaks.
    pub fn name_subprotocol(&mut self, subprotocol: &str) {
        self.set("ce-subprotocol", subprotocol);
    }

    /// The fields and body of an event, at a time in milliseconds since 1970. `connect` is the body of that event.
    pub fn request(&self, request: &Request, unix_ms: u64, state: &State, connect: &Bytes) -> (HeaderMap, Bytes) {
        let mut event = Self { fields: self.fields.clone() };
        let (media_type, body) = match &request.event {
            Event::Connect => (JSON, connect.clone()),
            Event::Connected => (JSON, Bytes::from_static(b"{}")),
            Event::Message(payload) => (payload.media_type(), payload.bytes().clone()),
            Event::Disconnected(reason) => (JSON, format!(r#"{{"reason":"{}"}}"#, reason.as_str()).into()),
        };
        event.set("ce-type", request.event.type_name());
        event.set("ce-eventname", request.event.name());
        event.set("ce-id", &request.id.to_string());
        event.set("ce-time", &timestamp(unix_ms));
        event.fields.insert(CONTENT_TYPE, media_type);
        state.tell(&mut event.fields);
        (event.fields, body)
    }

    fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.fields.insert(HeaderName::from_static(name), value);
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// RFC 3339, in milliseconds.
fn timestamp(unix_ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::session::CloseReason;
    use crate::proto::websocket_cloudevents::message::Payload;

    fn shown(identity: &Identity, event: Event, state: &State) -> (Vec<String>, Bytes) {
        let request = Request::new(7, event);
        let (fields, body) = identity.request(&request, 1_609_459_200_250, state, &Bytes::from_static(b"{1}"));
        let shown = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().expect("text"));
        let mut lines: Vec<_> = fields.iter().map(shown).collect();
        lines.sort();
        (lines, body)
    }

    #[test]
    fn events_are_cloudevents_in_binary_mode() {
        let mut identity = Identity::new("chat", "push.example", "id-1", [&b"Jefe"[..]]);
        let (lines, body) = shown(&identity, Event::Connect, &State::default());
        let signature = sign([&b"Jefe"[..]], "id-1").expect("a signature");
        assert_eq!(
            lines,
            [
                "ce-awpsversion: 1.0",
                "ce-connectionid: id-1",
                "ce-eventname: connect",
                "ce-hub: chat",
                "ce-id: 7",
                &format!("ce-signature: {signature}"),
                "ce-source: /hubs/chat/client/id-1",
                "ce-specversion: 1.0",
                "ce-time: 2021-01-01T00:00:00.25Z",
                "ce-type: azure.webpubsub.sys.connect",
                "content-type: application/json; charset=utf-8",
                "webhook-request-origin: push.example",
            ]
        );
        assert_eq!(&body[..], b"{1}");
        identity.name_user("bob");
        identity.name_subprotocol("v1");
        let mut state = State::default();
        state
            .learn(&[(super::super::state::CONNECTION_STATE, HeaderValue::from_static("s"))].into_iter().collect())
            .expect("taken");
        let (lines, body) = shown(&identity, Event::Message(Payload::Binary(Bytes::from_static(b"x"))), &state);
        for line in [
            "ce-connectionstate: s",
            "ce-eventname: message",
            "ce-subprotocol: v1",
            "ce-type: azure.webpubsub.user.message",
            "ce-userid: bob",
            "content-type: application/octet-stream",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:?}");
        }
        assert_eq!(&body[..], b"x");
        assert_eq!(&shown(&identity, Event::Connected, &state).1[..], b"{}");
        assert_eq!(&shown(&identity, Event::Disconnected(CloseReason::Drain), &state).1[..], br#"{"reason":"drain"}"#);
    }

    #[test]
    fn user_ids_stand_in_a_field() {
        #[track_caller]
        fn check(user_id: &str, expected: &str) {
            let mut identity = Identity::new("chat", "push.example", "id-1", []);
            identity.name_user(user_id);
            assert_eq!(identity.fields["ce-userid"], expected);
            assert!(!identity.fields.contains_key("ce-signature"));
        }
        check("bob@shop.example", "bob@shop.example");
        check("Bob Smith", "Bob Smith");
        check("Zoë", "Zo%C3%AB");
        check("100%", "100%25");
        check(" x y", "%20x%20y");
    }
}
