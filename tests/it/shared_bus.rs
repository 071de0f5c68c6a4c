//! Several instances on one Redis, NATS or Kafka: what is published on any is seen on all, and what becomes of it when things fail.

mod broker;
mod crowd;
mod faults;
mod kafka;
mod nats;
mod outage;
mod promises;

use crate::support::client::{Http, get, publish, send};
use crate::support::events::Events;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::wait_for;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Redis that has on disk whatever it has acknowledged.
fn durable() -> Redis {
    Redis::with(&["--appendonly", "yes", "--appendfsync", "always"])
}

/// An instance on the Redis that is behind a port.
async fn instance(port: u16) -> Proxy {
    instance_on(&format!("redis: {{ url: \"redis://127.0.0.1:{port}\" }}")).await
}

/// An instance on a bus.
async fn instance_on(bus: &str) -> Proxy {
    let yaml = format!(
        "
routes:
  - name: events
    match: {{ path: \"/events/{{topic}}\" }}
    push: {{ channels: [\"{{topic}}\"], start: {{ last: 1000 }}, long_poll_timeout: 1s }}
channels: [{{ match: \"short\", history: {{ messages: 10 }} }}]
bus: {{ {bus} }}
runtime: {{ workers: 2 }}
telemetry: {{ access_log: false }}
"
    );
    tokio::task::spawn_blocking(move || Proxy::start(&yaml)).await.expect("started")
}

/// So many instances on one Redis.
async fn instances(redis: &Redis, count: usize) -> Vec<Proxy> {
    futures_util::future::join_all((0..count).map(|_| instance(redis.port()))).await
}

fn all(instances: &[Proxy], listener: &str) -> Vec<SocketAddr> {
    instances.iter().map(|instance| instance.address(listener)).collect()
}

/// What an instance's readiness says.
async fn readiness(instance: &Proxy) -> String {
    let at = instance.address("admin");
    let answer = send(Http::H1, at, get(at, "/readyz", &[])).await;
    answer.json()["status"].as_str().expect("a status").to_owned()
}

/// Waits until the instance's readiness says so.
async fn until_readiness(instance: &Proxy, status: &str) {
    let deadline = tokio::time::Instant::now() + crate::support::client::DEADLINE;
    while readiness(instance).await != status {
        assert!(tokio::time::Instant::now() < deadline, "never {status}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_published_on_any_is_seen_on_all_in_order() {
    let redis = Redis::start();
    let fleet = instances(&redis, 3).await;
    promises::all_see_all_in_order(&fleet, 200).await;
}

#[tokio::test]
async fn publishers_on_all_instances_are_seen_in_one_order() {
    let redis = Redis::start();
    let fleet = instances(&redis, 3).await;
    let mut streams = Vec::new();
    for instance in &fleet {
        streams.push(Events::open(Http::H1, instance.address("http"), "/events/c", &[]).await);
    }
    let publishers = fleet.iter().enumerate().map(|(n, instance)| {
        let at = instance.address("publish");
        tokio::spawn(async move {
            for k in 0..50 {
                assert_eq!(
                    publish(at, &json!({"channel": "c", "data": format!("{n}:{k:02}")}).to_string()).await.status,
                    200
                );
            }
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let mut seen = Vec::new();
    for stream in &mut streams {
        seen.push(stream.data(150).await);
    }
    for publisher in publishers {
        publisher.await.expect("published");
    }
    assert_eq!((&seen[0], &seen[0]), (&seen[1], &seen[2]));
    for n in 0..3 {
        let own: Vec<_> = seen[0].iter().filter(|data| data.starts_with(&format!("{n}:"))).collect();
        assert!(own.len() == 50 && own.is_sorted(), "{own:?}");
    }
}

#[tokio::test]
async fn ids_and_conditions_count_on_every_instance() {
    let redis = Redis::start();
    let fleet = instances(&redis, 2).await;
    let position = promises::an_id_counts_everywhere(&fleet).await;
    promises::one_condition_wins(&fleet, &position).await;
}

#[tokio::test]
async fn a_bus_that_is_not_there_is_waited_for() {
    let mut redis = Redis::start();
    let port = redis.port();
    redis.kill();
    let starting = tokio::spawn(instance(port));
    // It listens and is not ready: no line says so before Redis is there.
    redis.restart();
    let instance = starting.await.expect("started");
    assert_eq!(readiness(&instance).await, "ready");
    wait_for("the line", || instance.has_logged("bus connected").then_some(()));
}

/// A number of the metrics page.
async fn metric(instance: &Proxy, name: &str) -> f64 {
    crate::support::metrics::value(instance, name).await
}

#[tokio::test]
async fn an_instance_follows_only_channels_with_sessions() {
    let redis = Redis::start();
    let fleet = instances(&redis, 2).await;
    let mut stream = Events::open(Http::H1, fleet[1].address("http"), "/events/wanted", &[]).await;
    let at = fleet[0].address("publish");
    for n in 0..20 {
        publish(at, &json!({"channel": format!("other{n}"), "data": n}).to_string()).await;
    }
    publish(at, r#"{"channel":"wanted","data":"x"}"#).await;
    assert_eq!(stream.data(1).await, ["x"]);
    assert_eq!(metric(&fleet[1], "pushbridge_bus_received_total").await, 1.0);
    assert_eq!(metric(&fleet[1], "pushbridge_bus_channels").await, 1.0);
    assert_eq!(metric(&fleet[0], "pushbridge_bus_channels").await, 0.0);
    assert_eq!(metric(&fleet[0], "pushbridge_bus_published_total").await, 21.0);
    assert_eq!(metric(&fleet[1], "pushbridge_bus_connected").await, 1.0);
    let channels: Value = redis.cli(&["pubsub", "channels", "*"]).into();
    assert_eq!(channels, "pushbridge:{wanted}:live");
}
