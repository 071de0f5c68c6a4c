//! The only wiring: bind, run, stop.
//!
//! ```text
//! start: certificates, sockets ─▶ hub, bus ─▶ one thread a worker ─▶ Running { addresses }
//! stop:  no more accepts ─▶ sessions are asked to end ─▶ threads end
//! ```

pub mod signal;
mod worker;

use crate::bus::Bus;
use crate::bus::memory::MemoryBus;
use crate::bus::sequences::Sequences;
use crate::config::Config;
use crate::gateway::settings::GatewaySettings;
use crate::hub::clock::Clock;
use crate::hub::policy::ChannelPolicies;
use crate::hub::{Hub, HubLimits};
use crate::publish::settings::PublishSettings;
use crate::server::limits::{ConnectionCount, ServerLimits};
use crate::server::listener::{self, ListenerSettings, Protocol, Protocols};
use crate::server::tls::{self, TlsError};
use crate::telemetry::log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;
use arc_swap::ArcSwap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use worker::{Door, Role};

/// Why the program can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener can't bind.
    #[error("{what}: can't listen on {address}: {reason}; {remedy}")]
    Bind {
        /// Which listener.
        what: String,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        reason: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A listener's TLS can't be set up.
    #[error("listener {listener}: {reason}")]
    Tls {
        /// Which listener.
        listener: Arc<str>,
        /// What is wrong.
        reason: Box<TlsError>,
    },
    /// The system gives no thread.
    #[error("can't start a worker thread: {0}")]
    Thread(io::Error),
}

/// Where a running instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The listeners by name, in their order.
    pub listeners: Vec<(Arc<str>, SocketAddr)>,
    /// Where backends publish.
    pub publish: SocketAddr,
    /// Metrics and probes.
    pub admin: SocketAddr,
}

/// A running instance.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// What all workers share.
struct Shared {
    hub: Arc<Hub>,
    bus: Arc<dyn Bus>,
    sequences: Arc<Sequences>,
    gateway: Arc<ArcSwap<GatewaySettings>>,
    policies: Arc<ArcSwap<ChannelPolicies>>,
    publish: Arc<ArcSwap<PublishSettings>>,
    limits: Arc<ArcSwap<ServerLimits>>,
    clients: Arc<ConnectionCount>,
    private: Arc<ConnectionCount>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    shown_config: Arc<ArcSwap<String>>,
    access: AccessLog,
}

/// Binds every listener, then starts the workers. Nothing is left behind when it fails.
///
/// # Errors
/// What could not be bound or read.
pub fn start(config: Config) -> Result<Running, StartError> {
    let workers = config.workers.get();
    let readiness = Readiness::new();
    let latch = readiness.latch("starting");
    let (doors, addresses) = open_doors(&config, workers)?;
    let metrics = Metrics::new();
    for settings in &config.listeners {
        metrics.declare_listener(&settings.name);
    }
    config.gateway.routes.iter().for_each(|route| metrics.declare_route(&route.name));
    config.gateway.upstreams.iter().for_each(|upstream| metrics.declare_upstream(&upstream.name));
    let shown_config = Arc::new(ArcSwap::from_pointee(config.to_masked_json()));
    let policies = Arc::new(ArcSwap::from_pointee(config.channels));
    let hub_limits = HubLimits {
        channels_max: config.hub_limits.channels_max,
        history_bytes_max: config.hub_limits.history_bytes_max,
    };
    let hub = Hub::new(workers, Clock::start(), hub_limits, Arc::clone(&policies));
    let bus = Arc::new(MemoryBus::new(Arc::clone(&hub), config.publish.idempotency_window));
    let sequences = Sequences::new(Arc::clone(&hub));
    let caches = config.gateway.upstreams.iter().filter_map(|upstream| Some(upstream.grip.as_ref()?.id_cache));
    if let Some(id_cache) = caches.max() {
        sequences.set_id_cache(id_cache);
    }
    let shared = Arc::new(Shared {
        hub,
        bus,
        sequences,
        gateway: Arc::new(ArcSwap::from_pointee(config.gateway)),
        policies,
        publish: Arc::new(ArcSwap::from_pointee(config.publish)),
        limits: Arc::new(ArcSwap::from_pointee(config.limits)),
        clients: Arc::default(),
        private: Arc::default(),
        metrics,
        readiness,
        shown_config,
        access: config.log.access_log,
    });
    let (stop, stopped) = watch::channel(false);
    let mut running = Running { addresses, stop, threads: Vec::new() };
    for (index, doors) in doors.into_iter().enumerate() {
        let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || worker::run(index, &shared, doors, stopped))
            .map_err(StartError::Thread)?;
        running.threads.push(thread);
    }
    drop(latch);
    running.announce();
    Ok(running)
}

impl Running {
    /// Where it listens; ports that were 0 are the real ones.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Stops accepting, asks every session to end, and waits until the workers are done.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }

    fn announce(&self) {
        for (name, address) in &self.addresses.listeners {
            tracing::info!(listener = %name, %address, "listening");
        }
        tracing::info!(listener = "publish", address = %self.addresses.publish, "listening");
        tracing::info!(listener = "admin", address = %self.addresses.admin, "listening");
        tracing::info!("ready");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Binds all listeners: for each worker its sockets, and the addresses they have.
fn open_doors(config: &Config, workers: usize) -> Result<(Vec<Vec<Door>>, Addresses), StartError> {
    let mut doors: Vec<Vec<Door>> = (0..workers).map(|_| Vec::new()).collect();
    let mut listeners = Vec::new();
    for settings in &config.listeners {
        let tls = match &settings.tls {
            None => None,
            Some(tls) => Some(tls::acceptor(tls, &settings.protocols).map_err(|reason| StartError::Tls {
                listener: Arc::clone(&settings.name),
                reason: Box::new(reason),
            })?),
        };
        let address = open(&mut doors, settings, tls, Role::Clients)?;
        listeners.push((Arc::clone(&settings.name), address));
    }
    let publish = open(&mut doors, &private("publish", config.publish.address), None, Role::Publish)?;
    let admin = open(&mut doors, &private("admin", config.admin), None, Role::Admin)?;
    Ok((doors, Addresses { listeners, publish, admin }))
}

fn open(
    doors: &mut [Vec<Door>],
    settings: &ListenerSettings,
    tls: Option<TlsAcceptor>,
    role: Role,
) -> Result<SocketAddr, StartError> {
    let failed = |reason: io::Error| StartError::Bind {
        what: format!("listener {}", settings.name),
        address: settings.address,
        remedy: match reason.kind() {
            io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another port",
            io::ErrorKind::PermissionDenied => "choose a port from 1024 on, or allow the process to bind lower ones",
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: use 0.0.0.0, [::] or one of its own",
            _ => "check the address",
        },
        reason,
    };
    let sockets = listener::bind(settings.address, doors.len()).map_err(&failed)?;
    let mut address = settings.address;
    for (doors, socket) in doors.iter_mut().zip(sockets) {
        address = socket.local_addr().map_err(&failed)?;
        doors.push(Door { settings: settings.clone(), tls: tls.clone(), socket, role });
    }
    Ok(address)
}

/// A listener that is not for clients: cleartext HTTP/1.1 and HTTP/2.
fn private(name: &str, address: SocketAddr) -> ListenerSettings {
    ListenerSettings {
        name: name.into(),
        address,
        protocols: Protocols(vec![Protocol::H2, Protocol::Http1]),
        trusted_proxies: Vec::new(),
        tls: None,
    }
}
