//! The machine against backends and clients that the tests play.

use super::*;
use crate::proto::websocket_cloudevents::state::CONNECTION_STATE;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use proptest::prelude::*;

const MIDDLE: Jitter = Jitter(u16::MAX / 2);

/// A machine at a moment, with what its backend was told.
struct Stage {
    machine: Machine,
    now_ms: u64,
}

impl Stage {
    fn new() -> Self {
        Self { machine: Machine::new(), now_ms: 0 }
    }

    /// One whose backend let the client in, and heard so.
    fn open() -> Self {
        let mut stage = Self::new();
        stage.expect_send("connect");
        stage.answer(200, "", "").expect("accepted");
        assert_eq!(stage.machine.take_accept(), Some(Accept::default()));
        stage.expect_send("connected");
        stage.answer(200, "", "").expect("taken");
        stage
    }

    #[track_caller]
    fn expect_send(&mut self, name: &str) -> Request {
        match self.machine.next(self.now_ms) {
            Some(Step::Send(request)) => {
                assert_eq!(request.event.name(), name);
                request
            }
            other => panic!("{name} is expected, not {other:?}"),
        }
    }

    #[track_caller]
    fn expect_action(&mut self, expected: Action) {
        assert_eq!(self.machine.next(self.now_ms), Some(Step::Act(expected)));
    }

    #[track_caller]
    fn expect_ignored(&mut self) {
        match self.machine.next(self.now_ms) {
            Some(Step::Act(Action::Ignore(Ignored::EventGivenUp, _))) => {}
            other => panic!("something given up is expected, not {other:?}"),
        }
    }

    #[track_caller]
    fn expect_nothing(&mut self) {
        assert_eq!(self.machine.next(self.now_ms), None);
    }

    fn answer(&mut self, status: u16, media_type: &'static str, body: &'static str) -> Result<(), AnswerError> {
        self.answer_with(status, &[(CONTENT_TYPE, media_type)], body)
    }

