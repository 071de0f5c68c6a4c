//! Publishing, reading, leaving and resuming, on one shard and on two.

mod resting;

use super::*;
use crate::hub::policy::{ChannelPolicy, ConflateKey, SlowConsumer};
use crate::hub::shard::{Delivery, EndOrder, NoCarrier, Shard, Start, Subscription};
use crate::model::cursor::Cursor;
use crate::model::message::{Data, Label};
use crate::model::pattern::ChannelPattern;
use crate::model::session::{CloseReason, GapReason, Selector, SessionKind, Transport};
use proptest::prelude::*;
use std::rc::Rc;
use std::task::{Context, Waker};

fn hub(policy: ChannelPolicy) -> Arc<Hub> {
    let all = ChannelPattern::new("**").expect("a pattern");
    let policies = Arc::new(ArcSwap::from_pointee(ChannelPolicies::new(vec![(all, policy)])));
    Hub::new(2, Clock::start(), HubLimits::default(), policies)
}

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).expect("a name")
}

fn publish(hub: &Hub, channel: &str, text: &str) -> Position {
    let message = Message {
        channel: name(channel),
        id: None,
        event: Label::new(text.split(':').next().unwrap_or_default()).ok(),
        data: Data::Text(text.into()),
        cloudevent: None,
        grip: None,
    };
    hub.append(&hub.open(&name(channel)).expect("room"), message, None).expect("no condition")
}

fn pump(shard: &Rc<Shard>) {
    assert!(shard.poll_pump(&mut Context::from_waker(Waker::noop()), |_| (), &mut NoCarrier).is_pending());
}

/// All that there is to read: texts, `gap:reason`, `conflated:n`, `end:reason`.
fn read(subscription: &mut Subscription) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(delivery) = subscription.next() {
        all.push(match delivery {
            Delivery::Message(entry) => String::from_utf8_lossy(entry.message.data.as_bytes()).into_owned(),
            Delivery::Gap(gap) => format!("gap:{}", gap.reason.as_str()),
            Delivery::Conflated(left_out) => format!("conflated:{left_out}"),
            Delivery::End(reason) => {
                all.push(format!("end:{}", reason.as_str()));
                return all;
            }
        });
    }
    all
}

#[test]
fn history_then_live_without_a_hole() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    publish(&hub, "c", "1");
    publish(&hub, "c", "2");
    let mut subscription = shard.subscribe(&[name("c")], None, Start::Last(1)).expect("room");
    publish(&hub, "c", "3");
    assert_eq!(read(&mut subscription), ["2"]);
    pump(&shard);
    assert_eq!(read(&mut subscription), ["3"]);
    let cursor = subscription.cursor();
    drop(subscription);
    publish(&hub, "c", "4");
    let mut again = shard.subscribe(&[name("c")], Some(&cursor), Start::Now).expect("room");
    assert_eq!((again.resumed(), read(&mut again)), (Some(true), vec!["4".to_owned()]));
}

#[test]
fn both_shards_get_every_message() {
    let hub = hub(ChannelPolicy::default());
    let shards = [Shard::new(&hub, 0), Shard::new(&hub, 1)];
    let mut sessions: Vec<_> =
        shards.iter().map(|shard| shard.subscribe(&[name("c")], None, Start::Now).expect("room")).collect();
    publish(&hub, "c", "1");
    for (shard, session) in shards.iter().zip(&mut sessions) {
        pump(shard);
        assert_eq!(read(session), ["1"]);
    }
    assert_eq!(hub.find("c").map(|channel| channel.sessions()), Some(2));
}

