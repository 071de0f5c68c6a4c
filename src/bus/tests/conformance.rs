//! What every bus promises, as tests that run against any of them.
//!
//! A [`Factory`] makes instances (a hub and a bus each) on one shared server. Each check is one promise; a bus's own
//! tests call [`all`], and the faults that only its server can have are tested beside it.

use crate::bus::{Bus, BusError, IfMatch};
use crate::hub::clock::Clock;
use crate::hub::log::Start;
use crate::hub::policy::{ChannelPolicies, ChannelPolicy};
use crate::hub::shard::{Delivery, NoCarrier, Shard, Subscription};
use crate::hub::{Hub, HubLimits};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::grip::{GripFormats, StreamForm, WebSocketForm};
use crate::model::message::{Data, Label, Message};
use crate::model::pattern::ChannelPattern;
use crate::model::position::Position;
use arc_swap::ArcSwap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a channel may be followed after its last session left.
const LINGER_MAX: Duration = Duration::from_secs(45);

/// Makes buses on one shared server.
pub trait Factory {
    /// A bus of another instance, which feeds `hub`. It is connected, or will be within the patience of the tests.
    fn bus(&self, hub: &Arc<Hub>) -> Arc<dyn Bus>;

    /// Where another instance has its sessions: a hub of its own. The embedded bus has only one hub, and what stand for
    /// instances there are its workers.
    fn hub(&self) -> (Arc<Hub>, usize) {
        (hub(1), 0)
    }

    /// Whether a message can be published on condition.
    fn compares(&self) -> bool {
        true
    }

    /// Whether an instance knows of the sessions of others.
    fn counts_others(&self) -> bool {
        true
    }

    /// Whether an instance gets only what it has sessions for.
    fn follows(&self) -> bool {
        true
    }
}

/// A hub whose channels `short.*` keep 10 messages, others 1000.
pub fn hub(workers: usize) -> Arc<Hub> {
    let short = ChannelPolicy { history_messages_max: 10, ..ChannelPolicy::default() };
    let pattern = ChannelPattern::new("short.*").expect("a pattern");
    let policies = Arc::new(ArcSwap::from_pointee(ChannelPolicies::new(vec![(pattern, short)])));
    Hub::new(workers, Clock::start(), HubLimits::default(), policies)
}

/// One instance: a hub, its one worker, and a bus.
pub struct Instance {
    /// The hub.
    pub hub: Arc<Hub>,
    /// Its worker's shard.
    pub shard: Rc<Shard>,
    /// The bus.
    pub bus: Arc<dyn Bus>,
}

impl Instance {
    /// Another instance.
    pub fn new(factory: &dyn Factory) -> Self {
        let (hub, worker) = factory.hub();
        let shard = Shard::new(&hub, worker);
        let bus = factory.bus(&hub);
        let pumped = Rc::clone(&shard);
        tokio::task::spawn_local(poll_fn(move |cx| pumped.poll_pump(cx, |_| {}, &mut NoCarrier)));
        Self { hub, shard, bus }
    }

    /// Attaches and subscribes as a gateway does; tries again while the bus is down.
    pub async fn subscribe(&self, channel: &ChannelName, cursor: Option<&Cursor>) -> Subscription {
        let channels = [channel.clone()];
        let attached = patiently("attach", || self.bus.attach(&channels, cursor)).await;
        let subscription = self.shard.subscribe(&channels, cursor, Start::Now).expect("room");
        drop(attached);
        subscription
    }

    /// Publishes a text; tries again while the bus is down.
    pub async fn publish(&self, channel: &ChannelName, text: &str) -> Position {
        patiently("publish", || self.bus.publish(message(channel, None, text), None)).await.position
    }
}

/// A text message.
pub fn message(channel: &ChannelName, id: Option<&str>, text: &str) -> Message {
    Message {
        channel: channel.clone(),
        id: id.map(|id| Label::new(id).expect("an id")),
        event: None,
        data: Data::Text(text.into()),
        cloudevent: None,
        grip: None,
    }
}

/// A name that no other test uses: a server may serve several.
pub fn fresh(prefix: &str) -> ChannelName {
    let token = crate::session::token::new().expect("random bits").as_str().to_lowercase().replace(['-', '_'], "x");
    ChannelName::new(&format!("{prefix}.{token}")).expect("a name")
}

