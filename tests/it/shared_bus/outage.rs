//! Redis goes away in mid-stream and comes back: with its data, without, or after a standstill. Clients stay connected,
//! publishes are refused rather than kept, and readiness, log and metrics say it once.

use super::crowd::{Crowd, Publisher};
use super::{all, durable, instances, metric, promises, until_readiness};
use crate::support::client::{Http, get, publish, send};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use serde_json::json;

/// What is refused in an outage, and how much.
const REFUSED: usize = 300;
const REFUSED_BYTES: usize = 30_000;
/// All that was refused would be 9 MB; what an instance may grow by is far less.
const GROWTH_KIB_MAX: u64 = 6 * 1024;

async fn until_all(fleet: &[Proxy], status: &str) {
    for instance in fleet {
        until_readiness(instance, status).await;
    }
}

#[tokio::test]
async fn redis_comes_back_with_its_data_and_nothing_is_lost() {
    let mut redis = durable();
    let fleet = instances(&redis, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    redis.kill();
    until_all(&fleet, "degraded").await;
    let before_kib: Vec<_> = fleet.iter().map(Proxy::resident_kib).collect();
    for n in 0..REFUSED {
        // Neither of them is kept to be published later: the crowd would see what is no number.
        let event = json!({"channel": "c", "data": "x".repeat(REFUSED_BYTES)}).to_string();
        let answer = publish(fleet[n % 2].address("publish"), &event).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.field("content-type"), "application/problem+json");
        assert_eq!(answer.field("retry-after"), "1");
        assert!(answer.text().contains("the bus is down"), "{}", answer.text());
    }
    for (instance, before_kib) in fleet.iter().zip(before_kib) {
        let grown_kib = instance.resident_kib().saturating_sub(before_kib);
        assert!(grown_kib < GROWTH_KIB_MAX, "grew by {grown_kib} KiB");
        assert_eq!(metric(instance, "pushbridge_bus_connected").await, 0.0);
        // Who comes now can't be told what is new.
        let http = instance.address("http");
        let late = send(Http::H1, http, get(http, "/events/c", &[("accept", "text/event-stream")])).await;
        assert_eq!((late.status.as_u16(), late.field("retry-after").is_empty()), (503, false));
    }
    redis.restart();
    publisher.publish(30).await;
    crowd.check_whole(publisher.last()).await;
    until_all(&fleet, "ready").await;
    for instance in &fleet {
        assert_eq!(instance.logged("bus lost; publishes are refused until it is back").len(), 1);
        assert_eq!(instance.logged("bus connected").len(), 2);
        assert_eq!(metric(instance, "pushbridge_bus_connected").await, 1.0);
        assert!(metric(instance, "pushbridge_bus_resubscribes_total").await >= 1.0);
    }
}

#[tokio::test]
async fn redis_comes_back_without_its_data_and_a_gap_is_announced() {
    let mut redis = Redis::start();
    let fleet = instances(&redis, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    let seen_by_all = Crowd::gather(&all(&fleet, "http"), "c", 2).await;
    seen_by_all.check_whole(30).await;
    redis.kill();
    until_all(&fleet, "degraded").await;
    redis.restart_empty();
    publisher.publish(30).await;
    for seen in crowd.see(publisher.last()).await {
        assert_eq!(seen.gaps, ["epoch"], "{seen:?}");
        assert_eq!(seen.count, 60, "what was published to the new life is whole: {seen:?}");
    }
}

#[tokio::test]
async fn redis_that_stands_still_is_noticed_and_caught_up_with() {
    let redis = Redis::start();
    let fleet = instances(&redis, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    redis.pause();
    // Connecting is answered by the kernel alone; still it counts as down.
    promises::all_refuse_while_it_stands_still(&fleet).await;
    redis.resume();
    publisher.publish(30).await;
    promises::all_are_back(&fleet).await;
    crowd.check_whole(publisher.last()).await;
}
