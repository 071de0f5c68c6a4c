//! Instructions of the hot paths, counted by callgrind: encoding, append and wake, finding a route, decoding a publish.
//!
//! `make bench-instructions` runs it and compares with `bench/instructions.json`. Everything that a benchmark does not
//! mean to count is made by its `setup`.

#![allow(missing_docs, reason = "the macros make public items of their own")]
#![allow(clippy::disallowed_methods, reason = "the macros' main has an exit code of its own")]

use arc_swap::ArcSwap;
use bytes::Bytes;
use gungraun::prelude::*;
use http::{HeaderMap, Method};
use pushbridge::clock::Clock;
use pushbridge::hub::channel::Channel;
use pushbridge::hub::log::Entry;
use pushbridge::hub::policy::ChannelPolicies;
use pushbridge::hub::shard::{Carried, Carrier, Delivery, NoCarrier, Outlet, Shard, Start, Subscription};
use pushbridge::hub::{Hub, HubLimits};
use pushbridge::model::channel::ChannelName;
use pushbridge::model::cursor::Cursor;
use pushbridge::model::message::{Data, Label, Message};
use pushbridge::model::position::Position;
use pushbridge::proto::chunk::Chunk;
use pushbridge::proto::events::{self, Event};
use pushbridge::proto::long_poll::Answer;
use pushbridge::proto::v1::reply::Reply;
use pushbridge::proto::websocket::frame;
use pushbridge::proto::{cloudevents, sse};
use pushbridge::route::{Match, PathPattern, Route, RouteTable};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Sessions of the channel that is appended to.
const SESSIONS: usize = 100;
/// Routes of the table that is searched.
const ROUTES: usize = 100;
/// Events of one array.
const EVENTS: usize = 10;

fn channel() -> ChannelName {
    ChannelName::new("prices.ACME").expect("a name")
}

/// A message of 100 bytes.
fn message(data: fn(Box<str>) -> Data) -> (Message, Cursor) {
    let text = format!("{{\"symbol\":\"ACME\",\"price\":101.25,\"note\":\"{}\"}}", "x".repeat(58));
    assert_eq!(text.len(), 100);
    let message = Message {
        channel: channel(),
        id: Label::new("018f-1").ok(),
        event: Label::new("price").ok(),
        data: data(text.into()),
        cloudevent: None,
        grip: None,
    };
    (message, Cursor::one(&channel(), Position { epoch: 1_700_000_000_000, offset: 123_456 }))
}

#[library_benchmark]
#[bench::one_line(setup = message, args = (Data::Json))]
fn encode_sse((message, cursor): (Message, Cursor)) -> Chunk {
    black_box(sse::frame(black_box(&message), &cursor.encode()))
}

#[library_benchmark]
#[bench::text(setup = message, args = (Data::Text))]
fn encode_websocket((message, _): (Message, Cursor)) -> Bytes {
    black_box(frame::frame(frame::Opcode::Text, black_box(message.data.as_bytes())))
}

#[library_benchmark]
#[bench::json(setup = message, args = (Data::Json))]
#[bench::text(setup = message, args = (Data::Text))]
fn encode_v1((message, cursor): (Message, Cursor)) -> Bytes {
    black_box(Reply::Event { message: black_box(&message), id: &cursor.encode() }.frame())
}

#[library_benchmark]
#[bench::json(setup = message, args = (Data::Json))]
fn encode_long_poll((message, cursor): (Message, Cursor)) -> String {
    let mut answer = Answer::default();
    let cursor = cursor.encode();
    answer.push(black_box(&message), &cursor);
    black_box(answer.to_json(&cursor))
}

/// A channel with sessions that wait, and what is published next.
struct Waiting {
    hub: Arc<Hub>,
    shard: Rc<Shard>,
    channel: Arc<Channel>,
    sessions: Vec<Subscription>,
    next: Message,
}

fn waiting(count: usize) -> Waiting {
    let policies = Arc::new(ArcSwap::from_pointee(ChannelPolicies::default()));
    let hub = Hub::new(1, Clock::start(), HubLimits::default(), policies);
    let shard = Shard::new(&hub, 0);
    let subscribe = || shard.subscribe(&[channel()], None, Start::Now).expect("room");
    let sessions = (0..count).map(|_| subscribe()).collect();
    let channel = hub.open(&channel()).expect("room");
    let mut waiting = Waiting { hub, shard, channel, sessions, next: message(Data::Json).0 };
    // Once before it counts: what is allocated once is there then.
    fan_out(&mut waiting);
    waiting
}

