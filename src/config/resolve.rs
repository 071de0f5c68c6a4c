//! From shapes to the checked [`Config`]: defaults are filled in, texts are parsed, files are looked at, names are
//! looked up, and every problem is collected.

mod bus;
mod channels;
mod cloudevents;
mod files;
mod listeners;
mod publish;
mod routes;
mod upstreams;

use crate::config::file::{File, Limits, Log};
use crate::config::problem::{Problems, Spot, advice};
use crate::config::quantity::{Size, Span};
use crate::config::read::{Field, Given, quote};
use crate::config::sources::Sources;
use crate::config::{Config, HubLimits, defaults, file};
use crate::drain::{DrainSettings, FailReadiness};
use crate::gateway::settings::GatewaySettings;
use crate::hub::clock::unix_ms;
use crate::model::cursor::CURSOR_CHANNELS_MAX;
use crate::server::limits::ServerLimits;
use crate::telemetry::log::{AccessLog, LogFormat, LogSettings};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// What a name in a list may be.
const NAME_CHARACTERS_MAX: usize = 64;
/// More worker threads than any machine gains from.
const WORKERS_MAX: u64 = 1024;
/// Bounds of timeouts that protect a resource: a second less would be an accident, an hour more no protection.
const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// What a configuration stands in.
pub(super) struct Around<'a> {
    /// Where relative paths start.
    pub folder: &'a Path,
    /// Reads an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads files.
    pub sources: &'a mut Sources,
}

/// Collects problems while settings are made.
struct Resolver<'a> {
    /// Where relative paths start.
    folder: &'a Path,
    /// Reads an environment variable.
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads files.
    sources: &'a mut Sources,
    /// The time, in Unix seconds.
    now_secs: i64,
    problems: Problems,
    warnings: Problems,
}

/// Makes the checked configuration of what was read; `top` is the file's start.
///
/// # Errors
/// Every problem, those of `problems` among them.
pub(super) fn resolve(file: &File, top: &Spot, around: Around<'_>, problems: Problems) -> Result<Config, Problems> {
    let warnings = Problems::new(problems.file.clone());
    let Around { folder, env, sources } = around;
    let now_secs = i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX);
    let mut r = Resolver { folder, env, sources, now_secs, problems, warnings };
    let (limits, hub_limits) = r.limits(file.limits.value().unwrap_or(&Limits::default()));

    let listeners = r.listeners(file, top);
    let publish = r.publish(file);
    let admin = r.admin(file);
    r.no_address_twice(&listeners, &publish, &admin);
    let upstreams = r.upstreams(file);
    let routes = r.routes(file, top, &upstreams, hub_limits);
    let channels = r.channels(file, publish.value.idempotency_window);
    let bus = r.bus(file);
    let sessions = r.sessions(file);
    let drain = r.drain(file);
    let log = r.log(file);
    let runtime = file.runtime.value();
    let workers = runtime.and_then(|runtime| r.count(&runtime.workers, 1..=WORKERS_MAX));
    let workers = workers.and_then(|count| NonZeroUsize::new(usize::try_from(count).ok()?));

    if !r.problems.is_empty() {
        r.problems.sort();
        return Err(r.problems);
    }
    r.warnings.sort();
    Ok(Config {
        listeners: listeners.into_iter().map(|(listener, _)| listener).collect(),
        publish: publish.value,
        admin: admin.value,
        gateway: GatewaySettings { routes, upstreams: upstreams.into_iter().map(|(_, known)| known).collect() },
        channels,
        bus,
        sessions,
        limits,
        hub_limits,
        drain,
        log,
        workers: workers.unwrap_or_else(defaults::workers),
        hash: String::new(),
        warnings: r.warnings,
    })
}

/// A value and where it was written; `None` for a default.
struct Spotted<T> {
    value: T,
    spot: Option<Spot>,
}