/// Tries until the bus is there.
pub async fn patiently<'a, T>(
    what: &str,
    mut attempt: impl FnMut() -> futures_util::future::BoxFuture<'a, Result<T, BusError>>,
) -> T {
    let tries = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(BusError::Down(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.unwrap_or_else(|_| panic!("{what}: the bus stayed down"))
}

/// The next thing that a session gets, as text: the message's data, or `gap:` and its reason.
pub async fn next(subscription: &mut Subscription) -> String {
    let wait = poll_fn(|cx| match subscription.next() {
        Some(delivery) => Poll::Ready(delivery),
        None => {
            if subscription.poll_wait(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }
    });
    match tokio::time::timeout(PATIENCE, wait).await.expect("something is delivered") {
        Delivery::Message(entry) => String::from_utf8_lossy(entry.message.data.as_bytes()).into_owned(),
        Delivery::Gap(gap) => format!("gap:{}", gap.reason.as_str()),
        Delivery::Conflated(_) => "conflated".to_owned(),
        Delivery::End(reason) => format!("end:{}", reason.as_str()),
    }
}

/// So many things that a session gets.
pub async fn take(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        all.push(next(subscription).await);
    }
    all
}

/// Runs a test as a worker does.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(test);
}

/// Every promise, one after the other.
pub async fn all(factory: &dyn Factory) {
    a_publish_answers_its_position(factory).await;
    what_is_published_anywhere_is_seen_everywhere(factory).await;
    publishers_at_once_are_seen_in_one_order(factory).await;
    a_cursor_moves_between_instances(factory).await;
    what_history_lost_is_a_gap(factory).await;
    an_id_counts_on_every_instance(factory).await;
    if factory.compares() {
        of_two_that_compare_one_wins(factory).await;
    } else {
        a_condition_is_refused_by_name(factory).await;
    }
    if factory.follows() {
        a_channel_without_sessions_is_not_followed(factory).await;
        a_channel_is_let_go_of_and_taken_up_again(factory).await;
    }
    a_channel_is_described(factory).await;
    if factory.counts_others() {
        sessions_of_all_instances_are_counted_until_they_leave(factory).await;
    }
    any_message_travels(factory).await;
    health_is_told_and_nothing_goes_on_after_the_farewell(factory).await;
}

async fn a_publish_answers_its_position(factory: &dyn Factory) {
    let (instance, channel) = (Instance::new(factory), fresh("position"));
    let first = instance.publish(&channel, "a").await;
    let second = instance.publish(&channel, "b").await;
    assert_eq!(first.epoch, second.epoch);
    assert!(first.offset >= 1 && second.offset > first.offset, "{first} {second}");
}

async fn what_is_published_anywhere_is_seen_everywhere(factory: &dyn Factory) {
    let (a, b, channel) = (Instance::new(factory), Instance::new(factory), fresh("all"));
    a.publish(&channel, "before").await;
    let (mut on_a, mut on_b) = (a.subscribe(&channel, None).await, b.subscribe(&channel, None).await);
    for n in 0..50 {
        let instance = if n % 2 == 0 { &a } else { &b };
        instance.publish(&channel, &n.to_string()).await;
    }
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(take(&mut on_a, 50).await, expected);
    assert_eq!(take(&mut on_b, 50).await, expected);
    assert_eq!(on_a.cursor(), on_b.cursor());
}

async fn publishers_at_once_are_seen_in_one_order(factory: &dyn Factory) {
    let (a, b, channel) = (Instance::new(factory), Instance::new(factory), fresh("order"));
    let (mut on_a, mut on_b) = (a.subscribe(&channel, None).await, b.subscribe(&channel, None).await);
    let publishers = (0..8).map(|publisher| {
        let (instance, channel) = (if publisher % 2 == 0 { &a } else { &b }, &channel);
        async move {
            for n in 0..20 {
                instance.publish(channel, &format!("{publisher}:{n:02}")).await;
            }
        }
    });
    futures_util::future::join_all(publishers).await;
    let seen = take(&mut on_a, 160).await;
    assert_eq!(take(&mut on_b, 160).await, seen);
    for publisher in 0..8 {
        let own: Vec<_> = seen.iter().filter(|text| text.starts_with(&format!("{publisher}:"))).collect();
        assert!(own.len() == 20 && own.is_sorted(), "{own:?}");
    }
}

async fn a_cursor_moves_between_instances(factory: &dyn Factory) {
    let (a, channel) = (Instance::new(factory), fresh("moves"));
    let mut on_a = a.subscribe(&channel, None).await;
    let start = on_a.cursor();
    for n in 0..20 {
        a.publish(&channel, &n.to_string()).await;
    }
    take(&mut on_a, 5).await;
    let cursor = on_a.cursor();
    let b = Instance::new(factory);
    let mut on_b = b.subscribe(&channel, Some(&cursor)).await;
    assert_eq!(on_b.resumed(), Some(true));
    let expected: Vec<_> = (5..20).map(|n| n.to_string()).collect();
    assert_eq!(take(&mut on_b, 15).await, expected);
    // From before the first message, and from the very end, before the other instance can have heard of it.
    let mut from_start = b.subscribe(&channel, Some(&start)).await;
    assert_eq!((from_start.resumed(), next(&mut from_start).await), (Some(true), "0".to_owned()));
    for n in 20..60 {
        let end = a.publish(&channel, &n.to_string()).await;
        let at_end = b.subscribe(&channel, Some(&Cursor::one(&channel, end))).await;
        assert_eq!(at_end.resumed(), Some(true), "{n}");
    }
}

async fn what_history_lost_is_a_gap(factory: &dyn Factory) {
    // A log keeps 64 messages for sessions that are a moment behind; a bus may keep as few as the policy says.
    let (a, channel) = (Instance::new(factory), fresh("short"));
    let first = a.publish(&channel, "0").await;
    for n in 1..200 {
        a.publish(&channel, &n.to_string()).await;
    }
    let b = Instance::new(factory);
    let mut on_b = b.subscribe(&channel, Some(&Cursor::one(&channel, first))).await;
    assert_eq!(on_b.resumed(), Some(false));
    assert_eq!(next(&mut on_b).await, "gap:evicted");
    while next(&mut on_b).await != "199" {}
    let strange = Position { epoch: first.epoch + 1, offset: 7 };
    let mut strange = b.subscribe(&channel, Some(&Cursor::one(&channel, strange))).await;
    assert_eq!(next(&mut strange).await, "gap:epoch");
}

async fn an_id_counts_on_every_instance(factory: &dyn Factory) {
    let (a, b, channel, other) = (Instance::new(factory), Instance::new(factory), fresh("ids"), fresh("ids"));
    let mut on_b = b.subscribe(&channel, None).await;
    let publish = |instance: &Instance, channel: &ChannelName, id: &str| {
        let (bus, message) = (Arc::clone(&instance.bus), message(channel, Some(id), id));
        async move { bus.publish(message, None).await.expect("published") }
    };
    a.publish(&channel, "start").await;
    b.publish(&channel, "start").await;
    let first = publish(&a, &channel, "1").await;
    let again = publish(&b, &channel, "1").await;
    let second = publish(&b, &channel, "2").await;
    let elsewhere = publish(&b, &other, "1").await;
    assert!(!first.duplicate && again.duplicate && !second.duplicate && !elsewhere.duplicate);
    assert_eq!(again.position, first.position);
    let together =
        futures_util::future::join_all((0..6).map(|n| publish(if n % 2 == 0 { &a } else { &b }, &channel, "3")));
    let together = together.await;
    assert_eq!(together.iter().filter(|published| !published.duplicate).count(), 1);
    assert!(together.iter().all(|published| published.position == together[0].position));
    assert_eq!(take(&mut on_b, 5).await, ["start", "start", "1", "2", "3"]);
}

async fn of_two_that_compare_one_wins(factory: &dyn Factory) {
    let (a, b, channel) = (Instance::new(factory), Instance::new(factory), fresh("compare"));
    let mut at = None;
    a.publish(&fresh("warm"), "a").await;
    b.publish(&fresh("warm"), "b").await;
    for round in 0..10 {
        let condition = at.map_or(IfMatch::Empty, IfMatch::At);
        let text = round.to_string();
        let tries = (0..4).map(|n| {
            let instance = if n % 2 == 0 { &a } else { &b };
            instance.bus.publish(message(&channel, None, &text), Some(condition))
        });
        let results = futures_util::future::join_all(tries).await;
        let won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "{results:?}");
        let now = Some(won[0].position);
        for lost in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(*lost, BusError::Moved { position: now });
        }
        at = now;
    }
}

