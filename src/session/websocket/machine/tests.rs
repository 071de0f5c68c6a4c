//! What the machine says and does, with time as an argument.

use super::*;
use crate::bus::BusError;
use crate::hub::policy::{ChannelPolicies, ChannelPolicy};
use crate::hub::shard::Start;
use crate::model::cursor::Cursor;
use crate::model::message::Data;
use crate::model::pattern::ChannelPattern;
use crate::model::position::Position;
use crate::model::session::{Gap, GapReason};
use crate::session::websocket::tests::{Sink, Spot, client, entry, name, text};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

const RAW: Subprotocol = Subprotocol::Raw;
const V1: Subprotocol = Subprotocol::V1;

/// A session with its world. The route is on `own` channels, lets clients join `chat.*` and publish to `in.*`.
struct Rig {
    machine: Machine,
    spot: Spot,
    out: Sink,
    now_ms: u64,
}

impl Rig {
    fn new(subprotocol: Subprotocol, own: &[&str]) -> Self {
        let pattern = |text| ChannelPattern::new(text).expect("a pattern");
        let settings = PushSettings {
            transports: vec![],
            keep_alive: Duration::from_secs(20),
            long_poll_timeout: Duration::from_secs(1),
            start: Start::Now,
            client_subscribe: vec![pattern("chat.*")],
            client_publish: vec![pattern("in.*")],
            subscriptions_max: 4,
            messages_per_second_max: 100,
        };
        let small = ChannelPolicy { message_bytes_max: 10, ..ChannelPolicy::default() };
        let policies = ChannelPolicies::new(vec![(pattern("in.small"), small)]);
        let machine = Machine::new(subprotocol, settings.into(), policies.into(), "session", 0);
        Self { machine, spot: Spot::on(own), out: Sink::default(), now_ms: 0 }
    }

    /// After its start.
    fn started(subprotocol: Subprotocol, own: &[&str]) -> Self {
        let mut rig = Self::new(subprotocol, own);
        rig.start();
        rig.out.take();
        rig
    }

    fn start(&mut self) {
        let own = self.spot.channels();
        let mut turn = Turn { now_ms: self.now_ms, place: &mut self.spot, out: &mut self.out };
        self.machine.start("session", &own, &mut turn);
    }

    /// The client sends bytes; what could not be worked on.
    fn bytes(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let mut input = Input::new(&mut bytes);
        let mut turn = Turn { now_ms: self.now_ms, place: &mut self.spot, out: &mut self.out };
        self.machine.on_bytes(&mut input, &mut turn);
        while self.machine.wants_to_join().is_some() {
            self.machine.on_attached(Ok(()), &mut turn);
            self.machine.on_bytes(&mut input, &mut turn);
        }
        input.rest().to_vec()
    }

    fn deliver(&mut self, delivery: Delivery) -> usize {
        self.spot.pass(&delivery);
        let mut turn = Turn { now_ms: self.now_ms, place: &mut self.spot, out: &mut self.out };
        self.machine.on_delivery(delivery, &mut turn)
    }

    fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let mut turn = Turn { now_ms, place: &mut self.spot, out: &mut self.out };
        self.machine.on_tick(&mut turn);
    }

    fn published(&mut self, reference: Option<Reference>, result: Result<Published, BusError>) {
        let mut turn = Turn { now_ms: self.now_ms, place: &mut self.spot, out: &mut self.out };
        self.machine.on_published(reference, result, &mut turn);
    }

    /// Sends one command and gives the replies.
    fn command(&mut self, command: Value) -> Vec<Value> {
        self.text(&command.to_string())
    }

    fn text(&mut self, text: &str) -> Vec<Value> {
        let rest = self.bytes(client(0x81, text.as_bytes()));
        assert!(rest.is_empty());
        self.replies()
    }

    fn replies(&mut self) -> Vec<Value> {
        let frames = self.out.take();
        frames.iter().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text))).collect()
    }

    #[track_caller]
    fn refused(&mut self, command: Value, code: &str, part: &str) {
        let replies = self.command(command);
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert_eq!((&replies[0]["type"], &replies[0]["code"]), (&json!("error"), &json!(code)), "{replies:?}");
        assert_eq!(replies[0]["ref"], json!("r"));
        let message = replies[0]["message"].as_str().expect("a message");
        assert!(message.contains(part), "{message}");
    }

    fn channels(&self) -> Vec<&str> {
        self.spot.places.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn cursor(places: &[(&str, u64)]) -> String {
    let names: Vec<_> = places.iter().map(|(channel, offset)| (name(channel), *offset)).collect();
    Cursor::of(names.iter().map(|(name, offset)| (name, Position { epoch: 1, offset: *offset }))).encode()
}

fn gap(channel: &str) -> Delivery {
    Delivery::Gap(Gap { channels: vec![name(channel)], reason: GapReason::Slow })
}

#[test]
fn a_raw_session_is_the_data_alone() {
    let mut rig = Rig::new(RAW, &["a"]);
    rig.start();
    assert_eq!(rig.out.take(), [""; 0]);
    let bytes = rig.deliver(text("a", 1, "one"));
    rig.deliver(Delivery::Message(entry("a", 2, Data::Json("{\"b\":1}".into()))));
    rig.deliver(Delivery::Message(entry("a", 3, Data::Binary([0, 255].into()))));
    assert_eq!(bytes, 5);
    assert_eq!(rig.out.take(), ["one", "{\"b\":1}", "binary [0, 255]"]);
}

#[test]
fn a_v1_session_begins_with_its_place() {
    let mut rig = Rig::new(V1, &["a", "b"]);
    rig.spot.resumed = Some(true);
    rig.start();
    assert_eq!(
        rig.replies(),
        [
            json!({"type": "welcome", "session": "session", "cursor": cursor(&[("a", 0), ("b", 0)]), "resumed": true}),
            json!({"type": "subscribed", "channel": "a"}),
            json!({"type": "subscribed", "channel": "b"}),
        ]
    );
    for resumed in [None, Some(false)] {
        let mut rig = Rig::new(V1, &["a"]);
        rig.spot.resumed = resumed;
        rig.start();
        assert_eq!(rig.replies()[0]["resumed"], json!(false));
    }
}

#[test]
fn frames_are_shared_by_sessions_of_one_channel() {
    for subprotocol in [RAW, V1, Subprotocol::CloudEvents] {
        let (mut one, mut other) = (Rig::started(subprotocol, &["a"]), Rig::started(subprotocol, &["a"]));
        let message = entry("a", 7, Data::Text("x".into()));
        one.deliver(Delivery::Message(message.clone()));
        other.deliver(Delivery::Message(message));
        assert_eq!(one.out.frames[0].as_ptr(), other.out.frames[0].as_ptr(), "{subprotocol:?}");
    }
}

#[test]
fn an_events_id_is_the_cursor_after_it() {
    let event = |id| json!({"type": "event", "channel": "a", "id": id, "event": "e", "data": "x"});
    let mut rig = Rig::started(V1, &["a"]);
    rig.deliver(text("a", 7, "x"));
    assert_eq!(rig.replies(), [event(cursor(&[("a", 7)]))]);
    let mut rig = Rig::started(V1, &["a", "b"]);
    rig.deliver(text("b", 3, "y"));
    rig.out.take();
    let message = entry("a", 7, Data::Text("x".into()));
    rig.deliver(Delivery::Message(message.clone()));
    assert_eq!(rig.replies(), [event(cursor(&[("a", 7), ("b", 3)]))]);
    assert!(message.websocket_v1.get().is_none(), "an id of several channels is not for others");
}

#[test]
fn a_session_that_joins_another_channel_gets_ids_of_its_own() {
    let mut rig = Rig::started(V1, &["a"]);
    rig.command(json!({"type": "subscribe", "channels": ["chat.1"]}));
    rig.deliver(text("a", 7, "x"));
    assert_eq!(rig.replies()[0]["id"], json!(cursor(&[("a", 7), ("chat.1", 0)])));
    rig.command(json!({"type": "unsubscribe", "channels": ["chat.1", "chat.1", "nowhere"]}));
    let message = entry("a", 8, Data::Text("x".into()));
    rig.deliver(Delivery::Message(message.clone()));
    assert_eq!(rig.replies()[0]["id"], json!(cursor(&[("a", 8)])));
    assert!(message.websocket_v1.get().is_some());
}

#[test]
fn a_cloudevents_session_sends_structured_events() {
    let mut rig = Rig::started(Subprotocol::CloudEvents, &["a"]);
    rig.deliver(Delivery::Message(entry("a", 7, Data::Json("{\"b\":1}".into()))));
    let event = &rig.replies()[0];
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("e")));
    assert_eq!(event["data"], json!({"b": 1}));
}