/// Who joins copies what is new into the mirror before the pump does; those who wait there must be woken all the same.
#[test]
fn a_session_that_joins_between_publish_and_pump_does_not_swallow_the_wake() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let mut waiting = shard.subscribe(&[name("c")], None, Start::Now).expect("room");
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(waiting.poll_wait(&mut Context::from_waker(&waker)).is_pending());
    publish(&hub, "c", "1");
    let _joined = shard.subscribe(&[name("c")], None, Start::Now).expect("room");
    pump(&shard);
    assert!(woken.0.load(Ordering::Relaxed));
    assert_eq!(read(&mut waiting), ["1"]);
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_session_that_falls_behind_is_told() {
    for (slow_consumer, expected) in [
        (SlowConsumer::Gap, vec!["gap:slow", "b:99"]),
        (SlowConsumer::Close, vec!["end:slow"]),
        (SlowConsumer::Conflate(ConflateKey::Event), vec!["conflated:34", "a:34", "b:35", "b:99"]),
    ] {
        let hub = hub(ChannelPolicy { history_messages_max: 0, slow_consumer, ..ChannelPolicy::default() });
        let shard = Shard::new(&hub, 0);
        let mut slow = shard.subscribe(&[name("c")], None, Start::Now).expect("room");
        for n in 0..100 {
            publish(&hub, "c", &format!("{}:{n}", if n < 35 { "a" } else { "b" }));
        }
        pump(&shard);
        let all = read(&mut slow);
        let ends: Vec<&str> = all.iter().map(String::as_str).filter(|text| expected.contains(text)).collect();
        assert_eq!(ends, if expected.contains(&"a:34") { vec!["a:34", "b:99"] } else { expected.clone() }, "{all:?}");
    }
}

#[test]
fn publishers_are_ahead_by_messages_or_by_bytes() {
    for (policy, text, calm) in [
        (ChannelPolicy { history_messages_max: 0, ..ChannelPolicy::default() }, "x".to_owned(), 32),
        (ChannelPolicy { history_bytes_max: 10_000, ..ChannelPolicy::default() }, "x".repeat(1000), 5),
        (ChannelPolicy { history_bytes_max: 10, ..ChannelPolicy::default() }, "x".repeat(1000), 1),
    ] {
        let hub = hub(policy);
        let shard = Shard::new(&hub, 1);
        let channel = hub.open(&name("c")).expect("room");
        (0..100).for_each(|_| _ = publish(&hub, "c", &text));
        assert!(!channel.is_congested(), "nobody reads");
        let _session = shard.subscribe(&[name("c")], None, Start::Now).expect("room");
        (0..calm).for_each(|_| _ = publish(&hub, "c", &text));
        assert!(!channel.is_congested());
        publish(&hub, "c", &text);
        assert!(channel.is_congested());
        pump(&shard);
        assert!(!channel.is_congested());
    }
}

#[test]
fn a_cursor_of_other_channels_is_a_gap() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    publish(&hub, "b", "old");
    let cursor = shard.subscribe(&[name("a")], None, Start::Now).expect("room").cursor();
    let mut session = shard.subscribe(&[name("b")], Some(&cursor), Start::Now).expect("room");
    assert_eq!(session.resumed(), Some(false));
    assert_eq!(read(&mut session), ["gap:epoch", "old"]);
}

#[test]
fn gaps_with_one_reason_are_announced_together() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let mut session = shard.subscribe(&[name("a"), name("b")], Some(&Cursor::default()), Start::Now).expect("room");
    match session.next() {
        Some(Delivery::Gap(gap)) => {
            assert_eq!((gap.channels, gap.reason), (vec![name("a"), name("b")], GapReason::Epoch));
        }
        other => panic!("{other:?}"),
    }
    assert!(session.next().is_none());
}

#[test]
fn channels_come_and_go_within_a_session() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let mut others: Vec<_> =
        (0..3).map(|_| shard.subscribe(&[name("a"), name("b")], None, Start::Now).expect("room")).collect();
    let mut session = shard.subscribe(&[], None, Start::Now).expect("room");
    for channel in ["a", "b", "c"] {
        session.add(&name(channel)).expect("room");
    }
    assert!(others[0].remove(&name("a")) && !others[0].remove(&name("a")));
    assert!(session.remove(&name("b")));
    for channel in ["a", "b", "c"] {
        publish(&hub, channel, channel);
    }
    pump(&shard);
    assert_eq!(read(&mut session), ["a", "c"]);
    assert_eq!(read(&mut others[0]), ["b"]);
    assert_eq!(read(&mut others[2]), ["a", "b"]);
    drop((session, others));
    assert_eq!(shard.sessions(), 0);
    assert_eq!(hub.find("a").map(|channel| channel.sessions()), Some(0));
}

