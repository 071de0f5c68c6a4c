//! Tests of [`super`].

use super::*;
use crate::model::message::Message;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

fn one(event: Event) -> Message {
    let mut messages = event.into_messages();
    let message = messages.next().expect("a message");
    assert!(messages.next().is_none());
    message
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().expect("a name");
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    map
}

fn binary(more: &[(&str, &str)], body: &[u8]) -> Result<Message, EventError> {
    let required =
        [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/s"), ("ce-type", "t"), ("ce-channel", "c")];
    decode_binary(&headers(&[required.as_slice(), more].concat()), body).map(one)
}

fn structured_value(message: &Message) -> Value {
    serde_json::from_str(&structured(message, "CURSOR")).expect("JSON")
}

#[track_caller]
fn check_error(body: &str, field: &str, text: &str) {
    let error = decode_structured(body.as_bytes()).expect_err("an error");
    assert_eq!(error.field.as_deref().unwrap_or(""), field, "{error}");
    assert!(error.to_string().contains(text), "{error} has no {text:?}");
}

#[track_caller]
fn check_binary_error(more: &[(&str, &str)], body: &[u8], text: &str) {
    let error = binary(more, body).expect_err("an error").to_string();
    assert!(error.contains(text), "{error} has no {text:?}");
}

/// A structured event of the required attributes and `members`.
fn event_of(members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"7","source":"/s","type":"t"{members}}}"#)
}

