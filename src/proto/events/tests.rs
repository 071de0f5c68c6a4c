//! Tests of [`super`].

use super::*;
use crate::proto::json::push_string;
use proptest::prelude::*;

fn messages(body: &str) -> Vec<Message> {
    decode(body.as_bytes()).expect("events").into_iter().flat_map(Event::into_messages).collect()
}

fn message(channel: &str, id: Option<&str>, event: Option<&str>, data: Data) -> Message {
    let label = |text: &str| Label::new(text).expect("a label");
    let channel = ChannelName::new(channel).expect("a channel");
    Message { channel, id: id.map(label), event: event.map(label), data, cloudevent: None, grip: None }
}

#[track_caller]
fn check(body: &str, expected: &[Message]) {
    assert_eq!(messages(body), expected, "{body}");
}

#[track_caller]
fn check_data(data: &str, expected: Data) {
    check(&format!(r#"{{"channel":"c",{data}}}"#), &[message("c", None, None, expected)]);
}

#[track_caller]
fn check_error(body: impl AsRef<[u8]>, index: Option<usize>, field: Option<&str>, text: &str) {
    let error = decode(body.as_ref()).expect_err("an error");
    assert_eq!((error.index, error.field.as_deref()), (index, field), "{error}");
    assert!(error.to_string().contains(text), "{error} has no {text:?}");
}

#[test]
fn an_event_becomes_a_message_for_each_channel_in_order() {
    check(r#"{"channel":"a","data":"x"}"#, &[message("a", None, None, Data::Text("x".into()))]);
    check(
        r#" { "event": "e" , "channels": ["b", "a", "c"], "id": "7", "data": [1, 2] } "#,
        &["b", "a", "c"].map(|channel| message(channel, Some("7"), Some("e"), Data::Json("[1,2]".into()))),
    );
    check(
        r#"[{"channel":"a","data":1},{"channels":["b"],"data":2}]"#,
        &[message("a", None, None, Data::Json("1".into())), message("b", None, None, Data::Json("2".into()))],
    );
    check("[]", &[]);
}

#[test]
fn data_stays_what_it_was() {
    check_data(r#""data":"a\n\"\u00e9""#, Data::Text("a\n\"é".into()));
    check_data(r#""data":"""#, Data::Text("".into()));
    check_data(r#""data":null"#, Data::Json("null".into()));
    check_data(r#""data": { "b" : 1.00 , "a" : "\u00e9" } "#, Data::Json(r#"{"b":1.00,"a":"\u00e9"}"#.into()));
    check_data(r#""data":12345678901234567890123"#, Data::Json("12345678901234567890123".into()));
    check_data(r#""data":["\ud800"]"#, Data::Json(r#"["\ud800"]"#.into()));
    check_data(r#""data_base64":"AP+/""#, Data::Binary([0, 0xff, 0xbf].into()));
    check_data(r#""data_base64":"AA""#, Data::Binary([0].into()));
    check_data(r#""data_base64":"""#, Data::Binary([].into()));
}

#[test]
fn null_means_not_set_except_for_data() {
    let expected = [message("c", None, None, Data::Text("x".into()))];
    check(r#"{"channel":"c","channels":null,"id":null,"event":null,"data":"x","data_base64":null}"#, &expected);
    check(r#"{"channel":null,"channels":["c"],"data":"x"}"#, &expected);
    check_error(r#"{"channel":null,"data":1}"#, None, None, "no channel is named");
    check_error(r#"{"channel":"c","data":null,"data_base64":"AA=="}"#, None, None, "both \"data\"");
    check_error(r#"{"channel":"c","data_base64":null}"#, None, None, "no data is given");
}

#[test]
fn escaped_member_names_count() {
    check(r#"{"ch\u0061nnel":"c","data":"x"}"#, &[message("c", None, None, Data::Text("x".into()))]);
    check_error(r#"{"channel":"c","\u0063hannel":"d","data":1}"#, None, Some("channel"), "twice");
}

#[test]
fn errors_name_the_member_and_the_remedy() {
    check_error("", None, None, "the text ends where a value should follow");
    check_error("{\"channel\":\"c\",\"data\":\"\u{1}\"}", None, None, "control character");
    check_error(b"{\"channel\":\"c\",\"data\":\"\xff\"}", None, None, "invalid UTF-8 at byte 23");
    check_error("7", None, None, "a number is no event; send an object");
    check_error("\"c\"", None, None, "a string is no event");
    check_error("{}", None, None, "no channel is named");
    check_error(r#"{"channel":"c"}"#, None, None, "no data is given");
    check_error(r#"{"channel":"c","channels":["d"],"data":1}"#, None, None, "both \"channel\"");
    check_error(r#"{"channel":7,"data":1}"#, None, Some("channel"), "is a number, but must be a string");
    check_error(r#"{"channel":"","data":1}"#, None, Some("channel"), "empty");
    check_error(r#"{"channel":"a\nb","data":1}"#, None, Some("channel"), "control character");
    check_error(r#"{"channels":"c","data":1}"#, None, Some("channels"), "must be an array of names");
    check_error(r#"{"channels":[],"data":1}"#, None, Some("channels"), "is empty; name at least one");
    check_error(r#"{"channels":["a",1],"data":1}"#, None, Some("channels"), "is a number");
    check_error(r#"{"channels":["a","b","a"],"data":1}"#, None, Some("channels"), "names a twice");
    check_error(r#"{"channel":"c","id":"","data":1}"#, None, Some("id"), "is empty");
    check_error(r#"{"channel":"c","id":"a\nb","data":1}"#, None, Some("id"), "CR, LF or NUL");
    check_error(r#"{"channel":"c","id":7,"data":1}"#, None, Some("id"), "is a number, but must be a string");
    check_error(r#"{"channel":"c","event":"a\u0000","data":1}"#, None, Some("event"), "CR, LF or NUL");
    check_error(r#"{"channel":"c","data":"\ud83d"}"#, None, Some("data"), "lone surrogate");
    check_error(r#"{"channel":"c","data_base64":"a_-="}"#, None, Some("data_base64"), "is no base64");
    check_error(r#"{"channel":"c","data_base64":[1]}"#, None, Some("data_base64"), "is an array");
    check_error(r#"{"channel":"c","data":1,"data":2}"#, None, Some("data"), "is given twice");
    let long = format!(r#"{{"channel":"c","id":"{}","data":1}}"#, "x".repeat(256));
    check_error(long, None, Some("id"), "256 bytes");
}

#[test]
fn unknown_members_are_refused_with_the_nearest_known_one() {
    check_error(r#"{"chanel":"c","data":1}"#, None, Some("chanel"), "did you mean \"channel\"?");
    check_error(r#"{"channel":"c","Data":1}"#, None, Some("Data"), "did you mean \"data\"?");
    check_error(r#"{"topic":"c","data":1}"#, None, Some("topic"), "did you mean \"channel\"?");
    check_error(r#"{"channel":"c","type":"x","data":1}"#, None, Some("type"), "did you mean \"event\"?");
    check_error(r#"{"channel":"c","datas_base64":"","data":1}"#, None, Some("datas_base64"), "\"data_base64\"?");
    check_error(r#"{"channel":"c","zzz":1,"data":1}"#, None, Some("zzz"), "an event has channel, channels, id");
    let long = format!(r#"{{"{}":1}}"#, "é".repeat(100_000));
    assert!(decode(long.as_bytes()).expect_err("an error").to_string().len() < 400);
}

#[test]
fn an_error_in_an_array_has_its_index() {
    check_error(r#"[{"channel":"a","data":1},{"channel":"b"}]"#, Some(1), None, "event 1: no data is given");
    check_error(r#"[{"channel":"a","data":1},{"id":7}]"#, Some(1), None, "event 1: no channel is named");
    check_error(r#"[{"channel":"a","id":{},"data":1}]"#, Some(0), Some("id"), "event 0: \"id\" is an object");
    check_error(r#"[[{"channel":"a","data":1}]]"#, Some(0), None, "an array is no event");
    check_error(r#"[{"channel":"a","data":1},]"#, None, None, "']' at byte 26");
}

#[test]
fn counts_and_depth_are_bounded() {
    let names = |count: usize| (0..count).map(|n| format!("\"c{n}\"")).collect::<Vec<_>>().join(",");
    assert_eq!(messages(&format!(r#"{{"channels":[{}],"data":1}}"#, names(CHANNELS_MAX))).len(), CHANNELS_MAX);
    let body = format!(r#"{{"channels":[{}],"data":1}}"#, names(CHANNELS_MAX + 1));
    check_error(body, None, Some("channels"), "more than 100 channels");
    let events = |count: usize| format!("[{}]", vec![r#"{"channel":"c","data":1}"#; count].join(","));
    assert_eq!(messages(&events(EVENTS_MAX)).len(), EVENTS_MAX);
    check_error(events(EVENTS_MAX + 1), None, None, "more than 10000 events");
    let deep = format!(r#"{{"channel":"c","data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    check_error(deep, None, None, "nested deeper than 128");
}

#[test]
fn a_line_is_one_event() {
    assert!(decode_line(br#"{"channel":"c","data":1}"#).is_ok());
    let error = decode_line(br#"[{"channel":"c","data":1}]"#).expect_err("an error");
    assert!(error.to_string().contains("an array is no event"), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }

    #[test]
    fn any_members_decode_or_are_refused(
        members in proptest::collection::vec(("(channels?|id|event|data(_base64)?|x)", "(\"[a-c=\\\\n]{0,4}\"|null|7|\\[\"a\"\\]|\\{\\})"), 0..5)
    ) {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let body = format!("{{{}}}", members.join(","));
        if let Err(error) = decode(body.as_bytes()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn text_and_bytes_survive(text: String, bytes: Vec<u8>) {
        let mut body = r#"[{"channel":"c","data":"#.to_owned();
        push_string(&mut body, &text);
        body.push_str(r#"},{"channel":"c","data_base64":""#);
        body.push_str(&base64::engine::general_purpose::STANDARD.encode(&bytes));
        body.push_str(r#""}]"#);
        let data: Vec<_> = messages(&body).into_iter().map(|message| message.data).collect();
        prop_assert_eq!(data, vec![Data::Text(text.into()), Data::Binary(bytes.into())]);
    }
}
