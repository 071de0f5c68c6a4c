//! The machine, driven by hand: each test is a conversation.

mod ends;
mod extras;
mod promises;

use super::*;
use crate::proto::websocket_over_http::MEDIA_TYPE;
use crate::proto::websocket_over_http::event::EventFault;
use http::{HeaderName, HeaderValue};

const MIDDLE: Jitter = Jitter(u16::MAX / 2);

/// A machine with a clock of its own.
struct Talk {
    bridge: Bridge,
    now_ms: u64,
}

impl Talk {
    fn new(pings: Pings) -> Self {
        Self { bridge: Bridge::new(pings, Meta::default()), now_ms: 0 }
    }

    /// An open connection whose backend speaks `grip`.
    fn open() -> Self {
        Self::open_with(Pings::Answered, &[("sec-websocket-extensions", "grip")], "")
    }

    fn open_with(pings: Pings, fields: &[(&str, &str)], events: &str) -> Self {
        let mut talk = Self::new(pings);
        talk.expect_post("OPEN\r\n");
        talk.answer_with(200, fields, &format!("OPEN\r\n{events}")).expect("opened");
        talk
    }

    #[track_caller]
    fn expect(&mut self, expected: &[Action]) {
        let actual: Vec<_> = std::iter::from_fn(|| self.bridge.next(self.now_ms)).collect();
        assert_eq!(actual, expected);
    }

    #[track_caller]
    fn expect_post(&mut self, body: &str) {
        self.expect(&[post(body)]);
    }

    fn answer_with(&mut self, status: u16, fields: &[(&str, &str)], body: &str) -> Result<(), AnswerError> {
        let mut map = HeaderMap::new();
        map.insert("content-type", HeaderValue::from_static(MEDIA_TYPE));
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.bridge.answered(Outcome::Answered(status, &map, &body), MIDDLE, self.now_ms)
    }

    #[track_caller]
    fn answer(&mut self, body: &str) {
        self.answer_with(200, &[], body).expect("a good answer");
    }

    fn not_processed(&mut self) -> Result<(), AnswerError> {
        self.bridge.answered(Outcome::NotProcessed, MIDDLE, self.now_ms)
    }

    fn fail(&mut self) -> Result<(), AnswerError> {
        self.bridge.answered(Outcome::Failed, MIDDLE, self.now_ms)
    }

    fn say(&mut self, text: &'static str) {
        self.client_said(FromClient::Text(text.into()));
    }

    fn client_said(&mut self, frame: FromClient) {
        self.bridge.client_said(frame, self.now_ms);
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.client_said(FromClient::Close(Close::new(code, reason)));
    }

    #[track_caller]
    fn expect_over(&mut self) {
        self.expect(&[]);
        assert!(self.bridge.is_over(), "{:?}", self.bridge);
    }
}

fn post(body: &str) -> Action {
    Action::Post(Bytes::copy_from_slice(body.as_bytes()))
}

fn text(content: &str) -> Action {
    Action::Send(Frame::Text(Bytes::copy_from_slice(content.as_bytes())))
}

fn closed(code: u16, reason: &str, why: CloseReason) -> Action {
    Action::Close(Close::new(code, reason), why)
}

fn backend_failed() -> Action {
    closed(1011, "the backend failed", CloseReason::Upstream)
}

fn event(event: &Event) -> String {
    let mut out = BytesMut::new();
    event.encode(&mut out);
    String::from_utf8(out.to_vec()).expect("a text")
}

fn control(json: &str) -> String {
    event(&Event::Text(format!("c:{json}").into()))
}

// 3873 is 0x0f21, which is ASCII, so that the body is a text.
const CLOSE_3873: &str = "CLOSE 4\r\n\x0f\u{21}hi\r\n";

