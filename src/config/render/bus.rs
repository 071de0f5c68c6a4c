//! The `bus` section as it is shown.

use super::Secrets;
use crate::bus::settings::{
    BusSettings, BusTls, HostPort, KafkaSettings, NatsSettings, RedisServers, RedisSettings, SaslMechanism,
};
use crate::model::secret::Secret;
use serde_json::{Value, json};

pub(super) fn bus(bus: &BusSettings, secrets: Secrets) -> Value {
    match bus {
        BusSettings::Memory => json!({ "memory": {} }),
        BusSettings::Redis(settings) => json!({ "redis": redis(settings, secrets) }),
        BusSettings::Nats(settings) => json!({ "nats": nats(settings, secrets) }),
        BusSettings::Kafka(settings) => json!({ "kafka": kafka(settings, secrets) }),
    }
}

fn redis(settings: &RedisSettings, secrets: Secrets) -> Value {
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
        "password": secret(settings.password.as_ref(), secrets),
        "db": settings.db,
        "tls": tls(settings.tls.as_ref(), secrets),
        "prefix": settings.prefix,
    })
}

fn nats(settings: &NatsSettings, secrets: Secrets) -> Value {
    let scheme = if settings.tls.is_some() { "tls" } else { "nats" };
    json!({
        "urls": urls(scheme, &settings.servers),
        "credentials": secret(settings.credentials.as_ref(), secrets),
        "tls": tls(settings.tls.as_ref(), secrets),
        "stream": settings.stream,
        "prefix": settings.prefix,
    })
}

fn kafka(settings: &KafkaSettings, secrets: Secrets) -> Value {
    json!({
        "brokers": settings.brokers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "topic": settings.topic,
        "tls": tls(settings.tls.as_ref(), secrets),
        "sasl": settings.sasl.as_ref().map(|sasl| json!({
            "mechanism": match sasl.mechanism {
                SaslMechanism::Plain => "plain",
                SaslMechanism::ScramSha256 => "scram-sha-256",
                SaslMechanism::ScramSha512 => "scram-sha-512",
            },
            "username": sasl.username,
            "password": secret(Some(&sasl.password), secrets),
        })),
    })
}

fn secret(secret: Option<&Secret>, secrets: Secrets) -> Value {
    secret.map_or(Value::Null, |secret| secrets.of(&[secret.expose()]))
}

fn tls(tls: Option<&BusTls>, secrets: Secrets) -> Value {
    let Some(tls) = tls else { return Value::Null };
    let anchors: Vec<&[u8]> = tls.anchors.iter().map(AsRef::as_ref).collect();
    let anchors = if secrets == Secrets::Hashed { secrets.of(&anchors) } else { Value::Null };
    json!({ "ca_file": tls.ca_file, "anchors": anchors })
}

fn urls(scheme: &str, servers: &[HostPort]) -> Vec<String> {
    servers.iter().map(|server| format!("{scheme}://{server}")).collect()
}
