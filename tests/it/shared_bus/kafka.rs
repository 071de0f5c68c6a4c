//! The same on Kafka: its restart, and sessions that move.
//!
//! The mock cluster answers who waits for new records at the end of the wait only, which is half a second: few are published.

use super::all;
use super::crowd::{Crowd, Publisher};
use super::promises::{self, instances_on};
use crate::support::client::{Http, post, publish, send, within};
use crate::support::kafka::Kafka;
use crate::support::proxy::Proxy;
use crate::support::websocket::WebSocket;

const V1: [(&str, &str); 1] = [("sec-websocket-protocol", "pushbridge.v1.json")];

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
    let (a, position) = (fleet[0].address("publish"), promises::an_id_counts_everywhere(&fleet).await);
    let fields = [("content-type", "application/json"), ("if-match", position.as_str())];
    let refused = send(Http::H1, a, post(a, "/v1/events", &fields, r#"{"channel":"c","data":"y"}"#)).await;
    assert_eq!(refused.status, 501, "{}", refused.text());
    assert_eq!(refused.field("content-type"), "application/problem+json");
    assert!(refused.text().contains("condition"), "{}", refused.text());
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
    let fleet = instances(&kafka, 2).await;
    let [a, b] = [0, 1].map(|n: usize| fleet[n].address("http"));
    let mut on_a = WebSocket::open(Http::H1, a, "/events/c", &V1).await;
    let welcome = on_a.json().await;
    let token = welcome["session"].as_str().expect("a token").to_owned();
    assert_eq!(on_a.json().await["type"], "subscribed");
    on_a.vanish();
    let missed = publish(fleet[1].address("publish"), r#"{"channel":"c","data":"missed"}"#).await;
    assert_eq!(missed.status, 200, "{}", missed.text());
    let path = format!("/events/c?session={token}");
    // It may not be kept yet, at first.
    let mut on_b = within("a session that is kept", async {
        loop {
            let mut on_b = WebSocket::open(Http::H1, b, &path, &V1).await;
            if on_b.json().await["resumed"] == true {
                break on_b;
            }
        }
    })
    .await;
    assert_eq!(on_b.json().await["type"], "subscribed");
    assert_eq!(on_b.json().await["data"], "missed");
    // Its token was used up.
    let mut again = WebSocket::open(Http::H1, a, &path, &V1).await;
    assert_eq!(again.json().await["resumed"], false);
}
