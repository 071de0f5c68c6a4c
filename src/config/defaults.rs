//! Every default of the configuration, with its reason. The reference in docs/configuration.md repeats them.

use crate::config::memory;
use crate::drain::DrainSettings;
use crate::gateway::settings::Pings;
use crate::hub::policy::ChannelPolicy;
use crate::model::session::Transport;
use crate::server::limits::ServerLimits;
use crate::server::listener::Protocol;
use crate::server::tls::TlsVersion;
use crate::telemetry::log::{AccessLog, LogFormat};
use crate::upstream::settings::{Balance, UpstreamProtocol};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::time::Duration;

/// `listeners[].protocols`: both, HTTP/2 first, since one connection then carries every stream of a browser.
pub const PROTOCOLS: [Protocol; 2] = [Protocol::H2, Protocol::Http1];
/// `listeners[].tls.min_version`: 1.2 is what every client of the last ten years speaks (RFC 9325 §3.1.1).
pub const TLS_MIN_VERSION: TlsVersion = TlsVersion::Tls12;

/// `publish.address`: loopback, so that nobody else can publish; GRIP libraries know the port.
pub const PUBLISH_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5561);
/// `publish.max_body`: an event is small; a batch of a thousand still fits.
pub const PUBLISH_BODY_BYTES_MAX: u64 = 1024 * 1024;
/// `publish.idempotency_window`: longer than a backend's retries last, short enough to keep every id in memory.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(5 * 60);
/// `tolerance` of webhooks: what Standard Webhooks recommends; clocks differ, replays should not work for long.
pub const WEBHOOK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// `admin.address`: loopback, since metrics and the configuration are private.
pub const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// `upstreams.*.balance`: a slow server gets less, without any setting.
pub const BALANCE: Balance = Balance::LeastRequests;
/// `upstreams.*.protocol`: what plain backends speak.
pub const UPSTREAM_PROTOCOL: UpstreamProtocol = UpstreamProtocol::Http1;
/// `upstreams.*.timeouts.connect`: one lost SYN (a second) is survived.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// `upstreams.*.timeouts.response`: what backends and their proxies commonly allow.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// `upstreams.*.retries.attempts`: one server restarting is not seen; more would only add load to a broken backend.
pub const RETRY_ATTEMPTS_MAX: u32 = 2;

/// `upstreams.*.grip.issuer`: who signs.
pub const GRIP_ISSUER: &str = "pushbridge";
/// `upstreams.*.grip.id_cache`: longer than a publisher's retries last; backends that count from 1 again after a
/// restart are not held up for long.
pub const GRIP_ID_CACHE: Duration = crate::bus::sequences::ID_CACHE_DEFAULT;

/// `routes[].match.path`: a route by host alone is common.
pub const MATCH_PATH: &str = "/**";
/// `routes[].push.transports`: all of them; SSE first, since it needs no more than a GET.
pub const TRANSPORTS: [Transport; 3] = [Transport::Sse, Transport::WebSocket, Transport::LongPoll];
/// `keep_alive` of push and websocket routes: well under the 60 s after which common load balancers close.
pub const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// `routes[].push.long_poll_timeout`: under the same 60 s, with a half to spare.
pub const LONG_POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// `routes[].websocket.max_message`: a message is one POST; as large as a channel's.
pub const WEBSOCKET_MESSAGE_BYTES_MAX: u64 = 64 * 1024;
/// `routes[].websocket.cloudevents.path`: where the service's Express library listens by default.
pub const CLOUDEVENTS_PATH: &str = "/api/webpubsub/hubs/{hub}/";
/// `routes[].websocket.cloudevents.origin`: what backends that allow one name only have to allow.
pub const CLOUDEVENTS_ORIGIN: &str = "pushbridge";
/// `routes[].websocket.pings`: answered here, since each would cost the backend a request.
pub const PINGS: Pings = Pings::Answered;

/// `channels[]`: a thousand messages or five minutes bridge a reload or a tunnel; 1 MiB a channel bounds the memory;
/// 64 KiB a message is above what event streams carry; a slow client is told of a gap rather than cut off.
pub fn channel() -> ChannelPolicy {
    ChannelPolicy::default()
}

/// `bus.*.prefix`, `bus.nats.stream`, `bus.kafka.topic`: who finds it there knows whose it is.
pub const BUS_PREFIX: &str = "pushbridge";
/// `sessions.ttl`: longer than a deploy or a tunnel; what is kept for a client that stays away is small.
pub const SESSIONS_TTL: Duration = Duration::from_secs(120);

/// `limits`: 100,000 connections need about 3 GB with TLS; 1000 for an address leave room for an office behind one
/// router; 1000 streams carry every tab of a browser; 10 s for a head or handshake are long for a client, and short
/// for one that only holds the place; 32 KiB hold every cookie that browsers send.
pub fn server_limits() -> ServerLimits {
    ServerLimits::default()
}

/// `limits.subscriptions_per_session`: more than a page shows, and a cursor stays under 2 KiB.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: u64 = 100;
/// `limits.client_messages_per_second`: far above what people do, below what one client may cost the others.
pub const CLIENT_MESSAGES_PER_SECOND_MAX: u32 = 100;
/// `limits.channels`: as many as connections, since one channel for each client is the common worst case.
pub const CHANNELS_MAX: u64 = 100_000;
/// `limits.history_bytes`: fits a container of 512 MiB with its connections; in a smaller one, half of its memory.
pub fn history_bytes_max() -> u64 {
    history_bytes_max_within(memory::limit_bytes())
}

fn history_bytes_max_within(memory_limit_bytes: Option<u64>) -> u64 {
    const UNLIMITED: u64 = 256 * 1024 * 1024;
    // No less than the key itself allows.
    memory_limit_bytes.map_or(UNLIMITED, |limit| (limit / 2).clamp(64 * 1024, UNLIMITED))
}

/// `drain`: load balancers learn of the end within 10 s (AWS takes 30 to 120); a minute spreads 100,000 reconnects to
/// under 2000 a second; 15 s outlast a client's close handshake. Readiness fails first, for load balancers that ask.
pub fn drain() -> DrainSettings {
    DrainSettings::default()
}

/// `telemetry.log.format`: what log collectors read.
pub const LOG_FORMAT: LogFormat = LogFormat::Json;
/// `telemetry.log.level`: starts, stops and what somebody must see; nothing for each connection.
pub const LOG_LEVEL: &str = "info";
/// `telemetry.access_log`: what happened to a request is asked for sooner or later.
pub const ACCESS_LOG: AccessLog = AccessLog::On;

/// `runtime.workers`: one thread for each core that the process may use (its CPU quota counts). Asked once: a quota that
/// changes while the process runs is no change of the configuration.
pub fn workers() -> NonZeroUsize {
    static CORES: OnceLock<NonZeroUsize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_fits_the_memory_of_a_container() {
        let mib = |bytes: Option<u64>| history_bytes_max_within(bytes.map(|mib| mib << 20)) >> 20;
        assert_eq!([mib(None), mib(Some(128)), mib(Some(512)), mib(Some(8192))], [256, 64, 256, 256]);
        assert_eq!(history_bytes_max_within(Some(1)), 64 * 1024);
    }
}
