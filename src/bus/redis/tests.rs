//! Redis against what every bus promises, and the faults that only it has, on real servers.

#[path = "../../../tests/it/support/redis.rs"]
#[expect(dead_code, reason = "the whole-program tests use more of it")]
mod server;
mod simulation;

use super::*;
use crate::bus::settings::{BusTls, HostPort, RedisServers};
use crate::bus::tests::conformance::{self, Factory, Instance, fresh, message, next, patiently, take};
use crate::bus::tests::service;
use crate::model::position::Position;
use crate::model::secret::Secret;
use crate::telemetry::readiness::{Readiness, Status};
use server::Redis;
use std::time::Instant;
use store::RedisStore;

struct OnRedis(RedisSettings);

impl Factory for OnRedis {
    fn bus(&self, hub: &Arc<Hub>) -> Arc<dyn Bus> {
        start(self.0.clone(), hub, Readiness::new())
    }
}

fn start(settings: RedisSettings, hub: &Arc<Hub>, readiness: Readiness) -> Arc<RedisBus> {
    let health = Health::new("redis", readiness, Arc::default());
    RedisBus::start(settings, Arc::clone(hub), Duration::from_secs(300), health).expect("a thread")
}

fn local(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

fn settings(servers: RedisServers) -> RedisSettings {
    RedisSettings { servers, username: None, password: None, db: 0, tls: None, prefix: "test".to_owned() }
}

fn on(redis: &Redis) -> OnRedis {
    OnRedis(settings(RedisServers::One(local(redis.port()))))
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is() {
        assert!(Instant::now() < deadline, "not within 15 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn redis_keeps_what_every_bus_promises() {
    let redis = Redis::start();
    conformance::run(conformance::all(&on(&redis)));
}

#[test]
fn a_cluster_keeps_what_every_bus_promises() {
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let nodes = [Redis::with(&options), Redis::with(&options)];
    assert_eq!(nodes[0].cli(&["cluster", "addslotsrange", "0", "8000"]), "OK");
    assert_eq!(nodes[1].cli(&["cluster", "addslotsrange", "8001", "16383"]), "OK");
    nodes[0].cli(&["cluster", "meet", "127.0.0.1", &nodes[1].port().to_string()]);
    for node in &nodes {
        until("the cluster is whole", || {
            let info = node.cli(&["cluster", "info"]);
            info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
        });
    }
    let servers = nodes.iter().map(|node| local(node.port())).collect();
    conformance::run(conformance::all(&OnRedis(settings(RedisServers::Cluster(servers)))));
}

#[test]
fn a_user_with_a_password_a_database_and_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("cert"), made.cert.pem()).expect("written");
    std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("written");
    let tls_port = server::free_port();
    let options = format!(
        "--tls-port {tls_port} --tls-cert-file {} --tls-key-file {} --tls-auth-clients no \
         --user bridge on >hunter2 ~test:* &test:* +@connection +@scripting +@hash +@stream +@string +@keyspace +@pubsub \
         +time +info +role +cluster",
        path("cert"),
        path("key")
    );
    let redis = Redis::with(&options.split(' ').collect::<Vec<_>>());
    let tls = BusTls { ca_file: None, anchors: vec![made.cert.der().clone()] };
    let good = RedisSettings {
        username: Some("bridge".to_owned()),
        password: Some(Secret::new(*b"hunter2")),
        db: 3,
        tls: Some(tls),
        ..settings(RedisServers::One(local(tls_port)))
    };
    conformance::run(async {
        let (a, b, channel) =
            (Instance::new(&OnRedis(good.clone())), Instance::new(&OnRedis(good.clone())), fresh("tls"));
        let mut on_b = b.subscribe(&channel, None).await;
        a.publish(&channel, "x").await;
        assert_eq!(next(&mut on_b).await, "x");
    });
    assert!(redis.cli(&["-n", "3", "dbsize"]) != "0");
    let bad = RedisSettings { password: Some(Secret::new(*b"wrong")), ..good };
    conformance::run(async {
        let instance = Instance::new(&OnRedis(bad));
        let refused = instance.bus.publish(message(&fresh("bad"), None, "x"), None).await;
        assert!(matches!(refused, Err(BusError::Down(_))));
    });
}

#[test]
fn sentinels_name_the_master_and_a_failover_that_lost_nothing_is_no_gap() {
    let (mut first, second) = (Redis::start(), Redis::start());
    second.cli(&["replicaof", "127.0.0.1", &first.port().to_string()]);
    let config = tempfile::tempdir().expect("a folder");
    let config = config.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor mine 127.0.0.1 {} 1\nsentinel down-after-milliseconds mine 500\nsentinel failover-timeout mine 2000\n",
        first.port()
    );
    std::fs::write(&config, text).expect("written");
    let sentinel = Redis::sentinel(&config);
    until("the replica is known", || {
        sentinel.cli(&["sentinel", "replicas", "mine"]).contains(&second.port().to_string())
    });
    until("the replica follows", || second.cli(&["info", "replication"]).contains("master_link_status:up"));
    let servers = RedisServers::Sentinel { master: "mine".to_owned(), sentinels: vec![local(sentinel.port())] };
    conformance::run(async {
        let (instance, channel) = (Instance::new(&OnRedis(settings(servers))), fresh("failover"));
        let mut session = instance.subscribe(&channel, None).await;
        let before = instance.publish(&channel, "1").await;
        assert_eq!(next(&mut session).await, "1");
        until("the replica has it", || second.cli(&["keys", "*"]).contains("failover"));
        first.kill();
        let after = instance.publish(&channel, "2").await;
        assert_ne!(after.epoch, before.epoch);
        assert_eq!(next(&mut session).await, "2");
        let mut resumed = instance.subscribe(&channel, Some(&Cursor::one(&channel, before))).await;
        assert_eq!((resumed.resumed(), next(&mut resumed).await), (Some(true), "2".to_owned()));
    });
}

