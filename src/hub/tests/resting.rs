//! Sessions at rest, whose messages the pump hands on: whatever happens, each gets all in order, or hears of a gap.

use super::*;
use crate::hub::log::Entry;
use crate::hub::shard::{Carried, Carrier, Outlet};
use futures_util::task::{ArcWake, waker};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

/// What the clients have, by the session's key; only those whose sessions rest are there.
#[derive(Default)]
struct Clients {
    lent: HashMap<u32, Vec<u64>>,
    /// What becomes of the next hand-overs, in turn.
    plan: Vec<Carried>,
    handed: usize,
}

impl Carrier for Clients {
    fn carry(&mut self, outlet: Outlet, owner: u32, entries: &[Arc<Entry>]) -> Carried {
        assert_eq!(outlet, owner + 1000, "the outlet is the session's own");
        let got = self.lent.get_mut(&owner).expect("only who lent is handed anything");
        let carried = if self.plan.is_empty() { Carried::All } else { self.plan[self.handed % self.plan.len()] };
        self.handed += 1;
        if carried != Carried::Refused {
            got.extend(entries.iter().map(|entry| number(entry)));
        }
        carried
    }
}

/// Whether a session's task was woken.
struct Woken(AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(this: &Arc<Self>) {
        this.0.store(true, Ordering::Relaxed);
    }
}

struct Session {
    subscription: Subscription,
    channel: usize,
    /// The first message that it is to get.
    from: u64,
    key: Option<u32>,
    /// Numbers of messages; 0 is a gap.
    got: Vec<u64>,
    woken: Arc<Woken>,
}

struct World {
    hub: Arc<Hub>,
    shard: Rc<Shard>,
    sessions: Vec<Session>,
    clients: Clients,
    published: [u64; 2],
}

const QUIET_MS: u64 = 60_000;
const CHANNELS: [&str; 2] = ["a", "b"];

fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(entry.message.data.as_bytes()).expect("a text").parse().expect("a number")
}

impl World {
    fn new(plan: Vec<Carried>) -> Self {
        let hub = hub(ChannelPolicy::default());
        let shard = Shard::new(&hub, 0);
        let clients = Clients { plan, ..Clients::default() };
        Self { hub, shard, sessions: Vec::new(), clients, published: [0; 2] }
    }

    /// With so many sessions at rest on the first channel, whose clients take all.
    fn at_rest(count: usize) -> Self {
        let mut world = Self::new(vec![]);
        (0..count).for_each(|_| world.join(0));
        world.settle();
        assert_eq!(world.resting(), count);
        world
    }

    fn publish(&mut self, channel: usize, count: u64) {
        for _ in 0..count {
            self.published[channel] += 1;
            publish(&self.hub, CHANNELS[channel], &self.published[channel].to_string());
        }
    }

    fn join(&mut self, channel: usize) {
        let subscription = self.shard.subscribe(&[name(CHANNELS[channel])], None, Start::Now).expect("room");
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let from = self.published[channel] + 1;
        self.sessions.push(Session { subscription, channel, from, key: None, got: Vec::new(), woken });
    }

    /// What a session's task does when it is polled.
    fn poll(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        session.woken.0.store(false, Ordering::Relaxed);
        session.subscription.rise();
        if let Some(got) = session.key.take().and_then(|key| self.clients.lent.remove(&key)) {
            session.got = got;
        }
        loop {
            match session.subscription.next() {
                Some(Delivery::Message(entry)) => session.got.push(number(&entry)),
                Some(Delivery::Gap(_)) => session.got.push(0),
                Some(other) => panic!("{other:?}"),
                None => {
                    let waker = waker(Arc::clone(&session.woken));
                    if session.subscription.poll_wait(&mut Context::from_waker(&waker)).is_pending() {
                        break;
                    }
                }
            }
        }
        let (lent, got, key) = (&mut self.clients.lent, &mut session.got, &mut session.key);
        session.subscription.rest(Some(QUIET_MS), |owner| {
            lent.insert(owner, std::mem::take(got));
            *key = Some(owner);
            Some(owner + 1000)
        });
    }

    fn leave(&mut self, index: usize) {
        let session = self.sessions.swap_remove(index);
        if let Some(key) = session.key {
            self.clients.lent.remove(&key);
        }
    }

