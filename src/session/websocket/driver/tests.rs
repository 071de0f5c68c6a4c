//! The driver over a link and a feed that the test plays.

mod keeping;

use super::*;
use crate::hub::HubError;
use crate::hub::policy::ChannelPolicies;
use crate::hub::shard::{Outlet, Start};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::pattern::ChannelPattern;
use crate::server::fan_out::Form;
use crate::session::settings::PushSettings;
use crate::session::websocket::seam::{Output, Place};
use crate::session::websocket::subprotocol::Subprotocol;
use crate::session::websocket::tests::{BusState, FakeBus, Spot, client, in_words, text};
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use futures_util::task::{ArcWake, waker};
use std::cell::RefMut;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

/// The world of one session. Each waker is kept as the one who would wake it: a test wakes by [`Rig::woken`].
#[derive(Default)]
struct World {
    /// What the client will be read to say; an empty piece is its end.
    said: VecDeque<Vec<u8>>,
    /// Frames in the link, and those that the client took.
    queued: VecDeque<Bytes>,
    taken: Vec<Bytes>,
    /// Whether the socket is lent: nobody may use the link before it is taken back.
    lent: bool,
    /// Whether the client takes what is queued.
    stuck: bool,
    room: usize,
    broken: bool,
    finished: bool,
    deliveries: VecDeque<Delivery>,
    /// Whether the feed has moved on beyond what the channel allows.
    too_slow: bool,
    spot: Spot,
    now_ms: u64,
    deadline_ms: u64,
    read_waker: Option<Waker>,
    flush_waker: Option<Waker>,
    feed_waker: Option<Waker>,
    timers: Vec<(u64, Waker)>,
}

/// Ready at a time of the world.
struct Alarm {
    shared: Shared,
    at_ms: u64,
}

const ROOM: usize = 8;

#[derive(Clone)]
struct Shared(Rc<RefCell<World>>);

impl Shared {
    fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }
}

impl Output for Shared {
    fn push(&mut self, frame: Bytes) {
        assert!(!self.world().finished, "nothing is sent after the end");
        assert!(!self.world().lent);
        self.world().queued.push_back(frame);
    }

    fn has_room(&self) -> bool {
        let world = self.world();
        world.queued.len() < world.room
    }
}

impl Wire for Shared {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut world = self.world();
        assert!(!world.lent);
        if world.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if world.stuck && !world.queued.is_empty() {
            world.flush_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let queued = std::mem::take(&mut world.queued);
        world.taken.extend(queued);
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut world = self.world();
        assert!(!world.lent);
        let Some(piece) = world.said.pop_front() else {
            world.read_waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let len = piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&piece[..len]);
        if len < piece.len() {
            world.said.push_front(piece[len..].to_vec());
        }
        Poll::Ready(Ok(len))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.poll_flush(cx)?.is_pending() {
            return Poll::Pending;
        }
        self.world().finished = true;
        Poll::Ready(Ok(()))
    }

    fn lend(&mut self, _owner: u32, form: &'static Form) -> Option<Outlet> {
        assert_eq!(form.transport, Transport::WebSocket);
        let mut world = self.world();
        assert!(!world.lent && world.read_waker.is_some(), "the client is still heard");
        world.lent = world.queued.is_empty();
        world.lent.then_some(0)
    }

    fn take_back(&mut self) {
        self.world().lent = false;
    }
}

impl Place for Shared {
    fn resumed(&self) -> Option<bool> {
        None
    }

    fn cursor(&self) -> Cursor {
        self.world().spot.cursor()
    }

    fn channels(&self) -> Vec<ChannelName> {
        self.world().spot.channels()
    }

    fn add(&mut self, channel: &ChannelName) -> Result<(), HubError> {
        self.world().spot.add(channel)
    }

    fn remove(&mut self, channel: &ChannelName) -> bool {
        self.world().spot.remove(channel)
    }
}