#[test]
fn a_gap_is_announced_where_there_is_a_place() {
    let mut rig = Rig::started(V1, &["a"]);
    rig.spot.places[0].1 = 9;
    rig.deliver(gap("a"));
    let expected = json!({"type": "gap", "channels": ["a"], "reason": "slow", "id": cursor(&[("a", 9)])});
    assert_eq!(rig.replies(), [expected]);
    assert_eq!(rig.machine.phase(), Phase::Open);
    for subprotocol in [RAW, Subprotocol::CloudEvents] {
        let mut rig = Rig::started(subprotocol, &["a"]);
        rig.deliver(gap("a"));
        assert_eq!(rig.out.take(), ["close 4001 gap"]);
        assert_eq!(rig.deliver(text("a", 10, "late")), 0);
        assert_eq!(rig.out.take(), [""; 0]);
    }
}

#[test]
fn the_end_is_told_by_its_code() {
    for (reason, told) in [
        (CloseReason::Drain, "close 1012 drain"),
        (CloseReason::Slow, "close 4413 slow"),
        (CloseReason::Done, "close 1000 done"),
    ] {
        let mut rig = Rig::started(RAW, &["a"]);
        rig.deliver(Delivery::End(reason));
        assert_eq!(rig.out.take(), [told]);
        assert!(matches!(rig.machine.phase(), Phase::Closing { reason: told, .. } if told == reason));
        rig.bytes(client(0x88, b"\x03\xe8"));
        assert_eq!(rig.machine.finished(), Some((reason, Ending::Clean)));
    }
}

#[test]
fn a_drained_v1_client_is_told_when_and_where_to_come_back() {
    let mut rig = Rig::started(V1, &["a"]);
    rig.deliver(text("a", 7, "x"));
    rig.out.take();
    rig.deliver(Delivery::End(CloseReason::Drain));
    let replies = rig.replies();
    assert_eq!((&replies[0]["type"], &replies[0]["cursor"]), (&json!("reconnect"), &json!(cursor(&[("a", 7)]))));
    assert_eq!(replies[1], json!("close 1012 drain"));
    let after_ms = |session: &str| {
        let rig = Rig::new(V1, &[]);
        let (settings, policies) = (rig.machine.core.settings, rig.machine.core.policies);
        Machine::new(V1, settings, policies, session, 0).core.reconnect_after_ms()
    };
    let mut all: Vec<u64> = (0..100).map(|n| after_ms(&format!("session {n}"))).collect();
    assert!(all.iter().all(|ms| (RECONNECT_AFTER_MS_MIN..=RECONNECT_AFTER_MS_MAX).contains(ms)), "{all:?}");
    all.sort_unstable();
    all.dedup();
    assert!(all.len() > 90, "sessions come back at their own time");
}

#[test]
fn data_of_raw_clients_only_counts_against_the_limit() {
    for subprotocol in [RAW, Subprotocol::CloudEvents] {
        let mut rig = Rig::started(subprotocol, &["a"]);
        rig.bytes([client(0x81, b"{"), client(0x82, &[0; 3000])].concat());
        assert_eq!(rig.out.take(), [""; 0]);
        assert_eq!(rig.machine.take_publish().map(|p| p.message), None);
        rig.bytes(client(0x82, &vec![0; MESSAGE_BYTES_MAX + 1]));
        assert_eq!(rig.out.take(), ["close 1009 a message has more than 65536 bytes"]);
        assert_eq!(rig.machine.finished(), Some((CloseReason::TooBig, Ending::Linger)));
    }
}

#[test]
fn a_ping_command_is_answered() {
    let mut rig = Rig::started(V1, &["a"]);
    assert_eq!(rig.command(json!({"type": "ping", "ref": 1})), [json!({"type": "pong", "ref": 1})]);
    assert_eq!(rig.command(json!({"type": "ping"})), [json!({"type": "pong"})]);
}

