//! What holds whatever happens.

use super::*;
use proptest::prelude::*;

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
