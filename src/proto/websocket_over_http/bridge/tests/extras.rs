//! What a conversation has beside messages: pings, intervals, meta, frames at their time, and nonsense.

use super::*;

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