impl Feed for Shared {
    fn is_cut(&self) -> bool {
        false
    }

    fn next(&mut self) -> Option<Delivery> {
        let mut world = self.world();
        let delivery = world.deliveries.pop_front()?;
        world.spot.pass(&delivery);
        Some(delivery)
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut world = self.world();
        if !world.deliveries.is_empty() || world.now_ms >= world.deadline_ms {
            return Poll::Ready(());
        }
        world.feed_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn rest(&mut self, lend: &mut dyn FnMut(u32) -> Option<Outlet>) {
        lend(0);
    }

    fn rise(&mut self) -> u64 {
        0
    }

    fn is_too_slow(&self) -> bool {
        self.world().too_slow
    }

    fn set_deadline(&mut self, at_ms: u64) {
        self.world().deadline_ms = at_ms;
    }

    fn now_ms(&self) -> u64 {
        self.world().now_ms
    }

    fn now_us(&self) -> u64 {
        self.world().now_ms * 1000
    }

    fn sleep_ms(&self, ms: u64) -> LocalBoxFuture<'static, ()> {
        let at_ms = self.world().now_ms + ms;
        Box::pin(Alarm { shared: self.clone(), at_ms })
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut world = self.shared.world();
        if world.now_ms >= self.at_ms {
            return Poll::Ready(());
        }
        world.timers.push((self.at_ms, cx.waker().clone()));
        Poll::Pending
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl ArcWake for Wakes {
    fn wake_by_ref(this: &Arc<Self>) {
        this.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Rig {
    shared: Shared,
    bus: Arc<FakeBus>,
    wakes: Arc<Wakes>,
    driver: Pin<Box<Driver<Shared, Shared>>>,
}

impl Rig {
    fn new(subprotocol: Subprotocol) -> Self {
        Self::with(subprotocol, |_| None)
    }

    fn with(subprotocol: Subprotocol, keeper: impl FnOnce(&Rc<WorkerMetrics>) -> Option<Keeper>) -> Self {
        let own = Spot::on(&["a"]).channels();
        let shared = Shared(Rc::new(RefCell::new(World { spot: Spot::on(&["a"]), room: ROOM, ..World::default() })));
        let settings = PushSettings {
            transports: vec![],
            keep_alive: Duration::from_secs(20),
            long_poll_timeout: Duration::from_secs(1),
            start: Start::Now,
            client_subscribe: vec![ChannelPattern::new("open").expect("a pattern")],
            client_publish: vec![ChannelPattern::new("in").expect("a pattern")],
            subscriptions_max: 4,
            messages_per_second_max: 100,
        };
        let machine = Machine::new(subprotocol, settings.into(), Arc::new(ChannelPolicies::default()), "s", 0);
        let bus = Arc::new(FakeBus::default());
        let metrics = Metrics::new().worker();
        let around = Around { bus: Arc::clone(&bus) as Arc<dyn Bus>, keeper: keeper(&metrics), metrics };
        let driver = Driver::start(shared.clone(), shared.clone(), machine, around, "s", &own);
        let mut rig = Self { shared, bus, wakes: Arc::default(), driver: Box::pin(driver) };
        assert!(rig.run().is_pending());
        rig.taken();
        rig
    }

    fn world(&self) -> RefMut<'_, World> {
        self.shared.world()
    }

    /// Polls once, and again for as long as the session wakes itself.
    fn run(&mut self) -> Poll<()> {
        for _ in 0..1000 {
            self.wakes.0.store(0, Ordering::Relaxed);
            let waker = waker(Arc::clone(&self.wakes));
            let poll = self.driver.as_mut().poll(&mut Context::from_waker(&waker));
            if poll.is_ready() || self.wakes.0.load(Ordering::Relaxed) == 0 {
                return poll;
            }
        }
        panic!("the session spins");
    }

    /// Wakes by one of the world's wakers, which must be there, and runs.
    #[track_caller]
    fn woken(&mut self, waker: fn(&mut World) -> &mut Option<Waker>) -> Poll<()> {
        let waker = waker(&mut self.world()).take().expect("the session waits for this");
        waker.wake();
        assert!(self.wakes.0.load(Ordering::Relaxed) > 0, "a waker of this session");
        self.run()
    }

    /// Lets the time come, and runs the session if a timer or its deadline wakes it.
    fn passes(&mut self, now_ms: u64) -> Poll<()> {
        self.world().now_ms = now_ms;
        let due: Vec<(u64, Waker)> = self.world().timers.extract_if(.., |(at_ms, _)| *at_ms <= now_ms).collect();
        due.into_iter().for_each(|(_, waker)| waker.wake());
        if now_ms >= self.world().deadline_ms
            && let Some(waker) = self.world().feed_waker.take()
        {
            waker.wake();
        }
        if self.wakes.0.load(Ordering::Relaxed) == 0 { Poll::Pending } else { self.run() }
    }

    fn says(&mut self, bytes: Vec<u8>) -> Poll<()> {
        self.world().said.push_back(bytes);
        self.woken(|world| &mut world.read_waker)
    }

    fn gets(&mut self, deliveries: impl IntoIterator<Item = Delivery>) -> Poll<()> {
        self.world().deliveries.extend(deliveries);
        self.woken(|world| &mut world.feed_waker)
    }

    fn taken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.world().taken).iter().map(|frame| in_words(frame)).collect()
    }
}

fn publish(data: &str) -> Vec<u8> {
    client(0x81, format!(r#"{{"type":"publish","ref":"{data}","channel":"in","data":"{data}"}}"#).as_bytes())
}

fn texts(range: std::ops::Range<u64>) -> impl Iterator<Item = Delivery> {
    range.map(|n| text("a", n, &n.to_string()))
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn messages_flow_in_order_past_the_share_of_a_poll() {
    let mut rig = Rig::new(Subprotocol::Raw);
    assert!(rig.gets(texts(1..301)).is_pending());
    assert_eq!(rig.taken(), numbers(1..301));
    assert!(rig.gets(texts(301..302)).is_pending());
    assert_eq!(rig.taken(), ["301"]);
}

#[test]
fn a_client_that_takes_nothing_costs_no_more_than_its_room() {
    let mut rig = Rig::new(Subprotocol::V1);
    rig.world().stuck = true;
    rig.world().said.extend((0..100).map(|_| client(0x81, br#"{"type":"ping"}"#)));
    assert!(rig.gets(texts(1..100)).is_pending());
    assert_eq!(rig.world().queued.len(), ROOM);
    assert!(rig.driver.unread.len() <= SCRATCH_BYTES);
    let left = |rig: &Rig| {
        let world = rig.world();
        (world.said.len(), world.deliveries.len())
    };
    let before = left(&rig);
    assert!(before.0 > 0 && before.1 > 0);
    assert!(rig.run().is_pending());
    assert_eq!(left(&rig), before);
    rig.world().stuck = false;
    assert!(rig.woken(|world| &mut world.flush_waker).is_pending());
    let taken = rig.taken();
    assert_eq!(taken.iter().filter(|text| text.contains("pong")).count(), 100);
    let events: Vec<_> = taken.iter().filter(|text| text.contains("event")).collect();
    assert_eq!(events.len(), 99);
    assert!(events.iter().zip(1..).all(|(text, n)| text.contains(&format!("\"data\":\"{n}\""))), "in order");
}

#[test]
fn a_client_that_takes_nothing_is_left_behind_in_time() {
    let mut rig = Rig::new(Subprotocol::Raw);
    rig.world().stuck = true;
    assert!(rig.gets(texts(1..100)).is_pending());
    let left_ms = (0..100_000).step_by(500).find(|now_ms| rig.passes(*now_ms).is_ready());
    // A ping, two more periods, the wait for a close, the wait for the link.
    assert_eq!(left_ms, Some(20_000 + 40_000 + 5_000 + 5_000));
    assert!(rig.world().queued.len() <= ROOM + 4);
}

#[test]
fn a_client_that_takes_nothing_is_closed_where_the_channel_says_so() {
    let blocked = || {
        let mut rig = Rig::new(Subprotocol::Raw);
        rig.world().stuck = true;
        assert!(rig.gets(texts(1..100)).is_pending());
        rig.world().too_slow = true;
        assert!(rig.passes(LOOK_BEHIND_MS).is_pending());
        rig
    };
    let mut rig = blocked();
    let left_ms = (0..100_000).step_by(500).find(|now_ms| rig.passes(*now_ms).is_ready());
    // The look behind, the wait for a close, the wait for the link.
    assert_eq!(left_ms, Some(LOOK_BEHIND_MS + 5_000 + 5_000));
    let mut rig = blocked();
    rig.world().stuck = false;
    assert!(rig.woken(|world| &mut world.flush_waker).is_pending());
    assert_eq!(rig.taken().last().map(String::as_str), Some("close 4413 slow"));
    assert!(rig.says(client(0x88, b"\x11\x3d")).is_ready());
}

#[test]
fn a_client_that_takes_slowly_is_kept() {
    let mut rig = Rig::new(Subprotocol::Raw);
    for n in 0..20 {
        rig.world().stuck = true;
        let start = n * 100 + 1;
        assert!(rig.gets(texts(start..start + 100)).is_pending());
        for second in 0..50 {
            assert!(rig.passes(n * 50_000 + second * 1000).is_pending());
        }
        rig.world().stuck = false;
        assert!(rig.woken(|world| &mut world.flush_waker).is_pending());
    }
    let taken = rig.taken();
    assert_eq!(taken.iter().filter(|text| *text != "ping").count(), 2000);
}

#[test]
fn a_full_link_has_a_timer_and_an_idle_one_has_none() {
    let mut rig = Rig::new(Subprotocol::Raw);
    assert!(rig.driver.timer.is_none());
    assert_eq!(rig.world().deadline_ms, 20_000);
    rig.world().stuck = true;
    assert!(rig.gets(texts(1..100)).is_pending());
    assert!(rig.driver.timer.is_some());
    rig.world().stuck = false;
    assert!(rig.woken(|world| &mut world.flush_waker).is_pending());
    assert!(rig.driver.timer.is_none());
}

#[test]
fn the_feeds_deadline_brings_a_ping() {
    let mut rig = Rig::new(Subprotocol::Raw);
    assert!(rig.passes(20_000).is_pending());
    assert_eq!(rig.taken(), ["ping"]);
    assert_eq!(rig.world().deadline_ms, 40_000);
}

#[test]
fn publishes_reach_the_bus_in_order() {
    for room in [ROOM, 1000] {
        let mut rig = Rig::new(Subprotocol::V1);
        rig.world().room = room;
        let all: Vec<u8> = (0..50).flat_map(|n| publish(&n.to_string())).collect();
        assert!(rig.says(all).is_pending());
        assert_eq!(*rig.bus.published.lock(), numbers(0..50), "with room for {room}");
        let taken = rig.taken();
        assert_eq!(taken.len(), 50);
        assert_eq!(taken[49], r#"{"type":"published","ref":"49","position":"1-50"}"#);
    }
}

#[test]
fn a_stuck_bus_does_not_hold_up_messages() {
    let mut rig = Rig::new(Subprotocol::V1);
    rig.bus.set(BusState::Stuck);
    let all: Vec<u8> = (0..50).flat_map(|n| publish(&n.to_string())).collect();
    assert!(rig.says(all).is_pending());
    assert!(rig.gets(texts(1..2)).is_pending());
    assert!(rig.taken()[0].contains("\"event\""));
    rig.bus.set(BusState::Down);
    assert!(rig.passes(PUBLISH_MS_MAX - 1).is_pending());
    assert_eq!(rig.taken(), [""; 0]);
    assert!(rig.passes(PUBLISH_MS_MAX).is_pending());
    let taken = rig.taken();
    assert_eq!(taken.len(), 50);
    assert!(taken[0].contains("bus_down") && taken[0].contains("10 s"), "{}", taken[0]);
    assert!(taken[49].contains("\"ref\":\"49\"") && taken[49].contains("no route"), "{}", taken[49]);
}

#[test]
fn what_was_published_before_a_close_is_published() {
    let mut rig = Rig::new(Subprotocol::V1);
    assert!(rig.says([publish("1"), publish("2"), client(0x88, b"\x03\xe8")].concat()).is_ready());
    assert_eq!(*rig.bus.published.lock(), numbers(1..3));
    assert!(rig.world().finished);
    let mut rig = Rig::new(Subprotocol::V1);
    rig.bus.set(BusState::Stuck);
    assert!(rig.says([publish("1"), client(0x88, b"")].concat()).is_pending());
    assert!(rig.world().finished);
    assert!(rig.passes(LEAVE_MS - 1).is_pending());
    assert!(rig.passes(LEAVE_MS).is_ready(), "but a stuck bus is not waited for");
}

#[test]
fn the_close_of_a_client_is_echoed_and_the_link_finished() {
    let mut rig = Rig::new(Subprotocol::Raw);
    assert!(rig.says(client(0x88, b"\x03\xe8")).is_ready());
    assert_eq!(rig.taken(), ["close 1000 "]);
    assert!(rig.world().finished);
}

#[test]
fn an_end_is_told_and_its_answer_awaited() {
    let mut rig = Rig::new(Subprotocol::Raw);
    assert!(rig.gets([Delivery::End(CloseReason::Drain)]).is_pending());
    assert_eq!(rig.taken(), ["close 1012 drain"]);
    assert!(!rig.world().finished);
    assert!(rig.says(client(0x88, b"\x03\xf4")).is_ready());
    assert!(rig.world().finished);
    assert_eq!(rig.taken(), [""; 0]);
}

#[test]
fn a_violation_is_told_before_the_link_is_dropped() {
    let mut rig = Rig::new(Subprotocol::Raw);
    assert!(rig.says(client(0x81, b"\xff")).is_pending());
    assert_eq!(rig.taken(), ["close 1007 a text is no UTF-8"]);
    assert!(rig.world().finished);
    assert!(rig.says(vec![0; 40_000]).is_pending(), "what still comes is read away");
    assert!(rig.says(Vec::new()).is_ready());
}

#[test]
fn lingering_ends_in_time() {
    let mut rig = Rig::new(Subprotocol::Raw);
    assert!(rig.says(client(0x81, b"\xff")).is_pending());
    assert!(rig.passes(LEAVE_MS - 1).is_pending());
    assert!(rig.passes(LEAVE_MS).is_ready());
}

#[test]
fn a_client_that_is_gone_ends_the_session_at_once() {
    let mut rig = Rig::new(Subprotocol::Raw);
    assert!(rig.says(Vec::new()).is_ready());
    let mut rig = Rig::new(Subprotocol::Raw);
    rig.world().broken = true;
    assert!(rig.gets(texts(1..2)).is_ready());
}

#[test]
fn an_idle_session_owns_no_buffer() {
    let mut rig = Rig::new(Subprotocol::V1);
    assert!(rig.says([publish("1"), client(0x89, b"x"), client(0x8a, b"")].concat()).is_pending());
    assert!(rig.gets(texts(1..100)).is_pending());
    let driver = &rig.driver;
    assert_eq!(driver.unread.capacity(), 0);
    assert!(driver.publishing.is_none() && driver.timer.is_none());
    assert!(size_of::<Driver<Shared, Shared>>() <= 400, "{}", size_of::<Driver<Shared, Shared>>());
}
