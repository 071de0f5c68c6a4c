//! The way to the brokers: settings become clients, one for each partition and purpose.
//!
//! A broker answers the requests of one connection in their order. So what waits at the broker (reading), what must not
//! wait (writing), and looking back have a connection each.

use crate::bus::settings::{BusTls, KafkaSasl, KafkaSettings, SaslMechanism};
use rskafka::BackoffConfig;
use rskafka::client::error::Error;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may take to stand, over all brokers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read: a fetch, and metadata of large clusters.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// More partitions than this are refused: each takes three connections.
const PARTITIONS_MAX: usize = 256;

/// The clients of all partitions.
pub struct Link {
    /// In the order of their numbers.
    pub partitions: Vec<Clients>,
    client: Client,
}

/// The clients of one partition.
pub struct Clients {
    /// For reading on.
    pub read: PartitionClient,
    /// For writing.
    pub write: PartitionClient,
    /// For looking back.
    pub history: Arc<PartitionClient>,
}

impl Link {
    /// Connects to all partitions of the topic.
    ///
    /// # Errors
    /// When a broker can't be reached, lets nobody in, or has no such topic.
    pub async fn open(settings: &KafkaSettings) -> Result<Self, String> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, Self::open_all(settings)).await;
        opened.unwrap_or_else(|_| Err("no broker answers in time".to_owned()))
    }

    async fn open_all(settings: &KafkaSettings) -> Result<Self, String> {
        // One try, so that it shows what is wrong: with more of them the time is over before.
        drop(builder(settings, Duration::ZERO)?.build().await.map_err(reason)?);
        let client = builder(settings, ANSWER_TIMEOUT)?.build().await.map_err(reason)?;
        let count = partitions_of(&client, &settings.topic).await?;
        let open = async |index: i32| {
            let topic = settings.topic.as_str();
            let opened = client.partition_client(topic, index, UnknownTopicHandling::Error).await;
            opened.map_err(|error| format!("partition {index} of {topic}: {error}"))
        };
        let mut partitions = Vec::with_capacity(count as usize);
        for index in 0..i32::try_from(count).unwrap_or(i32::MAX) {
            let (read, write, history) = (open(index).await?, open(index).await?, open(index).await?);
            partitions.push(Clients { read, write, history: Arc::new(history) });
        }
        Ok(Self { partitions, client })
    }

    /// How many partitions the topic has now.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn count(&self, settings: &KafkaSettings) -> Result<u32, String> {
        match tokio::time::timeout(ANSWER_TIMEOUT, partitions_of(&self.client, &settings.topic)).await {
            Ok(count) => count,
            Err(_) => Err("a broker takes too long".to_owned()),
        }
    }
}

async fn partitions_of(client: &Client, topic: &str) -> Result<u32, String> {
    let topics = client.list_topics().await.map_err(|error| error.to_string())?;
    let Some(found) = topics.iter().find(|found| found.name == topic) else {
        return Err(format!("there is no topic {topic:?}, or this user may not see it; create it"));
    };
    match found.partitions.len() {
        0 => Err(format!("topic {topic:?} has no partitions yet")),
        count if count > PARTITIONS_MAX => {
            Err(format!("topic {topic:?} has {count} partitions; {PARTITIONS_MAX} at most, and few serve best"))
        }
        count => Ok(count as u32),
    }
}

/// What the library says, without what it says of its tries.
fn reason(error: Error) -> String {
    let text = error.to_string();
    text.rsplit("Source: ").next().unwrap_or_default().to_owned()
}

/// Clients that try for so long, pauses alone.
fn builder(settings: &KafkaSettings, patience: Duration) -> Result<ClientBuilder, String> {
    let brokers = settings.brokers.iter().map(ToString::to_string).collect();
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(500),
        base: 2.0,
        deadline: Some(patience),
    };
    let mut builder =
        ClientBuilder::new(brokers).client_id("pushbridge").max_message_size(ANSWER_BYTES_MAX).backoff_config(backoff);
    if let Some(tls) = &settings.tls {
        builder = builder.tls_config(Arc::new(client_config(tls)?));
    }
    if let Some(sasl) = &settings.sasl {
        builder = builder.sasl_config(sasl_config(sasl)?);
    }
    Ok(builder)
}

fn sasl_config(sasl: &KafkaSasl) -> Result<SaslConfig, String> {
    let password = std::str::from_utf8(sasl.password.expose()).map_err(|_| "the password is no text".to_owned())?;
    let credentials = Credentials::new(sasl.username.clone(), password.to_owned());
    Ok(match sasl.mechanism {
        SaslMechanism::Plain => SaslConfig::Plain(credentials),
        SaslMechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
        SaslMechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
    })
}

fn client_config(tls: &BusTls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if tls.anchors.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        if roots.add_parsable_certificates(found.certs).0 == 0 {
            return Err("the system has no trust anchors; name some as bus.kafka.tls.ca_file".to_owned());
        }
    }
    for anchor in &tls.anchors {
        roots.add(anchor.clone()).map_err(|error| format!("ca_file: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