#[test]
fn a_restart_with_its_data_loses_nothing() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&on(&redis)), Instance::new(&on(&redis)), fresh("restart"));
        let mut on_b = b.subscribe(&channel, None).await;
        let mut before = Position { epoch: 0, offset: 0 };
        for n in 0..5 {
            before = a.publish(&channel, &n.to_string()).await;
        }
        assert_eq!(take(&mut on_b, 5).await, ["0", "1", "2", "3", "4"]);
        redis.restart();
        // The condition is of the life before, in which this is the same place.
        let if_match = Some(IfMatch::At(before));
        let first = patiently("publish", || a.bus.publish(message(&channel, None, "5"), if_match)).await.position;
        while b.bus.health().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let moved = b.bus.publish(message(&channel, None, "x"), if_match).await;
        assert_eq!(moved, Err(BusError::Moved { position: Some(first) }));
        assert_ne!(first.epoch, before.epoch);
        for n in 6..10 {
            redis.restart();
            a.publish(&channel, &n.to_string()).await;
        }
        assert_eq!(take(&mut on_b, 5).await, ["5", "6", "7", "8", "9"]);
        // A cursor of each life serves, also on an instance that knew none of them.
        let c = Instance::new(&on(&redis));
        for (from, expected) in [(Position { offset: 2, ..before }, 8), (first, 4)] {
            for instance in [&b, &c] {
                let mut resumed = instance.subscribe(&channel, Some(&Cursor::one(&channel, from))).await;
                let all: Vec<_> = (10 - expected..10).map(|n| n.to_string()).collect();
                assert_eq!((resumed.resumed(), take(&mut resumed, expected).await), (Some(true), all));
            }
        }
    });
}

#[test]
fn a_restart_without_its_data_is_a_gap_and_never_a_wrong_resume() {
    let mut redis = Redis::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&on(&redis)), Instance::new(&on(&redis)), fresh("lost"));
        let mut on_b = b.subscribe(&channel, None).await;
        let mut last = a.publish(&channel, "0").await;
        for n in 1..5 {
            last = a.publish(&channel, &n.to_string()).await;
        }
        take(&mut on_b, 5).await;
        redis.restart_empty();
        let fresh = a.publish(&channel, "new").await;
        assert_ne!(fresh.epoch, last.epoch);
        assert_eq!(take(&mut on_b, 2).await, ["gap:epoch", "new"]);
        let c = Instance::new(&on(&redis));
        let mut resumed = c.subscribe(&channel, Some(&Cursor::one(&channel, last))).await;
        assert_eq!(
            (resumed.resumed(), take(&mut resumed, 2).await),
            (Some(false), vec!["gap:epoch".to_owned(), "new".to_owned()])
        );
    });
}

