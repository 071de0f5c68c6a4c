//! The same on Kafka's stand-in: its restart, and sessions that move. [`super::broker`] has the real one.
//!
//! The mock cluster answers who waits for new records at the end of the wait only, which is half a second: few are published.

use super::all;
use super::crowd::{Crowd, Publisher};
use super::promises::{self, instances_on};
use crate::support::kafka::Kafka;
use crate::support::proxy::Proxy;

async fn instances(kafka: &Kafka, count: usize) -> Vec<Proxy> {
    instances_on(&format!("kafka: {{ brokers: [\"{}\"] }}", kafka.address()), count).await
}

#[tokio::test]
async fn what_is_published_on_any_is_seen_on_all_in_order() {
    let kafka = Kafka::start();
    let fleet = instances(&kafka, 2).await;
    promises::all_see_all_in_order(&fleet, 12).await;
}

#[tokio::test]
async fn ids_count_on_every_instance_and_conditions_are_refused_by_name() {
    let kafka = Kafka::start();
    let fleet = instances(&kafka, 2).await;
    let position = promises::an_id_counts_everywhere(&fleet).await;
    promises::a_condition_is_refused(&fleet, &position).await;
}

#[tokio::test]
async fn kafka_comes_back_with_its_data_and_nothing_is_lost() {
    let kafka = Kafka::start();
    let fleet = instances(&kafka, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(4).await;
    kafka.kill();
    promises::all_refuse_while_it_is_lost(&fleet).await;
    kafka.restart();
    publisher.publish(4).await;
    crowd.check_whole(publisher.last()).await;
    promises::all_are_back(&fleet).await;
}

#[tokio::test]
async fn a_session_moves_to_another_instance_once() {
    let kafka = Kafka::start();
    promises::a_session_moves(&instances(&kafka, 2).await).await;
}
