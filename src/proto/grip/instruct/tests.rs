//! Instructs as backends write them, and broken ones.

use super::*;
use crate::proto::grip::keep_alive;
use proptest::prelude::*;

fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in pairs {
        fields.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    fields
}

fn channel(name: &str, prev_id: Option<&str>, filters: &[Filter], unknown_filters: usize) -> Channel {
    Channel {
        name: ChannelName::new(name).expect("a name"),
        prev_id: prev_id.map(|id| Label::new(id).expect("an id")),
        filters: filters.to_vec(),
        unknown_filters,
    }
}

#[track_caller]
fn check(pairs: &[(&'static str, &str)], expected: Instruct) {
    assert_eq!(Instruct::from_fields(&fields(pairs)), Ok(expected), "{pairs:?}");
}

#[track_caller]
fn check_refused(pairs: &[(&'static str, &str)], error: &str) {
    match Instruct::from_fields(&fields(pairs)) {
        Err(actual) => assert!(actual.to_string().contains(error), "{pairs:?}: {actual}"),
        Ok(instruct) => panic!("{pairs:?}: {instruct:?}"),
    }
}

#[track_caller]
fn check_json_refused(json: &str, error: &str) {
    match Instruct::from_json(StatusCode::OK, &HeaderMap::new(), json.as_bytes()) {
        Err(actual) => assert!(actual.to_string().contains(error), "{json}: {actual}"),
        Ok(instruct) => panic!("{json}: {instruct:?}"),
    }
}

#[test]
fn fields_ask_for_a_hold() {
    let hold = |mode, channels| Instruct { hold: Some(mode), channels, ..Instruct::empty() };
    check(&[("grip-hold", "response"), ("grip-channel", "a")], hold(Mode::Response, vec![channel("a", None, &[], 0)]));
    check(
        &[
            ("grip-hold", "stream"),
            ("grip-channel", "a; prev-id=3; filter=build-id; filter=skip-users, b"),
            ("grip-channel", "c;filter=new"),
        ],
        hold(
            Mode::Stream,
            vec![
                channel("a", Some("3"), &[Filter::BuildId, Filter::SkipUsers], 0),
                channel("b", None, &[], 0),
                channel("c", None, &[], 1),
            ],
        ),
    );
}

#[test]
fn fields_say_more() {
    let beat = KeepAlive { content: (*b":\n\n").into(), every_ms: 20_000, mode: keep_alive::Mode::Idle };
    check(
        &[
            ("grip-hold", "stream"),
            ("grip-channel", "a"),
            ("grip-timeout", "2"),
            ("grip-keep-alive", r":\n\n; format=cstring; timeout=20"),
            ("grip-set-meta", r#"user="alice", id_format="x:%(a)s""#),
            ("grip-link", "</p?a=1,2>; rel=next; timeout=60, </gone/1>; rel=gone, <x>; rel=self"),
            ("grip-status", "304 Not Modified"),
            ("grip-expose-headers", "X-A, X-B"),
        ],
        Instruct {
            hold: Some(Mode::Stream),
            channels: vec![channel("a", None, &[], 0)],
            timeout_ms: 5000,
            keep_alive: Some(beat),
            meta: vec![("user".into(), "alice".into()), ("id_format".into(), "x:%(a)s".into())],
            next: Some(NextLink { uri: "/p?a=1,2".into(), timeout_ms: 60_000 }),
            gone: Some("/gone/1".into()),
            status: Some(StatusCode::NOT_MODIFIED),
            expose: Some(vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")]),
            response: None,
        },
    );
}

#[test]
fn what_is_wrong_with_a_field_is_said() {
    check_refused(&[("grip-hold", "forever")], "\"forever\" is no hold");
    check_refused(&[("grip-hold", "stream"), ("grip-channel", "a; x=\"b")], "grip-channel: '\"' is not closed");
    check_refused(&[("grip-channel", "a;filter=1;filter=2;filter=3;filter=4;filter=5;filter=6")], "6 filters");
    check_refused(&[("grip-timeout", "soon")], "Grip-Timeout");
    check_refused(&[("grip-keep-alive", "x; timeout=0")], "Grip-Keep-Alive");
    check_refused(&[("grip-link", "<a>; rel=next; timeout=0")], "Grip-Link");
    check_refused(&[("grip-status", "101")], "Grip-Status");
    check_refused(&[("grip-set-meta", &format!("a={}", "x".repeat(META_BYTES_MAX)))], "Grip-Set-Meta");
    let mut fields = HeaderMap::new();
    fields.append("grip-hold", HeaderValue::from_bytes(b"\xff").expect("a value"));
    assert_eq!(Instruct::from_fields(&fields), Err(InstructError::NoText(HeaderName::from_static("grip-hold"))));
}

#[test]
fn a_json_instruct_is_read() {
    let json = r#"{"hold": {"mode": "stream", "channels": [{"name": "t", "prev-id": "1", "filters": ["skip-self"]}],
        "timeout": "60", "keep-alive": {"content-bin": "a2EK", "timeout": 20}, "meta": {"user": "bob"}},
        "response": {"code": 201, "reason": "OK", "headers": {"Content-Type": "text/plain", "Content-Length": "9"},
        "body": "hi\n"}}"#;
    let beside = fields(&[("grip-link", "</next>; rel=next"), ("content-type", "application/grip-instruct")]);
    let beat = KeepAlive { content: (*b"ka\n").into(), every_ms: 20_000, mode: keep_alive::Mode::Idle };
    let expected = Instruct {
        hold: Some(Mode::Stream),
        channels: vec![channel("t", Some("1"), &[Filter::SkipSelf], 0)],
        timeout_ms: 60_000,
        keep_alive: Some(beat),
        meta: vec![("user".into(), "bob".into())],
        next: Some(NextLink { uri: "/next".into(), timeout_ms: 120_000 }),
        status: Some(StatusCode::CREATED),
        response: Some(Inner {
            status: StatusCode::CREATED,
            fields: fields(&[("content-type", "text/plain")]),
            body: Bytes::from_static(b"hi\n"),
        }),
        ..Instruct::empty()
    };
    assert_eq!(Instruct::from_json(StatusCode::OK, &beside, json.as_bytes()), Ok(expected));
    let json = r#"{"hold": {"channels": [{"name": "t"}]}, "response": {"headers": [["A", "1"], ["A", "2"]]}}"#;
    let read = Instruct::from_json(StatusCode::OK, &HeaderMap::new(), json.as_bytes()).expect("an instruct");
    assert_eq!((read.hold, read.timeout_ms), (Some(Mode::Response), 55_000));
    assert_eq!(read.response.expect("a response").fields.get_all("a").iter().count(), 2);
}

#[test]
fn what_is_wrong_with_a_json_instruct_is_said() {
    check_json_refused("", "no JSON object");
    check_json_refused("[]", "no JSON object");
    check_json_refused(r#"{"hold": 1}"#, "hold is not an object");
    check_json_refused(r#"{"hold": {"channels": [{}]}}"#, "hold.channels[].name");
    check_json_refused(r#"{"hold": {"channels": [{"name": ""}]}}"#, "empty");
    check_json_refused(r#"{"hold": {"timeout": -1, "channels": []}}"#, "hold.timeout");
    check_json_refused(r#"{"response": {"code": 99}}"#, "Grip-Status");
    check_json_refused(r#"{"response": {"headers": {"a b": "c"}}}"#, "valid names");
    check_json_refused(r#"{"response": {"headers": [["a"]]}}"#, "list of pairs");
    check_json_refused(r#"{"response": {"body-bin": "*"}}"#, "base64");
    let not_ok = Instruct::from_json(StatusCode::NOT_FOUND, &HeaderMap::new(), b"{}");
    assert_eq!(not_ok, Err(InstructError::NotOk(StatusCode::NOT_FOUND)));
}

#[test]
fn only_grip_starts_instruct_handling() {
    assert!(is_instruct(&fields(&[("content-type", "application/grip-instruct; charset=utf-8")])));
    assert!(is_instruct(&fields(&[("grip-anything", "1")])));
    assert!(!is_instruct(&fields(&[("content-type", "application/json"), ("x-grip-hold", "stream")])));
}

proptest! {
    #[test]
    fn any_fields_are_read_or_refused(hold in "(stream|response|x)?", channel in r#"[a-c;,="\\ -]{0,30}"#, link in r#"[<>/a;=,]{0,20}"#) {
        let _ = Instruct::from_fields(&fields(&[("grip-hold", &hold), ("grip-channel", &channel), ("grip-link", &link)]));
    }

    #[test]
    fn any_json_is_read_or_refused(json in r#"[{}\[\]",:a-z0-9 -]{0,60}"#) {
        let _ = Instruct::from_json(StatusCode::OK, &HeaderMap::new(), json.as_bytes());
        let nested = format!(r#"{{"hold":{{"channels":[{json}]}},"response":{{"headers":{json}}}}}"#);
        let _ = Instruct::from_json(StatusCode::OK, &HeaderMap::new(), nested.as_bytes());
    }
}