async fn a_condition_is_refused_by_name(factory: &dyn Factory) {
    let (a, channel) = (Instance::new(factory), fresh("compare"));
    let mut on_a = a.subscribe(&channel, None).await;
    let refused = a.bus.publish(message(&channel, None, "refused"), Some(IfMatch::Empty)).await;
    assert_eq!(refused, Err(BusError::NoConditions));
    a.publish(&channel, "next").await;
    assert_eq!(next(&mut on_a).await, "next");
}

async fn a_channel_without_sessions_is_not_followed(factory: &dyn Factory) {
    let (a, b, followed, other) = (Instance::new(factory), Instance::new(factory), fresh("on"), fresh("off"));
    let mut on_b = b.subscribe(&followed, None).await;
    a.publish(&other, "unseen").await;
    a.publish(&followed, "seen").await;
    assert_eq!(next(&mut on_b).await, "seen");
    assert!(b.hub.find(other.as_str()).is_none());
    assert!(b.hub.find(followed.as_str()).is_some());
}

async fn a_channel_is_let_go_of_and_taken_up_again(factory: &dyn Factory) {
    let (a, b, channel) = (Instance::new(factory), Instance::new(factory), fresh("again"));
    let mut on_b = b.subscribe(&channel, None).await;
    a.publish(&channel, "1").await;
    assert_eq!(next(&mut on_b).await, "1");
    let cursor = on_b.cursor();
    drop(on_b);
    // As long as that takes: nobody is told of it.
    let gone = async {
        while b.hub.find(channel.as_str()).is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LINGER_MAX, gone).await.expect("the channel is let go of");
    a.publish(&channel, "2").await;
    let mut back = b.subscribe(&channel, Some(&cursor)).await;
    assert_eq!((back.resumed(), next(&mut back).await), (Some(true), "2".to_owned()));
    a.publish(&channel, "3").await;
    assert_eq!(next(&mut back).await, "3");
}

