//! Sessions against a backend, a client and a hub that the tests play.

#![expect(clippy::disallowed_methods, reason = "what a test asks is bounded by the test")]

use super::run::{LEAVE_MS, run};
use super::*;
use crate::bus::{Attached, BusError};
use crate::hub::HubError;
use crate::hub::log::Entry;
use crate::hub::shard::Delivery;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::message::{Data, Message};
use crate::model::position::Position;
use crate::model::session::{CloseReason, Gap, GapReason};
use crate::proto::chunk::Chunk;
use crate::proto::websocket_over_http::bridge::Pings;
use crate::server::body::Body;
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use seams::Wire;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// Far longer than anything a test waits for: only a broken session gets there.
const PATIENCE: Duration = Duration::from_secs(20);

/// A POST that waits for the test's answer.
struct Asked {
    fields: HeaderMap,
    body: Bytes,
    answer: oneshot::Sender<Result<Response, BackendError>>,
}

struct TestBackend(UnboundedSender<Asked>);

impl Backend for TestBackend {
    fn post(&self, fields: HeaderMap, body: Bytes) -> LocalBoxFuture<'static, Result<Response, BackendError>> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Asked { fields, body, answer });
        Box::pin(async { answered.await.unwrap_or_else(|_| Err(BackendError::Broken("no answer".into()))) })
    }
}

impl Asked {
    fn answer_with(self, status: u16, fields: &[(&str, &str)], body: &str) {
        let mut response = http::Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let response = response.body(Body::full(body.to_owned())).expect("a response");
        let _ = self.answer.send(Ok(response));
    }

    fn answer(self, body: &str) {
        self.answer_with(200, &[("content-type", "application/websocket-events")], body);
    }
}

/// The client's end of a link, shared with the test.
#[derive(Default)]
struct ClientState {
    sent: RefCell<Vec<u8>>,
    to_read: RefCell<Vec<u8>>,
    is_gone: Cell<bool>,
    /// The client takes nothing: the link has no room.
    is_stuck: Cell<bool>,
    is_finished: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Default)]
struct TestClient(Rc<ClientState>);

impl TestClient {
    fn wake(&self) {
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }

    fn send(&self, opcode: u8, payload: &[u8]) {
        let mut frame = self.0.to_read.borrow_mut();
        frame.push(0x80 | opcode);
        match u16::try_from(payload.len()) {
            Ok(len @ 0..=125) => frame.push(0x80 | len as u8),
            Ok(len) => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        let key = [1, 2, 3, 4];
        frame.extend_from_slice(&key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        drop(frame);
        self.wake();
    }

    fn say(&self, text: &str) {
        self.send(1, text.as_bytes());
    }

    fn go(&self) {
        self.0.is_gone.set(true);
        self.wake();
    }

    fn set_stuck(&self, is_stuck: bool) {
        self.0.is_stuck.set(is_stuck);
        self.wake();
    }

    /// The next frame that the client gets, once there is one: opcode and payload.
    async fn frame(&self) -> (u8, Vec<u8>) {
        within(async {
            loop {
                if let Some(frame) = self.take_frame() {
                    return frame;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    fn take_frame(&self) -> Option<(u8, Vec<u8>)> {
        let mut sent = self.0.sent.borrow_mut();
        let (len, start) = match *sent.get(1)? {
            126 => (usize::from(u16::from_be_bytes([*sent.get(2)?, *sent.get(3)?])), 4),
            127 => (usize::try_from(u64::from_be_bytes(sent.get(2..10)?.try_into().ok()?)).ok()?, 10),
            len => (usize::from(len), 2),
        };
        let payload = sent.get(start..start + len)?.to_vec();
        let opcode = sent[0] & 0xf;
        assert_eq!(sent[0] & 0xf0, 0x80, "whole, without RSV");
        sent.drain(..start + len);
        Some((opcode, payload))
    }

    #[track_caller]
    fn assert_quiet(&self) {
        assert!(self.0.sent.borrow().is_empty(), "{:?}", self.0.sent.borrow().escape_ascii().to_string());
    }
}

impl Wire for TestClient {
    fn has_room(&self) -> bool {
        !self.0.is_stuck.get()
    }

    fn push(&mut self, chunk: &Chunk) {
        self.0.sent.borrow_mut().extend_from_slice(&chunk.content());
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.is_gone.get() && !self.0.is_stuck.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.0.is_stuck.get() {
            self.0.waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut to_read = self.0.to_read.borrow_mut();
        if to_read.is_empty() {
            if self.0.is_gone.get() {
                return Poll::Ready(Ok(0));
            }
            self.0.waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let len = to_read.len().min(buffer.len());
        buffer[..len].copy_from_slice(&to_read[..len]);
        to_read.drain(..len);
        Poll::Ready(Ok(len))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.poll_flush(cx);
        self.0.is_finished.set(flushed.is_ready());
        flushed
    }
}

#[derive(Default)]
struct HubState {
    deliveries: RefCell<VecDeque<Delivery>>,
    channels: RefCell<Vec<String>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Default)]
struct TestHub(Rc<HubState>);

impl TestHub {
    fn deliver(&self, delivery: Delivery) {
        self.0.deliveries.borrow_mut().push_back(delivery);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }

    fn publish(&self, data: Data) -> Arc<Entry> {
        let channel = ChannelName::new("a").expect("a name");
        let entry = Arc::new(Entry::new(
            Message { channel, id: None, event: None, data, cloudevent: None, grip: None },
            Position { epoch: 1, offset: 1 },
            0,
        ));
        self.deliver(Delivery::Message(Arc::clone(&entry)));
        entry
    }
}

impl Feed for TestHub {
    fn name(&mut self, _: Option<&str>) {}

    fn is_cut(&self) -> bool {
        false
    }

    fn next(&mut self) -> Option<Delivery> {
        self.0.deliveries.borrow_mut().pop_front()
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waker.replace(Some(cx.waker().clone()));
        if self.0.deliveries.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn attach(&self, channel: &ChannelName) -> BoxFuture<'static, Result<Attached, BusError>> {
        match channel.as_str() {
            "down" => Box::pin(std::future::ready(Err(BusError::Down("fake".to_owned())))),
            // Another task's turn comes first.
            _ => Box::pin(async {
                tokio::task::yield_now().await;
                Ok(Attached::new(Vec::new()))
            }),
        }
    }

    fn add(&mut self, channel: &ChannelName) -> Result<(), HubError> {
        if channel.as_str() == "full" {
            return Err(HubError::TooManyChannels(1));
        }
        self.0.channels.borrow_mut().push(channel.to_string());
        Ok(())
    }

    fn remove(&mut self, channel: &ChannelName) -> bool {
        self.0.channels.borrow_mut().retain(|known| known != channel.as_str());
        true
    }

    fn kept(&self) -> (Vec<ChannelName>, Cursor) {
        let channels = self.0.channels.borrow();
        (channels.iter().map(|name| ChannelName::new(name).expect("a name")).collect(), Cursor::default())
    }

    fn now_us(&self) -> u64 {
        0
    }
}

/// All that a test holds.
struct Stage {
    asked: UnboundedReceiver<Asked>,
    client: TestClient,
    hub: TestHub,
    backend: Rc<dyn Backend>,
    settings: BridgeSettings,
    leave_ms: u64,
}

impl Stage {
    fn new() -> Self {
        let (asked_in, asked) = unbounded_channel();
        let settings = BridgeSettings {
            keep_alive: Duration::from_secs(3600),
            message_bytes_max: 300_000,
            pings: Pings::Answered,
            subscriptions_max: 2,
        };
        let backend = Rc::new(TestBackend(asked_in));
        Self { asked, client: TestClient::default(), hub: TestHub::default(), backend, settings, leave_ms: LEAVE_MS }
    }

    async fn asked(&mut self) -> Asked {
        within(self.asked.recv()).await.expect("the backend is there")
    }

    #[track_caller]
    fn expect_body(asked: Asked, body: &str) -> Asked {
        assert_eq!(asked.body.escape_ascii().to_string(), body.as_bytes().escape_ascii().to_string());
        asked
    }

    async fn expect(&mut self, body: &str) -> Asked {
        Self::expect_body(self.asked().await, body)
    }

    fn opening(
        &self,
        client: HeaderMap,
    ) -> impl Future<Output = Result<(http::Response<()>, Start<TestHub>), Refused>> + 'static {
        let (settings, backend, hub) = (self.settings, Rc::clone(&self.backend), self.hub.clone());
        async move {
            let mut head = http::Response::new(());
            *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            open_with(&client, head, settings, backend, Metrics::new().worker(), hub, Moving::default()).await
        }
    }

    /// A handshake that the backend answers so.
    async fn open_with(
        &mut self,
        client: &[(&'static str, &'static str)],
        answer: impl FnOnce(Asked),
    ) -> Result<(http::Response<()>, Start<TestHub>), Refused> {
        let client =
            client.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let opening = tokio::task::spawn_local(self.opening(client.collect()));
        answer(self.asked().await);
        within(opening).await.expect("no panic")
    }

    /// A session that runs; what it had to say at the start is answered by `events`.
    async fn start(&mut self, events: &str) -> tokio::task::JoinHandle<()> {
        let fields = [("content-type", "application/websocket-events"), ("sec-websocket-extensions", "grip")];
        let body = format!("OPEN\r\n{events}");
        let opened = self.open_with(&[], |asked| asked.answer_with(200, &fields, &body)).await;
        let (_, mut start) = opened.expect("opened");
        start.leave_ms = self.leave_ms;
        tokio::task::spawn_local(run(start, self.client.clone()))
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

fn control(json: &str) -> String {
    format!("TEXT {:x}\r\nc:{json}\r\n", json.len() + 2)
}

fn subscribe(channel: &str) -> String {
    control(&format!(r#"{{"type":"subscribe","channel":"{channel}"}}"#))
}

fn text(content: &str) -> (u8, Vec<u8>) {
    (1, content.as_bytes().to_vec())
}

fn closed(code: u16, reason: &str) -> (u8, Vec<u8>) {
    (8, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

#[tokio::test(flavor = "local")]
async fn the_handshake_carries_the_backends_fields() {
    let mut stage = Stage::new();
    let client = [
        ("host", "h"),
        ("cookie", "a=1"),
        ("sec-websocket-key", "k"),
        ("grip-sig", "forged"),
        ("sec-websocket-protocol", "x, y"),
    ];
    let (head, start) = stage
        .open_with(&client, |asked| {
            assert_eq!(asked.fields.get("cookie").map(HeaderValue::as_bytes), Some(&b"a=1"[..]));
            assert_eq!(asked.fields.get("connection-id").map(HeaderValue::len), Some(36));
            assert!(!asked.fields.contains_key("grip-sig") && !asked.fields.contains_key("sec-websocket-key"));
            let fields = [
                ("content-type", "application/websocket-events"),
                ("sec-websocket-protocol", "y"),
                ("set-cookie", "s=1"),
                ("set-meta-user", "bob"),
            ];
            Stage::expect_body(asked, "OPEN\r\n").answer_with(200, &fields, "OPEN\r\n");
        })
        .await
        .expect("opened");
    assert_eq!(head.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(head.headers().get("sec-websocket-protocol").map(HeaderValue::as_bytes), Some(&b"y"[..]));
    assert!(head.headers().contains_key("set-cookie") && head.headers().len() == 2, "{head:?}");
    tokio::task::spawn_local(run(start, stage.client.clone()));
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    assert_eq!(asked.fields.get("meta-user").map(HeaderValue::as_bytes), Some(&b"bob"[..]));
}

#[tokio::test(flavor = "local")]
async fn the_backends_refusal_reaches_the_client_as_it_is() {
    let mut stage = Stage::new();
    let fields = [("content-type", "text/plain"), ("www-authenticate", "Basic"), ("set-meta-a", "b")];
    let refused = stage.open_with(&[], |asked| asked.answer_with(401, &fields, "who are you")).await.err();
    let response = refused.expect("refused").response(RequestId::next());
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.headers().contains_key("www-authenticate") && !response.headers().contains_key("set-meta-a"));
    let body = crate::server::body::read_whole(response.into_body(), 100).await.expect("a body");
    assert_eq!(&body[..], b"who are you");
}

#[tokio::test(flavor = "local")]
async fn what_is_no_answer_to_open_is_a_bad_gateway() {
    const EVENTS: (&str, &str) = ("content-type", "application/websocket-events");
    type Case = (u16, &'static [(&'static str, &'static str)], &'static str, &'static str);
    let cases: [Case; 6] = [
        (200, &[("content-type", "text/html")], "OPEN\r\n", "application/websocket-events"),
        (200, &[EVENTS], "TEXT 1\r\na\r\n", "begin with OPEN"),
        (200, &[EVENTS], "OPEN\r\nTEXT zz\r\na\r\n", "at byte 11"),
        (204, &[], "", "204"),
        (200, &[EVENTS, ("sec-websocket-extensions", "x")], "OPEN\r\n", "only `grip`"),
        (200, &[EVENTS, ("sec-websocket-protocol", "z")], "OPEN\r\n", "Sec-WebSocket-Protocol"),
    ];
    for (status, fields, body, detail) in cases {
        let mut stage = Stage::new();
        let refused = stage.open_with(&[], |asked| asked.answer_with(status, fields, body)).await.err();
        let response = refused.expect("refused").response(RequestId::next());
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let text = crate::server::body::read_whole(response.into_body(), 10_000).await.expect("a body");
        assert!(String::from_utf8_lossy(&text).contains(detail), "{detail}: {}", text.escape_ascii());
        if status == 200 {
            stage.expect("DISCONNECT\r\n").await;
        }
    }
}

#[tokio::test(flavor = "local")]
async fn an_answer_over_its_bound_is_refused() {
    let mut stage = Stage::new();
    let fields = [("content-type", "application/websocket-events")];
    let body = format!("OPEN\r\nTEXT 13d620\r\n{}\r\n", "x".repeat(1_300_000));
    let refused = stage.open_with(&[], |asked| asked.answer_with(200, &fields, &body)).await.err();
    assert!(refused.expect("refused").to_string().contains("over 1300000 bytes"));
    stage.expect("DISCONNECT\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn no_answer_is_told_apart_by_its_cause() {
    let cases = [
        (BackendError::NotProcessed("refused".into()), StatusCode::SERVICE_UNAVAILABLE),
        (BackendError::TimedOut("slow".into()), StatusCode::GATEWAY_TIMEOUT),
        (BackendError::Broken("reset".into()), StatusCode::BAD_GATEWAY),
    ];
    for (error, status) in cases {
        let is_unknown = !matches!(error, BackendError::NotProcessed(_));
        let mut stage = Stage::new();
        let refused = stage.open_with(&[], |asked| drop(asked.answer.send(Err(error)))).await.err();
        assert_eq!(refused.expect("refused").response(RequestId::next()).status(), status);
        if is_unknown {
            stage.expect("DISCONNECT\r\n").await;
        }
    }
}

#[tokio::test(flavor = "local")]
async fn a_client_that_goes_while_opening_gives_the_backend_disconnect() {
    let mut stage = Stage::new();
    let opening = tokio::task::spawn_local(stage.opening(HeaderMap::new()));
    let asked = stage.asked().await;
    opening.abort();
    assert!(within(opening).await.is_err(), "the future is dropped");
    asked.answer("OPEN\r\n");
    stage.expect("DISCONNECT\r\n").await;

    let opening = tokio::task::spawn_local(stage.opening(HeaderMap::new()));
    let asked = stage.asked().await;
    opening.abort();
    assert!(within(opening).await.is_err(), "the future is dropped");
    asked.answer_with(403, &[], "");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(stage.asked.try_recv().is_err(), "it never opened");
}

#[tokio::test(flavor = "local")]
async fn a_session_that_never_runs_gives_the_backend_disconnect() {
    let mut stage = Stage::new();
    let opened = stage.open_with(&[], |asked| asked.answer("OPEN\r\n")).await.expect("opened");
    drop(opened);
    stage.expect("DISCONNECT\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn messages_go_through_the_backend_and_back() {
    let mut stage = Stage::new();
    let session = stage.start("TEXT 9\r\nm:welcome\r\n").await;
    assert_eq!(stage.client.frame().await, text("welcome"));
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    stage.client.say("2");
    stage.client.send(2, b"3");
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    asked.answer("TEXT 3\r\nm:a\r\nBINARY 3\r\nm:b\r\n");
    assert_eq!(stage.client.frame().await, text("a"));
    assert_eq!(stage.client.frame().await, (2, b"b".to_vec()));
    stage.expect("TEXT 1\r\n2\r\nBINARY 1\r\n3\r\n").await.answer("");
    stage.client.send(8, b"\x03\xe8");
    let asked = stage.asked().await;
    assert_eq!(&asked.body[..], b"CLOSE 2\r\n\x03\xe8\r\n");
    asked.answer("CLOSE\r\n");
    assert_eq!(stage.client.frame().await, (8, Vec::new()));
    within(session).await.expect("no panic");
    assert!(stage.client.0.is_finished.get());
    assert!(stage.asked.try_recv().is_err(), "the backend knows");
}

#[tokio::test(flavor = "local")]
async fn large_messages_fragments_and_pings_between_them_arrive() {
    let mut stage = Stage::new();
    stage.start("").await;
    let large = "é".repeat(100_000);
    stage.client.say(&large);
    let asked = stage.asked().await;
    assert_eq!(asked.body, format!("TEXT 30d40\r\n{large}\r\n"));
    asked.answer(&format!("TEXT 30d42\r\nm:{large}\r\n"));
    assert_eq!(stage.client.frame().await, text(&large));

    // A text in two fragments, cut within a character, and a ping between them.
    stage.client.0.to_read.borrow_mut().extend_from_slice(&[0x01, 0x81, 0, 0, 0, 0, 0xc3]);
    stage.client.send(9, b"p");
    stage.client.0.to_read.borrow_mut().extend_from_slice(&[0x80, 0x81, 0, 0, 0, 0, 0xa9]);
    stage.client.wake();
    assert_eq!(stage.client.frame().await, (10, b"p".to_vec()));
    assert_eq!(stage.asked().await.body, "TEXT 2\r\né\r\n");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_floods_is_not_read_until_its_backend_answers() {
    let mut stage = Stage::new();
    stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    let part = vec![b'x'; 50_000];
    for _ in 0..20 {
        stage.client.send(2, &part);
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let left = stage.client.0.to_read.borrow().len();
    assert!(left > 700_000, "{left} bytes are still the client's");
    asked.answer("");
    let (mut frames, mut bytes) = (0, 0);
    while frames < 20 {
        let asked = stage.asked().await;
        assert!(asked.body.len() < 200_000 + part.len() + 1000, "{}", asked.body.len());
        let events = crate::proto::websocket_over_http::event::decode(&asked.body).expect("events");
        frames += events.len();
        bytes += asked.body.len();
        asked.answer("");
    }
    assert_eq!(frames, 20, "{bytes} bytes, none lost");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_does_not_read_asks_its_backend_nothing_more() {
    let mut stage = Stage::new();
    stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    stage.client.say("2");
    stage.client.set_stuck(true);
    asked.answer("TEXT 3\r\nm:a\r\n");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(stage.asked.try_recv().is_err());
    stage.client.assert_quiet();
    stage.client.set_stuck(false);
    assert_eq!(stage.client.frame().await, text("a"));
    stage.expect("TEXT 1\r\n2\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn messages_of_subscribed_channels_reach_the_client() {
    let mut stage = Stage::new();
    stage.start(&[subscribe("a"), subscribe("b"), subscribe("c"), subscribe("a"), subscribe("full")].concat()).await;
    assert_eq!(*stage.hub.0.channels.borrow(), ["a", "b"], "two at most, each once");
    let entry = stage.hub.publish(Data::Json("{\"p\":1}".into()));
    assert_eq!(stage.client.frame().await, text("{\"p\":1}"));
    assert_eq!(entry.websocket.get().map(|frame| &frame[..]), Some(&b"\x81\x07{\"p\":1}"[..]), "made once for all");
    stage.hub.publish(Data::Text("t".into()));
    assert_eq!(stage.client.frame().await, text("t"));
    stage.hub.publish(Data::Binary((*b"\x00\xff").into()));
    assert_eq!(stage.client.frame().await, (2, vec![0, 255]));
    stage.client.say("leave");
    let leave = control(r#"{"type":"unsubscribe","channel":"a"}"#) + "TEXT 4\r\nm:ok\r\n";
    stage.asked().await.answer(&leave);
    assert_eq!(stage.client.frame().await, text("ok"));
    assert_eq!(*stage.hub.0.channels.borrow(), ["b"]);
}

#[tokio::test(flavor = "local")]
async fn a_channel_is_joined_before_the_handshake_is_answered() {
    let mut stage = Stage::new();
    let fields = [("content-type", "application/websocket-events"), ("sec-websocket-extensions", "grip")];
    let body = format!("OPEN\r\nTEXT 3\r\nm:1\r\n{}", subscribe("a"));
    let (_, start) = stage.open_with(&[], |asked| asked.answer_with(200, &fields, &body)).await.expect("opened");
    assert_eq!(*stage.hub.0.channels.borrow(), ["a"]);
    stage.hub.publish(Data::Text("2".into()));
    tokio::task::spawn_local(run(start, stage.client.clone()));
    assert_eq!(stage.client.frame().await, text("1"));
    assert_eq!(stage.client.frame().await, text("2"));
}

#[tokio::test(flavor = "local")]
async fn a_session_whose_channel_the_bus_can_not_follow_ends() {
    let mut stage = Stage::new();
    stage.start(&[subscribe("a").as_str(), "TEXT 3\r\nm:1\r\n"].concat()).await;
    assert_eq!(stage.client.frame().await, text("1"));
    stage.client.say("join");
    stage.asked().await.answer(&[subscribe("b").as_str(), "TEXT 3\r\nm:3\r\n", &subscribe("down")].concat());
    // In their order, also where the bus takes a moment.
    assert_eq!(stage.client.frame().await, text("3"));
    assert_eq!(stage.client.frame().await, closed(1011, "the bus is down"));
    assert_eq!(*stage.hub.0.channels.borrow(), ["a", "b"]);
    stage.expect("DISCONNECT\r\n").await.answer("");
}

#[tokio::test(flavor = "local")]
async fn ends_from_here_have_a_code_and_give_the_backend_disconnect() {
    let gap = Gap { channels: Vec::new(), reason: GapReason::Evicted };
    for (delivery, code, reason) in [
        (Delivery::End(CloseReason::Drain), 1012, "drain"),
        (Delivery::End(CloseReason::Slow), 4413, "slow"),
        (Delivery::Gap(gap), 4001, "gap"),
    ] {
        let mut stage = Stage::new();
        let session = stage.start("").await;
        stage.hub.deliver(delivery);
        assert_eq!(stage.client.frame().await, closed(code, reason));
        stage.expect("DISCONNECT\r\n").await.answer("");
        assert!(!session.is_finished(), "the client's close is awaited");
        stage.client.say("frames before it are too late");
        stage.client.send(8, &code.to_be_bytes());
        within(session).await.expect("no panic");
        assert!(stage.client.0.is_finished.get() && stage.asked.try_recv().is_err());
    }
}

#[tokio::test(flavor = "local")]
async fn a_client_that_breaks_the_protocol_is_closed_with_the_reason() {
    let send_bad_text = |client: &TestClient| client.send(1, b"\xff");
    let send_big = |client: &TestClient| client.send(2, &vec![0; 300_001]);
    let send_unknown = |client: &TestClient| client.send(3, b"");
    type Case<'a> = (&'a dyn Fn(&TestClient), u16);
    let cases: [Case<'_>; 3] = [(&send_bad_text, 1007), (&send_big, 1009), (&send_unknown, 1002)];
    for (send, code) in cases {
        let mut stage = Stage::new();
        let session = stage.start("").await;
        stage.client.say("1");
        send(&stage.client);
        let (opcode, payload) = stage.client.frame().await;
        assert_eq!((opcode, &payload[..2]), (8, &code.to_be_bytes()[..]));
        stage.client.go();
        stage.expect("TEXT 1\r\n1\r\n").await.answer("");
        stage.expect("DISCONNECT\r\n").await.answer("");
        within(session).await.expect("no panic");
    }
}

#[tokio::test(flavor = "local")]
async fn a_lost_client_gives_the_backend_disconnect() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.go();
    stage.expect("DISCONNECT\r\n").await.answer("");
    within(session).await.expect("no panic");
}

#[tokio::test(flavor = "local")]
async fn a_session_that_is_dropped_gives_the_backend_disconnect() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    session.abort();
    assert!(within(session).await.is_err(), "the future is dropped");
    asked.answer("TEXT 3\r\nm:x\r\n");
    stage.expect("DISCONNECT\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn the_backend_closes_the_client() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.say("1");
    stage.asked().await.answer("CLOSE 4\r\n\x0f\u{21}hi\r\n");
    assert_eq!(stage.client.frame().await, closed(3873, "hi"));
    stage.client.send(8, &3873u16.to_be_bytes());
    within(session).await.expect("no panic");
    assert!(stage.asked.try_recv().is_err(), "the backend closed it itself");
}

#[tokio::test(flavor = "local")]
async fn the_backend_drops_the_client() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.say("1");
    stage.asked().await.answer("DISCONNECT\r\n");
    within(session).await.expect("no panic");
    stage.client.assert_quiet();
    assert!(!stage.client.0.is_finished.get(), "no clean end");
}

#[tokio::test(flavor = "local")]
async fn a_failing_backend_closes_the_client() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.say("1");
    stage.asked().await.answer_with(500, &[], "oops");
    assert_eq!(stage.client.frame().await, closed(1011, "the backend failed"));
    stage.client.go();
    stage.expect("DISCONNECT\r\n").await.answer("");
    within(session).await.expect("no panic");
}

#[tokio::test(flavor = "local")]
async fn a_silent_client_is_asked_and_then_closed() {
    let mut stage = Stage::new();
    stage.settings.keep_alive = Duration::from_millis(300);
    stage.leave_ms = 30;
    let session = stage.start("").await;
    assert_eq!(stage.client.frame().await, (9, Vec::new()));
    stage.client.send(10, b"");
    assert_eq!(stage.client.frame().await, (9, Vec::new()), "it was heard");
    assert_eq!(stage.client.frame().await, closed(4408, "no sign of life"));
    stage.expect("DISCONNECT\r\n").await.answer("");
    // It never closes its side, and is not awaited for ever.
    within(session).await.expect("no panic");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_floods_and_reads_nothing_is_given_up() {
    let mut stage = Stage::new();
    stage.settings.keep_alive = Duration::from_millis(300);
    stage.leave_ms = 30;
    let session = stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    for _ in 0..5 {
        stage.client.send(2, &[b'x'; 50_000]);
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    stage.client.set_stuck(true);
    asked.answer("TEXT 3\r\nm:a\r\n");
    let asked = stage.asked().await;
    assert!(asked.body.ends_with(b"DISCONNECT\r\n"), "{} bytes", asked.body.len());
    asked.answer("");
    within(session).await.expect("no panic");
    assert_eq!(stage.client.frame().await, (9, Vec::new()));
    assert_eq!(stage.client.frame().await, closed(4408, "no sign of life"));
    stage.client.assert_quiet();
}

#[tokio::test(flavor = "local")]
async fn a_client_that_is_not_listened_to_is_not_given_up() {
    let mut stage = Stage::new();
    stage.settings.keep_alive = Duration::from_millis(500);
    stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    for _ in 0..5 {
        stage.client.send(2, &[b'x'; 50_000]);
    }
    // The backend takes longer than a silent client would live.
    let until = tokio::time::Instant::now() + Duration::from_millis(1200);
    while tokio::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
    stage.client.assert_quiet();
    asked.answer("TEXT 3\r\nm:a\r\n");
    assert_eq!(stage.client.frame().await, text("a"));
}

#[tokio::test(flavor = "local")]
async fn the_pong_to_our_ping_costs_the_backend_nothing() {
    let mut stage = Stage::new();
    stage.settings.keep_alive = Duration::from_millis(500);
    stage.settings.pings = Pings::PassedThrough;
    stage.start("").await;
    assert_eq!(stage.client.frame().await, (9, Vec::new()));
    stage.client.send(10, b"");
    stage.client.send(10, b"beat");
    stage.expect("PONG 4\r\nbeat\r\n").await;
}