#[test]
fn messages_go_both_ways() {
    let mut talk = Talk::open();
    talk.expect(&[]);
    talk.say("hello");
    talk.expect_post("TEXT 5\r\nhello\r\n");
    talk.answer("TEXT 7\r\nm:hello\r\nBINARY 3\r\nm:\x01\r\n");
    talk.expect(&[text("hello"), Action::Send(Frame::Binary(Bytes::from_static(&[1])))]);
    talk.expect(&[]);
    assert_eq!(talk.bridge.deadline_ms(), None);
}

#[test]
fn the_answer_to_open_may_say_more() {
    let subscribe = control(r#"{"type":"subscribe","channel":"a"}"#);
    let events = format!("TEXT 4\r\nm:hi\r\n{subscribe}");
    let mut talk = Talk::open_with(Pings::Answered, &[("sec-websocket-extensions", "grip")], &events);
    let channel = ChannelName::new("a").expect("a name");
    let subscribe = Subscribe { channel, filters: Vec::new(), unknown_filters: 0 };
    talk.expect(&[text("hi"), Action::Subscribe(subscribe)]);
}

#[test]
fn frames_that_come_meanwhile_go_together() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.say("2");
    talk.client_said(FromClient::Binary("3".into()));
    talk.expect(&[]);
    talk.answer("");
    talk.expect_post("TEXT 1\r\n2\r\nBINARY 1\r\n3\r\n");
}

#[test]
fn nothing_is_asked_before_the_answer_was_pulled() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.answer("TEXT 3\r\nm:a\r\nTEXT 3\r\nm:b\r\n");
    talk.say("2");
    talk.expect(&[text("a"), text("b"), post("TEXT 1\r\n2\r\n")]);
}

#[test]
fn a_client_that_sends_too_much_is_not_read_until_its_backend_answers() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    let part = Bytes::from(vec![b'x'; PENDING_BYTES_MAX / 2 - 100]);
    talk.client_said(FromClient::Binary(part.clone()));
    talk.client_said(FromClient::Binary(part.clone()));
    assert!(talk.bridge.wants_client());
    talk.client_said(FromClient::Binary(part.clone()));
    assert!(!talk.bridge.wants_client());
    talk.answer("");
    match talk.bridge.next(0) {
        Some(Action::Post(body)) => assert!(body.len() > 3 * part.len(), "all three, whole"),
        other => panic!("{other:?}"),
    }
    assert!(talk.bridge.wants_client());
}

#[test]
fn open_is_refused_by_anything_but_open() {
    #[track_caller]
    fn check(status: u16, fields: &[(&str, &str)], body: &str, expected: AnswerError, then: &[Action]) {
        let mut talk = Talk::new(Pings::Answered);
        talk.expect_post("OPEN\r\n");
        assert_eq!(talk.answer_with(status, fields, body), Err(expected));
        talk.expect(then);
        if !then.is_empty() {
            talk.answer("");
        }
        talk.expect_over();
    }
    let disconnect = [post("DISCONNECT\r\n")];
    let malformed = |at, fault| AnswerError::Malformed(EventError { at, fault });
    check(403, &[], "", AnswerError::Status(StatusCode::FORBIDDEN), &[]);
    check(204, &[], "", AnswerError::Status(StatusCode::NO_CONTENT), &[]);
    check(200, &[("content-type", "text/html")], "OPEN\r\n", AnswerError::NotEvents, &disconnect);
    check(200, &[], "", AnswerError::NotOpened, &disconnect);
    check(200, &[], "TEXT 1\r\na\r\nOPEN\r\n", AnswerError::NotOpened, &disconnect);
    check(200, &[], "OPEN\r\nTEXT 9\r\na\r\n", malformed(17, EventFault::Truncated), &disconnect);
    check(200, &[], "<html>", malformed(0, EventFault::NoLineEnd), &disconnect);
    let deflate = [("sec-websocket-extensions", "x")];
    check(200, &deflate, "OPEN\r\n", AnswerError::Extension(ExtensionError::NotOffered("x".into())), &disconnect);
}

