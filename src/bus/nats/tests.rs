//! The bus against a real server.

#[path = "../../../tests/it/support/nats_server.rs"]
#[allow(dead_code, reason = "the whole-program tests use the rest")]
mod nats_server;

mod access;
mod simulation;

use super::store::NatsStore;
use super::*;
use crate::bus::settings::HostPort;
use crate::bus::tests::conformance::{self, Factory, Instance, fresh, message, next, patiently, take};
use crate::bus::tests::service;
use crate::telemetry::readiness::Readiness;
use nats_server::NatsServer;

const TTL: Duration = Duration::from_secs(60);

struct Nats {
    server: NatsServer,
}

impl Nats {
    fn start() -> Self {
        Self { server: NatsServer::start() }
    }

    fn open(&self, hub: &Arc<Hub>) -> Arc<NatsBus> {
        open(settings(&self.server), hub)
    }
}

fn settings(server: &NatsServer) -> NatsSettings {
    let at = server.address();
    NatsSettings {
        servers: vec![HostPort { host: at.ip().to_string(), port: at.port() }],
        credentials: None,
        tls: None,
        stream: "pushbridge".to_owned(),
        prefix: "pushbridge".to_owned(),
    }
}

fn open(settings: NatsSettings, hub: &Arc<Hub>) -> Arc<NatsBus> {
    let health = Health::new("nats", Readiness::new(), Arc::default());
    NatsBus::start(settings, Arc::clone(hub), Duration::from_secs(300), health).expect("it starts")
}

impl Factory for Nats {
    fn bus(&self, hub: &Arc<Hub>) -> Arc<dyn Bus> {
        self.open(hub)
    }
}

#[test]
fn nats_keeps_every_promise() {
    let nats = Nats::start();
    conformance::run(conformance::all(&nats));
}

#[test]
fn a_restarted_server_loses_nothing() {
    let mut nats = Nats::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&nats), Instance::new(&nats), fresh("restart"));
        let mut on_b = b.subscribe(&channel, None).await;
        for n in 0..10 {
            a.publish(&channel, &n.to_string()).await;
        }
        nats.server.kill();
        while a.bus.health().is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(matches!(a.bus.publish(message(&channel, None, "lost"), None).await, Err(BusError::Down(_))));
        nats.server.restart();
        for n in 10..20 {
            a.publish(&channel, &n.to_string()).await;
        }
        let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(take(&mut on_b, 20).await, expected);
    });
}

#[test]
fn a_server_that_lost_its_data_is_a_gap() {
    let mut nats = Nats::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&nats), Instance::new(&nats), fresh("forgot"));
        let mut on_b = b.subscribe(&channel, None).await;
        for n in 0..3 {
            a.publish(&channel, &n.to_string()).await;
        }
        assert_eq!(take(&mut on_b, 3).await, ["0", "1", "2"]);
        let cursor = on_b.cursor();
        nats.server.kill();
        nats.server.forget();
        nats.server.restart();
        a.publish(&channel, "3").await;
        assert_eq!(take(&mut on_b, 2).await, ["gap:bus", "3"]);
        let c = Instance::new(&nats);
        let mut on_c = c.subscribe(&channel, Some(&cursor)).await;
        assert_eq!(take(&mut on_c, 2).await, ["gap:epoch", "3"]);
    });
}

#[test]
fn a_stalled_server_is_told_of_and_caught_up_with() {
    let nats = Nats::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&nats), Instance::new(&nats), fresh("stall"));
        let mut on_b = b.subscribe(&channel, None).await;
        a.publish(&channel, "before").await;
        assert_eq!(next(&mut on_b).await, "before");
        nats.server.pause();
        let refused = a.bus.publish(message(&channel, Some("once"), "once"), None).await;
        assert!(matches!(refused, Err(BusError::Down(_))), "{refused:?}");
        while a.bus.publish(message(&channel, Some("once"), "once"), None).await.is_ok() {}
        nats.server.resume();
        // The refused one may have been stored all the same: the id makes the second try safe.
        patiently("publish", || a.bus.publish(message(&channel, Some("once"), "once"), None)).await;
        a.publish(&channel, "after").await;
        assert_eq!(take(&mut on_b, 2).await, ["once", "after"]);
    });
}

#[test]
fn a_stream_that_is_removed_under_way_is_a_gap() {
    let nats = Nats::start();
    conformance::run(async {
        let (a, channel) = (Instance::new(&nats), fresh("removed"));
        let mut on_a = a.subscribe(&channel, None).await;
        a.publish(&channel, "1").await;
        assert_eq!(next(&mut on_a).await, "1");
        let client = async_nats::connect(nats.server.address().to_string()).await.expect("connected");
        async_nats::jetstream::new(client).delete_stream("pushbridge").await.expect("removed");
        a.publish(&channel, "2").await;
        assert_eq!(take(&mut on_a, 2).await, ["gap:bus", "2"]);
    });
}

#[test]
fn sessions_are_kept_as_in_every_store() {
    let (nats, other) = (Nats::start(), Nats::start());
    conformance::run(async {
        let instance = Instance::new(&nats);
        let store = |nats: &Nats, ttl| NatsStore::new(nats.open(&instance.hub), ttl);
        // A bucket keeps the time that it was made with: the short one is on a server of its own.
        let (a, b, short) = (store(&nats, TTL), store(&nats, TTL), store(&other, Duration::from_millis(300)));
        crate::bus::store::tests::conformance::all(&a, &b, &short).await;
    });
}

#[test]
fn instances_with_sessions_are_known() {
    let nats = Nats::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&nats), Instance::new(&nats), fresh("who"));
        let _on_a = a.subscribe(&channel, None).await;
        let (_one, _two) = (b.subscribe(&channel, None).await, b.subscribe(&channel, None).await);
        let info = patiently("describe", || a.bus.describe(&channel)).await;
        let mut sessions: Vec<_> = info.instances.iter().map(|(_, sessions)| *sessions).collect();
        sessions.sort_unstable();
        assert_eq!(sessions, [1, 2]);
    });
}
