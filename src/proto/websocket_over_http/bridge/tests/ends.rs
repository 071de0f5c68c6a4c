//! How a connection ends, and what each side hears of it.

use super::*;

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