#[test]
fn open_is_never_tried_again() {
    let mut talk = Talk::new(Pings::Answered);
    talk.expect_post("OPEN\r\n");
    assert_eq!(talk.not_processed(), Err(AnswerError::GaveUp));
    talk.expect_over();
    let mut talk = Talk::new(Pings::Answered);
    talk.expect_post("OPEN\r\n");
    assert_eq!(talk.fail(), Err(AnswerError::Failed));
    talk.expect_post("DISCONNECT\r\n");
    talk.answer("");
    talk.expect_over();
}

#[test]
fn a_client_that_goes_while_opening_is_told_to_the_backend_that_opened() {
    let gone = || {
        let mut talk = Talk::new(Pings::Answered);
        talk.expect_post("OPEN\r\n");
        talk.bridge.client_gone();
        talk.expect(&[]);
        assert!(!talk.bridge.is_over());
        talk
    };
    let mut talk = gone();
    talk.answer("OPEN\r\nTEXT 1\r\na\r\n");
    talk.expect_post("DISCONNECT\r\n");
    talk.answer("");
    talk.expect_over();

    let mut talk = gone();
    assert!(talk.answer_with(403, &[], "").is_err());
    talk.expect_over();

    let mut talk = gone();
    assert!(talk.fail().is_err());
    talk.expect_post("DISCONNECT\r\n");

    let mut talk = Talk::new(Pings::Answered);
    talk.bridge.client_gone();
    talk.expect_over();
}

#[test]
fn what_surely_was_not_processed_is_tried_five_times_more() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    for wait_secs in [1, 2, 4, 8, 16] {
        talk.not_processed().expect("another try");
        talk.say("2");
        talk.expect(&[]);
        let at_ms = talk.bridge.deadline_ms().expect("a deadline");
        let waited_ms = at_ms - talk.now_ms;
        assert!(waited_ms.abs_diff(wait_secs * 1000) <= 1, "{waited_ms}");
        talk.now_ms = at_ms - 1;
        talk.expect(&[]);
        talk.now_ms = at_ms;
        talk.expect_post("TEXT 1\r\n1\r\n");
    }
    assert_eq!(talk.not_processed(), Err(AnswerError::GaveUp));
    talk.expect(&[backend_failed()]);
    talk.expect_over();
}

#[test]
fn a_try_that_works_goes_on() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.not_processed().expect("another try");
    talk.say("2");
    talk.now_ms = 5000;
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.answer("TEXT 3\r\nm:a\r\n");
    talk.expect(&[text("a"), post("TEXT 1\r\n2\r\n")]);
}

#[test]
fn what_may_have_been_processed_is_not_tried_again() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.say("2");
    assert_eq!(talk.fail(), Err(AnswerError::Failed));
    talk.expect(&[backend_failed(), post("DISCONNECT\r\n")]);
    talk.answer("");
    talk.expect_over();
}

#[test]
fn a_bad_answer_ends_an_open_connection() {
    #[track_caller]
    fn check(status: u16, fields: &[(&str, &str)], body: &str) {
        let mut talk = Talk::open();
        talk.say("1");
        talk.expect_post("TEXT 1\r\n1\r\n");
        assert!(talk.answer_with(status, fields, body).is_err());
        talk.expect(&[backend_failed(), post("DISCONNECT\r\n")]);
        assert!(talk.answer_with(status, fields, body).is_err(), "garbage again");
        talk.expect_over();
    }
    check(500, &[], "");
    check(404, &[], "TEXT 1\r\na\r\n");
    check(204, &[], "TEXT 1\r\na\r\n");
    check(301, &[("location", "/")], "");
    check(200, &[("content-type", "text/html")], "<html>");
    check(200, &[], "TEXT 3\r\nm:a\r\ngarbage");
}

#[test]
fn an_empty_answer_needs_no_media_type() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.answer_with(200, &[("content-type", "text/html")], "").expect("nothing to read");
    talk.say("2");
    talk.expect_post("TEXT 1\r\n2\r\n");
    talk.answer_with(204, &[], "").expect("nothing to read");
    talk.expect(&[]);
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    let mut talk = Talk::open();
    talk.answer("TEXT 3\r\nm:x\r\n");
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
}
