//! Resuming: whatever a client does, it sees each channel's messages in their order and once, or hears of a gap; and a
//! cursor of one transport serves on every other.

mod client;
mod random;

use crate::support::client::{Http, publish};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use client::{Client, Way};
use random::Random;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const CLIENTS: usize = 4;
const SEEDS: u64 = 20;

const YAML: &str = "
routes:
  - name: room
    match: { path: \"/{room}\" }
    push: { channels: [\"{room}.a\", \"{room}.b\", \"{room}.c\"], long_poll_timeout: 1s }
channels:
  - { match: \"tiny*.**\", history: { messages: 5 } }
";

/// How much is published, and how fast the channels forget it.
#[derive(Clone, Copy)]
struct Plan {
    room: &'static str,
    bursts: u64,
    burst_max: u64,
}

/// One channel's history holds all of it: nothing may be missing.
const AMPLE: Plan = Plan { room: "ample", bursts: 30, burst_max: 8 };
/// A burst is more than a channel keeps.
const TINY: Plan = Plan { room: "tiny", bursts: 20, burst_max: 120 };

/// The instances that clients and publisher choose from, at each visit and publish anew.
#[derive(Clone)]
struct Fleet {
    http: Vec<SocketAddr>,
    publish: Vec<SocketAddr>,
}

impl Fleet {
    fn of(instances: &[Proxy]) -> Self {
        let all = |listener| instances.iter().map(|instance| instance.address(listener)).collect();
        Self { http: all("http"), publish: all("publish") }
    }
}

fn any(of: &[SocketAddr], random: &mut Random) -> SocketAddr {
    of[random.below(of.len() as u64) as usize]
}

#[tokio::test]
async fn clients_that_come_and_go_see_everything_once_and_in_order() {
    let proxy = [Proxy::start(YAML)];
    let gaps = run(AMPLE, &Fleet::of(&proxy)).await;
    assert_eq!(gaps, 0, "nothing was evicted, so nothing may be missing");
}

#[tokio::test]
async fn what_a_tiny_history_has_lost_is_announced() {
    let proxy = [Proxy::start(YAML)];
    let gaps = run(TINY, &Fleet::of(&proxy)).await;
    assert!(gaps > 0, "a variant without a gap proves nothing");
}

#[tokio::test]
async fn clients_that_move_between_instances_see_everything_once_and_in_order() {
    let redis = Redis::start();
    let yaml = format!("{YAML}bus: {{ redis: {{ url: \"redis://127.0.0.1:{}\" }} }}\n", redis.port());
    let instances = [Proxy::start(&yaml), Proxy::start(&yaml), Proxy::start(&yaml)];
    let gaps = run(AMPLE, &Fleet::of(&instances)).await;
    assert_eq!(gaps, 0, "nothing was evicted, so nothing may be missing");
}

/// Plays all seeds of a plan; how many gaps were announced.
async fn run(plan: Plan, fleet: &Fleet) -> usize {
    let first = std::env::var("RESUME_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let seeds = first.map_or(1..=SEEDS, |seed| seed..=seed);
    let mut gaps = 0;
    for seed in seeds {
        let played = tokio::spawn(play(plan, seed, fleet.clone())).await;
        gaps += played.unwrap_or_else(|error| panic!("{} with RESUME_SEED={seed}: {error}", plan.room));
    }
    gaps
}

async fn play(plan: Plan, seed: u64, fleet: Fleet) -> usize {
    let mut random = Random::new(seed);
    let room = format!("{}{seed}", plan.room);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::new(&room, any(&fleet.http, &mut random), random.fork());
        // The first visit fixes where the client starts: from there on nothing may be missing.
        client.visit(0).await;
        clients.push(client);
    }
    let (published, progress) = watch::channel(None);
    let visits = clients.into_iter().map(|client| {
        let moves = Moves { fleet: fleet.http.clone(), room: room.clone(), random: random.fork() };
        tokio::spawn(come_and_go(client, moves, progress.clone()))
    });
    let visits: Vec<_> = visits.collect();
    let mut counts = [0; 3];
    for _ in 0..plan.bursts {
        burst(&mut random, plan, &room, &mut counts, &fleet.publish).await;
        // A pause now and then, so that bursts meet clients in every state.
        if random.below(3) == 0 {
            tokio::time::sleep(Duration::from_millis(random.below(8))).await;
        }
    }
    published.send_replace(Some(counts));
    let mut gaps = 0;
    for visit in visits {
        gaps += visit.await.expect("a client that saw what it should");
    }
    gaps
}

/// A numbered message that says which channel it is of.
fn event(channel: &str, n: u64, padding: usize) -> Value {
    json!({"channel": channel, "data": {"c": channel, "n": n, "p": "x".repeat(padding)}})
}

/// Publishes up to `burst_max` numbered messages, as single events or an array, to one channel or all.
async fn burst(random: &mut Random, plan: Plan, room: &str, counts: &mut [u64; 3], publish_at: &[SocketAddr]) {
    let amount = 1 + random.below(plan.burst_max);
    let mut events = Vec::new();
    for _ in 0..amount {
        let channel = random.below(3) as usize;
        counts[channel] += 1;
        // Some do not fit into one read.
        let padding = if random.below(20) == 0 { 20_000 } else { random.below(50) };
        let name = format!("{room}.{}", ["a", "b", "c"][channel]);
        events.push(event(&name, counts[channel], padding as usize));
    }
    let single = amount < 4 && random.below(2) == 0;
    let requests = if single { events } else { vec![json!(events)] };
    for request in requests {
        let answer = publish(any(publish_at, random), &request.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Where a client goes next.
struct Moves {
    fleet: Vec<SocketAddr>,
    room: String,
    random: Random,
}

/// Visits until everything was seen; how many gaps were announced.
async fn come_and_go(mut client: Client, mut moves: Moves, published: watch::Receiver<Option<[u64; 3]>>) -> usize {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let done = *published.borrow();
        if done.is_some_and(|counts| client.has_seen(counts)) {
            return client.gaps();
        }
        assert!(Instant::now() < until, "{client:?} never saw all of {done:?}");
        client.move_to(any(&moves.fleet, &mut moves.random), &moves.room);
        client.visit(u64::MAX).await;
    }
}

#[tokio::test]
async fn each_transports_cursor_serves_on_every_other() {
    let proxy = Proxy::start(YAML);
    let (http, publish_at) = (proxy.address("http"), proxy.address("publish"));
    let ways = Way::ALL.iter().flat_map(|from| Way::ALL.iter().map(move |to| (*from, *to)));
    for (n, (from, to)) in ways.enumerate() {
        let room = format!("pair{n}");
        let mut client = Client::new(&room, http, Random::new(n as u64));
        client.visit_by(from, 0).await;
        for n in 1..=3u64 {
            publish(publish_at, &event(&format!("{room}.a"), n, 0).to_string()).await;
            publish(publish_at, &event(&format!("{room}.b"), n, 0).to_string()).await;
        }
        // Some by the one, the rest by the other.
        client.visit_by(from, 2).await;
        while !client.has_seen([3, 3, 0]) {
            client.visit_by(to, u64::MAX).await;
        }
        assert_eq!(client.gaps(), 0, "{from:?} to {to:?}");
    }
}

#[tokio::test]
async fn a_cursor_of_other_channels_or_another_life_is_a_gap() {
    let (proxy, other) = (Proxy::start(YAML), Proxy::start(YAML));
    for (n, way) in Way::ALL.into_iter().enumerate() {
        let publish_all = async |room: &str| {
            for n in 1..=3u64 {
                publish(proxy.address("publish"), &event(&format!("{room}.a"), n, 0).to_string()).await;
            }
        };
        let room = format!("life{n}");
        // Of another process: another epoch.
        let mut stranger = Client::new(&room, other.address("http"), Random::new(1));
        stranger.visit_by(Way { http: Http::H1, ..way }, 0).await;
        publish_all(&room).await;
        stranger.move_to(proxy.address("http"), &room);
        while !stranger.has_seen([3, 0, 0]) {
            stranger.visit_by(way, u64::MAX).await;
        }
        assert_eq!(stranger.reasons(), ["epoch"], "{way:?}");
        // Of other channels.
        let mut mover = Client::new(&format!("elsewhere{n}"), proxy.address("http"), Random::new(2));
        mover.visit_by(way, 0).await;
        mover.move_to(proxy.address("http"), &room);
        while !mover.has_seen([3, 0, 0]) {
            mover.visit_by(way, u64::MAX).await;
        }
        assert_eq!(mover.reasons(), ["epoch"], "{way:?}");
    }
}
