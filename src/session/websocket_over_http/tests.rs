//! Sessions against a backend, a client and a hub that the tests play.

#![expect(clippy::disallowed_methods, reason = "what a test asks is bounded by the test")]

mod ends;
mod messages;
mod opening;

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
    fn upstream(&self) -> Arc<str> {
        "shop".into()
    }

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
