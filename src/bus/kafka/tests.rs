//! The bus against librdkafka's mock cluster, which runs inside the test.

#[path = "../../../tests/it/support/kafka.rs"]
mod mock;

mod broker;

use super::store::KafkaStore;
use super::*;
use crate::bus::settings::HostPort;
use crate::bus::store::{Put, StoredSession};
use crate::bus::tests::conformance::{self, Factory, Instance, fresh, message, take};
use crate::model::session_token::SessionToken;
use crate::telemetry::readiness::Readiness;
use mock::{Kafka, TOPIC};

const WINDOW: Duration = Duration::from_secs(300);
const TTL: Duration = Duration::from_secs(60);
/// The mock cluster does not answer before this is over, whatever comes meanwhile.
const WAIT: Duration = Duration::from_millis(5);

impl Kafka {
    fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.address().split(',').map(server).collect(),
            topic: TOPIC.to_owned(),
            tls: None,
            sasl: None,
        }
    }

    fn open(&self, hub: &Arc<Hub>) -> Arc<KafkaBus> {
        open(self.settings(), hub)
    }
}

fn server(address: &str) -> HostPort {
    let (host, port) = address.rsplit_once(':').expect("a port");
    HostPort { host: host.to_owned(), port: port.parse().expect("a port") }
}

fn open(settings: KafkaSettings, hub: &Arc<Hub>) -> Arc<KafkaBus> {
    open_keeping(settings, hub, TTL)
}

fn open_keeping(settings: KafkaSettings, hub: &Arc<Hub>, ttl: Duration) -> Arc<KafkaBus> {
    let health = Health::new("kafka", Readiness::new(), Arc::default());
    KafkaBus::start_waiting(settings, Arc::clone(hub), (WINDOW, ttl), health, WAIT).expect("it starts")
}

impl Factory for Kafka {
    fn bus(&self, hub: &Arc<Hub>) -> Arc<dyn Bus> {
        self.open(hub)
    }

    fn compares(&self) -> bool {
        false
    }
}

#[test]
fn kafka_keeps_every_promise() {
    let kafka = Kafka::start();
    conformance::run(conformance::all(&kafka));
}

#[test]
fn sessions_are_kept_as_in_every_store() {
    let (kafka, other) = (Kafka::start(), Kafka::start());
    conformance::run(async {
        let instance = Instance::new(&kafka);
        let store = |kafka: &Kafka, ttl| KafkaStore::new(open_keeping(kafka.settings(), &instance.hub, ttl));
        let (a, b, short) = (store(&kafka, TTL), store(&kafka, TTL), store(&other, Duration::from_millis(300)));
        crate::bus::store::tests::conformance::all(&a, &b, &short).await;
    });
}

#[test]
fn an_instance_that_comes_later_knows_what_was_kept() {
    let kafka = Kafka::start();
    let key = |n| SessionToken::from_random([n; 16]).key("r", &[]);
    conformance::run(async {
        let hub = conformance::hub(1);
        let before = KafkaStore::new(kafka.open(&hub));
        let put = async |key: &SessionKey| before.put(key, StoredSession::default()).await;
        while put(&key(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(put(&key(2)).await, Ok(Put::Kept));
        assert!(before.take(&key(1)).await.expect("asked").is_some());
        let late = KafkaStore::new(kafka.open(&hub));
        let taken = loop {
            match late.take(&key(1)).await {
                Ok(taken) => break taken,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        assert_eq!(taken, None);
        assert_eq!(late.take(&key(2)).await, Ok(Some(StoredSession::default())));
        assert_eq!(put(&key(2)).await, Ok(Put::Taken));
    });
}

#[test]
fn brokers_that_come_back_have_lost_nothing() {
    let kafka = Kafka::start();
    conformance::run(async {
        let (a, b, channel) = (Instance::new(&kafka), Instance::new(&kafka), fresh("restart"));
        let mut on_b = b.subscribe(&channel, None).await;
        for n in 0..10 {
            a.publish(&channel, &n.to_string()).await;
        }
        kafka.kill();
        while a.bus.health().is_ok() || b.bus.health().is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(matches!(a.bus.publish(message(&channel, None, "lost"), None).await, Err(BusError::Down(_))));
        kafka.restart();
        for n in 10..20 {
            a.publish(&channel, &n.to_string()).await;
        }
        let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(take(&mut on_b, 20).await, expected);
    });
}