    /// One turn of the pump; whether it has more to do.
    fn pump(&mut self) -> bool {
        let waker = Waker::noop();
        self.shard.poll_pump(&mut Context::from_waker(waker), |_| (), &mut self.clients).is_ready()
    }

    /// Lets everybody who was woken do what there is to do.
    fn settle(&mut self) {
        loop {
            let pumps = self.pump();
            let woken = |session: &Session| session.woken.0.load(Ordering::Relaxed);
            let polls: Vec<_> = (0..self.sessions.len()).filter(|index| woken(&self.sessions[*index])).collect();
            polls.iter().for_each(|index| self.poll(*index));
            if !pumps && polls.is_empty() {
                return;
            }
        }
    }

    fn check(&mut self) {
        self.settle();
        for session in &self.sessions {
            let got = session.key.map_or(&session.got, |key| &self.clients.lent[&key]);
            let mut next = session.from;
            let mut gap = false;
            for number in got {
                match *number {
                    0 => gap = true,
                    number => {
                        assert!(number == next || gap && number > next, "{number} instead of {next} in {got:?}");
                        (next, gap) = (number + 1, false);
                    }
                }
            }
            let last = self.published[session.channel];
            assert!(next == last + 1 || gap, "{next} instead of {} in {got:?}", last + 1);
        }
    }

    fn resting(&self) -> usize {
        self.sessions.iter().filter(|session| session.key.is_some()).count()
    }
}

#[test]
fn who_rests_is_not_woken_for_a_message() {
    let mut world = World::at_rest(200);
    world.publish(0, 3);
    let turns = (0..).take_while(|_| world.pump()).count();
    assert_eq!((turns, world.clients.handed), (3, 200), "64 a turn, all three messages at once");
    assert!(world.sessions.iter().all(|session| !session.woken.0.load(Ordering::Relaxed)));
    world.check();
    assert_eq!(world.clients.handed, 200);
}

#[test]
fn what_comes_during_a_pass_comes_after_it() {
    let mut world = World::at_rest(100);
    world.publish(0, 1);
    assert!(world.pump());
    world.publish(0, 1);
    assert!(world.pump(), "the first message is with all, the second on its way");
    assert_eq!(world.clients.handed, 100);
    let congested = world.hub.find("a").expect("a channel").marks[0].copied.load(Ordering::Relaxed);
    assert_eq!(congested, 1, "publishers see how far the sessions at rest are");
    world.check();
    assert_eq!(world.clients.handed, 200);
    assert_eq!(world.hub.find("a").expect("a channel").marks[0].copied.load(Ordering::Relaxed), 2);
}

#[test]
fn who_waits_to_be_woken_does_not_wait_for_the_last_pass() {
    let mut world = World::at_rest(100);
    let mut reader =
        world.shard.subscribe(&[name("a"), name("b")], None, Start::Now).expect("on two channels, it never rests");
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = waker(Arc::clone(&woken));
    assert!(reader.poll_wait(&mut Context::from_waker(&waker)).is_pending());
    // Each message finds a pass under way, and a session that joins copies it for all.
    world.publish(0, 1);
    for _ in 0..20 {
        assert!(world.pump(), "a pass takes two turns");
        world.publish(0, 1);
        world.join(0);
        world.pump();
        assert!(woken.0.swap(false, Ordering::Relaxed));
        let read = std::iter::from_fn(|| reader.next()).count();
        assert!(read > 0);
        assert!(reader.poll_wait(&mut Context::from_waker(&waker)).is_pending());
    }
    world.check();
}

#[test]
fn who_rises_in_the_middle_of_a_pass_still_gets_what_the_log_dropped() {
    let mut world = World::at_rest(100);
    world.publish(0, 1);
    assert!(world.pump());
    // More than the log keeps; who joins copies what is left.
    world.publish(0, ChannelPolicy::default().history_messages_max as u64 + 100);
    world.join(0);
    let last = world.sessions.iter().position(|session| session.key == Some(99)).expect("it is not served yet");
    assert!(world.clients.lent[&99].is_empty());
    world.poll(last);
    let session = &world.sessions[last];
    let got = session.key.map_or(&session.got, |key| &world.clients.lent[&key]);
    assert_eq!(got[..2], [1, 0], "the message that was on its way, then a gap");
    world.check();
}