/// Appends, wakes all, and lets each read its message and wait again.
fn fan_out(waiting: &mut Waiting) {
    let mut cx = Context::from_waker(Waker::noop());
    let next = waiting.next.clone();
    waiting.hub.append(&waiting.channel, next, None).expect("no condition");
    assert!(waiting.shard.poll_pump(&mut cx, |_| (), &mut NoCarrier).is_pending());
    for session in &mut waiting.sessions {
        assert!(matches!(black_box(session.next()), Some(Delivery::Message(_))));
        assert!(session.next().is_none());
        session.set_deadline(u64::MAX);
        assert!(session.poll_wait(&mut cx).is_pending());
    }
}

#[library_benchmark]
#[bench::nobody(setup = waiting, args = (0))]
fn append(mut waiting: Waiting) -> Waiting {
    fan_out(&mut waiting);
    waiting
}

#[library_benchmark]
#[bench::hundred_sessions(setup = waiting, args = (SESSIONS))]
fn append_and_wake(mut waiting: Waiting) -> Waiting {
    fan_out(&mut waiting);
    waiting
}

/// Takes what it is handed.
struct Taker(usize);

impl Carrier for Taker {
    fn carry(&mut self, _outlet: Outlet, _owner: u32, entries: &[Arc<Entry>]) -> Carried {
        self.0 += black_box(entries).len();
        Carried::All
    }
}

fn resting(count: usize) -> Waiting {
    let mut waiting = waiting(count);
    for session in &mut waiting.sessions {
        session.rest(None, Some);
    }
    hand_on(&mut waiting);
    waiting
}

/// Appends, and hands it to all who rest.
fn hand_on(waiting: &mut Waiting) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut taker = Taker(0);
    let next = waiting.next.clone();
    waiting.hub.append(&waiting.channel, next, None).expect("no condition");
    while waiting.shard.poll_pump(&mut cx, |_| (), &mut taker).is_ready() {}
    assert_eq!(taker.0, waiting.sessions.len());
}

#[library_benchmark]
#[bench::hundred_sessions(setup = resting, args = (SESSIONS))]
fn append_and_hand_on(mut waiting: Waiting) -> Waiting {
    hand_on(&mut waiting);
    waiting
}

fn routes() -> RouteTable<usize> {
    let route = |number: usize| Route {
        name: format!("route-{number}").into(),
        matcher: Match {
            host: None,
            path: PathPattern::parse(&format!("/api-{number}/{{version}}/events/{{topic}}")).expect("a pattern"),
            methods: vec![Method::GET],
            headers: Vec::new(),
        },
        action: number,
    };
    RouteTable::new((0..ROUTES).map(route).collect())
}

#[library_benchmark]
#[bench::last_of_hundred(setup = routes)]
fn route_find(table: RouteTable<usize>) -> RouteTable<usize> {
    let path = black_box("/api-99/v1/events/ACME%20Corp");
    let found = table.find("shop.example:443", path, &Method::GET, &HeaderMap::new());
    assert_eq!(black_box(found).map(|(route, _)| route.action), Ok(ROUTES - 1));
    table
}

fn event_text() -> String {
    format!(
        r#"{{"channel": "prices.ACME", "id": "018f-1", "event": "price", "data": {{"price": 101.25, "note": "{}"}}}}"#,
        "x".repeat(72)
    )
}

fn array() -> String {
    format!("[{}]", vec![event_text(); EVENTS].join(","))
}

fn cloudevent() -> String {
    let data = "x".repeat(72);
    format!(
        r#"{{"specversion":"1.0","id":"018f-1","source":"/shop","type":"price","subject":"prices.ACME","data":{{"note":"{data}"}}}}"#
    )
}

#[library_benchmark]
#[bench::one(setup = event_text)]
#[bench::array_of_ten(setup = array)]
fn publish_decode(body: String) -> Vec<Event> {
    black_box(events::decode(black_box(body.as_bytes())).expect("events"))
}

#[library_benchmark]
#[bench::structured(setup = cloudevent)]
fn publish_decode_cloudevent(body: String) -> Event {
    black_box(cloudevents::decode_structured(black_box(body.as_bytes())).expect("an event"))
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        encode_sse,
        encode_websocket,
        encode_v1,
        encode_long_poll,
        append,
        append_and_wake,
        append_and_hand_on,
        route_find,
        publish_decode,
        publish_decode_cloudevent
    ]
);

main!(library_benchmark_groups = hot_paths);
