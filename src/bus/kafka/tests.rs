//! The bus against librdkafka's mock cluster, which runs inside the test.

use super::*;
use crate::bus::settings::HostPort;
use crate::bus::tests::conformance::{self, Factory};
use crate::telemetry::readiness::Readiness;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

const TOPIC: &str = "pushbridge";
/// The mock cluster does not answer before this is over, whatever comes meanwhile.
const WAIT: Duration = Duration::from_millis(5);

struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Mock {
    fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic(TOPIC, 3, 1).expect("a topic");
        Self { cluster }
    }

    fn settings(&self) -> KafkaSettings {
        let servers = self.cluster.bootstrap_servers();
        let server = |text: &str| {
            let (host, port) = text.rsplit_once(':').expect("a port");
            HostPort { host: host.to_owned(), port: port.parse().expect("a port") }
        };
        KafkaSettings {
            brokers: servers.split(',').map(server).collect(),
            topic: TOPIC.to_owned(),
            tls: None,
            sasl: None,
        }
    }

    fn open(&self, hub: &Arc<Hub>) -> Arc<KafkaBus> {
        open(self.settings(), hub)
    }
}

fn open(settings: KafkaSettings, hub: &Arc<Hub>) -> Arc<KafkaBus> {
    let health = Health::new("kafka", Readiness::new(), Arc::default());
    KafkaBus::start_waiting(settings, Arc::clone(hub), Duration::from_secs(300), health, WAIT).expect("it starts")
}

impl Factory for Mock {
    fn bus(&self, hub: &Arc<Hub>) -> Arc<dyn Bus> {
        self.open(hub)
    }

    fn compares(&self) -> bool {
        false
    }

    fn counts_others(&self) -> bool {
        false
    }
}

#[test]
fn kafka_keeps_every_promise() {
    let kafka = Mock::start();
    conformance::run(conformance::all(&kafka));
}
