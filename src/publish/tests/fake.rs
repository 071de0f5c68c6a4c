//! A bus that remembers, and a handler on it.

use crate::bus::sequences::{Audience, Sequences};
use crate::bus::{Bus, BusError, IfMatch, Published};
use crate::hub::clock::Clock;
use crate::hub::policy::{ChannelPolicies, ChannelPolicy};
use crate::hub::{Hub, HubLimits};
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use crate::model::pattern::ChannelPattern;
use crate::model::position::Position;
use crate::model::secret::Secret;
use crate::presence::Presence;
use crate::proto::webhook::Template;
use crate::publish::body::Waits;
use crate::publish::settings::{PublishAuth, PublishSettings, WebhookSettings, WebhookVerify};
use crate::publish::{PublishHandler, Room};
use crate::server::body::{Body, BodyError};
use crate::server::{Answer, Handler, Peer, Request, Response, Trust};
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// The time of all tests, in Unix seconds.
pub(super) const NOW_SECS: u64 = 1_614_265_330;

/// A bus that remembers what it was given. All its epochs are 1.
#[derive(Debug, Default)]
pub(super) struct FakeBus {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<(Message, Position)>,
    paced: Vec<String>,
    fail_after: Option<usize>,
    down: bool,
    /// Publishes wait while this is there, each for a permit.
    gate: Option<Arc<Semaphore>>,
    /// The channels of those that wait.
    waiting: Vec<String>,
}

impl FakeBus {
    /// What was published, as `channel:data`.
    pub(super) fn published(&self) -> Vec<String> {
        let state = self.state.lock();
        let shown =
            |message: &Message| format!("{}:{}", message.channel, String::from_utf8_lossy(message.data.as_bytes()));
        state.messages.iter().map(|(message, _)| shown(message)).collect()
    }

    /// The last message.
    pub(super) fn last(&self) -> Message {
        self.state.lock().messages.last().expect("a message").0.clone()
    }

    /// The channels that were waited for.
    pub(super) fn paced(&self) -> Vec<String> {
        self.state.lock().paced.clone()
    }

    /// Lets no publish through from now on, but one for each permit.
    pub(super) fn close_gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.state.lock().gate = Some(Arc::clone(&gate));
        gate
    }

    /// The channels of publishes that came to the gate, in order.
    pub(super) fn at_gate(&self) -> Vec<String> {
        self.state.lock().waiting.clone()
    }

    /// Makes it fail once it has this many messages.
    pub(super) fn fail_after(&self, count: usize) {
        self.state.lock().fail_after = Some(count);
    }
}

impl FakeBus {
    /// Makes it say that it is down.
    pub(super) fn go_down(&self) {
        self.state.lock().down = true;
    }
}

impl Bus for FakeBus {
    fn health(&self) -> Result<(), BusError> {
        if self.state.lock().down { Err(BusError::Down("fake".into())) } else { Ok(()) }
    }

    fn set_window(&self, _: std::time::Duration) {}

    fn shutdown(&self, _: std::time::Duration) {}

    fn describe<'a>(&'a self, _: &'a ChannelName) -> BoxFuture<'a, Result<crate::bus::ChannelInfo, BusError>> {
        Box::pin(std::future::ready(Ok(crate::bus::ChannelInfo::default())))
    }

    fn attach<'a>(
        &'a self,
        _channels: &'a [ChannelName],
        _cursor: Option<&'a crate::model::cursor::Cursor>,
    ) -> BoxFuture<'a, Result<crate::bus::Attached, BusError>> {
        Box::pin(std::future::ready(Ok(crate::bus::Attached::new(Vec::new()))))
    }

    fn publish(&self, message: Message, if_match: Option<IfMatch>) -> BoxFuture<'_, Result<Published, BusError>> {
        Box::pin(async move {
            let gate = self.state.lock().gate.clone();
            if let Some(gate) = gate {
                self.state.lock().waiting.push(message.channel.to_string());
                gate.acquire().await.expect("a gate is never taken away").forget();
            }
            let mut state = self.state.lock();
            if state.fail_after == Some(state.messages.len()) {
                return Err(BusError::Down("fake".into()));
            }
            let of_channel = || state.messages.iter().filter(|(known, _)| known.channel == message.channel);
            let published = |position, duplicate| Published { position, duplicate, local_sessions: 3 };
            if let Some((_, position)) = of_channel().find(|(known, _)| known.id.is_some() && known.id == message.id) {
                return Ok(published(*position, true));
            }
            let newest = of_channel().next_back().map(|(_, position)| *position);
            let moved = match if_match {
                None => false,
                Some(IfMatch::Empty) => newest.is_some(),
                Some(IfMatch::At(position)) => newest != Some(position),
            };
            if moved {
                return Err(BusError::Moved { position: newest });
            }
            let position = Position { epoch: 1, offset: of_channel().count() as u64 + 1 };
            state.messages.push((message, position));
            Ok(published(position, false))
        })
    }

    fn paced<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, ()> {
        self.state.lock().paced.push(channel.to_string());
        Box::pin(tokio::task::yield_now())
    }
}

