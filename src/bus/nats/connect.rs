//! The connection to NATS: how it is asked for, and how it comes back after a loss.

use crate::bus::settings::{BusTls, NatsSettings};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use rustls::ClientConfig;
use rustls::RootCertStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the server is asked for a sign of life; two without one are a loss.
const PING_EVERY: Duration = Duration::from_secs(3);
/// Messages that one channel's follower may be behind; what does not fit is read from the stream.
const LIVE_MESSAGES_MAX: usize = 4096;
/// Commands that wait to be written.
const COMMANDS_MAX: usize = 8192;
const BACKOFF_MS_MIN: u64 = 50;
const BACKOFF_MS_MAX: u64 = 5_000;

/// Starts to connect, and goes on trying for good; `events` hears of each change.
///
/// # Errors
/// When the settings can't be used.
pub async fn connect(settings: &NatsSettings, events: mpsc::Sender<Event>) -> Result<Client, String> {
    let scheme = if settings.tls.is_some() { "tls" } else { "nats" };
    let urls = settings.servers.iter().map(|server| format!("{scheme}://{server}").parse::<ServerAddr>());
    let servers: Vec<ServerAddr> = urls.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let spread = AtomicU32::new(std::process::id());
    let mut options = ConnectOptions::new()
        .name("pushbridge")
        .retry_on_initial_connect()
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_EVERY)
        .subscription_capacity(LIVE_MESSAGES_MAX)
        .client_capacity(COMMANDS_MAX)
        .reconnect_delay_callback(move |attempts| pause(attempts, &spread))
        .event_callback(move |event| {
            let events = events.clone();
            // Only changes of state matter, and those are looked up anew: one that does not fit is no loss.
            async move { drop(events.try_send(event)) }
        });
    if let Some(credentials) = &settings.credentials {
        let text = std::str::from_utf8(credentials.expose()).map_err(|_| "credentials_file is no text".to_owned())?;
        options = options.credentials(text).map_err(|_| {
            "credentials_file is no .creds file; take the one that `nsc generate creds` writes".to_owned()
        })?;
    }
    if let Some(tls) = &settings.tls {
        options = options.require_tls(true);
        if !tls.anchors.is_empty() {
            options = options.tls_client_config(client_config(tls)?);
        }
    }
    options.connect(servers).await.map_err(|error| error.to_string())
}

fn client_config(tls: &BusTls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for anchor in &tls.anchors {
        roots.add(anchor.clone()).map_err(|error| format!("ca_file: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Doubles from attempt to attempt; instances that lost the server together come back one after the other.
fn pause(attempts: usize, spread: &AtomicU32) -> Duration {
    let most_ms = (BACKOFF_MS_MIN << attempts.min(10)).min(BACKOFF_MS_MAX);
    let mixed = spread.fetch_add(0x9e37_79b9, Ordering::Relaxed).wrapping_mul(0x85eb_ca6b);
    let jitter_ms = u64::from(mixed >> 8) % (most_ms / 2 + 1);
    Duration::from_millis(most_ms / 2 + jitter_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let spread = AtomicU32::new(7);
        for attempts in [0, 1, 5, 20, usize::MAX] {
            let pauses: Vec<_> = (0..20).map(|_| pause(attempts, &spread).as_millis() as u64).collect();
            assert!(pauses.iter().all(|ms| (BACKOFF_MS_MIN / 2..=BACKOFF_MS_MAX).contains(ms)), "{pauses:?}");
            assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]), "{pauses:?}");
        }
        assert!(pause(20, &spread) >= Duration::from_millis(BACKOFF_MS_MAX / 2));
    }
}
