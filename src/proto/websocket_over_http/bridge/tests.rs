//! The machine, driven by hand: each test is a conversation.

use super::*;
use crate::proto::websocket_over_http::MEDIA_TYPE;
use crate::proto::websocket_over_http::event::EventFault;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

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
fn the_client_closes_and_the_backend_agrees() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.client_said(FromClient::Close(Close::new(3873, "hi")));
    assert!(!talk.bridge.wants_client());
    talk.say("too late");
    talk.expect(&[post(&format!("TEXT 1\r\n1\r\n{CLOSE_3873}"))]);
    talk.answer(&format!("TEXT 5\r\nm:bye\r\n{CLOSE_3873}"));
    talk.expect(&[text("bye"), closed(3873, "hi", CloseReason::Done)]);
    talk.expect_over();
}

#[test]
fn the_clients_own_close_comes_back_where_the_backend_says_none() {
    let mut talk = Talk::open();
    talk.close(4000, "a");
    assert!(matches!(talk.bridge.next(0), Some(Action::Post(_))));
    talk.answer("TEXT 3\r\nm:x\r\n");
    talk.expect(&[text("x"), closed(4000, "a", CloseReason::Done)]);
    talk.expect_over();
}

#[test]
fn a_closing_client_does_not_wait_for_ever() {
    let mut talk = Talk::open();
    talk.close(4000, "a");
    assert!(matches!(talk.bridge.next(0), Some(Action::Post(_))));
    assert_eq!(talk.bridge.deadline_ms(), Some(CLOSE_WAIT_MS));
    talk.now_ms = CLOSE_WAIT_MS;
    talk.expect(&[closed(4000, "a", CloseReason::Done)]);
    assert!(!talk.bridge.is_over(), "the backend is still asked");
    talk.answer(CLOSE_3873);
    talk.expect_over();
}

#[test]
fn a_bad_answer_to_the_clients_close_is_no_clean_end() {
    for is_answered in [true, false] {
        let mut talk = Talk::open();
        talk.close(4000, "a");
        assert!(matches!(talk.bridge.next(0), Some(Action::Post(_))));
        let result = if is_answered { talk.answer_with(200, &[], "garbage") } else { talk.fail() };
        assert!(result.is_err());
        talk.expect(&[backend_failed()]);
        talk.expect_over();
    }
}

#[test]
fn a_close_waits_for_the_retry_of_what_came_before_it() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.not_processed().expect("another try");
    talk.client_said(FromClient::Close(Close::new(3873, "hi")));
    talk.expect(&[]);
    talk.now_ms = 2000;
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.answer("");
    talk.expect_post(CLOSE_3873);
    talk.answer(CLOSE_3873);
    talk.expect(&[closed(3873, "hi", CloseReason::Done)]);
    talk.expect_over();
}

#[test]
fn the_backend_closes() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.say("never sent on");
    talk.answer(&format!("TEXT 3\r\nm:x\r\n{CLOSE_3873}TEXT 3\r\nm:y\r\n"));
    talk.expect(&[
        text("x"),
        Action::Ignore(Ignored::OutOfPlace, "1 events after CLOSE".into()),
        closed(3873, "hi", CloseReason::Backend),
    ]);
    talk.close(3873, "hi");
    talk.bridge.client_gone();
    talk.expect_over();
}

#[test]
fn both_close_at_once() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.close(4000, "mine");
    talk.answer(CLOSE_3873);
    talk.expect(&[closed(3873, "hi", CloseReason::Done)]);
    talk.expect_over();
}

#[test]
fn a_client_that_is_lost_while_closing_is_not_told_twice() {
    let mut talk = Talk::open();
    talk.client_said(FromClient::Close(Close::default()));
    talk.bridge.client_gone();
    talk.expect_post("CLOSE\r\n");
    talk.answer("CLOSE\r\n");
    talk.expect_over();
}

#[test]
fn a_code_that_no_frame_may_carry_makes_the_close_empty() {
    for code in [0u16, 1005, 1006, 1015, 999] {
        let mut talk = Talk::open();
        talk.say("1");
        talk.expect_post("TEXT 1\r\n1\r\n");
        let mut body = BytesMut::new();
        Event::Close(Close::new(code, "why")).encode(&mut body);
        let fields = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))]);
        let outcome = Outcome::Answered(StatusCode::OK, &fields, &body.freeze());
        talk.bridge.answered(outcome, MIDDLE, 0).expect("a good answer");
        talk.expect(&[Action::Close(Close::default(), CloseReason::Backend)]);
    }
}

