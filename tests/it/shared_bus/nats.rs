//! The same on NATS with JetStream: its restart, the loss of its data, a standstill.

use super::crowd::{Crowd, Publisher};
use super::promises::{self, instances_on};
use super::{all, until_readiness};
use crate::support::nats_server::NatsServer;
use crate::support::proxy::Proxy;

async fn instances(nats: &NatsServer, count: usize) -> Vec<Proxy> {
    instances_on(&format!("nats: {{ url: \"nats://{}\" }}", nats.address()), count).await
}

#[tokio::test]
async fn what_is_published_on_any_is_seen_on_all_in_order() {
    let nats = NatsServer::start();
    let fleet = instances(&nats, 3).await;
    promises::all_see_all_in_order(&fleet, 200).await;
}

#[tokio::test]
async fn ids_and_conditions_count_on_every_instance() {
    let nats = NatsServer::start();
    let fleet = instances(&nats, 2).await;
    let position = promises::an_id_counts_everywhere(&fleet).await;
    promises::one_condition_wins(&fleet, &position).await;
}

#[tokio::test]
async fn nats_comes_back_with_its_data_and_nothing_is_lost() {
    let mut nats = NatsServer::start();
    let fleet = instances(&nats, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    nats.kill();
    promises::all_refuse_while_it_is_lost(&fleet).await;
    nats.restart();
    publisher.publish(30).await;
    crowd.check_whole(publisher.last()).await;
    promises::all_are_back(&fleet).await;
}

#[tokio::test]
async fn nats_comes_back_without_its_data_and_a_gap_is_announced() {
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
    let nats = NatsServer::start();
    let fleet = instances(&nats, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    nats.pause();
    promises::all_refuse_while_it_stands_still(&fleet).await;
    nats.resume();
    publisher.publish(30).await;
    promises::all_are_back(&fleet).await;
    crowd.check_whole(publisher.last()).await;
}
