//! The `bus` and `sessions` sections.

use super::Resolver;
use crate::bus::settings::{
    BusSettings, BusTls, HostPort, KafkaSasl, KafkaSettings, NatsSettings, RedisServers, RedisSettings, SaslMechanism,
    SessionSettings,
};
use crate::config::defaults;
use crate::config::file::{self, File, KafkaBus, NatsBus, RedisBus};
use crate::config::problem::Spot;
use crate::config::read::{Field, Given, quote};
use crate::model::secret::Secret;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A session that nobody comes back to in a second is as good as none; after a day nobody comes.
const TTL_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// What every key of ours begins with is repeated in each.
const PREFIX_BYTES_MAX: usize = 64;

/// A server as an URL names it, and whether it speaks TLS.
struct Server {
    at: HostPort,
    secure: bool,
}

impl Resolver<'_> {
    pub(super) fn sessions(&mut self, file: &File) -> SessionSettings {
        let sessions = file.sessions.value().cloned().unwrap_or_default();
        SessionSettings { ttl: self.span(&sessions.ttl, TTL_RANGE, defaults::SESSIONS_TTL) }
    }

    pub(super) fn bus(&mut self, file: &File) -> BusSettings {
        let Some(bus) = file.bus.given() else { return BusSettings::Memory };
        let shape = &bus.value;
        let keys = [
            ("memory", !shape.memory.is_absent()),
            ("redis", !shape.redis.is_absent()),
            ("nats", !shape.nats.is_absent()),
            ("kafka", !shape.kafka.is_absent()),
        ];
        if !self.exactly_one(&bus.spot, &keys) {
            return BusSettings::Memory;
        }
        let settings = if let Some(redis) = shape.redis.given() {
            self.redis(redis).map(|redis| BusSettings::Redis(Box::new(redis)))
        } else if let Some(nats) = shape.nats.given() {
            self.nats(nats).map(|nats| BusSettings::Nats(Box::new(nats)))
        } else if let Some(kafka) = shape.kafka.given() {
            self.kafka(kafka).map(|kafka| BusSettings::Kafka(Box::new(kafka)))
        } else {
            None
        };
        settings.unwrap_or_default()
    }

    fn redis(&mut self, given: &Given<RedisBus>) -> Option<RedisSettings> {
        let shape = &given.value;
        let keys = [
            ("url", !shape.url.is_absent()),
            ("sentinel", !shape.sentinel.is_absent()),
            ("cluster", !shape.cluster.is_absent()),
        ];
        let (username, db) = (shape.username.value().cloned(), self.count(&shape.db, 0..=1_000_000).unwrap_or(0));
        let password = self.password(&given.spot, &shape.password_file, &shape.password_env);
        let prefix = self.word(&shape.prefix, defaults::BUS_PREFIX, "prefix");
        if let (Some(username), None) = (shape.username.given(), &password)
            && shape.password_file.is_absent()
            && shape.password_env.is_absent()
        {
            let text = format!("{} has no password; add password_file or password_env", quote(&username.value));
            self.problems.add(&username.spot, text);
        }
        if !self.exactly_one(&given.spot, &keys) {
            return None;
        }
        let (servers, secure) = self.redis_servers(shape)?;
        if let (RedisServers::Cluster(_), Some(db)) = (&servers, shape.db.given())
            && db.value != 0
        {
            self.problems.add(&db.spot, "a cluster has only database 0; leave it out, and use prefix instead");
        }
        let tls = self.bus_tls(&shape.tls, secure, "rediss://");
        let db = i64::try_from(db).unwrap_or(0);
        Some(RedisSettings { servers, username, password, db, tls, prefix })
    }

    fn redis_servers(&mut self, shape: &RedisBus) -> Option<(RedisServers, bool)> {
        const SCHEMES: [(&str, bool); 2] = [("redis://", false), ("rediss://", true)];
        if let Some(url) = shape.url.given() {
            let server = self.server(url, &SCHEMES, 6379)?;
            return Some((RedisServers::One(server.at), server.secure));
        }
        if let Some(cluster) = shape.cluster.given() {
            let (nodes, secure) = self.servers(cluster, &SCHEMES, 6379)?;
            return Some((RedisServers::Cluster(nodes), secure));
        }
        let sentinel = shape.sentinel.given()?;
        let master =
            self.required(&sentinel.value.master, &sentinel.spot, "master", "name the master, such as mymaster");
        let urls =
            self.required(&sentinel.value.urls, &sentinel.spot, "urls", "list them, such as redis://sentinel:26379");
        let (sentinels, secure) = self.servers(urls?, &SCHEMES, 26379)?;
        Some((RedisServers::Sentinel { master: master?.value.clone(), sentinels }, secure))
    }

    fn nats(&mut self, given: &Given<NatsBus>) -> Option<NatsSettings> {
        const SCHEMES: [(&str, bool); 2] = [("nats://", false), ("tls://", true)];
        let shape = &given.value;
        let credentials = match shape.credentials_file.given() {
            Some(file) => Some(Secret::new(self.contents(file)?)),
            None => None,
        };
        let stream = self.word(&shape.stream, defaults::BUS_PREFIX, "stream");
        let prefix = self.word(&shape.prefix, defaults::BUS_PREFIX, "prefix");
        let keys = [("url", !shape.url.is_absent()), ("urls", !shape.urls.is_absent())];
        if !self.exactly_one(&given.spot, &keys) {
            return None;
        }
        let (servers, secure) = match (shape.url.given(), shape.urls.given()) {
            (Some(url), _) => self.server(url, &SCHEMES, 4222).map(|server| (vec![server.at], server.secure))?,
            (_, Some(urls)) => self.servers(urls, &SCHEMES, 4222)?,
            (None, None) => return None,
        };
        let tls = self.bus_tls(&shape.tls, secure, "tls://");
        Some(NatsSettings { servers, credentials, tls, stream, prefix })
    }

    fn kafka(&mut self, given: &Given<KafkaBus>) -> Option<KafkaSettings> {
        let shape = &given.value;
        let topic = self.word(&shape.topic, defaults::BUS_PREFIX, "topic");
        let sasl = shape.sasl.given().and_then(|sasl| {
            let remedy = "write password_file or password_env";
            let username = self.required(&sasl.value.username, &sasl.spot, "username", "name the user");
            let password = self.password(&sasl.spot, &sasl.value.password_file, &sasl.value.password_env);
            if password.is_none() && sasl.value.password_file.is_absent() && sasl.value.password_env.is_absent() {
                self.problems.add(&sasl.spot, format!("has no password; {remedy}"));
            }
            let mechanism = match sasl.value.mechanism.value() {
                Some(file::SaslMechanism::Plain) => SaslMechanism::Plain,
                Some(file::SaslMechanism::ScramSha256) => SaslMechanism::ScramSha256,
                Some(file::SaslMechanism::ScramSha512) | None => SaslMechanism::ScramSha512,
            };
            Some(KafkaSasl { mechanism, username: username?.value.clone(), password: password? })
        });
        let brokers = self.required(&shape.brokers, &given.spot, "brokers", "list some, such as kafka:9092")?;
        let (brokers, _) = self.servers(brokers, &[("", false)], 9092)?;
        let secure = !shape.tls.is_absent();
        let tls = self.bus_tls(&shape.tls, secure, "");
        if let (Some(sasl), None) = (&sasl, &tls)
            && sasl.mechanism == SaslMechanism::Plain
        {
            self.warnings.add(&given.spot, "the password is sent in cleartext (plain without tls); add tls");
        }
        Some(KafkaSettings { brokers, topic, tls, sasl })
    }

    /// A password that may be absent.
    fn password(&mut self, spot: &Spot, file: &Field<String>, env: &Field<String>) -> Option<Secret> {
        if file.is_absent() && env.is_absent() {
            return None;
        }
        self.secret(spot, ("password_file", file), ("password_env", env)).map(|given| given.value)
    }

    /// A name that others will see in keys, subjects and topics.
    fn word(&mut self, field: &Field<String>, default: &str, what: &str) -> String {
        let Some(given) = field.given() else { return default.to_owned() };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if given.value.is_empty() || given.value.len() > PREFIX_BYTES_MAX || !given.value.chars().all(plain) {
            let text = format!(
                "{} is no {what}; write 1 to {PREFIX_BYTES_MAX} of a-z, A-Z, 0-9, `-` and `_`",
                quote(&given.value)
            );
            self.problems.add(&given.spot, text);
        }
        given.value.clone()
    }

    fn servers(
        &mut self,
        list: &Given<Vec<Given<String>>>,
        schemes: &[(&str, bool)],
        port: u16,
    ) -> Option<(Vec<HostPort>, bool)> {
        if list.value.is_empty() {
            self.problems.add(&list.spot, format!("empty; list at least one, such as {}host:{port}", schemes[0].0));
            return None;
        }
        let mut servers = Vec::new();
        for url in &list.value {
            let server = self.server(url, schemes, port)?;
            if servers.first().is_some_and(|first: &Server| first.secure != server.secure) {
                self.problems
                    .add(&url.spot, "speaks TLS, or does not, unlike the one before; write one scheme for all");
                return None;
            }
            servers.push(server);
        }
        let secure = servers[0].secure;
        Some((servers.into_iter().map(|server| server.at).collect(), secure))
    }

    /// Reads `scheme://host:port`.
    fn server(&mut self, given: &Given<String>, schemes: &[(&str, bool)], port: u16) -> Option<Server> {
        let shapes: Vec<_> = schemes.iter().map(|(scheme, _)| format!("{scheme}host:{port}")).collect();
        let remedy = format!("write {}", shapes.join(" or "));
        match parse_server(&given.value, schemes, port) {
            Ok(server) => Some(server),
            // The URL itself is not shown: somebody may have written a password there.
            Err(what) => {
                self.problems.add(&given.spot, format!("{what}; {remedy}"));
                None
            }
        }
    }

    fn bus_tls(&mut self, field: &Field<file::BusTls>, secure: bool, scheme: &str) -> Option<BusTls> {
        if let Some(given) = field.given()
            && !secure
        {
            self.problems.add(&given.spot, format!("the URL asks for no TLS; write {scheme}, or remove tls"));
        }
        let ca = field.value().and_then(|tls| tls.ca_file.given());
        let anchors = ca.and_then(|ca| self.trust_anchors(ca)).unwrap_or_default();
        let ca_file = ca.map(|ca| self.path(&ca.value).display().to_string());
        secure.then_some(BusTls { ca_file, anchors })
    }
}

fn parse_server(text: &str, schemes: &[(&str, bool)], port: u16) -> Result<Server, &'static str> {
    let known = schemes.iter().find_map(|(scheme, secure)| Some((text.strip_prefix(scheme)?, *secure)));
    let (authority, secure) = known.ok_or("has another scheme")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains('@') {
        return Err("holds a user or password, which belong into keys of their own");
    }
    if authority.contains(['/', '?', '#']) {
        return Err("has a path or query, which belong into keys of their own");
    }
    let authority: http::uri::Authority = authority.parse().map_err(|_| "is no address")?;
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = match (authority.port(), authority.port_u16()) {
        (Some(_), None | Some(0)) => return Err("has an impossible port"),
        (_, given) => given.unwrap_or(port),
    };
    if host.is_empty() {
        return Err("has no host");
    }
    Ok(Server { at: HostPort { host: host.to_owned(), port }, secure })
}
