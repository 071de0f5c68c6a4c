//! The configuration in force, by the keys that it is written with: with defaults, without secrets.

mod bus;

use crate::config::Config;
use crate::config::quantity::{Size, Span};
use crate::drain::FailReadiness;
use crate::gateway::settings::{
    Action, AllowedOrigins, BridgeProtocol, Credentials, Pings, ProxyRoute, PushRoute, WebSocketRoute,
};
use crate::hub::policy::{ChannelPolicy, ConflateKey, Presence, SlowConsumer};
use crate::hub::shard::Start;
use crate::publish::settings::{PublishAuth, PublishSettings, WebhookSettings, WebhookVerify};
use crate::route::{Match, Route};
use crate::server::listener::{ListenerSettings, Protocol};
use crate::server::tls::{Digest, TlsSettings, TlsVersion};
use crate::session::settings::CloudEventsSettings;
use crate::telemetry::log::{AccessLog, LogFormat};
use crate::upstream::settings::{Balance, UpstreamProtocol, UpstreamSettings};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What stands for a secret.
const MASK: &str = "***";

/// What stands before a hash that takes a secret's place.
const HASHED: &str = "***#";

/// What takes the place of secrets, and of what has no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// Asterisks: to be shown.
    Masked,
    /// Hashes: to be compared, and shown only by way of [`masked`]. Certificates have one, too.
    Hashed,
}

impl Secrets {
    fn of(self, parts: &[&[u8]]) -> Value {
        match self {
            Self::Masked => json!(MASK),
            Self::Hashed => {
                let hex = |byte: &u8| format!("{byte:02x}");
                json!(HASHED.to_owned() + &Digest::of(parts.iter().copied()).0.iter().map(hex).collect::<String>())
            }
        }
    }

    /// Something that has no text: nothing in what is shown.
    fn only_compared(self, value: &impl std::fmt::Debug) -> Value {
        match self {
            Self::Masked => Value::Null,
            Self::Hashed => self.of(&[format!("{value:?}").as_bytes()]),
        }
    }
}

/// A value with asterisks in the place of hashes.
pub(super) fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with(HASHED) => json!(MASK),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), masked(value))).collect(),
        other => other.clone(),
    }
}

/// The configuration as JSON.
pub(super) fn render(config: &Config, secrets: Secrets) -> Value {
    let upstreams = config.gateway.upstreams.iter();
    let upstreams: Map<_, _> =
        upstreams.map(|upstream| (upstream.name.to_string(), self::upstream(upstream, secrets))).collect();
    let channels = config.channels.iter().map(|(pattern, policy)| channel(pattern.as_str(), policy));
    let whole = config.channels.iter().any(|(pattern, _)| pattern.as_str() == "**");
    let rest = (!whole).then(|| channel("**", config.channels.default_policy()));
    let mut shown = json!({
        "listeners": config.listeners.iter().map(|one| listener(one, secrets)).collect::<Vec<_>>(),
        "publish": publish(&config.publish, secrets),
        "admin": { "address": config.admin.to_string() },
        "upstreams": upstreams,
        "routes": config.gateway.routes.iter().map(|route| self::route(route, secrets)).collect::<Vec<_>>(),
        "channels": channels.chain(rest).collect::<Vec<_>>(),
        "bus": bus::bus(&config.bus, secrets),
        "sessions": { "ttl": span(config.sessions.ttl) },
        "limits": limits(config),
        "drain": {
            "settle": span(config.drain.settle),
            "spread": span(config.drain.spread),
            "margin": span(config.drain.margin),
            "fail_readiness": match config.drain.fail_readiness {
                FailReadiness::AtStart => "at_start",
                FailReadiness::AfterSettle => "after_settle",
            },
        },
        "telemetry": {
            "log": {
                "format": match config.log.format {
                    LogFormat::Json => "json",
                    LogFormat::Text => "text",
                },
                "level": config.log.level,
            },
            "access_log": config.log.access_log == AccessLog::On,
        },
        "runtime": { "workers": config.workers.get() },
    });
    drop_absent(&mut shown);
    shown
}

/// Removes keys that stand for nothing, so that the rest can be read as a configuration again.
fn drop_absent(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
            entries.values_mut().for_each(drop_absent);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_absent),
        _ => {}
    }
}

fn span(duration: Duration) -> String {
    Span(duration).to_string()
}

fn size(bytes: usize) -> String {
    Size(bytes as u64).to_string()
}