#[test]
fn a_structured_event_keeps_its_attributes_and_data() {
    let body = r#"{ "specversion" : "1.0", "type": "com.example.tick", "source": "/prices", "subject": "prices.ACME",
        "id": "A-1", "time": "2018-04-05T17:31:00.5+02:00", "comexampleext": 7, "flag": true, "unset": null,
        "datacontenttype": "application/json", "data": { "price" : 1.50 } }"#;
    let message = one(decode_structured(body.as_bytes()).expect("an event"));
    assert_eq!(message.channel.as_str(), "prices.ACME");
    assert_eq!(message.event.as_ref().map(Label::as_str), Some("com.example.tick"));
    assert_eq!(message.id.as_ref().map(Label::as_str), Some("/prices A-1"));
    assert_eq!(message.data, Data::Json(r#"{"price":1.50}"#.into()));
    assert_eq!(
        structured(&message, "CURSOR"),
        concat!(
            r#"{"specversion":"1.0","type":"com.example.tick","source":"/prices","subject":"prices.ACME","id":"A-1","#,
            r#""time":"2018-04-05T17:31:00.5+02:00","comexampleext":7,"flag":true,"#,
            r#""datacontenttype":"application/json","data":{"price":1.50}}"#
        )
    );
}

#[test]
fn the_channel_is_the_extension_else_the_subject() {
    let channel = |members: &str| one(decode_structured(event_of(members).as_bytes()).expect("an event")).channel;
    assert_eq!(channel(r#","subject":"s","channel":"c""#).as_str(), "c");
    assert_eq!(channel(r#","subject":"s""#).as_str(), "s");
    assert_eq!(channel(r#","subject":"s","channel":null"#).as_str(), "s");
    check_error(&event_of(""), "channel", "there is no \"subject\" in its place");
    check_error(&event_of(r#","subject":"a","channel":"""#), "channel", "is empty");
}

#[test]
fn data_has_three_forms_or_none() {
    let message =
        |data: &str| one(decode_structured(event_of(&format!(r#","channel":"c"{data}"#)).as_bytes()).expect(data));
    assert_eq!(message(r#","data":"x\n""#).data, Data::Text("x\n".into()));
    assert_eq!(message(r#","data":null"#).data, Data::Json("null".into()));
    assert_eq!(message(r#","data_base64":"AP8=""#).data, Data::Binary([0, 255].into()));
    assert_eq!(message("").data, Data::Text("".into()));
    for data in [r#","data":"x\n""#, r#","data":null"#, r#","data_base64":"AP8=""#, ""] {
        let body = event_of(&format!(r#","channel":"c"{data}"#));
        assert_eq!(structured(&message(data), "CURSOR"), body);
    }
}

#[test]
fn errors_name_the_attribute_and_the_remedy() {
    check_error("[]", "", "an array is no event");
    check_error("{", "", "ends where");
    let without = |name: &str| {
        let mut event = json!({"specversion": "1.0", "id": "7", "source": "/s", "type": "t", "channel": "c"});
        event.as_object_mut().expect("an object").remove(name);
        event.to_string()
    };
    for name in ["specversion", "id", "source", "type", "channel"] {
        check_error(&without(name), name, "is missing");
    }
    check_error(r#"{"specversion":"0.3"}"#, "specversion", "is not \"1.0\"");
    check_error(r#"{"specversion":1.0}"#, "specversion", "is a number, but must be a string");
    check_error(r#"{"id":""}"#, "id", "is empty");
    check_error(r#"{"id":"a\n"}"#, "id", "control character");
    check_error(r#"{"id":"\ud800"}"#, "id", "lone surrogate");
    check_error(r#"{"id":"1","id":"2"}"#, "id", "is given twice");
    check_error(r#"{"data":1,"data":1}"#, "data", "is given twice");
    check_error(r#"{"time":"yesterday"}"#, "time", "RFC 3339");
    check_error(r#"{"my_ext":"x"}"#, "my_ext", "a-z and 0-9 only");
    check_error(r#"{"myExt":"x"}"#, "myExt", "a-z and 0-9 only");
    check_error(r#"{"ext":{}}"#, "ext", "is an object");
    check_error(r#"{"ext":1.5}"#, "ext", "32-bit integer");
    check_error(r#"{"ext":4294967296}"#, "ext", "32-bit integer");
    check_error(&event_of(r#","channel":"c","data":1,"data_base64":"""#), "", "both \"data\"");
    check_error(&event_of(r#","channel":"c","data_base64":"%""#), "data_base64", "is no base64");
    let many: Vec<_> = (0..65).map(|n| format!(r#""e{n}":"x""#)).collect();
    check_error(&format!("{{{}}}", many.join(",")), "e64", "64 at most");
}

#[test]
fn a_batch_is_an_array_and_may_be_empty() {
    let event = event_of(r#","channel":"c""#);
    assert_eq!(decode_batch(format!("[{event},{event}]").as_bytes()).map(|events| events.len()), Ok(2));
    assert_eq!(decode_batch(b"[]"), Ok(vec![]));
    let error = decode_batch(event.as_bytes()).expect_err("an error").to_string();
    assert!(error.contains("must be an array of CloudEvents"), "{error}");
    let error = decode_batch(format!("[{event},{{}}]").as_bytes()).expect_err("an error");
    assert_eq!(error.to_string(), "event 1: \"specversion\" is missing; CloudEvents 1.0 requires it");
}

#[test]
fn binary_mode_reads_fields_and_body() {
    let message = binary(&[("content-type", "application/json; charset=utf-8"), ("ce-subject", "s")], b" {\"a\": 1} ");
    let message = message.expect("an event");
    assert_eq!((message.channel.as_str(), &message.data), ("c", &Data::Json(r#"{"a":1}"#.into())));
    assert_eq!(message.id.as_ref().map(Label::as_str), Some("/s 7"));
    assert_eq!(
        structured_value(&message),
        json!({
            "specversion": "1.0", "id": "7", "source": "/s", "type": "t", "channel": "c", "subject": "s",
            "datacontenttype": "application/json; charset=utf-8", "data": {"a": 1}
        })
    );
}

#[test]
fn binary_bodies_are_what_their_media_type_says() {
    let data = |media_type: &str, body: &[u8]| binary(&[("content-type", media_type)], body).expect(media_type).data;
    assert_eq!(data("application/json", b"\"x\""), Data::Text("x".into()));
    assert_eq!(data("application/vnd.x+json", b"[1 ]"), Data::Json("[1]".into()));
    assert_eq!(data("text/plain", "é".as_bytes()), Data::Text("é".into()));
    assert_eq!(data("Application/XML;charset=UTF-8", b"<a/>"), Data::Text("<a/>".into()));
    assert_eq!(data("text/plain; charset=iso-8859-1", b"\xe9"), Data::Binary([0xe9].into()));
    assert_eq!(data("image/png", b"\x89PNG"), Data::Binary(b"\x89PNG".as_slice().into()));
    assert_eq!(data("application/json", b""), Data::Text("".into()));
    assert_eq!(binary(&[], b"x").expect("an event").data, Data::Binary(b"x".as_slice().into()));
    check_binary_error(&[("content-type", "application/json")], b"{", "\"the body\" no valid JSON");
    check_binary_error(&[("content-type", "text/plain")], b"\xff", "is no UTF-8");
}

#[test]
fn field_values_are_unquoted_and_percent_decoded_once() {
    let subject = |value: &str| {
        let message = binary(&[("ce-subject", value)], b"").expect(value);
        structured_value(&message)["subject"].as_str().expect("a string").to_owned()
    };
    assert_eq!(subject("Euro%20%E2%82%AC%20%F0%9F%98%80"), "Euro € 😀");
    assert_eq!(subject("%2525"), "%25");
    assert_eq!(subject("\"a \\\"b\\\" %22c%22\""), "a \"b\" \"c\"");
    assert_eq!(subject("100% x %zz"), "100% x %zz");
    assert_eq!(subject("é"), "é");
    check_binary_error(&[("ce-subject", "%FF")], b"", "is no UTF-8");
    check_binary_error(&[("ce-subject", "%0A")], b"", "control character");
    check_binary_error(&[("ce-subject", "\"a")], b"", "does not end");
    check_binary_error(&[("ce-subject", "\"a\" b")], b"", "does not end");
    check_binary_error(&[("ce-id", "8")], b"", "is given twice");
    check_binary_error(&[("ce-my-ext", "x")], b"", "a-z and 0-9 only");
    check_binary_error(&[("ce-datacontenttype", "x")], b"", "Content-Type");
    check_binary_error(&[("ce-data", "x")], b"", "the data is the body");
}

#[test]
fn a_long_source_and_id_are_hashed_into_the_idempotency_id() {
    let id = idempotency_id(&"x".repeat(256)).expect("a label");
    assert!(id.as_str().starts_with("sha256:") && id.as_str().len() == 71, "{id}");
    assert_ne!(id, idempotency_id(&"y".repeat(256)).expect("a label"));
    assert_eq!(idempotency_id("s 1").expect("a label").as_str(), "s 1");
    let hash = idempotency_id(&"a".repeat(1_000_000)).expect("a label");
    assert_eq!(hash.as_str(), "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

#[test]
fn other_messages_get_attributes_of_their_own() {
    let plain = |event: Option<&str>, data| Message {
        channel: ChannelName::new("a/b é%").expect("a channel"),
        id: Label::new("mine").ok(),
        event: event.map(|event| Label::new(event).expect("a label")),
        data,
        cloudevent: None,
        grip: None,
    };
    let attributes = |kind: &str, media_type: &str| {
        json!({
            "specversion": "1.0", "id": "CURSOR", "source": "/channels/a%2Fb%20%C3%A9%25",
            "type": kind, "datacontenttype": media_type
        })
    };
    for (message, kind, media_type, field, data) in [
        (plain(None, Data::Text("x\"".into())), "message", "text/plain", "data", json!("x\"")),
        (plain(None, Data::Text("".into())), "message", "text/plain", "data", json!("")),
        (plain(Some("tick"), Data::Json("[1]".into())), "tick", "application/json", "data", json!([1])),
        (plain(None, Data::Binary([0].into())), "message", "application/octet-stream", "data_base64", json!("AA==")),
    ] {
        let mut expected = attributes(kind, media_type);
        expected[field] = data;
        assert_eq!(structured_value(&message), expected);
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
        let _ = decode_structured(&bytes);
        let _ = decode_batch(&bytes);
    }

    #[test]
    fn any_field_decodes_or_is_refused(
        name in "[a-z0-9-]{0,6}",
        value in proptest::collection::vec(prop_oneof![0x20u8..=0x7e, 0x80u8..=0xff, Just(b'%'), Just(b'"')], 0..12),
        body: Vec<u8>,
    ) {
        let mut map = headers(&[("ce-specversion", "1.0"), ("content-type", "application/json")]);
        map.append(HeaderName::from_bytes(format!("ce-{name}").as_bytes()).expect("a name"),
            HeaderValue::from_bytes(&value).expect("a value"));
        let _ = decode_binary(&map, &body);
    }

    #[test]
    fn what_is_rendered_decodes_to_the_same(text in "\\PC*", subject in "\\PC{1,40}", base64: bool) {
        let data = if base64 { Data::Binary(text.as_bytes().into()) } else { Data::Text(text.as_str().into()) };
        let message = Message {
            channel: ChannelName::new("c").expect("a channel"),
            id: None, event: None, data, cloudevent: None,
            grip: None,
        };
        let mut body: Value = serde_json::from_str(&structured(&message, "CURSOR")).expect("JSON");
        body["subject"] = subject.as_str().into();
        let first = one(decode_structured(body.to_string().as_bytes()).expect("an event"));
        prop_assert_eq!(first.channel.as_str(), subject.as_str());
        prop_assert_eq!(&first.data, &message.data);
        let again = one(decode_structured(structured(&first, "OTHER").as_bytes()).expect("an event"));
        prop_assert_eq!(first, again);
    }
}
