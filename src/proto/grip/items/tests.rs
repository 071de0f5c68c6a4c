//! Items as libraries write them, and broken ones.

use super::*;
use crate::model::grip::{ResponseForm, StreamForm, WebSocketForm};
use crate::model::message::Data;
use crate::model::session::Transport;
use proptest::prelude::*;

fn one(item: &str) -> Message {
    let mut items = decode(format!(r#"{{"items":[{item}]}}"#).as_bytes()).expect("an item");
    assert_eq!(items.len(), 1);
    items.pop().expect("one")
}

#[track_caller]
fn check_refused(body: &str, error: &str) {
    match decode(body.as_bytes()) {
        Err(actual) => assert!(actual.to_string().contains(error), "{body}: {actual}"),
        Ok(items) => panic!("{body}: {items:?}"),
    }
}

#[test]
fn formats_stand_on_the_item_or_under_formats() {
    for item in [
        r#"{"channel":"c","id":"2","prev-id":1,"meta":{"sender":"u"},"http-stream":{"content":"x\n"},"ws-message":{"content":"y"},"http-response":{"body":"z"}}"#,
        r#"{"channel":"c","id":2,"prev-id":"1","meta":{"sender":"u"},"formats":{"http-stream":{"content-bin":"eAo="},"ws-message":{"type":"text","content":"y"},"http-response":{"body":"z"}}}"#,
    ] {
        let message = one(item);
        let grip = message.grip.as_deref().expect("a GRIP item");
        assert_eq!(
            (grip.id.as_ref().map(Label::as_str), grip.prev_id.as_ref().map(Label::as_str)),
            (Some("2"), Some("1"))
        );
        assert_eq!(grip.meta("sender"), Some("u"));
        assert_eq!(grip.stream, Some(StreamForm::Send { content: (*b"x\n").into(), filters: None }));
        assert_eq!(message.data_for(Transport::WebSocket), Some(&Data::Text("y".into())));
        assert_eq!(message.data_for(Transport::Sse), Some(&Data::Text("x\n".into())));
    }
}

#[test]
fn push_routes_get_what_fits() {
    #[track_caller]
    fn check(item: &str, event: Option<&str>, data: Option<&str>, websocket: Option<&str>) {
        let message = one(&format!(r#"{{"channel":"c",{item}}}"#));
        let text = |data: &Data| String::from_utf8_lossy(data.as_bytes()).into_owned();
        assert_eq!(message.event.as_ref().map(Label::as_str), event, "{item}");
        assert_eq!(message.data_for(Transport::LongPoll).map(text).as_deref(), data, "{item}");
        assert_eq!(message.data_for(Transport::WebSocket).map(text).as_deref(), websocket, "{item}");
    }
    check(
        r#""http-stream":{"content":"event: a\nid: %I\ndata: 5%%\ndata: b\n\n","content-filters":["build-id"]}"#,
        Some("a"),
        Some("5%\nb"),
        None,
    );
    check(r#""http-stream":{"content":"data: 5%%\n\n"}"#, None, Some("5%%"), None);
    check(r#""http-stream":{"content":"hello: x\n\n"}"#, None, Some("hello: x\n\n"), None);
    check(r#""http-stream":{"content":"data: a\n\ndata: b\n\n"}"#, None, Some("data: a\n\ndata: b\n\n"), None);
    check(r#""http-response":{"body":"r"},"ws-message":{"content":"w"}"#, None, Some("r"), Some("w"));
    check(r#""ws-message":{"content":"w"}"#, None, None, Some("w"));
    check(r#""http-stream":{"action":"hint"},"ws-message":{"action":"close","code":4000}"#, None, None, None);
}

#[test]
fn actions_are_read() {
    let grip = |item: &str| *one(&format!(r#"{{"channel":"c","no-seq":true,{item}}}"#)).grip.expect("a GRIP item");
    assert_eq!(grip(r#""http-stream":{"action":"close"}"#).stream, Some(StreamForm::Close));
    assert_eq!(grip(r#""http-stream":{"action":"hint"}"#).stream, Some(StreamForm::Hint));
    assert_eq!(grip(r#""http-response":{"action":"hint"}"#).response, Some(ResponseForm::Hint));
    assert_eq!(grip(r#""ws-message":{"action":"refresh"}"#).websocket, Some(WebSocketForm::Refresh));
    let close = grip(r#""ws-message":{"action":"close","code":"4001","reason":"bye"}"#);
    assert_eq!((close.websocket, close.order), (Some(WebSocketForm::Close(Some(4001), "bye".into())), Order::Ignored));
    let ping = grip(r#""ws-message":{"type":"ping"}"#);
    assert_eq!(ping.websocket, Some(WebSocketForm::Ping((*b"").into())));
    let binary = grip(r#""ws-message":{"type":"binary","content":"a"}"#);
    assert_eq!(binary.websocket, Some(WebSocketForm::Send { data: Data::Binary((*b"a").into()), filters: None }));
    let patch =
        grip(r#""http-response":{"code":"201","headers":{"A-b":"1"},"body-patch":[{"op":"remove","path":"/a"}]}"#);
    let Some(ResponseForm::Send(parts)) = patch.response else { panic!("no response") };
    assert_eq!((parts.code, &*parts.headers[0].0), (Some(201), "a-b"));
}

#[test]
fn what_is_wrong_is_said_with_the_item() {
    check_refused("x", "no JSON");
    check_refused("[]", "\"items\"");
    check_refused(r#"{"items":{}}"#, "\"items\"");
    let second = |item: &str| format!(r#"{{"items":[{{"channel":"c","ws-message":{{"content":"x"}}}},{item}]}}"#);
    check_refused(&second("1"), "item 1: \"item\"");
    check_refused(&second("{}"), "item 1: \"channel\"");
    check_refused(&second(r#"{"channel":"c"}"#), "item 1: no format");
    check_refused(&second(r#"{"channel":"","ws-message":{"content":"x"}}"#), "empty");
    check_refused(&second(r#"{"channel":"c","http-stream":{}}"#), "\"content\"");
    check_refused(&second(r#"{"channel":"c","http-stream":{"action":"x"}}"#), "no action \"x\"");
    check_refused(&second(r#"{"channel":"c","http-stream":{"content-bin":"*"}}"#), "base64");
    check_refused(&second(r#"{"channel":"c","http-response":{"code":100}}"#), "\"code\"");
    check_refused(&second(r#"{"channel":"c","http-response":{"body-patch":{}}}"#), "JSON Patch");
    check_refused(&second(r#"{"channel":"c","ws-message":{"type":"x","content":"a"}}"#), "\"type\"");
    check_refused(&second(r#"{"channel":"c","id":true,"ws-message":{"content":"a"}}"#), "\"id\"");
    check_refused(&second(r#"{"channel":"c","meta":{"a":1},"ws-message":{"content":"a"}}"#), "\"meta\"");
    assert_eq!(decode(br#"{"items":[]}"#), Ok(Vec::new()));
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused(json in r#"[{}\[\]",:a-z0-9 -]{0,60}"#) {
        let _ = decode(json.as_bytes());
        let _ = decode(format!(r#"{{"items":[{{"channel":"c","http-stream":{json},"ws-message":{json}}}]}}"#).as_bytes());
    }

    #[test]
    fn any_text_reaches_each_kind_of_session(content in "[^\\p{Cc}]{1,60}") {
        let json = serde_json::json!({"items": [{"channel": "c", "http-stream": {"content": content}, "ws-message": {"content": content}}]});
        let items = decode(json.to_string().as_bytes()).expect("an item");
        for transport in Transport::ALL {
            prop_assert_eq!(items[0].data_for(transport), Some(&Data::Text(content.as_str().into())));
        }
    }
}