    fn answer_with(
        &mut self,
        status: u16,
        fields: &[(http::HeaderName, &'static str)],
        body: &'static str,
    ) -> Result<(), AnswerError> {
        let fields = fields.iter().filter(|(_, value)| !value.is_empty());
        let fields = fields.map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        let (status, body) = (StatusCode::from_u16(status).expect("a status"), Bytes::from_static(body.as_bytes()));
        self.machine.answered(Outcome::Answered(status, &fields, &body), MIDDLE, self.now_ms)
    }

    fn unreached(&mut self) -> Result<(), AnswerError> {
        self.machine.answered(Outcome::NotProcessed, MIDDLE, self.now_ms)
    }

    fn say(&mut self, text: &'static str) {
        self.machine.client_said(FromClient::Text(Bytes::from_static(text.as_bytes())), self.now_ms);
    }

    fn go(&mut self, reason: CloseReason) {
        self.machine.client_gone(reason, self.now_ms);
    }

    fn wait(&mut self) {
        self.now_ms = self.machine.deadline_ms().expect("something is waited for");
    }

    /// The end is told, once, and nothing after it.
    #[track_caller]
    fn expect_farewell(&mut self, reason: CloseReason) {
        let request = self.expect_send("disconnected");
        assert_eq!(request.event, Event::Disconnected(reason));
        assert!(!self.machine.is_over());
        let _ = self.answer(200, "", "");
        self.go(CloseReason::ClientGone);
        self.expect_nothing();
        assert!(self.machine.is_over());
    }
}

fn text(content: &'static str) -> Action {
    Action::Send(Frame::Text(Bytes::from_static(content.as_bytes())))
}

fn failed() -> Action {
    Action::Close(Close::new(1011, "the backend failed"), CloseReason::Upstream)
}

#[test]
fn events_go_one_by_one_in_their_order() {
    let mut stage = Stage::new();
    assert_eq!(stage.expect_send("connect").id, 0);
    stage.expect_nothing();
    assert!(!stage.machine.wants_client());
    let accept = r#"{"userId":"bob","groups":["a"]}"#;
    stage.answer_with(200, &[(CONNECTION_STATE, "s1")], accept).expect("accepted");
    assert_eq!(stage.machine.take_accept().expect("accepted").user_id.as_deref(), Some("bob"));
    assert!(stage.machine.wants_client());
    stage.say("one");
    stage.say("two");
    assert_eq!(stage.expect_send("connected").id, 1);
    stage.expect_nothing();
    // Only blocking events change the state.
    stage.answer_with(204, &[(CONNECTION_STATE, "s2")], "").expect("taken");
    let mut state = State::default();
    state.learn(&[(CONNECTION_STATE, HeaderValue::from_static("s1"))].into_iter().collect()).expect("taken");
    assert_eq!(stage.machine.state(), &state);
    let first = stage.expect_send("message");
    assert_eq!((first.id, first.event), (2, Event::Message(Payload::Text(Bytes::from_static(b"one")))));
    stage.expect_nothing();
    stage.answer_with(200, &[(CONTENT_TYPE, "text/plain"), (CONNECTION_STATE, "s3")], "ONE").expect("taken");
    assert_ne!(stage.machine.state(), &state);
    stage.expect_action(text("ONE"));
    assert_eq!(stage.expect_send("message").id, 3);
    stage.answer(204, "", "").expect("taken");
    stage.expect_nothing();
    stage.say("three");
    stage.go(CloseReason::Drain);
    stage.expect_send("message");
    stage.answer(200, "text/plain", "too late").expect("taken");
    stage.expect_farewell(CloseReason::Drain);
}

#[test]
fn the_client_closes_and_is_answered_at_once() {
    let mut stage = Stage::open();
    stage.say("last");
    stage.machine.client_said(FromClient::Close(Close::new(3000, "bye")), 0);
    stage.say("after the close");
    assert!(!stage.machine.wants_client());
    stage.expect_action(Action::Close(Close::new(3000, "bye"), CloseReason::Done));
    stage.go(CloseReason::Done);
    stage.expect_send("message");
    stage.answer(200, "", "").expect("taken");
    stage.expect_farewell(CloseReason::Done);
}

#[test]
fn pings_are_answered_here() {
    let mut stage = Stage::open();
    stage.machine.client_said(FromClient::Ping(Bytes::from_static(b"p")), 0);
    stage.machine.client_said(FromClient::Pong(Bytes::new()), 0);
    stage.expect_action(Action::Send(Frame::Pong(Bytes::from_static(b"p"))));
    stage.expect_nothing();
}

#[test]
fn a_refused_client_is_not_spoken_of_again() {
    for status in [101, 301, 401, 500] {
        let mut stage = Stage::new();
        stage.expect_send("connect");
        let status_code = StatusCode::from_u16(status).expect("a status");
        let refused = AnswerError::Status { event: "connect", status: status_code };
        assert_eq!(stage.answer(status, "", "no"), Err(refused));
        stage.go(CloseReason::ClientGone);
        stage.expect_nothing();
        assert!(stage.machine.is_over());
    }
    let mut stage = Stage::new();
    stage.expect_send("connect");
    assert_eq!(stage.unreached(), Err(AnswerError::GaveUp("connect")));
    stage.expect_nothing();
    assert!(stage.machine.is_over());
    let mut stage = Stage::new();
    stage.go(CloseReason::ClientGone);
    stage.expect_nothing();
    assert!(stage.machine.is_over());
}

#[test]
fn who_may_have_been_let_in_is_taken_back() {
    let mut stage = Stage::new();
    stage.expect_send("connect");
    assert!(matches!(stage.answer(200, "text/html", "<html>"), Err(AnswerError::Connect(ConnectError::Json(_)))));
    stage.expect_farewell(CloseReason::Upstream);
    let mut stage = Stage::new();
    stage.expect_send("connect");
    let twice = [(CONNECTION_STATE, "a"), (CONNECTION_STATE, "b")];
    assert_eq!(stage.answer_with(200, &twice, ""), Err(AnswerError::State(StateError::Repeated(2))));
    stage.expect_farewell(CloseReason::Upstream);
    let mut stage = Stage::new();
    stage.expect_send("connect");
    let result = stage.machine.answered(Outcome::Failed, MIDDLE, 0);
    assert_eq!(result, Err(AnswerError::Failed("connect")));
    stage.expect_farewell(CloseReason::Upstream);
    // The client left before the answer, or what was chosen did not fit.
    let mut stage = Stage::new();
    stage.expect_send("connect");
    stage.go(CloseReason::ClientGone);
    stage.answer(200, "", "").expect("accepted");
    assert_eq!(stage.machine.take_accept(), None);
    stage.expect_farewell(CloseReason::ClientGone);
    let mut stage = Stage::new();
    stage.expect_send("connect");
    stage.answer(200, "", "").expect("accepted");
    stage.go(CloseReason::Upstream);
    stage.expect_farewell(CloseReason::Upstream);
}

#[test]
fn a_message_that_fails_ends_the_connection() {
    type Failure = fn(&mut Stage) -> Result<(), AnswerError>;
    let failures: [(&str, Failure); 5] = [
        ("4xx", |stage| stage.answer(400, "text/plain", "no")),
        ("5xx", |stage| stage.answer(503, "", "")),
        ("html", |stage| stage.answer(200, "text/html", "<p>")),
        ("state", |stage| stage.answer_with(200, &[(CONNECTION_STATE, "a"), (CONNECTION_STATE, "b")], "")),
        ("no answer", |stage| stage.machine.answered(Outcome::Failed, MIDDLE, 0)),
    ];
    for (what, fail) in failures {
        let mut stage = Stage::open();
        for message in ["one", "two", "three"] {
            stage.say(message);
        }
        stage.expect_send("message");
        assert!(fail(&mut stage).is_err(), "{what}");
        stage.expect_ignored();
        stage.expect_ignored();
        stage.expect_action(failed());
        stage.expect_ignored();
        stage.expect_farewell(CloseReason::Upstream);
    }
}

#[test]
fn what_was_surely_not_processed_is_sent_again() {
    let mut stage = Stage::open();
    stage.say("one");
    let first = stage.expect_send("message");
    for secs in [1, 2, 4, 8, 16] {
        let before_ms = stage.now_ms;
        stage.unreached().expect("tried again");
        stage.expect_nothing();
        stage.wait();
        assert_eq!((stage.now_ms - before_ms + 2) / 1000, secs);
        let again = stage.expect_send("message");
        assert_eq!((again.id, &again.event), (first.id, &first.event));
    }
    assert_eq!(stage.unreached(), Err(AnswerError::GaveUp("message")));
    stage.expect_action(failed());
    stage.expect_ignored();
    stage.expect_farewell(CloseReason::Upstream);
}

#[test]
fn messages_wait_until_connected_was_delivered_or_given_up() {
    let mut stage = Stage::new();
    stage.expect_send("connect");
    stage.answer(200, "", "").expect("accepted");
    stage.expect_send("connected");
    stage.say("one");
    stage.unreached().expect("tried again");
    stage.expect_nothing();
    stage.wait();
    stage.expect_send("connected");
    assert!(stage.answer(500, "", "").is_err());
    stage.expect_ignored();
    stage.expect_send("message");
}

#[test]
fn a_lost_client_does_not_keep_its_backend_busy() {
    let mut stage = Stage::open();
    for message in ["one", "two", "three"] {
        stage.say(message);
    }
    stage.expect_send("message");
    stage.go(CloseReason::ClientGone);
    stage.now_ms = GONE_MS_MAX;
    stage.unreached().expect_err("not tried again");
    for _ in 0..3 {
        stage.expect_ignored();
    }
    stage.expect_farewell(CloseReason::ClientGone);
    // One that waits for its next try.
    let mut stage = Stage::open();
    stage.say("one");
    stage.expect_send("message");
    stage.go(CloseReason::ClientGone);
    stage.now_ms = GONE_MS_MAX - 1;
    stage.unreached().expect("tried again");
    stage.now_ms = GONE_MS_MAX;
    stage.expect_ignored();
    stage.expect_farewell(CloseReason::ClientGone);
    // The end itself is tried as often as anything else.
    let mut stage = Stage::open();
    stage.go(CloseReason::ClientGone);
    stage.expect_send("disconnected");
    for _ in 0..5 {
        stage.unreached().expect("tried again");
        stage.wait();
        stage.expect_send("disconnected");
    }
    stage.unreached().expect_err("given up");
    stage.expect_ignored();
    stage.expect_nothing();
    assert!(stage.machine.is_over());
}

#[test]
fn a_client_is_read_no_further_than_the_bounds() {
    let mut stage = Stage::open();
    for _ in 0..PENDING_MESSAGES_MAX {
        assert!(stage.machine.wants_client());
        stage.say("x");
    }
    assert!(!stage.machine.wants_client());
    stage.expect_send("message");
    assert!(stage.machine.wants_client());
    let mut stage = Stage::open();
    let large = FromClient::Binary(Bytes::from(vec![0; PENDING_BYTES_MAX]));
    stage.machine.client_said(large, 0);
    assert!(!stage.machine.wants_client());
    stage.expect_send("message");
    assert!(stage.machine.wants_client());
}

#[derive(Debug, Clone)]
enum Move {
    Say,
    Close,
    Go,
    Pull,
    Answer(u16),
    Unreached,
    Fail,
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => Just(Move::Say),
        1 => Just(Move::Close),
        1 => Just(Move::Go),
        6 => Just(Move::Pull),
        4 => Just(Move::Answer(200)),
        1 => prop_oneof![Just(204), Just(404), Just(500)].prop_map(Move::Answer),
        1 => Just(Move::Unreached),
        1 => Just(Move::Fail),
        2 => (0..40_000u64).prop_map(Move::Wait),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    /// Whatever happens, `connect` is first, `connected` comes once and before any message, `disconnected` is last and
    /// once exactly if the client was let in or may have been, ids go up, and the machine comes to its end.
    #[test]
    fn the_order_holds_and_the_end_is_told_once(moves in moves()) {
        let mut stage = Stage::new();
        let mut told: Vec<Request> = Vec::new();
        let mut let_in = false;
        let finish = [Move::Go].into_iter().chain(std::iter::repeat_n([Move::Pull, Move::Answer(200)], 80).flatten());
        for step in moves.into_iter().chain(finish) {
            let asked_connect = told.last().is_some_and(|request| request.event == Event::Connect);
            let waits = matches!(stage.machine.backend, Backend::Asked(_));
            match step {
                Move::Say => stage.say("x"),
                Move::Close => stage.machine.client_said(FromClient::Close(Close::default()), stage.now_ms),
                Move::Go => stage.go(CloseReason::ClientGone),
                Move::Pull => {
                    if let Some(at_ms) = stage.machine.deadline_ms() {
                        stage.now_ms = stage.now_ms.max(at_ms);
                    }
                    if let Some(Step::Send(request)) = stage.machine.next(stage.now_ms) {
                        told.push(request);
                    }
                }
                Move::Answer(status) => {
                    let_in |= asked_connect && waits && (200..300).contains(&status);
                    let _ = stage.answer(status, "", "");
                }
                Move::Unreached => { let _ = stage.unreached(); }
                Move::Fail => {
                    let_in |= asked_connect && waits;
                    let _ = stage.machine.answered(Outcome::Failed, MIDDLE, stage.now_ms);
                }
                Move::Wait(ms) => stage.now_ms += ms,
            }
        }
        while stage.machine.next(stage.now_ms).is_some() {}
        prop_assert!(stage.machine.is_over());
        told.dedup_by_key(|request| request.id);
        let names: Vec<&str> = told.iter().map(|request| request.event.name()).collect();
        prop_assert!(told.is_sorted_by_key(|request| request.id));
        let count = |name: &str| names.iter().filter(|found| **found == name).count();
        prop_assert_eq!(count("disconnected"), usize::from(let_in), "{:?}", names);
        prop_assert_eq!(names.last() == Some(&"disconnected"), let_in, "{:?}", names);
        prop_assert!(count("connect") <= 1 && (names.is_empty() || names[0] == "connect"), "{:?}", names);
        prop_assert!(count("connected") <= 1 && (count("connected") == 0 || names[1] == "connected"), "{:?}", names);
        prop_assert!(count("message") == 0 || names[1] == "connected", "{:?}", names);
    }
}