async fn a_channel_is_described(factory: &dyn Factory) {
    let (a, channel) = (Instance::new(factory), fresh("described"));
    let empty = patiently("describe", || a.bus.describe(&channel)).await;
    assert_eq!((empty.position, empty.history_messages), (None, 0));
    a.publish(&channel, "a").await;
    let last = a.publish(&channel, "b").await;
    let info = a.bus.describe(&channel).await.expect("described");
    assert_eq!((info.position, info.history_messages), (Some(last), 2));
}

async fn sessions_of_all_instances_are_counted_until_they_leave(factory: &dyn Factory) {
    let (a, b, channel) = (Instance::new(factory), Instance::new(factory), fresh("counted"));
    let on_a = [a.subscribe(&channel, None).await, a.subscribe(&channel, None).await];
    let on_b = b.subscribe(&channel, None).await;
    let counts = async |expected: usize| {
        let told = async {
            loop {
                let sums = [&a, &b].map(async |instance| {
                    let info = patiently("describe", || instance.bus.describe(&channel)).await;
                    info.instances.iter().map(|(_, sessions)| sessions).sum::<usize>()
                });
                let [on_a, on_b] = sums;
                if (on_a.await, on_b.await) == (expected, expected) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, told).await;
        told.unwrap_or_else(|_| panic!("not all say {expected} sessions"));
    };
    counts(3).await;
    drop(on_b);
    counts(2).await;
    drop(on_a);
    counts(0).await;
}

async fn health_is_told_and_nothing_goes_on_after_the_farewell(factory: &dyn Factory) {
    let (a, channel) = (Instance::new(factory), fresh("health"));
    a.publish(&channel, "1").await;
    assert_eq!(a.bus.health(), Ok(()));
    // A farewell ends at once, and nothing can be published any more but where the hub is the bus.
    a.bus.shutdown(PATIENCE);
    let after = a.bus.publish(message(&channel, None, "2"), None).await;
    assert_eq!(after.is_ok(), !factory.follows(), "{after:?}");
}

async fn any_message_travels(factory: &dyn Factory) {
    let (a, b) = (Instance::new(factory), Instance::new(factory));
    let token = fresh("x");
    let channel = ChannelName::new(&format!("a}}b{{%*>. ü{}", token.as_str())).expect("a name");
    let label = |text: &str| Some(Label::new(text).expect("a label"));
    let whole = Message {
        channel: channel.clone(),
        id: label("i d\u{1}"),
        event: label("ü"),
        data: Data::Binary((0..=255).collect()),
        cloudevent: Some("\"id\":\"1\"".into()),
        grip: Some(Box::new(GripFormats {
            id: label("g1"),
            meta: vec![("user".into(), "ü".into())],
            stream: Some(StreamForm::Send { content: (0..=255).collect(), filters: Some(["skip-self".into()].into()) }),
            websocket: Some(WebSocketForm::Close(Some(4000), "bye".into())),
            ..GripFormats::default()
        })),
    };
    let mut on_b = b.subscribe(&channel, None).await;
    let cursor = on_b.cursor();
    patiently("publish", || a.bus.publish(whole.clone(), None)).await;
    next(&mut on_b).await;
    let c = Instance::new(factory);
    let attached = patiently("attach", || c.bus.attach(std::slice::from_ref(&channel), Some(&cursor))).await;
    let mut on_c = c.shard.subscribe(std::slice::from_ref(&channel), Some(&cursor), Start::Now).expect("room");
    drop(attached);
    let Some(Delivery::Message(entry)) = on_c.next() else { panic!("no message") };
    assert_eq!(entry.message, whole);
}