#[test]
fn an_older_copy_is_a_gap_also_where_its_offsets_were_given_again() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always", "--appenddirname", "aof"]);
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&on(&redis)), Instance::new(&on(&redis)), fresh("older"));
        let mut on_b = b.subscribe(&channel, None).await;
        a.publish(&channel, "0").await;
        assert_eq!(next(&mut on_b).await, "0");
        let copy = tempfile::tempdir().expect("a folder");
        let (aof, kept) = (redis.folder().join("aof"), copy.path().join("aof"));
        copy_folder(&aof, &kept);
        a.publish(&channel, "lost").await;
        assert_eq!(next(&mut on_b).await, "lost");
        redis.kill();
        copy_folder(&kept, &aof);
        redis.restart();
        // Another instance is first, and takes the lost message's offset.
        let c = Instance::new(&on(&redis));
        let again = c.publish(&channel, "other").await;
        assert!(again.offset >= 2);
        assert_eq!(next(&mut on_b).await, "gap:epoch");
        while next(&mut on_b).await != "other" {}
    });
}

/// A message is lost with everybody who had it but a client, and others get its place and the next one's.
async fn lose_a_tail(redis: &mut Redis, servers: RedisServers) {
    let (servers, channel) = (OnRedis(settings(servers)), fresh("tail"));
    let a = Instance::new(&servers);
    let kept = a.publish(&channel, "0").await;
    let copy = tempfile::tempdir().expect("a folder");
    let (aof, kept_aof) = (redis.folder().join("aof"), copy.path().join("aof"));
    copy_folder(&aof, &kept_aof);
    let lost = a.publish(&channel, "lost").await;
    drop(a);
    redis.kill();
    copy_folder(&kept_aof, &aof);
    redis.restart();
    let b = Instance::new(&servers);
    assert_eq!(b.publish(&channel, "other").await.offset, lost.offset);
    b.publish(&channel, "next").await;
    let c = Instance::new(&servers);
    for instance in [&b, &c] {
        let mut had_it = instance.subscribe(&channel, Some(&Cursor::one(&channel, lost))).await;
        assert_eq!((had_it.resumed(), next(&mut had_it).await), (Some(false), "gap:epoch".to_owned()));
        let mut had_not = instance.subscribe(&channel, Some(&Cursor::one(&channel, kept))).await;
        assert_eq!(
            (had_not.resumed(), take(&mut had_not, 2).await),
            (Some(true), vec!["other".to_owned(), "next".to_owned()])
        );
    }
}

const DURABLE: [&str; 6] = ["--appendonly", "yes", "--appendfsync", "always", "--appenddirname", "aof"];

#[test]
fn a_lost_tail_is_a_gap_also_where_no_instance_had_it() {
    let mut redis = Redis::with(&DURABLE);
    let servers = on(&redis).0.servers;
    conformance::run(lose_a_tail(&mut redis, servers));
}

#[test]
fn in_a_cluster_too_a_lost_tail_is_a_gap() {
    let options = [&DURABLE[..], &["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]].concat();
    let mut redis = Redis::with(&options);
    assert_eq!(redis.cli(&["cluster", "addslotsrange", "0", "16383"]), "OK");
    until("the cluster is whole", || redis.cli(&["cluster", "info"]).contains("cluster_state:ok"));
    let servers = RedisServers::Cluster(vec![local(redis.port())]);
    conformance::run(lose_a_tail(&mut redis, servers));
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[test]
fn killed_connections_come_back_and_nothing_is_missed() {
    let redis = Redis::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&on(&redis)), Instance::new(&on(&redis)), fresh("kill"));
        let mut on_b = b.subscribe(&channel, None).await;
        for n in 0..60 {
            if n % 20 == 10 {
                redis.cli(&["client", "kill", "type", "pubsub"]);
                redis.cli(&["client", "kill", "type", "normal"]);
            }
            // An answer that was lost is asked for again: the id says that it is the same message.
            let id = n.to_string();
            patiently("publish", || a.bus.publish(message(&channel, Some(&id), &id), None)).await;
        }
        let expected: Vec<_> = (0..60).map(|n| n.to_string()).collect();
        assert_eq!(take(&mut on_b, 60).await, expected);
    });
}

