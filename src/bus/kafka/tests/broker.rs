//! The bus against Apache Kafka itself: `make test-kafka` installs it and runs these.

#[path = "../../../../tests/it/support/kafka_broker.rs"]
#[allow(dead_code, reason = "the whole-program tests use the rest")]
mod kafka_broker;

use super::{HostPort, KafkaBus, KafkaSettings, KafkaStore, TTL, WINDOW, server};
use crate::bus::Bus;
use crate::bus::health::Health;
use crate::bus::kafka::connect::Link;
use crate::bus::settings::{BusTls, KafkaSasl, SaslMechanism};
use crate::bus::tests::conformance::{self, Factory, Instance};
use crate::bus::tests::service;
use crate::hub::Hub;
use crate::model::secret::Secret;
use crate::telemetry::readiness::Readiness;
use kafka_broker::{KafkaBroker, PASSWORD, TOPICS, USER};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;

fn settings(broker: &KafkaBroker, topic: &str) -> KafkaSettings {
    KafkaSettings { brokers: vec![server(&broker.address())], topic: topic.to_owned(), tls: None, sasl: None }
}

fn open(settings: KafkaSettings, hub: &Arc<Hub>, ttl: Duration) -> Arc<KafkaBus> {
    let health = Health::new("kafka", Readiness::new(), Arc::default());
    KafkaBus::start(settings, Arc::clone(hub), WINDOW, ttl, health).expect("it starts")
}

impl Factory for KafkaBroker {
    fn bus(&self, hub: &Arc<Hub>) -> Arc<dyn Bus> {
        open(settings(self, TOPICS[0]), hub, TTL)
    }

    fn compares(&self) -> bool {
        false
    }
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn a_real_broker_keeps_every_promise() {
    let broker = KafkaBroker::start();
    conformance::run(conformance::all(&broker));
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn a_real_broker_keeps_sessions_as_every_store_does() {
    let broker = KafkaBroker::start();
    conformance::run(async {
        let instance = Instance::new(&broker);
        let store = |topic, ttl| KafkaStore::new(open(settings(&broker, topic), &instance.hub, ttl));
        let (a, b) = (store(TOPICS[0], TTL), store(TOPICS[0], TTL));
        let short = store(TOPICS[1], Duration::from_millis(300));
        crate::bus::store::tests::conformance::all(&a, &b, &short).await;
    });
}

/// A login over TLS, whose other end has to show this certificate.
fn login(broker: &KafkaBroker, mechanism: SaslMechanism, password: &str, pem: &str) -> KafkaSettings {
    let anchor = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let password = Secret::new(password.as_bytes().to_vec());
    KafkaSettings {
        brokers: vec![server(&broker.secured_address())],
        tls: Some(BusTls { ca_file: None, anchors: vec![anchor] }),
        sasl: Some(KafkaSasl { mechanism, username: USER.to_owned(), password }),
        ..settings(broker, TOPICS[0])
    }
}

/// Why nobody is let in.
async fn refusal(settings: &KafkaSettings) -> String {
    Link::open(settings).await.err().expect("nobody is let in")
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn only_who_knows_the_password_is_let_in() {
    let broker = KafkaBroker::start();
    conformance::run(async {
        for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
            let right = login(&broker, mechanism, PASSWORD, broker.certificate());
            let link = Link::open(&right).await.expect("let in");
            assert_eq!(link.partitions.len(), 3);
            let wrong = login(&broker, mechanism, "wrong", broker.certificate());
            let nobody = KafkaSasl { username: "nobody".to_owned(), ..right.sasl.clone().expect("a login") };
            for refused in [wrong, KafkaSettings { sasl: Some(nobody), ..right.clone() }] {
                let reason = refusal(&refused).await;
                assert!(reason.contains("SaslAuthenticationFailed"), "{mechanism:?}: {reason}");
            }
            refusal(&KafkaSettings { sasl: None, ..right.clone() }).await;
            refusal(&KafkaSettings { tls: None, ..right.clone() }).await;
        }
    });
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn only_a_broker_with_the_right_certificate_is_spoken_to() {
    let broker = KafkaBroker::start();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    conformance::run(async {
        let right = login(&broker, SaslMechanism::Plain, PASSWORD, broker.certificate());
        Link::open(&right).await.expect("let in");
        let named = HostPort { host: "localhost".to_owned(), ..right.brokers[0].clone() };
        let of_another_name = KafkaSettings { brokers: vec![named], ..right };
        let of_nobody_known = login(&broker, SaslMechanism::Plain, PASSWORD, &other.cert.pem());
        for settings in [of_another_name, of_nobody_known] {
            let reason = refusal(&settings).await;
            assert!(reason.contains("invalid peer certificate"), "{reason}");
        }
    });
}
