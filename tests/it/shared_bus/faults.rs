//! Networks and connections that fail while messages flow, and instances that die. Whoever is on an instance that lives
//! stays connected, and gets everything once, in order.

use super::crowd::{Crowd, Publisher};
use super::{all, durable, instance, instances, until_readiness};
use crate::support::client::Http;
use crate::support::events::Events;
use crate::support::redis::Redis;
use crate::support::relay::{Relay, Wire};
use std::time::Duration;

#[tokio::test]
async fn killed_connections_lose_nothing() {
    let redis = Redis::start();
    let fleet = instances(&redis, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    for round in 0..6 {
        publisher.publish(15).await;
        redis.cli(&["client", "kill", "type", if round % 2 == 0 { "pubsub" } else { "normal" }]);
    }
    publisher.publish(15).await;
    crowd.check_whole(publisher.last()).await;
}

#[tokio::test]
async fn a_slow_bus_is_waited_for() {
    let redis = Redis::start();
    let relay = Relay::to(redis.port()).await;
    let fleet = [instance(redis.port()).await, instance(relay.port()).await];
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    relay.set(Wire::Slow(Duration::from_millis(60)));
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(60).await;
    assert_eq!(publisher.refused(), 0, "slow is not down");
    crowd.check_whole(publisher.last()).await;
}

#[tokio::test]
async fn an_instance_that_is_cut_off_catches_up() {
    cut_off(Wire::Cut).await;
}

#[tokio::test]
async fn an_instance_whose_network_falls_silent_catches_up() {
    cut_off(Wire::Silent).await;
}

async fn cut_off(how: Wire) {
    let redis = Redis::start();
    let relay = Relay::to(redis.port()).await;
    let fleet = [instance(redis.port()).await, instance(relay.port()).await];
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let short = Crowd::gather(&all(&fleet, "http")[1..], "short", 2).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    let mut of_short = Publisher::new(all(&fleet[..1], "publish"), "short");
    publisher.publish(10).await;
    of_short.publish(10).await;
    relay.set(how);
    until_readiness(&fleet[1], "degraded").await;
    // The publisher meets both: one takes it, the other says to try again.
    publisher.publish(40).await;
    assert!(publisher.refused() > 0);
    of_short.publish(100).await;
    relay.set(Wire::Whole);
    until_readiness(&fleet[1], "ready").await;
    publisher.publish(10).await;
    of_short.publish(1).await;
    crowd.check_whole(publisher.last()).await;
    // Its history had lost some by then.
    for seen in short.see(of_short.last()).await {
        assert_eq!(seen.gaps, ["bus"], "{seen:?}");
        assert!(seen.count < of_short.last(), "{seen:?}");
    }
}

#[tokio::test]
async fn clients_of_a_killed_instance_go_on_elsewhere() {
    let redis = durable();
    let mut fleet = instances(&redis, 3).await;
    let doomed = fleet.remove(0);
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 6).await;
    let mut on_doomed = Vec::new();
    for http in [Http::H1, Http::H2c] {
        on_doomed.push(Events::open(http, doomed.address("http"), "/events/c", &[]).await);
    }
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(20).await;
    for client in &mut on_doomed {
        client.data(10).await;
    }
    doomed.signal("KILL");
    assert!(!doomed.wait().success());
    publisher.publish(20).await;
    for client in on_doomed {
        let to = fleet[0].address("http");
        let mut again = Events::open(Http::H1, to, "/events/c", &[("last-event-id", &client.cursor)]).await;
        let expected: Vec<_> = (11..=40).map(|n: u64| n.to_string()).collect();
        assert_eq!(again.data(30).await, expected);
    }
    crowd.check_whole(publisher.last()).await;
}
