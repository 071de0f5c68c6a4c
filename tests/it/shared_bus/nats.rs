//! The same on NATS with JetStream: its restart, the loss of its data, a standstill.

use super::crowd::{Crowd, Publisher};
use super::{all, instance_on, metric, until_readiness};
use crate::support::client::{Http, post, publish, send};
use crate::support::nats_server::NatsServer;
use crate::support::proxy::Proxy;
use serde_json::json;
use std::net::SocketAddr;
use tokio::sync::Mutex;

/// Each of these servers syncs its disk: one at a time, so that none waits for the others.
static TURN: Mutex<()> = Mutex::const_new(());

async fn instances(nats: &NatsServer, count: usize) -> Vec<Proxy> {
    let bus = format!("nats: {{ url: \"nats://{}\" }}", nats.address());
    let fleet = futures_util::future::join_all((0..count).map(|_| instance_on(&bus))).await;
    for instance in &fleet {
        until_readiness(instance, "ready").await;
    }
    fleet
}

#[tokio::test]
async fn what_is_published_on_any_is_seen_on_all_in_order() {
    let _turn = TURN.lock().await;
    let nats = NatsServer::start();
    let fleet = instances(&nats, 3).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 12).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(200).await;
    assert_eq!(publisher.refused(), 0);
    crowd.check_whole(publisher.last()).await;
}

#[tokio::test]
async fn ids_and_conditions_count_on_every_instance() {
    let _turn = TURN.lock().await;
    let nats = NatsServer::start();
    let fleet = instances(&nats, 2).await;
    let (a, b) = (fleet[0].address("publish"), fleet[1].address("publish"));
    let event = r#"{"channel":"c","id":"1","data":"x"}"#;
    let (first, again) = (publish(a, event).await.json(), publish(b, event).await.json());
    assert_eq!(
        (&again["results"][0]["duplicate"], &again["results"][0]["position"]),
        (&json!(true), &first["results"][0]["position"])
    );
    let position = first["results"][0]["position"].as_str().expect("a position").to_owned();
    let conditional = async |at: SocketAddr| {
        let fields = [("content-type", "application/json"), ("if-match", position.as_str())];
        send(Http::H1, at, post(at, "/v1/events", &fields, r#"{"channel":"c","data":"y"}"#)).await.status.as_u16()
    };
    let (one, other) = tokio::join!(conditional(a), conditional(b));
    let mut statuses = [one, other];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
}

#[tokio::test]
async fn nats_comes_back_with_its_data_and_nothing_is_lost() {
    let _turn = TURN.lock().await;
    let mut nats = NatsServer::start();
    let fleet = instances(&nats, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    nats.kill();
    for instance in &fleet {
        until_readiness(instance, "degraded").await;
        let answer = publish(instance.address("publish"), r#"{"channel":"c","data":"refused"}"#).await;
        assert_eq!((answer.status.as_u16(), answer.field("retry-after")), (503, "1"));
        assert_eq!(metric(instance, "pushbridge_bus_connected").await, 0.0);
    }
    nats.restart();
    publisher.publish(30).await;
    crowd.check_whole(publisher.last()).await;
    for instance in &fleet {
        until_readiness(instance, "ready").await;
        assert_eq!(instance.logged("bus lost; publishes are refused until it is back").len(), 1);
    }
}

#[tokio::test]
async fn nats_comes_back_without_its_data_and_a_gap_is_announced() {
    let _turn = TURN.lock().await;
    let mut nats = NatsServer::start();
    let fleet = instances(&nats, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    let seen_by_all = Crowd::gather(&all(&fleet, "http"), "c", 2).await;
    seen_by_all.check_whole(30).await;
    nats.kill();
    nats.forget();
    for instance in &fleet {
        until_readiness(instance, "degraded").await;
    }
    nats.restart();
    publisher.publish(30).await;
    for seen in crowd.see(publisher.last()).await {
        assert!(!seen.gaps.is_empty(), "{seen:?}");
        assert_eq!(seen.count, 60, "what was published to the new life is whole: {seen:?}");
    }
}

#[tokio::test]
async fn nats_that_stands_still_is_noticed_and_caught_up_with() {
    let _turn = TURN.lock().await;
    let nats = NatsServer::start();
    let fleet = instances(&nats, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    nats.pause();
    for instance in &fleet {
        until_readiness(instance, "degraded").await;
    }
    nats.resume();
    publisher.publish(30).await;
    crowd.check_whole(publisher.last()).await;
}