#[test]
fn a_channel_that_was_never_published_to_is_forgotten_with_its_last_session() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let session = shard.subscribe(&[name("a")], None, Start::Now).expect("room");
    let cursor = session.cursor();
    (0..hub.partitions()).for_each(|turn| hub.sweep(turn));
    assert_eq!(hub.figures().channels, 1);
    drop(session);
    (0..hub.partitions()).for_each(|turn| hub.sweep(turn));
    assert_eq!(hub.figures().channels, 0);
    publish(&hub, "a", "1");
    let mut again = shard.subscribe(&[name("a")], Some(&cursor), Start::Now).expect("room");
    assert_eq!(read(&mut again), ["1"]);
}

#[test]
fn channels_are_bounded() {
    let limits = HubLimits { channels_max: 1, ..HubLimits::default() };
    let hub = Hub::new(1, Clock::start(), limits, Arc::default());
    let shard = Shard::new(&hub, 0);
    let _first = shard.subscribe(&[name("a")], None, Start::Now).expect("room");
    assert_eq!(shard.subscribe(&[name("b")], None, Start::Now).err(), Some(HubError::TooManyChannels(1)));
    assert_eq!(shard.sessions(), 1);
}

#[test]
fn whoever_slept_through_two_losses_hears_of_the_graver_one() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let channel = hub.open(&name("c")).expect("room");
    let join = || shard.subscribe(&[name("c")], None, Start::Now).expect("room");
    let mut sleeper = join();
    hub.skip_to(&channel, Position { epoch: 2, offset: 0 }, GapReason::Epoch);
    pump(&shard);
    let mut later = join();
    hub.skip_to(&channel, Position { epoch: 2, offset: 5 }, GapReason::Bus);
    pump(&shard);
    assert_eq!((read(&mut sleeper), read(&mut later)), (vec!["gap:epoch".to_owned()], vec!["gap:bus".to_owned()]));
}

#[test]
fn what_the_bus_lost_is_a_gap_for_everybody() {
    let hub = hub(ChannelPolicy { slow_consumer: SlowConsumer::Close, ..ChannelPolicy::default() });
    let shard = Shard::new(&hub, 0);
    let channel = hub.open(&name("c")).expect("room");
    let at = |epoch, offset| Position { epoch, offset };
    let message = |text: &str| Message {
        channel: name("c"),
        id: None,
        event: None,
        data: Data::Text(text.into()),
        cloudevent: None,
        grip: None,
    };
    hub.start_at(&channel, at(1, 10));
    let mut old = shard.subscribe(&[name("c")], Some(&Cursor::one(&name("c"), at(1, 9))), Start::Now).expect("room");
    let mut current =
        shard.subscribe(&[name("c")], Some(&Cursor::one(&name("c"), at(1, 10))), Start::Now).expect("room");
    assert_eq!(read(&mut old), ["gap:evicted"]);
    assert!(hub.append_at(&channel, message("11"), at(1, 11)));
    assert!(!hub.append_at(&channel, message("11"), at(1, 11)), "it is there already");
    pump(&shard);
    assert_eq!(read(&mut current), ["11"]);
    hub.skip_to(&channel, at(2, 4), GapReason::Bus);
    pump(&shard);
    assert_eq!((read(&mut old), read(&mut current)), (vec!["gap:bus".to_owned()], vec!["gap:bus".to_owned()]));
    assert!(hub.append_at(&channel, message("5"), at(2, 5)));
    pump(&shard);
    assert_eq!((read(&mut old), read(&mut current)), (vec!["5".to_owned()], vec!["5".to_owned()]));
}

#[test]
fn every_session_is_asked_to_end_after_what_is_there() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let mut session = shard.subscribe(&[name("a")], None, Start::Now).expect("room");
    publish(&hub, "a", "1");
    pump(&shard);
    assert_eq!(end(&shard, Selector::All, 0), 1);
    publish(&hub, "a", "2");
    assert_eq!(read(&mut session), ["1", "2", "end:drain"], "the last is not pumped yet");
}

