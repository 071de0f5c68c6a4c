//! The same on Apache Kafka itself, with the faults that only a real broker has: `make test-kafka` installs it and runs
//! these.

use super::crowd::{Crowd, Publisher};
use super::promises::{self, instances_on};
use super::{all, instance_on, readiness, until_readiness};
use crate::support::kafka_broker::{KafkaBroker, PASSWORD, USER};
use crate::support::proxy::Proxy;
use crate::support::relay::{Relay, Wire};

async fn instances(kafka: &KafkaBroker, count: usize) -> Vec<Proxy> {
    instances_on(&format!("kafka: {{ brokers: [\"{}\"] }}", kafka.address()), count).await
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn real_kafka_keeps_the_promises_of_every_bus() {
    let kafka = KafkaBroker::start();
    let fleet = instances(&kafka, 3).await;
    promises::a_session_moves(&fleet).await;
    promises::all_see_all_in_order(&fleet, 200).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn ids_count_on_real_kafka_and_conditions_are_refused_by_name() {
    let kafka = KafkaBroker::start();
    let fleet = instances(&kafka, 2).await;
    let position = promises::an_id_counts_everywhere(&fleet).await;
    promises::a_condition_is_refused(&fleet, &position).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn real_kafka_comes_back_with_its_data_and_nothing_is_lost() {
    let mut kafka = KafkaBroker::start();
    let fleet = instances(&kafka, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    kafka.kill();
    promises::all_refuse_while_it_is_lost(&fleet).await;
    kafka.restart();
    publisher.publish(30).await;
    promises::all_are_back(&fleet).await;
    crowd.check_whole(publisher.last()).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn real_kafka_comes_back_without_its_data_and_a_gap_is_announced() {
    let mut kafka = KafkaBroker::start();
    let fleet = instances(&kafka, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    let seen_by_all = Crowd::gather(&all(&fleet, "http"), "c", 2).await;
    seen_by_all.check_whole(30).await;
    kafka.kill();
    promises::all_refuse_while_it_is_lost(&fleet).await;
    kafka.restart_empty();
    promises::all_are_back(&fleet).await;
    publisher.publish(30).await;
    for seen in crowd.see(publisher.last()).await {
        assert_eq!(seen.gaps, ["bus"], "{seen:?}");
        assert_eq!(seen.count, 60, "what was published to the new life is whole: {seen:?}");
    }
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn real_kafka_that_stands_still_is_noticed_and_caught_up_with() {
    let kafka = KafkaBroker::start();
    let fleet = instances(&kafka, 2).await;
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(30).await;
    kafka.pause();
    promises::all_refuse_while_it_stands_still(&fleet).await;
    kafka.resume();
    publisher.publish(30).await;
    promises::all_are_back(&fleet).await;
    crowd.check_whole(publisher.last()).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn an_instance_that_is_cut_off_from_real_kafka_catches_up() {
    cut_off(Wire::Cut).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn an_instance_to_which_nothing_of_real_kafka_comes_catches_up() {
    cut_off(Wire::Silent).await;
}

async fn cut_off(how: Wire) {
    let mut kafka = KafkaBroker::prepare();
    let relay = Relay::to(kafka.relayed_port()).await;
    kafka.start_behind(relay.port());
    let mut fleet = instances(&kafka, 1).await;
    fleet.push(instance_on(&format!("kafka: {{ brokers: [\"127.0.0.1:{}\"] }}", relay.port())).await);
    let crowd = Crowd::gather(&all(&fleet, "http"), "c", 8).await;
    let mut publisher = Publisher::new(all(&fleet, "publish"), "c");
    publisher.publish(10).await;
    relay.set(how);
    until_readiness(&fleet[1], "degraded").await;
    // The publisher meets both: one takes it, the other says to try again.
    publisher.publish(40).await;
    assert!(publisher.refused() > 0);
    assert_eq!(readiness(&fleet[0]).await, "ready");
    relay.set(Wire::Whole);
    until_readiness(&fleet[1], "ready").await;
    publisher.publish(10).await;
    crowd.check_whole(publisher.last()).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn instances_log_in_at_real_kafka_over_tls() {
    let kafka = KafkaBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (ca, password) = (file("ca.pem", kafka.certificate()), file("password", PASSWORD));
    let bus = |password: &str| {
        format!(
            "kafka: {{ brokers: [\"{}\"], tls: {{ ca_file: \"{ca}\" }},
                sasl: {{ username: {USER}, password_file: \"{password}\" }} }}",
            kafka.secured_address()
        )
    };
    let fleet = instances_on(&bus(&password), 2).await;
    promises::all_see_all_in_order(&fleet, 20).await;
}