#[test]
fn a_cursor_of_who_rests_is_where_the_pump_is() {
    let mut world = World::new(vec![]);
    world.join(0);
    world.settle();
    world.publish(0, 2);
    world.settle();
    assert_eq!((world.resting(), world.clients.handed), (1, 1));
    let offset = |world: &World| {
        let cursor = world.sessions[0].subscription.cursor();
        cursor.position(&name("a")).map(|position| position.offset)
    };
    assert_eq!(offset(&world), Some(2));
}

#[test]
fn who_rests_hears_of_orders_and_times() {
    let mut world = World::at_rest(3);
    let order =
        EndOrder { selector: Selector::Channel(name("a")), reason: CloseReason::Operator, window_us: 0, seed: 1 };
    assert_eq!(world.shard.end_sessions(&order), 3);
    assert!(world.sessions.iter().all(|session| session.woken.0.load(Ordering::Relaxed)));
    world.publish(0, 1);
    world.pump();
    // Until its task is polled, a session still gets what comes.
    assert_eq!(world.clients.handed, 3);
    let session = &mut world.sessions[0];
    session.subscription.rise();
    assert!(matches!(session.subscription.next(), Some(Delivery::End(CloseReason::Operator))));
}

#[test]
fn what_is_handed_on_moves_the_deadline() {
    let mut world = World::new(vec![]);
    world.join(0);
    world.join(1);
    world.shard.tick();
    let deadline_ms = world.shard.now_ms() + 300;
    world.sessions.iter_mut().for_each(|session| session.subscription.set_deadline(deadline_ms));
    world.settle();
    assert_eq!(world.resting(), 2);
    world.publish(0, 1);
    world.settle();
    while world.shard.now_ms() <= deadline_ms + 2 * wheel::TICK_MS {
        std::thread::yield_now();
        world.shard.tick();
    }
    let woken: Vec<_> = world.sessions.iter().map(|session| session.woken.0.load(Ordering::Relaxed)).collect();
    assert_eq!(woken, [false, true], "the first got a message, the second nothing");
}

#[test]
fn who_is_on_two_channels_does_not_rest() {
    let mut world = World::new(vec![]);
    world.join(0);
    world.sessions[0].subscription.add(&name("b")).expect("room");
    world.settle();
    assert_eq!(world.resting(), 0);
    world.sessions[0].subscription.remove(&name("b"));
    world.poll(0);
    assert_eq!(world.resting(), 1);
    world.sessions[0].subscription.add(&name("b")).expect("room");
    world.publish(0, 1);
    world.settle();
    assert_eq!(world.clients.handed, 0, "it reads for itself again");
}

#[derive(Debug, Clone)]
enum Step {
    Publish(usize, u64),
    Join(usize),
    Poll(usize),
    Leave(usize),
    Pump,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2usize, 1..4u64).prop_map(|(channel, count)| Step::Publish(channel, count)),
        1 => (0..2usize, 1..90u64).prop_map(|(channel, count)| Step::Publish(channel, count)),
        5 => (0..2usize).prop_map(Step::Join),
        6 => (0..1000usize).prop_map(Step::Poll),
        2 => (0..1000usize).prop_map(Step::Leave),
        4 => Just(Step::Pump),
    ]
}

proptest! {
    #[test]
    fn each_gets_all_in_order_or_hears_of_a_gap(
        steps in proptest::collection::vec(step(), 0..300),
        plan in proptest::collection::vec(prop_oneof![
            6 => Just(Carried::All), 1 => Just(Carried::Stuck), 1 => Just(Carried::Refused)], 1..20),
        crowd in 0..150usize,
    ) {
        let mut world = World::new(plan);
        for _ in 0..crowd {
            world.join(0);
        }
        world.settle();
        for step in steps {
            let index = |at: usize| at % world.sessions.len().max(1);
            match step {
                Step::Publish(channel, count) => world.publish(channel, count),
                Step::Join(channel) => world.join(channel),
                Step::Poll(at) if !world.sessions.is_empty() => world.poll(index(at)),
                Step::Leave(at) if !world.sessions.is_empty() => world.leave(index(at)),
                Step::Poll(_) | Step::Leave(_) => {}
                Step::Pump => _ = world.pump(),
            }
        }
        // Who is refused for ever is not at rest for ever, but a test ends.
        world.clients.plan.clear();
        world.check();
    }
}