fn limits(config: &Config) -> Value {
    let (server, hub) = (&config.limits, &config.hub_limits);
    json!({
        "connections": server.connections_max,
        "connections_per_ip": server.connections_per_ip_max,
        "streams_per_connection": server.streams_per_connection_max,
        "request_header_timeout": span(server.request_header_timeout),
        "idle_timeout": span(server.idle_timeout),
        "request_header_bytes": size(server.request_header_bytes_max),
        "tls_handshake_timeout": span(server.tls_handshake_timeout),
        "subscriptions_per_session": hub.subscriptions_per_session_max,
        "client_messages_per_second": hub.client_messages_per_second_max,
        "channels": hub.channels_max,
        "history_bytes": size(hub.history_bytes_max),
    })
}

fn listener(listener: &ListenerSettings, secrets: Secrets) -> Value {
    let protocol = |protocol: &Protocol| match protocol {
        Protocol::H2 => "h2",
        Protocol::Http1 => "http/1.1",
    };
    json!({
        "name": &*listener.name,
        "address": listener.address.to_string(),
        "protocols": listener.protocols.0.iter().map(protocol).collect::<Vec<_>>(),
        "trusted_proxies": listener.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tls": listener.tls.as_ref().map(|tls| self::tls(tls, secrets)),
    })
}

fn tls(tls: &TlsSettings, secrets: Secrets) -> Value {
    let certificates = tls.certificates.iter();
    let certificates = certificates.map(|one| {
        json!({
            "cert_file": one.cert_file,
            "key_file": one.key_file,
            "contents": secrets.only_compared(&one.digest),
        })
    });
    json!({
        "min_version": match tls.min_version {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        },
        "certificates": certificates.collect::<Vec<_>>(),
        "client_ca_file": tls.client_ca.as_ref().map(|ca| &ca.file),
        "client_ca": tls.client_ca.as_ref().map(|ca| secrets.only_compared(&ca.digest)),
    })
}

fn publish(publish: &PublishSettings, secrets: Secrets) -> Value {
    let auth = publish.auth.iter().map(|auth| match auth {
        PublishAuth::Bearer(token) => json!({ "bearer": secrets.of(&[token.expose()]) }),
        PublishAuth::GripSig(key) => json!({ "grip_sig": secrets.of(&[key.fingerprint()]) }),
    });
    json!({
        "address": publish.address.to_string(),
        "max_body": size(publish.body_bytes_max),
        "idempotency_window": span(publish.idempotency_window),
        "auth": auth.collect::<Vec<_>>(),
        "webhooks": publish.webhooks.iter().map(|one| webhook(one, secrets)).collect::<Vec<_>>(),
    })
}

fn webhook(webhook: &WebhookSettings, secrets: Secrets) -> Value {
    let verify = match &webhook.verify {
        WebhookVerify::None => json!("none"),
        WebhookVerify::StandardWebhooks { secret, tolerance } => {
            json!({ "standard_webhooks": { "secret": secrets.of(&[secret.expose()]), "tolerance": span(*tolerance) } })
        }
        WebhookVerify::Stripe { secret, tolerance } => {
            json!({ "stripe": { "secret": secrets.of(&[secret.expose()]), "tolerance": span(*tolerance) } })
        }
        WebhookVerify::Hmac(hmac) => json!({ "hmac": {
            "secret": secrets.of(&[hmac.secret.expose()]),
            "algorithm": secrets.only_compared(&(hmac.algorithm, hmac.encoding)),
            "header": hmac.header.as_str(),
            "prefix": &*hmac.prefix,
            "timestamp_header": hmac.timestamp.as_ref().map(|(header, _)| header.as_str()),
            "tolerance": hmac.timestamp.as_ref().map(|(_, tolerance)| span(*tolerance)),
        } }),
    };
    json!({
        "path": &*webhook.path,
        "verify": verify,
        "channel": secrets.only_compared(&webhook.channel),
        "event": webhook.event.as_ref().map(|event| secrets.only_compared(event)),
        "data": webhook.data.as_ref().map(|data| secrets.only_compared(data)),
    })
}

fn upstream(upstream: &UpstreamSettings, secrets: Secrets) -> Value {
    let servers = upstream.servers.iter().map(|server| match server.host.contains(':') {
        true => format!("http://[{}]:{}", server.host, server.port),
        false => format!("http://{}:{}", server.host, server.port),
    });
    json!({
        "servers": servers.collect::<Vec<_>>(),
        "balance": match upstream.balance {
            Balance::RoundRobin => "round_robin",
            Balance::LeastRequests => "least_requests",
        },
        "protocol": match upstream.protocol {
            UpstreamProtocol::Http1 => "http/1.1",
            UpstreamProtocol::H2 => "h2",
        },
        "timeouts": { "connect": span(upstream.connect_timeout), "response": span(upstream.response_timeout) },
        "retries": { "attempts": upstream.retry_attempts_max },
        "grip": upstream.grip.as_ref().map(|grip| json!({
            "issuer": &*grip.issuer,
            "key_file": grip.key.as_ref().map(|key| secrets.of(&[key.fingerprint()])),
            "id_cache": span(grip.id_cache),
        })),
    })
}