/// A handler on a fake bus: bodies of 1000 bytes, 10 bytes of data on the channel `small`.
pub(super) struct World {
    pub(super) bus: Arc<FakeBus>,
    settings: Arc<ArcSwap<PublishSettings>>,
    handler: PublishHandler,
}

impl World {
    pub(super) fn new() -> Self {
        Self::build(&[], vec![webhook("/hooks/none", WebhookVerify::None)], Waits::default())
    }

    pub(super) fn with_tokens(tokens: &[&str]) -> Self {
        Self::build(tokens, Vec::new(), Waits::default())
    }

    pub(super) fn with_webhooks(webhooks: Vec<WebhookSettings>) -> Self {
        Self::build(&["token"], webhooks, Waits::default())
    }

    /// Waits next to nothing.
    pub(super) fn impatient() -> Self {
        Self::build(&[], Vec::new(), Waits { progress: Duration::from_millis(5), line: Duration::from_millis(5) })
    }

    fn build(tokens: &[&str], webhooks: Vec<WebhookSettings>, waits: Waits) -> Self {
        let settings = PublishSettings {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            body_bytes_max: 1000,
            auth: tokens.iter().map(|token| bearer(token)).collect(),
            idempotency_window: Duration::from_secs(300),
            webhooks,
        };
        let small = ChannelPolicy { message_bytes_max: 10, ..ChannelPolicy::default() };
        let policies = ChannelPolicies::new(vec![(ChannelPattern::new("small").expect("a pattern"), small)]);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let bus = Arc::new(FakeBus::default());
        let policies = Arc::new(ArcSwap::from_pointee(policies));
        let hub = Hub::new(1, Clock::start(), HubLimits::default(), Arc::default());
        let presence = Presence::start(Arc::clone(&bus) as Arc<dyn Bus>, Arc::clone(&hub), Arc::default());
        let new = PublishHandler::new(
            Arc::clone(&settings),
            policies,
            Arc::clone(&bus) as Arc<dyn Bus>,
            Sequences::new(hub, Audience::Here),
            presence.expect("a thread"),
            Metrics::new().worker(),
        );
        let room = Rc::into_inner(new.room).expect("one owner");
        let handler = PublishHandler { room: Rc::new(Room { waits, now_secs: || NOW_SECS, ..room }) };
        Self { bus, settings, handler }
    }

    pub(super) fn require_token(&self, token: &str) {
        let settings = PublishSettings { auth: vec![bearer(token)], ..(**self.settings.load()).clone() };
        self.settings.store(Arc::new(settings));
    }

    pub(super) async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: TestBody) -> Response {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.handle(request.body(body.0).expect("a request")).await
    }

    pub(super) async fn handle(&self, request: Request) -> Response {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let peer = Peer { address, local: address, listener: "publish".into(), is_tls: false, trusted: Trust::Client };
        match self.handler.handle(request, Rc::new(peer)).await {
            Answer::Response(response) => response,
            Answer::Hold(_) | Answer::Later(_) | Answer::Waiting(_) => panic!("publishing holds nothing"),
        }
    }
}

/// A request's body.
pub(super) struct TestBody(Body);

impl From<String> for TestBody {
    fn from(text: String) -> Self {
        Self(Body::full(text))
    }
}

/// A body of pieces that are all there.
pub(super) fn pieces(pieces: impl IntoIterator<Item = Vec<u8>, IntoIter: 'static>) -> TestBody {
    let frames = pieces.into_iter().map(|piece| Ok(http_body::Frame::data(Bytes::from(piece))));
    TestBody(Body::boxed(StreamBody::new(stream::iter(frames))))
}

/// A body whose pieces are sent one by one.
pub(super) fn channel() -> (mpsc::Sender<Result<Bytes, BodyError>>, TestBody) {
    let (sender, receiver) = mpsc::channel(64);
    let frames =
        stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) });
    let frames = frames.map(|piece: Result<Bytes, BodyError>| piece.map(http_body::Frame::data));
    (sender, TestBody(Body::boxed(StreamBody::new(frames))))
}

pub(super) async fn read(response: Response) -> (http::response::Parts, Vec<u8>) {
    let (head, body) = response.into_parts();
    (head, body.collect().await.expect("a body").to_bytes().to_vec())
}

pub(super) async fn problem(response: Response) -> (u16, serde_json::Value) {
    let (head, body) = read(response).await;
    (head.status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
}

/// A webhook that maps `/type` and `/data`.
pub(super) fn webhook(path: &str, verify: WebhookVerify) -> WebhookSettings {
    let template = |text| Template::parse(text).expect("a template");
    WebhookSettings {
        path: path.into(),
        verify,
        channel: template("customers.{/data/customer_id}"),
        event: Some(template("{/type}")),
        data: Some(template("{/data}")),
    }
}

fn bearer(token: &str) -> PublishAuth {
    PublishAuth::Bearer(Secret::new(token.as_bytes()))
}