impl Resolver<'_> {
    /// The value of a key that must be there.
    fn required<'f, T>(&mut self, field: &'f Field<T>, owner: &Spot, key: &str, remedy: &str) -> Option<&'f Given<T>> {
        if field.is_absent() {
            self.problems.add(&owner.key(key), format!("missing; {remedy}"));
        }
        field.given()
    }

    /// A name for logs and metrics.
    fn name(&mut self, field: &Field<String>, owner: &Spot, what: &str) -> Option<Given<String>> {
        let given = self.required(field, owner, "name", &format!("name the {what} for logs and metrics"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let length = given.value.chars().count();
        if length == 0 || length > NAME_CHARACTERS_MAX || !given.value.chars().all(plain) {
            let text = format!(
                "{} is no name; write 1 to {NAME_CHARACTERS_MAX} of a-z, A-Z, 0-9, `-`, `_` and `.`",
                quote(&given.value)
            );
            self.problems.add(&given.spot, text);
            return None;
        }
        Some(given.clone())
    }

    /// A number in a range.
    fn count(&mut self, field: &Field<u64>, range: RangeInclusive<u64>) -> Option<u64> {
        let given = field.given()?;
        if !range.contains(&given.value) {
            let text = format!("{} is out of range; write {} to {}", given.value, range.start(), range.end());
            self.problems.add(&given.spot, text);
            return None;
        }
        Some(given.value)
    }

    /// A number of things in memory.
    fn count_usize(&mut self, field: &Field<u64>, range: RangeInclusive<u64>, default: usize) -> usize {
        self.count(field, range).and_then(|count| usize::try_from(count).ok()).unwrap_or(default)
    }

    /// A duration in a range.
    fn span(&mut self, field: &Field<Span>, range: RangeInclusive<Duration>, default: Duration) -> Duration {
        let Some(given) = field.given() else { return default };
        if !range.contains(&given.value.0) {
            let (least, most) = (Span(*range.start()), Span(*range.end()));
            self.problems.add(&given.spot, format!("{} is out of range; write {least} to {most}", given.value));
        }
        given.value.0
    }

    /// A size in a range.
    fn size(&mut self, field: &Field<Size>, range: RangeInclusive<u64>, default: u64) -> usize {
        let mut bytes = default;
        if let Some(given) = field.given() {
            if range.contains(&given.value.0) {
                bytes = given.value.0;
            } else {
                let (least, most) = (Size(*range.start()), Size(*range.end()));
                self.problems.add(&given.spot, format!("{} is out of range; write {least} to {most}", given.value));
            }
        }
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Complains unless exactly one of some keys is there.
    fn exactly_one(&mut self, spot: &Spot, keys: &[(&str, bool)]) -> bool {
        let known: Vec<_> = keys.iter().map(|(key, _)| *key).collect();
        let present: Vec<_> = keys.iter().filter(|(_, present)| *present).map(|(key, _)| *key).collect();
        let inside = format!("{}.", spot.path);
        match present.len() {
            1 => return true,
            // A mistyped key is told of already.
            0 if self.problems.found.iter().any(|problem| problem.path.starts_with(&inside)) => {}
            0 if known.len() == 1 => self.problems.add(spot, format!("empty; write {}", known[0])),
            0 => self.problems.add(spot, format!("has none of {}; write one", known.join(", "))),
            _ => self.problems.add(spot, format!("has {} at once; keep one", present.join(" and "))),
        }
        false
    }

    /// Looks a name up among those that are defined, and says what may be meant.
    fn undefined(&mut self, name: &Given<String>, known: &[&str], what: &str) {
        let otherwise = advice(&name.value, known, "defined are");
        let otherwise = if known.is_empty() { format!("; add it to {what}") } else { otherwise };
        self.problems.add(&name.spot, format!("{} is not defined{otherwise}", quote(&name.value)));
    }

    fn limits(&mut self, limits: &Limits) -> (ServerLimits, HubLimits) {
        const COUNT: RangeInclusive<u64> = 1..=100_000_000;
        let default = defaults::server_limits();
        let streams = self.count(&limits.streams_per_connection, 1..=1_000_000).and_then(|n| u32::try_from(n).ok());
        let header_bytes = default.request_header_bytes_max as u64;
        let server = ServerLimits {
            connections_max: self.count_usize(&limits.connections, COUNT, default.connections_max),
            connections_per_ip_max: self.count_usize(&limits.connections_per_ip, COUNT, default.connections_per_ip_max),
            streams_per_connection_max: streams.unwrap_or(default.streams_per_connection_max),
            request_header_timeout: self.span(
                &limits.request_header_timeout,
                TIMEOUT_RANGE,
                default.request_header_timeout,
            ),
            idle_timeout: self.span(&limits.idle_timeout, TIMEOUT_RANGE, default.idle_timeout),
            // A browser's cookies alone may take 4 KiB.
            request_header_bytes_max: self.size(&limits.request_header_bytes, 8192..=1 << 20, header_bytes),
            tls_handshake_timeout: self.span(
                &limits.tls_handshake_timeout,
                TIMEOUT_RANGE,
                default.tls_handshake_timeout,
            ),
        };
        let subscriptions = 1..=CURSOR_CHANNELS_MAX as u64;
        let hub = HubLimits {
            channels_max: self.count_usize(&limits.channels, COUNT, defaults::CHANNELS_MAX as usize),
            history_bytes_max: self.size(&limits.history_bytes, 1 << 16..=1 << 40, defaults::history_bytes_max()),
            subscriptions_per_session_max: self.count_usize(
                &limits.subscriptions_per_session,
                subscriptions,
                defaults::SUBSCRIPTIONS_PER_SESSION_MAX as usize,
            ),
            client_messages_per_second_max: self
                .count(&limits.client_messages_per_second, 1..=100_000)
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(defaults::CLIENT_MESSAGES_PER_SECOND_MAX),
        };
        (server, hub)
    }

    fn drain(&mut self, file: &File) -> DrainSettings {
        const RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
        let default = defaults::drain();
        let Some(drain) = file.drain.value() else { return default };
        DrainSettings {
            settle: self.span(&drain.settle, RANGE, default.settle),
            spread: self.span(&drain.spread, RANGE, default.spread),
            margin: self.span(&drain.margin, RANGE, default.margin),
            fail_readiness: match drain.fail_readiness.value() {
                Some(file::FailReadiness::AtStart) => FailReadiness::AtStart,
                Some(file::FailReadiness::AfterSettle) => FailReadiness::AfterSettle,
                None => default.fail_readiness,
            },
        }
    }

    fn log(&mut self, file: &File) -> LogSettings {
        let telemetry = file.telemetry.value();
        let log = telemetry.and_then(|telemetry| telemetry.log.value()).cloned().unwrap_or_default();
        let access_log = telemetry.and_then(|telemetry| telemetry.access_log.value());
        LogSettings {
            format: match log.format.value() {
                Some(file::LogFormat::Json) => LogFormat::Json,
                Some(file::LogFormat::Text) => LogFormat::Text,
                None => defaults::LOG_FORMAT,
            },
            level: self.log_level(&log),
            access_log: match access_log {
                Some(true) => AccessLog::On,
                Some(false) => AccessLog::Off,
                None => defaults::ACCESS_LOG,
            },
        }
    }

    /// A level or a filter. A mistyped level would be taken for a target's name and switch all logs on.
    fn log_level(&mut self, log: &Log) -> String {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let Some(given) = log.level.given() else { return defaults::LOG_LEVEL.to_owned() };
        for directive in given.value.split(',') {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
            if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                let advice = advice(level, &LEVELS, "write one of:");
                self.problems.add(&given.spot, format!("{} is no log level{advice}", quote(level)));
                return given.value.clone();
            }
        }
        if tracing_subscriber::EnvFilter::try_new(&given.value).is_err() {
            let text = format!("{} is no filter; write such as info,pushbridge::session=debug", quote(&given.value));
            self.problems.add(&given.spot, text);
        }
        given.value.clone()
    }
}