#[test]
fn emptied_under_way_is_noticed_by_the_next_message() {
    let redis = Redis::start();
    conformance::run(async {
        let (a, channel) = (Instance::new(&on(&redis)), fresh("flushed"));
        let mut session = a.subscribe(&channel, None).await;
        a.publish(&channel, "1").await;
        assert_eq!(next(&mut session).await, "1");
        redis.cli(&["flushall"]);
        a.publish(&channel, "2").await;
        assert_eq!(take(&mut session, 2).await, ["gap:epoch", "2"]);
    });
}

#[test]
fn a_full_redis_refuses_and_keeps_what_it_has() {
    let redis = Redis::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&on(&redis)), Instance::new(&on(&redis)), fresh("full"));
        let mut on_b = b.subscribe(&channel, None).await;
        a.publish(&channel, "1").await;
        assert_eq!(redis.cli(&["config", "set", "maxmemory", "1"]), "OK");
        let refused = a.bus.publish(message(&channel, None, "refused"), None).await;
        assert!(matches!(&refused, Err(BusError::Down(text)) if text.contains("OOM")), "{refused:?}");
        assert_eq!(redis.cli(&["config", "set", "maxmemory", "0"]), "OK");
        a.publish(&channel, "2").await;
        assert_eq!(take(&mut on_b, 2).await, ["1", "2"]);
    });
}

#[test]
fn an_outage_refuses_and_is_told_to_probes() {
    let mut redis = Redis::start();
    let port = redis.port();
    redis.kill();
    conformance::run(async {
        let hub = Hub::new(1, crate::hub::clock::Clock::start(), crate::hub::HubLimits::default(), Arc::default());
        let readiness = Readiness::new();
        let bus = start(settings(RedisServers::One(local(port))), &hub, readiness.clone());
        assert_eq!(readiness.status(), Status::Starting { waiting_for: vec!["bus"] });
        let channel = fresh("outage");
        let refused = bus.publish(message(&channel, None, "x"), None).await;
        assert!(matches!(refused, Err(BusError::Down(_))), "{refused:?}");
        assert!(matches!(bus.attach(std::slice::from_ref(&channel), None).await, Err(BusError::Down(_))));
        redis.restart();
        patiently("publish", || bus.publish(message(&channel, None, "x"), None)).await;
        assert_eq!(readiness.status(), Status::Ready);
        redis.kill();
        until("degraded", || matches!(readiness.status(), Status::Degraded { .. }));
        assert!(matches!(bus.publish(message(&channel, None, "x"), None).await, Err(BusError::Down(_))));
        redis.restart();
        until("ready", || readiness.status() == Status::Ready);
    });
}

#[test]
fn sessions_are_kept_as_in_every_store() {
    let redis = Redis::start();
    conformance::run(async {
        let hub = Hub::new(1, crate::hub::clock::Clock::start(), crate::hub::HubLimits::default(), Arc::default());
        let bus = || start(on(&redis).0, &hub, Readiness::new());
        let store = |ttl_ms| RedisStore::new(bus(), Duration::from_millis(ttl_ms));
        crate::bus::store::tests::conformance::all(&store(60_000), &store(60_000), &store(300)).await;
    });
    let keys = redis.cli(&["keys", "test:session:*"]);
    assert!(!keys.is_empty());
    for key in keys.lines() {
        assert_ne!(redis.cli(&["pttl", key]), "-1", "{key} would stay for ever");
    }
}

#[test]
fn a_channel_is_left_after_a_while_and_presence_counts_all_instances() {
    let redis = Redis::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&on(&redis)), Instance::new(&on(&redis)), fresh("here"));
        let on_a = [a.subscribe(&channel, None).await, a.subscribe(&channel, None).await];
        let on_b = b.subscribe(&channel, None).await;
        let count = async |instance: &Instance| {
            let info = instance.bus.describe(&channel).await.expect("described");
            info.instances.iter().map(|(_, sessions)| sessions).sum::<usize>()
        };
        while count(&a).await != 3 || count(&b).await != 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(on_b);
        while count(&a).await != 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(on_a);
        while count(&b).await != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
