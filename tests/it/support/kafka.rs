//! A Kafka cluster of the test's own: librdkafka's mock cluster, which listens on free ports and runs inside the test.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// The topic that is there.
pub const TOPIC: &str = "pushbridge";
const PARTITIONS: i32 = 3;

/// A cluster of one broker; gone when dropped.
pub struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Kafka {
    /// Starts one with the topic.
    pub fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
        Self { cluster }
    }

    /// Where it listens: `host:port`.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// The broker is gone; its data stays.
    pub fn kill(&self) {
        self.cluster.broker_down(1).expect("down");
    }

    /// The broker is back.
    pub fn restart(&self) {
        self.cluster.broker_up(1).expect("up");
    }
}