fn route(route: &Route<Action>, secrets: Secrets) -> Value {
    let (key, action) = match &route.action {
        Action::Push(route) => ("push", push(route)),
        Action::WebSocket(route) => ("websocket", websocket(route, secrets)),
        Action::Proxy(route) => ("proxy", proxy(route)),
    };
    json!({ "name": &*route.name, "match": matcher(&route.matcher, secrets), key: action })
}

fn proxy(route: &ProxyRoute) -> Value {
    let grip = route.grip.as_ref().map(|grip| {
        let channels: Vec<_> = grip.channels.iter().map(ToString::to_string).collect();
        match channels.is_empty() && grip.channel_prefix.is_empty() {
            true => json!(true),
            false => json!({
                "channel_prefix": Some(&*grip.channel_prefix).filter(|prefix| !prefix.is_empty()),
                "channels": channels,
            }),
        }
    });
    json!({ "upstream": &*route.upstream.name, "grip": grip })
}

fn matcher(matcher: &Match, secrets: Secrets) -> Value {
    // A field's value may be a credential.
    let headers = matcher.headers.iter();
    let headers: Map<_, _> = headers.map(|(name, value)| (name.to_string(), secrets.of(&[value.as_bytes()]))).collect();
    json!({
        "host": matcher.host.as_ref().map(ToString::to_string),
        "path": matcher.path.as_str(),
        "methods": matcher.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "headers": headers,
    })
}

fn origins(origins: &AllowedOrigins) -> Value {
    match origins {
        AllowedOrigins::Same => Value::Null,
        AllowedOrigins::List(origins) => json!(origins),
    }
}

fn push(route: &PushRoute) -> Value {
    let session = &route.session;
    let patterns = |list: &[crate::model::pattern::ChannelPattern]| {
        list.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>()
    };
    json!({
        "channels": route.channels.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "transports": session.transports.iter().map(|transport| transport.as_str()).collect::<Vec<_>>(),
        "auth": "none",
        "keep_alive": span(session.keep_alive),
        "long_poll_timeout": span(session.long_poll_timeout),
        "start": match session.start {
            Start::Now => json!("now"),
            Start::Last(last) => json!({ "last": last }),
        },
        "cors": route.cors.as_ref().map(|cors| {
            json!({ "origins": cors.origins, "credentials": matches!(cors.credentials, Credentials::Allowed) })
        }),
        "allowed_origins": origins(&route.allowed_origins),
        "client_subscribe": patterns(&session.client_subscribe),
        "client_publish": patterns(&session.client_publish),
    })
}

fn websocket(route: &WebSocketRoute, secrets: Secrets) -> Value {
    let (protocol, cloudevents) = match &route.protocol {
        BridgeProtocol::Grip => ("grip", Value::Null),
        BridgeProtocol::CloudEvents(settings) => ("cloudevents", self::cloudevents(settings, secrets)),
    };
    json!({
        "upstream": &*route.upstream.name,
        "protocol": protocol,
        "cloudevents": cloudevents,
        "allowed_origins": origins(&route.allowed_origins),
        "keep_alive": span(route.keep_alive),
        "max_message": size(route.message_bytes_max),
        "pings": match route.pings {
            Pings::Answered => "answer",
            Pings::PassedThrough => "pass",
        },
    })
}

fn cloudevents(settings: &CloudEventsSettings, secrets: Secrets) -> Value {
    let key = |at: usize| settings.keys.get(at).map(|key| secrets.of(&[key.expose()]));
    json!({
        "hub": &*settings.hub,
        "path": &*settings.path,
        "origin": &*settings.origin,
        "key": key(0),
        "secondary_key": key(1),
    })
}

fn channel(pattern: &str, policy: &ChannelPolicy) -> Value {
    json!({
        "match": pattern,
        "history": {
            "messages": policy.history_messages_max,
            "max_age": span(Duration::from_millis(policy.history_age_ms_max)),
            "max_bytes": size(policy.history_bytes_max),
        },
        "slow_consumer": match &policy.slow_consumer {
            SlowConsumer::Gap => json!("gap"),
            SlowConsumer::Close => json!("close"),
            SlowConsumer::Conflate(ConflateKey::Event) => json!({ "conflate_by": "event" }),
            SlowConsumer::Conflate(ConflateKey::Pointer(pointer)) => json!({ "conflate_by": pointer }),
        },
        "max_message": size(policy.message_bytes_max),
        "presence": match policy.presence {
            Presence::Counts => json!("counts"),
            Presence::Members => json!("members"),
            Presence::Announced { leave_after_ms } => {
                json!({ "leave_after": span(Duration::from_millis(leave_after_ms)) })
            }
        },
    })
}
