//! `pushbridge demo`: a stock-trading page with real parts, to look at and to try things on.
//!
//! ```text
//!   browser ══ h2, TLS ══▶ pushbridge ── page, orders as plain POSTs ──▶ origin (a thread, knows nothing of push)
//!                              ▲                                            │
//!                              └────────── POST /v1/events: prices ─────────┘
//! ```

pub mod folder;
pub mod market;
pub mod orders;
pub mod origin;
pub mod page;
pub mod publisher;

use crate::app::{self, Running};
use crate::config;
use crate::demo::folder::{Addresses, Folder};
use crate::demo::origin::Origin;
use crate::telemetry::log;
use anyhow::{Context as _, bail};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Runs a stock-trading page with pushbridge in front of a plain HTTP backend
///
/// The backend, a certificate for localhost and the configuration are all made at start; nothing is left behind.
/// Open the printed URL (the browser asks once whether you trust the certificate), or use the printed curl lines.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Where the page is served, over https; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Where events are published; anybody on this machine may
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5561")]
    pub publish: SocketAddr,
    /// Where metrics and probes are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub admin: SocketAddr,
}

/// The addresses that pushbridge got.
struct Started {
    listen: SocketAddr,
    publish: SocketAddr,
    admin: SocketAddr,
}

/// Runs the demo until it is interrupted.
///
/// # Errors
/// When a port is taken, or pushbridge itself can't be started.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    // All three are held until all are found free, so that one address given twice is found too.
    let free = [
        check_free(args.listen, "the page", "--listen")?,
        check_free(args.publish, "publishing", "--publish")?,
        check_free(args.admin, "metrics", "--admin")?,
    ];
    drop(free);
    let listener = TcpListener::bind("127.0.0.1:0").context("the demo's backend finds no free port")?;
    let addresses =
        Addresses { listen: args.listen, publish: args.publish, admin: args.admin, origin: listener.local_addr()? };
    let folder = Folder::make(addresses)?;
    let running = start_pushbridge(&folder.config())?;
    let started = addresses_of(&running)?;
    let origin = Origin::start(listener, started.publish)?;
    greet(&mut std::io::stdout().lock(), &started)?;
    app::signal::wait().context("can't listen for signals")?;
    running.stop();
    drop(origin);
    drop(folder);
    Ok(())
}

/// Starts pushbridge with the configuration at `config`.
fn start_pushbridge(config: &Path) -> anyhow::Result<Running> {
    let config = config::load(config).context("the demo's own configuration is broken")?;
    log::start(&config.log);
    Ok(app::start(config)?)
}

/// Where it listens.
fn addresses_of(running: &Running) -> anyhow::Result<Started> {
    let app::Addresses { listeners, publish, admin } = running.addresses();
    let (_, listen) = listeners.first().context("the demo's configuration has no listener")?;
    Ok(Started { listen: *listen, publish: *publish, admin: *admin })
}

/// Listeners share their ports between threads, and would share them with another demo too; so look first.
fn check_free(address: SocketAddr, what: &str, option: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{address} ({what}) is taken; stop what listens there (another demo?), \
             or choose another address: {option} {}:0 takes a free port",
            host(address)
        ),
        Err(error) => {
            Err(error).with_context(|| format!("{address} ({what}) can't be bound; choose another with {option}"))
        }
    }
}

fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

fn greet(out: &mut impl Write, started: &Started) -> std::io::Result<()> {
    let Started { listen, publish, admin } = started;
    writeln!(
        out,
        "The trading desk is open: https://{listen}/\n\
         (its certificate is self-signed: your browser asks once)\n\n\
         Watch a price:   curl -Nk --http2 https://{listen}/prices/ACME\n\
         Publish one:     curl http://{publish}/v1/events -H 'Content-Type: application/json' \\\n                      \
         -d '{{\"channel\":\"prices.ACME\",\"event\":\"ACME\",\"data\":{{\"symbol\":\"ACME\",\"price\":1.5,\"change\":-99}}}}'\n\n\
         Metrics are at http://{admin}/metrics. Ctrl-C ends it."
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_a_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        let error = check_free(address, "the page", "--listen").expect_err("it is taken").to_string();
        assert!(error.starts_with(&format!("{address} (the page) is taken")), "{error}");
        assert!(error.ends_with("--listen 127.0.0.1:0 takes a free port"), "{error}");
        drop(taken);
        assert!(check_free(address, "the page", "--listen").is_ok());
    }

    #[test]
    fn the_greeting_has_the_url_and_two_lines_to_try() {
        let address = |text: &str| text.parse().expect("an address");
        let started =
            Started { listen: address("127.0.0.1:1"), publish: address("127.0.0.1:2"), admin: address("127.0.0.1:3") };
        let mut out = Vec::new();
        greet(&mut out, &started).expect("written");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("https://127.0.0.1:1/\n"), "{text}");
        assert!(text.contains("curl -Nk --http2 https://127.0.0.1:1/prices/ACME\n"), "{text}");
        assert!(text.contains("curl http://127.0.0.1:2/v1/events"), "{text}");
    }
}