/// Counts how often it wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_session_hears_of_what_another_copied_first() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let sleeper = |text| {
        let mut session = shard.subscribe(&[name("a")], None, Start::Now).expect("room");
        let bell = Arc::new(Bell::default());
        assert!(session.poll_wait(&mut Context::from_waker(&bell.clone().into())).is_pending());
        publish(&hub, "a", text);
        (session, bell)
    };
    let check = |mut session: Subscription, bell: Arc<Bell>, text| {
        pump(&shard);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert_eq!(read(&mut session), [text]);
    };
    let (session, bell) = sleeper("1");
    let joins = shard.subscribe(&[name("a")], None, Start::Now).expect("room");
    check(session, bell, "1");
    drop(joins);
    let mut ends = shard.subscribe(&[name("a"), name("b")], None, Start::Now).expect("room");
    let (session, bell) = sleeper("2");
    end(&shard, Selector::Channel(name("b")), 0);
    assert_eq!(read(&mut ends), ["2", "end:drain"]);
    check(session, bell, "2");
}

/// Ends sessions over a window; how many.
fn end(shard: &Shard, selector: Selector, window_us: u64) -> usize {
    shard.end_sessions(&EndOrder { selector, reason: CloseReason::Drain, window_us, seed: 1 })
}

#[test]
fn sessions_are_ended_by_route_channel_and_kind() {
    let shard = Shard::new(&hub(ChannelPolicy::default()), 0);
    let open = |channels: &[&str], transport, route| {
        let channels: Vec<_> = channels.iter().map(|channel| name(channel)).collect();
        let mut session = shard.subscribe(&channels, None, Start::Now).expect("room");
        session.label(SessionKind::Push(transport), route);
        session
    };
    let mut first = open(&["a"], Transport::Sse, "one");
    let mut second = open(&["a", "b"], Transport::LongPoll, "two");
    let mut third = open(&["c"], Transport::WebSocket, "two");
    assert_eq!(end(&shard, Selector::Route("three".into()), 0), 0);
    assert_eq!(end(&shard, Selector::Channel(name("nowhere")), 0), 0);
    assert_eq!(end(&shard, Selector::Kind(SessionKind::Push(Transport::Sse)), 0), 1);
    assert_eq!((read(&mut first).len(), read(&mut second).len()), (1, 0));
    assert_eq!(end(&shard, Selector::Channel(name("b")), 0), 1);
    assert_eq!((read(&mut second).len(), read(&mut third).len()), (1, 0));
    drop(second);
    assert_eq!(end(&shard, Selector::Route("two".into()), 0), 1);
    assert_eq!(read(&mut third), ["end:drain"]);
}

#[test]
fn planned_ends_come_in_their_window_and_not_to_later_sessions_of_the_same_place() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let mut sessions: Vec<_> =
        (0..20).map(|_| shard.subscribe(&[name("a")], None, Start::Now).expect("room")).collect();
    assert_eq!(hub.sessions(), 20);
    assert_eq!(end(&shard, Selector::Channel(name("a")), 50_000), 20);
    // Another takes the place of one that leaves before its end.
    sessions.pop();
    let mut newcomer = shard.subscribe(&[name("a")], None, Start::Now).expect("room");
    let began_us = hub.clock().now_us();
    while let Some(next_us) = shard.end_due() {
        assert!(next_us < began_us + 50_000);
    }
    assert!(sessions.iter_mut().all(|session| read(session) == ["end:drain"]));
    assert_eq!(read(&mut newcomer), [""; 0]);
    drop((sessions, newcomer));
    assert_eq!(hub.sessions(), 0);
}

#[test]
fn the_earliest_of_several_ends_counts() {
    let hub = hub(ChannelPolicy::default());
    let shard = Shard::new(&hub, 0);
    let mut session = shard.subscribe(&[name("a")], None, Start::Now).expect("room");
    let now_us = hub.clock().now_us();
    session.end_at(now_us + 3_600_000_000, CloseReason::Operator);
    session.end_at(now_us, CloseReason::CredentialEnded);
    session.end_at(now_us + 3_600_000_000, CloseReason::RouteRemoved);
    assert!(shard.end_due().is_some_and(|next_us| next_us > now_us));
    assert_eq!(read(&mut session), ["end:credential_ended"]);
}