#[test]
fn the_backend_drops_the_connection() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.answer("DISCONNECT\r\n");
    talk.expect(&[Action::Cut(CloseReason::Backend)]);
    talk.expect_over();
}

#[test]
fn a_lost_client_gives_the_backend_what_it_had_said_and_disconnect() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.say("2");
    talk.bridge.client_gone();
    talk.bridge.client_gone();
    talk.expect(&[]);
    talk.answer("TEXT 3\r\nm:x\r\n");
    talk.expect_post("TEXT 1\r\n2\r\nDISCONNECT\r\n");
    talk.answer("");
    talk.expect_over();
}

#[test]
fn disconnect_is_tried_again_and_given_up() {
    let mut talk = Talk::open();
    talk.bridge.client_gone();
    talk.expect_post("DISCONNECT\r\n");
    talk.not_processed().expect("another try");
    talk.now_ms = 2000;
    talk.expect_post("DISCONNECT\r\n");
    assert!(talk.fail().is_err());
    talk.expect_over();
}

#[test]
fn a_detached_client_stays_without_its_backend() {
    let mut talk = Talk::open_with(
        Pings::PassedThrough,
        &[("sec-websocket-extensions", "grip"), ("keep-alive-interval", "20")],
        &format!("{}TEXT 3\r\nm:x\r\n", control(r#"{"type":"detach"}"#)),
    );
    talk.expect(&[text("x")]);
    talk.say("1");
    let ignored = Action::Ignore(Ignored::ClientFrameAfterDetach, "the backend detached".into());
    talk.expect(&[ignored]);
    talk.client_said(FromClient::Ping("p".into()));
    talk.expect(&[Action::Send(Frame::Pong("p".into()))]);
    talk.client_said(FromClient::Pong("p".into()));
    talk.now_ms = 1_000_000;
    talk.expect(&[]);
    assert!(talk.bridge.wants_client() && !talk.bridge.is_over());
    talk.close(4000, "bye");
    talk.expect(&[closed(4000, "bye", CloseReason::Done)]);
    talk.expect_over();
}

#[test]
fn a_client_that_closed_before_the_detach_gets_its_close_back() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.close(4000, "bye");
    talk.answer(&control(r#"{"type":"detach"}"#));
    talk.expect(&[closed(4000, "bye", CloseReason::Done)]);
    talk.expect_over();
}

#[test]
fn a_detached_client_that_is_lost_is_told_to_nobody() {
    let mut talk =
        Talk::open_with(Pings::Answered, &[("sec-websocket-extensions", "grip")], &control(r#"{"type":"detach"}"#));
    talk.expect(&[]);
    talk.bridge.client_gone();
    talk.expect_over();
}

#[test]
fn pings_are_answered_here() {
    let mut talk = Talk::open();
    talk.client_said(FromClient::Ping("p".into()));
    talk.expect(&[Action::Send(Frame::Pong("p".into()))]);
    talk.client_said(FromClient::Pong("unasked".into()));
    talk.expect(&[]);
}

#[test]
fn pings_pass_through_where_the_route_says_so() {
    let mut talk = Talk::open_with(Pings::PassedThrough, &[], "");
    talk.client_said(FromClient::Ping("p".into()));
    talk.client_said(FromClient::Pong("q".into()));
    talk.expect_post("PING 1\r\np\r\nPONG 1\r\nq\r\n");
    talk.answer("PONG 1\r\np\r\n");
    talk.expect(&[Action::Send(Frame::Pong("p".into()))]);
}

#[test]
fn a_ping_of_the_backend_gets_its_pong() {
    let mut talk = Talk::open_with(Pings::Answered, &[], "PING 1\r\nb\r\n");
    talk.expect(&[Action::Send(Frame::Ping("b".into()))]);
    talk.client_said(FromClient::Pong("other".into()));
    talk.expect(&[]);
    talk.client_said(FromClient::Pong("b".into()));
    talk.expect_post("PONG 1\r\nb\r\n");
    talk.answer("");
    talk.client_said(FromClient::Pong("b".into()));
    talk.expect(&[]);
}

#[test]
fn a_quiet_connection_asks_the_backend_at_its_interval() {
    let mut talk = Talk::open_with(Pings::Answered, &[("keep-alive-interval", "5")], "");
    assert_eq!(talk.bridge.deadline_ms(), Some(20_000), "20 s at least");
    talk.now_ms = 10_000;
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.now_ms = 50_000;
    talk.expect(&[]);
    talk.answer("");
    talk.now_ms = 69_999;
    talk.expect(&[]);
    talk.now_ms = 70_000;
    talk.expect_post("");
    talk.answer_with(200, &[("keep-alive-interval", "0")], "TEXT 1\r\na\r\n").expect("a good answer");
    talk.expect(&[text("a")]);
    assert_eq!(talk.bridge.deadline_ms(), None, "0 ends it");
}

#[test]
fn nonsense_of_a_backend_is_passed_over() {
    let mut talk = Talk::open();
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    let subscribe = control(r#"{"type":"subscribe","channel":"a","filters":["x"]}"#);
    let body = format!("OPEN\r\nTEXT 1\r\na\r\nTEXT 6\r\nc:oops\r\n{subscribe}TEXT 3\r\nm:b\r\n");
    talk.answer_with(200, &[("keep-alive-interval", "soon"), ("set-meta-a", &"x".repeat(9000))], &body).expect("good");
    let kinds: Vec<_> = std::iter::from_fn(|| talk.bridge.next(0))
        .map(|action| match action {
            Action::Ignore(what, _) => what.as_str(),
            Action::Send(_) => "sent",
            Action::Subscribe(_) => "subscribed",
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "meta_over_bounds",
        "bad_keep_alive_interval",
        "out_of_place",
        "unknown_prefix",
        "bad_control",
        "unknown_filter",
        "subscribed",
        "sent",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn meta_is_learned_from_each_answer() {
    let mut talk = Talk::open_with(Pings::Answered, &[("set-meta-user", "bob")], "");
    let mut fields = HeaderMap::new();
    talk.bridge.meta().echo(&mut fields);
    assert_eq!(fields.get("meta-user").map(HeaderValue::as_bytes), Some(&b"bob"[..]));
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    talk.answer_with(200, &[("set-meta-user", "")], "").expect("a good answer");
    assert_eq!(talk.bridge.meta().kept(), []);
}

#[test]
fn the_session_can_be_named_and_described() {
    let events = [
        control(r#"{"type":"session","id":"s"}"#),
        control(r#"{"type":"set-meta","name":"user","value":"bob"}"#),
        control(r#"{"type":"set-meta","name":"room","value":"7"}"#),
        control(r#"{"type":"set-meta","name":"user","value":"eve"}"#),
        control(r#"{"type":"set-meta","name":"room"}"#),
    ];
    let mut talk = Talk::open_with(Pings::Answered, &[("sec-websocket-extensions", "grip")], &events.concat());
    talk.expect(&[]);
    assert_eq!(talk.bridge.session_name(), Some("s"));
    assert_eq!(talk.bridge.subscription_meta(), [("user".into(), "eve".into())]);
}

#[test]
fn scheduled_frames_are_sent_when_they_are_due() {
    let events = [
        control(r#"{"type":"keep-alive","content":"k","timeout":10}"#),
        control(r#"{"type":"send-delayed","content":"d","timeout":5}"#),
    ];
    let mut talk = Talk::open_with(Pings::Answered, &[("sec-websocket-extensions", "grip")], &events.concat());
    talk.expect(&[]);
    assert_eq!(talk.bridge.deadline_ms(), Some(5000));
    talk.now_ms = 5000;
    talk.expect(&[text("d")]);
    assert_eq!(talk.bridge.deadline_ms(), Some(15_000), "the delayed message broke the silence");
    talk.bridge.delivered(6000);
    talk.now_ms = 16_000;
    talk.expect(&[text("k")]);
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
    let delayed = control(r#"{"type":"send-delayed","content":"e","timeout":5}"#);
    talk.answer(&format!("{delayed}{}", control(r#"{"type":"flush-delayed"}"#)));
    talk.expect(&[text("e")]);
    talk.bridge.client_gone();
    talk.expect_post("DISCONNECT\r\n");
    talk.now_ms = 100_000;
    talk.expect(&[]);
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    let mut talk = Talk::open();
    talk.answer("TEXT 3\r\nm:x\r\n");
    talk.say("1");
    talk.expect_post("TEXT 1\r\n1\r\n");
}

/// Something that happens to a machine.
#[derive(Debug, Clone)]
enum Step {
    Client(FromClient),
    Gone,
    Answer(String),
    BadAnswer,
    NotProcessed,
    Failed,
    Time(u64),
    Pull,
}

fn any_step() -> impl Strategy<Value = Step> {
    let events = proptest::collection::vec(
        prop_oneof![
            Just("TEXT 3\r\nm:x\r\n".to_owned()),
            Just("PING\r\n".to_owned()),
            Just(CLOSE_3873.to_owned()),
            Just("DISCONNECT\r\n".to_owned()),
            Just(control(r#"{"type":"detach"}"#)),
            Just(control(r#"{"type":"send-delayed","content":"d"}"#)),
        ],
        0..4,
    );
    prop_oneof![
        3 => Just(Step::Client(FromClient::Text("t".into()))),
        1 => Just(Step::Client(FromClient::Ping("p".into()))),
        1 => Just(Step::Client(FromClient::Close(Close::new(1000, "")))),
        1 => Just(Step::Gone),
        3 => events.prop_map(|events| Step::Answer(events.concat())),
        1 => Just(Step::BadAnswer),
        1 => Just(Step::NotProcessed),
        1 => Just(Step::Failed),
        1 => (0u64..30_000).prop_map(Step::Time),
        4 => Just(Step::Pull),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens: one request at a time, nothing for the client after its end, nothing for the backend after
    /// CLOSE or DISCONNECT, and an end is reached once the client is gone and the backend answers.
    #[test]
    fn a_machine_keeps_its_promises(steps in proptest::collection::vec(any_step(), 0..40), opens: bool) {
        let mut talk = Talk::new(Pings::Answered);
        talk.expect_post("OPEN\r\n");
        if opens {
            let grip = [("sec-websocket-extensions", "grip")];
            talk.answer_with(200, &grip, "OPEN\r\n").expect("opened");
        }
        let mut watch = Watch { is_asked: !opens, ..Watch::default() };
        for step in steps {
            match step {
                Step::Client(frame) => talk.client_said(frame),
                Step::Gone => {
                    talk.bridge.client_gone();
                    watch.client_ended = true;
                }
                Step::Answer(body) => watch.answered(talk.answer_with(200, &[], &body)),
                Step::BadAnswer => watch.answered(talk.answer_with(200, &[], "garbage")),
                Step::NotProcessed => watch.answered(talk.not_processed()),
                Step::Failed => watch.answered(talk.fail()),
                Step::Time(ms) => talk.now_ms += ms,
                Step::Pull => watch.pull(&mut talk)?,
            }
        }
        talk.bridge.client_gone();
        watch.client_ended = true;
        for _ in 0..4 {
            watch.pull(&mut talk)?;
            talk.now_ms += 60_000;
            watch.pull(&mut talk)?;
            watch.answered(talk.answer_with(200, &[], ""));
        }
        watch.pull(&mut talk)?;
        prop_assert!(talk.bridge.is_over(), "{:?}", talk.bridge);
        prop_assert_eq!(talk.bridge.deadline_ms(), None);
    }
}

#[derive(Default)]
struct Watch {
    is_asked: bool,
    client_ended: bool,
    last_word: Option<Bytes>,
}

impl Watch {
    fn answered(&mut self, _: Result<(), AnswerError>) {
        self.is_asked = false;
    }

    fn pull(&mut self, talk: &mut Talk) -> Result<(), TestCaseError> {
        while let Some(action) = talk.bridge.next(talk.now_ms) {
            match action {
                Action::Post(body) => {
                    prop_assert!(!self.is_asked, "two requests at once");
                    self.is_asked = true;
                    if let Some(last) = &self.last_word {
                        prop_assert_eq!(last, &body, "only the same again after the last word");
                    }
                    let events = decode(&body).expect("good events");
                    if let Some(Event::Close(_) | Event::Disconnect) = events.last() {
                        self.last_word = Some(body);
                    }
                }
                Action::Ignore(..) => {}
                Action::Close(..) | Action::Cut(_) => {
                    prop_assert!(!self.client_ended, "two ends");
                    self.client_ended = true;
                }
                _ => prop_assert!(!self.client_ended, "something for a client that is gone"),
            }
        }
        Ok(())
    }
}