#[test]
fn own_and_allowed_channels_are_joined_and_left() {
    let mut rig = Rig::started(V1, &["a", "b"]);
    let replies = rig.command(json!({"type": "unsubscribe", "ref": "r", "channels": ["a"]}));
    assert_eq!(replies, [json!({"type": "unsubscribed", "ref": "r", "channel": "a"})]);
    assert_eq!(rig.channels(), ["b"]);
    let replies = rig.command(json!({"type": "subscribe", "ref": "r", "channels": ["a", "chat.1", "b"]}));
    let subscribed = |channel| json!({"type": "subscribed", "ref": "r", "channel": channel});
    assert_eq!(replies, [subscribed("a"), subscribed("chat.1"), subscribed("b")]);
    assert_eq!(rig.channels(), ["b", "a", "chat.1"]);
}

#[test]
fn a_subscribe_is_all_or_nothing() {
    let mut rig = Rig::started(V1, &["a"]);
    let subscribe = |channels: &[&str]| json!({"type": "subscribe", "ref": "r", "channels": channels});
    rig.refused(subscribe(&["chat.1", "secret"]), "not_allowed", "\"secret\"");
    assert_eq!(rig.channels(), ["a"]);
    rig.refused(subscribe(&["chat.1", "chat.2", "chat.3", "chat.4"]), "too_many_subscriptions", "4 channels at most");
    rig.refused(subscribe(&["x", "y", "z", "u", "v"]), "too_many_subscriptions", "4 channels at most");
    assert_eq!(rig.channels(), ["a"]);
    rig.spot.channels_max = 2;
    rig.refused(subscribe(&["chat.1", "chat.2"]), "too_many_subscriptions", "limits.channels");
    assert_eq!(rig.channels(), ["a"], "what was joined is left again");
    rig.spot.channels_max = 100;
    assert_eq!(rig.command(subscribe(&["a", "chat.1", "chat.2", "chat.3"])).len(), 4, "up to the limit");
    rig.deliver(text("a", 1, "x"));
    assert_eq!(rig.replies()[0]["id"], json!(cursor(&[("a", 1), ("chat.1", 0), ("chat.2", 0), ("chat.3", 0)])));
    let leave = json!({"type": "unsubscribe", "ref": "r", "channels": ["1", "2", "3", "4", "5"]});
    rig.refused(leave, "too_many_subscriptions", "can't leave 5");
}

#[test]
fn a_publish_waits_for_the_bus() {
    let mut rig = Rig::started(V1, &["a"]);
    let publish = json!({"type": "publish", "ref": 5, "channel": "in.x", "event": "e", "data": {"b": 1}});
    assert_eq!(rig.command(publish), [json!(null); 0]);
    let Publish { reference, message } = rig.machine.take_publish().expect("a publish");
    assert_eq!((message.channel.as_str(), &message.data), ("in.x", &Data::Json("{\"b\":1}".into())));
    assert_eq!(message.event.as_ref().map(|event| event.as_str()), Some("e"));
    let position = Position { epoch: 36, offset: 2 };
    rig.published(reference.clone(), Ok(Published { position, duplicate: false, local_sessions: 0 }));
    assert_eq!(rig.replies(), [json!({"type": "published", "ref": 5, "position": "10-2"})]);
    rig.published(reference, Err(BusError::Down("no route".to_owned())));
    let replies = rig.replies();
    assert_eq!((&replies[0]["code"], &replies[0]["ref"]), (&json!("bus_down"), &json!(5)));
    assert!(replies[0]["message"].as_str().is_some_and(|message| message.contains("no route")));
}

#[test]
fn publishes_that_the_route_or_channel_does_not_take_are_refused() {
    let mut rig = Rig::started(V1, &["a"]);
    let publish = |channel: &str, data: &str| json!({"type": "publish", "ref": "r", "channel": channel, "data": data});
    rig.refused(publish("a", "x"), "not_allowed", "publish to \"a\"");
    for event in ["presence.join", "presence.leave"] {
        let forged = json!({"type": "publish", "ref": "r", "channel": "in.x", "event": event, "data": {"user": "bob"}});
        rig.refused(forged, "not_allowed", "not for clients");
    }
    rig.refused(publish("in.small", "12345678901"), "too_big", "11 bytes is over the 10");
    assert!(rig.machine.take_publish().is_none());
    assert_eq!(rig.command(publish("in.small", "1234567890")).len(), 0);
    assert!(rig.machine.take_publish().is_some());
}