#[test]
fn who_comes_while_all_end_ends_too_and_what_is_left_is_cut() {
    let shard = Shard::new(&hub(ChannelPolicy::default()), 0);
    assert_eq!(end(&shard, Selector::All, 1000), 0);
    let mut late = shard.subscribe(&[name("a")], None, Start::Now).expect("room");
    while shard.end_due().is_some() {}
    assert_eq!(read(&mut late), ["end:drain"]);
    late.label(SessionKind::Push(Transport::WebSocket), "one");
    assert!(!late.is_cut());
    assert_eq!(shard.cut_sessions(), [0, 1, 0, 0]);
    assert!(late.is_cut());
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u8),
    Pump,
    Read(usize),
    Leave,
    Resume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3).prop_map(Step::Publish),
        2 => Just(Step::Pump),
        2 => (1usize..60).prop_map(Step::Read),
        1 => Just(Step::Leave),
        1 => (0usize..2).prop_map(Step::Resume),
    ]
}

proptest! {
    /// A session that reads, leaves and resumes on either worker as it likes gets each channel's messages in order,
    /// each once; where one is missing, a gap was announced in its place.
    #[test]
    fn what_a_session_reads_is_whole_or_announced(steps in proptest::collection::vec(step(), 1..400)) {
        let hub = hub(ChannelPolicy { history_messages_max: 0, ..ChannelPolicy::default() });
        let shards = [Shard::new(&hub, 0), Shard::new(&hub, 1)];
        let names = [name("0"), name("1"), name("2")];
        let mut published = [0u32; 3];
        let mut next = [0u32; 3];
        let mut may_skip = [false; 3];
        let mut cursor: Option<Cursor> = None;
        let mut session = None;
        let mut check = |session: &mut Subscription, count: usize, next: &mut [u32; 3], published: &[u32; 3]| {
            for _ in 0..count {
                match session.next() {
                    Some(Delivery::Message(entry)) => {
                        let channel: usize = entry.message.channel.as_str().parse().expect("a digit");
                        let number: u32 = String::from_utf8_lossy(entry.message.data.as_bytes()).parse().expect("a number");
                        assert!(number == next[channel] || may_skip[channel] && number > next[channel], "{number} after {next:?}");
                        assert!(number < published[channel]);
                        may_skip[channel] = false;
                        next[channel] = number + 1;
                    }
                    Some(Delivery::Gap(gap)) => gap.channels.iter().for_each(|channel| {
                        may_skip[channel.as_str().parse::<usize>().expect("a digit")] = true;
                    }),
                    Some(other) => panic!("{other:?}"),
                    None => break,
                }
            }
        };
        session.replace(shards[0].subscribe(&names, None, Start::Now).expect("room"));
        for step in steps {
            match step {
                Step::Publish(channel) => {
                    for _ in 0..5 {
                        publish(&hub, &channel.to_string(), &published[usize::from(channel)].to_string());
                        published[usize::from(channel)] += 1;
                    }
                }
                Step::Pump => shards.iter().for_each(pump),
                Step::Read(count) => session.iter_mut().for_each(|session| check(session, count, &mut next, &published)),
                Step::Leave => {
                    if let Some(session) = session.take() {
                        cursor = Some(session.cursor());
                    }
                }
                Step::Resume(worker) => if session.is_none() {
                    session = Some(shards[worker].subscribe(&names, cursor.as_ref(), Start::Now).expect("room"));
                },
            }
        }
        let mut session = match session {
            Some(session) => session,
            None => shards[0].subscribe(&names, cursor.as_ref(), Start::Now).expect("room"),
        };
        shards.iter().for_each(pump);
        check(&mut session, usize::MAX, &mut next, &published);
        assert_eq!(next, published, "all was read to the end");
    }
}
