//! The checked settings of every bus: which one, where it is, and how to get in.

use crate::model::secret::Secret;
use rustls::pki_types::CertificateDer;
use std::time::Duration;

/// How instances share messages.
#[derive(Debug, Clone, Default)]
pub enum BusSettings {
    /// They do not: each has its own channels.
    #[default]
    Memory,
    /// Redis, or what speaks like it.
    Redis(Box<RedisSettings>),
    /// NATS with JetStream.
    Nats(Box<NatsSettings>),
    /// Kafka.
    Kafka(Box<KafkaSettings>),
}

impl BusSettings {
    /// Whether sessions of other instances get what is published here.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory)
    }
}

/// What sessions that are lost may expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// How long a session waits for its client after it was lost.
    pub ttl: Duration,
}

/// TLS towards a bus; without it the connection is cleartext.
#[derive(Debug, Clone, Default)]
pub struct BusTls {
    /// The path of the trust anchors, for the page that shows the configuration.
    pub ca_file: Option<String>,
    /// Trust anchors; empty: those of the system.
    pub anchors: Vec<CertificateDer<'static>>,
}

/// Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where it is.
    pub servers: RedisServers,
    /// The ACL user; `None` is Redis's `default`.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The number of the database; 0 in a cluster.
    pub db: i64,
    /// TLS.
    pub tls: Option<BusTls>,
    /// What every key begins with.
    pub prefix: String,
}

/// Where Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisServers {
    /// One server.
    One(HostPort),
    /// The master that Sentinels name.
    Sentinel {
        /// The master's name.
        master: String,
        /// The Sentinels.
        sentinels: Vec<HostPort>,
    },
    /// A cluster, by some of its nodes.
    Cluster(Vec<HostPort>),
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// NATS with JetStream.
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// Servers of one cluster.
    pub servers: Vec<HostPort>,
    /// A user's credentials: the text of its `.creds` file.
    pub credentials: Option<Secret>,
    /// TLS.
    pub tls: Option<BusTls>,
    /// The stream's name.
    pub stream: String,
    /// What every subject begins with.
    pub prefix: String,
}

/// Kafka.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Some of the brokers.
    pub brokers: Vec<HostPort>,
    /// The one topic.
    pub topic: String,
    /// TLS.
    pub tls: Option<BusTls>,
    /// How to log in.
    pub sasl: Option<KafkaSasl>,
}

/// A login at Kafka.
#[derive(Debug, Clone)]
pub struct KafkaSasl {
    /// How the password is proven.
    pub mechanism: SaslMechanism,
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How a password is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