#[test]
fn three_malformed_commands_in_a_row_end_the_session() {
    let mut rig = Rig::started(V1, &["a"]);
    assert_eq!(rig.text("{")[0]["code"], "malformed");
    assert_eq!(rig.text("[]")[0]["code"], "malformed");
    // Only malformed counts, and only in a row.
    rig.refused(json!({"type": "subscribe", "ref": "r", "channels": ["secret"]}), "not_allowed", "secret");
    rig.text("{");
    rig.bytes(client(0x82, b"{}"));
    assert_eq!(rig.replies()[0]["code"], "malformed");
    assert_eq!(rig.machine.phase(), Phase::Open);
    let replies = rig.text("{");
    assert_eq!((&replies[0]["code"], &replies[1]), (&json!("malformed"), &json!("close 4400 malformed")));
    rig.command(json!({"type": "subscribe", "channels": ["chat.1"]}));
    assert_eq!(rig.channels(), ["a"], "nothing is carried out after a close");
}

#[test]
fn a_client_that_does_not_read_is_not_read() {
    let mut rig = Rig::started(V1, &["a"]);
    rig.out.room = 3;
    let ping = client(0x81, br#"{"type":"ping"}"#);
    let rest = rig.bytes(ping.repeat(10));
    assert_eq!(rig.out.frames.len(), 3);
    assert_eq!(rest.len(), 7 * ping.len());
    assert!(!rig.machine.takes_input(&rig.out));
    rig.out.take();
    let rest = rig.bytes(rest);
    assert_eq!((rig.out.frames.len(), rest.len()), (3, 4 * ping.len()));
    let rest = rig.bytes([rest, client(0x89, b"x")].concat());
    assert_eq!((rig.out.frames.len(), rest.len()), (3, 4 * ping.len() + 7), "nor are pings answered");
}

#[test]
fn publishes_that_pile_up_stop_the_reading() {
    let mut rig = Rig::started(V1, &["a"]);
    let publish = |data: &str| {
        let text = format!(r#"{{"type":"publish","channel":"in.x","data":"{data}"}}"#);
        client(0x81, text.as_bytes())
    };
    let rest = rig.bytes(publish("x").repeat(20));
    assert_eq!(rest.len(), 4 * publish("x").len());
    assert!(rig.machine.take_publish().is_some());
    let rest = rig.bytes(rest);
    assert_eq!(rest.len(), 3 * publish("x").len());
    while rig.machine.take_publish().is_some() {}
    assert_eq!(rig.machine.core.publishes.capacity(), 0, "what is empty owns nothing");
    let big = publish(&"x".repeat(40_000));
    let rest = rig.bytes(big.repeat(3));
    assert_eq!(rest.len(), big.len(), "bytes count, too");
}

#[test]
fn an_idle_session_is_small() {
    let mut rig = Rig::started(V1, &["a"]);
    rig.bytes([client(0x01, b"{"), client(0x80, b"}"), client(0x89, b"x")].concat());
    rig.deliver(text("a", 1, "x"));
    assert_eq!(rig.machine.socket.buffered_bytes(), 0);
    assert!(size_of::<Machine>() <= 360, "{}", size_of::<Machine>());
}

#[test]
fn an_idle_client_is_pinged_then_closed() {
    let mut rig = Rig::started(RAW, &["a"]);
    rig.tick(20_000);
    assert_eq!(rig.out.take(), ["ping"]);
    rig.machine.on_progress(39_000);
    rig.tick(40_000);
    assert_eq!(rig.out.take(), ["ping"]);
    rig.tick(60_000);
    rig.tick(80_000);
    assert_eq!(rig.out.take(), ["ping", "close 4408 idle"]);
    assert_eq!(rig.machine.deadline(), Some(85_000));
    rig.tick(85_000);
    assert_eq!(rig.machine.finished(), Some((CloseReason::Idle, Ending::Linger)));
}

#[test]
fn a_client_that_leaves_is_let_go() {
    let mut rig = Rig::started(V1, &["a"]);
    rig.bytes([client(0x88, b"\x03\xe9"), client(0x81, b"{")].concat());
    assert_eq!(rig.out.take(), ["close 1001 "]);
    assert_eq!(rig.machine.finished(), Some((CloseReason::Done, Ending::Clean)));
    let mut rig = Rig::started(V1, &["a"]);
    rig.machine.on_end();
    assert_eq!(rig.machine.finished(), Some((CloseReason::ClientGone, Ending::Gone)));
    assert_eq!(rig.machine.deadline(), None);
}

/// Something that may happen to a session at any time.
#[derive(Debug, Clone)]
enum Happening {
    Bytes(Vec<u8>),
    Frame(u8, Vec<u8>),
    Command(&'static str),
    Message(bool),
    Gap,
    End,
    Later(u64),
    Taken,
    Published,
    Progress,
    Gone,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let first = prop::sample::select(vec![0x00u8, 0x01, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0x83, 0xc1]);
    let command = prop::sample::select(vec![
        r#"{"type":"ping"}"#,
        r#"{"type":"subscribe","channels":["a","b","chat.1","chat.2"]}"#,
        r#"{"type":"unsubscribe","channels":["a","b","chat.1"]}"#,
        r#"{"type":"publish","channel":"in.x","data":1}"#,
        r#"{"type":"nonsense"}"#,
    ]);
    prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes),
        2 => (first, proptest::collection::vec(any::<u8>(), 0..4)).prop_map(|(first, payload)| Frame(first, payload)),
        20 => command.prop_map(Command),
        10 => any::<bool>().prop_map(Message),
        1 => Just(Gap),
        1 => Just(End),
        5 => (0u64..30_000).prop_map(Later),
        8 => Just(Taken),
        5 => Just(Published),
        2 => Just(Progress),
        1 => Just(Gone),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_session_stays_within_its_bounds(
        happenings in proptest::collection::vec(happening(), 0..80),
        subprotocol in prop::sample::select(vec![RAW, V1, Subprotocol::CloudEvents]),
    ) {
        let mut rig = Rig::started(subprotocol, &["a", "b"]);
        rig.out.room = 6;
        let (mut unread, mut all, mut ticks) = (Vec::new(), Vec::new(), 0);
        for (at, happening) in happenings.into_iter().enumerate() {
            let before = rig.out.frames.len();
            let mut said = |rig: &mut Rig, bytes: Vec<u8>| unread = rig.bytes([std::mem::take(&mut unread), bytes].concat());
            match happening {
                Happening::Bytes(bytes) => said(&mut rig, bytes),
                Happening::Frame(first, payload) => said(&mut rig, client(first, &payload)),
                Happening::Command(text) => said(&mut rig, client(0x81, text.as_bytes())),
                Happening::Message(on_a) => {
                    rig.deliver(text(if on_a { "a" } else { "b" }, at as u64, "x"));
                }
                Happening::Gap => drop(rig.deliver(gap("a"))),
                Happening::End => drop(rig.deliver(Delivery::End(CloseReason::Drain))),
                Happening::Later(ms) => {
                    ticks += 1;
                    rig.tick(rig.now_ms + ms);
                }
                Happening::Taken => all.extend(rig.out.take()),
                Happening::Published => while let Some(publish) = rig.machine.take_publish() {
                    rig.published(publish.reference, Err(BusError::Down(String::new())));
                },
                Happening::Progress => rig.machine.on_progress(rig.now_ms),
                Happening::Gone => rig.machine.on_end(),
            }
            let grown = rig.out.frames.len().saturating_sub(before.max(rig.out.room));
            prop_assert!(grown <= PUBLISHES_WAITING_MAX, "one happening adds little beyond the room: {}", grown);
            prop_assert!(rig.machine.core.publishes.len() <= PUBLISHES_WAITING_MAX);
            prop_assert!(rig.spot.places.len() <= 4);
            prop_assert_eq!(rig.machine.core.channels, rig.spot.places.len());
            prop_assert_eq!(rig.machine.deadline().is_none(), rig.machine.finished().is_some());
        }
        all.extend(rig.out.take());
        let closes = all.iter().position(|text| text.starts_with("close"));
        prop_assert!(closes.is_none_or(|at| at + 1 == all.len()), "nothing follows a close: {:?}", all);
        prop_assert!(all.iter().filter(|text| *text == "ping").count() <= ticks);
    }
}

#[test]
fn a_session_that_came_back_may_rejoin_the_routes_own_channel() {
    let mut rig = Rig::new(V1, &["chat.a"]);
    let mut turn = Turn { now_ms: 0, place: &mut rig.spot, out: &mut rig.out };
    rig.machine.start("session", &[name("own")], &mut turn);
    rig.out.take();
    assert!(!rig.machine.take_changed());
    rig.bytes(client(0x81, br#"{"type":"subscribe","channels":["own"]}"#));
    assert_eq!(rig.out.take(), [r#"{"type":"subscribed","channel":"own"}"#]);
    assert!(rig.machine.take_changed() && !rig.machine.take_changed());
    rig.bytes(client(0x81, br#"{"type":"subscribe","channels":["own"]}"#));
    assert!(!rig.machine.take_changed(), "it was on it already");
    rig.bytes(client(0x81, br#"{"type":"unsubscribe","channels":["chat.a","chat.b"]}"#));
    assert!(rig.machine.take_changed());
}

#[test]
fn channels_are_joined_once_the_bus_follows_them() {
    let mut rig = Rig::started(V1, &["own"]);
    let mut bytes = [
        client(0x81, br#"{"type":"subscribe","ref":1,"channels":["own","chat.a"]}"#),
        client(0x81, br#"{"type":"ping"}"#),
    ]
    .concat();
    let mut input = Input::new(&mut bytes);
    let mut turn = Turn { now_ms: 0, place: &mut rig.spot, out: &mut rig.out };
    rig.machine.on_bytes(&mut input, &mut turn);
    assert_eq!(rig.machine.wants_to_join(), Some(&[name("chat.a")][..]));
    assert!(!rig.machine.takes_input(turn.out), "what follows waits");
    rig.machine.on_attached(Err(BusError::Down("x".to_owned())), &mut turn);
    rig.machine.on_bytes(&mut input, &mut turn);
    let told = rig.out.take();
    assert!(told[0].contains(r#""ref":1,"code":"bus_down""#), "{told:?}");
    assert_eq!(told[1..], [r#"{"type":"pong"}"#]);
    assert_eq!(rig.spot.channels(), [name("own")]);
    assert!(!rig.machine.take_changed() && rig.machine.wants_to_join().is_none());
}

#[test]
fn who_sends_too_fast_is_told_and_closed_if_it_goes_on() {
    let mut rig = Rig::started(V1, &["own"]);
    let ping = |n: usize| client(0x81, format!(r#"{{"type":"ping","ref":{n}}}"#).as_bytes());
    let say = |rig: &mut Rig, range: std::ops::Range<usize>| {
        rig.bytes(range.flat_map(ping).collect());
        rig.out.take()
    };
    rig.out.room = usize::MAX;
    assert!(say(&mut rig, 0..1000).iter().all(|answer| answer.contains("pong")), "a burst");
    let told = say(&mut rig, 1000..1050);
    assert!(
        told.iter().zip(1000..).all(|(error, n)| error.contains(&format!(r#""ref":{n},"code":"rate""#))),
        "{told:?}"
    );
    // Time brings the allowance back, and an allowed message starts the count anew.
    rig.tick(10);
    assert_eq!(say(&mut rig, 0..1), [r#"{"type":"pong","ref":0}"#]);
    let told = say(&mut rig, 0..101);
    assert_eq!(told.len(), 101);
    assert_eq!(told.last().map(String::as_str), Some("close 4429 rate"));
}

#[test]
fn who_can_not_be_told_is_closed_when_it_sends_too_fast() {
    for (subprotocol, first) in [(RAW, 0x82), (RAW, 0x89), (Subprotocol::CloudEvents, 0x81)] {
        let mut rig = Rig::started(subprotocol, &["own"]);
        rig.out.room = usize::MAX;
        rig.bytes((0..1000).flat_map(|_| client(first, b"x")).collect());
        assert!(rig.machine.socket.is_open());
        rig.bytes(client(first, b"x"));
        assert_eq!(rig.out.take().last().map(String::as_str), Some("close 4429 rate"));
    }
}
