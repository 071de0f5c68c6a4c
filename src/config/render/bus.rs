//! The `bus` section as it is shown.

use super::MASK;
use crate::bus::settings::{
    BusSettings, BusTls, HostPort, KafkaSettings, NatsSettings, RedisServers, RedisSettings, SaslMechanism,
};
use serde_json::{Value, json};

pub(super) fn bus(bus: &BusSettings) -> Value {
    match bus {
        BusSettings::Memory => json!({ "memory": {} }),
        BusSettings::Redis(settings) => json!({ "redis": redis(settings) }),
        BusSettings::Nats(settings) => json!({ "nats": nats(settings) }),
        BusSettings::Kafka(settings) => json!({ "kafka": kafka(settings) }),
    }
}

fn redis(settings: &RedisSettings) -> Value {
    let scheme = if settings.tls.is_some() { "rediss" } else { "redis" };
    let (key, servers) = match &settings.servers {
        RedisServers::One(server) => ("url", json!(format!("{scheme}://{server}"))),
        RedisServers::Sentinel { master, sentinels } => {
            ("sentinel", json!({ "master": master, "urls": urls(scheme, sentinels) }))
        }
        RedisServers::Cluster(nodes) => ("cluster", json!(urls(scheme, nodes))),
    };
    json!({
        key: servers,
        "username": settings.username,
        "password": settings.password.as_ref().map(|_| MASK),
        "db": settings.db,
        "tls": tls(settings.tls.as_ref()),
        "prefix": settings.prefix,
    })
}

fn nats(settings: &NatsSettings) -> Value {
    let scheme = if settings.tls.is_some() { "tls" } else { "nats" };
    json!({
        "urls": urls(scheme, &settings.servers),
        "credentials": settings.credentials.as_ref().map(|_| MASK),
        "tls": tls(settings.tls.as_ref()),
        "stream": settings.stream,
        "prefix": settings.prefix,
    })
}

fn kafka(settings: &KafkaSettings) -> Value {
    json!({
        "brokers": settings.brokers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "topic": settings.topic,
        "tls": tls(settings.tls.as_ref()),
        "sasl": settings.sasl.as_ref().map(|sasl| json!({
            "mechanism": match sasl.mechanism {
                SaslMechanism::Plain => "plain",
                SaslMechanism::ScramSha256 => "scram-sha-256",
                SaslMechanism::ScramSha512 => "scram-sha-512",
            },
            "username": sasl.username,
            "password": MASK,
        })),
    })
}

fn tls(tls: Option<&BusTls>) -> Value {
    tls.map_or(Value::Null, |tls| json!({ "ca_file": tls.ca_file }))
}

fn urls(scheme: &str, servers: &[HostPort]) -> Vec<String> {
    servers.iter().map(|server| format!("{scheme}://{server}")).collect()
}
