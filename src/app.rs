//! The only wiring: bind, run, reload, stop.
//!
//! ```text
//! start: certificates, sockets ─▶ hub, bus ─▶ one thread a worker ─▶ Running { addresses }
//! drain: settle ─▶ spread ─▶ margin ─▶ drained (drain.rs conducts it)
//! stop:  no more accepts ─▶ what is left ends ─▶ threads end
//! ```

mod bus;
mod descriptors;
mod doors;
mod drain;
mod live;
pub mod signal;
mod worker;

use crate::admin::reload::Reloads;
use crate::bus::Bus;
use crate::bus::sequences::{Audience, Sequences};
use crate::bus::store::SessionStore;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::diff::Comparable;
use crate::config::sources::Sources;
use crate::drain::Drain;
use crate::gateway::settings::GatewaySettings;
use crate::hub::policy::ChannelPolicies;
use crate::hub::shard::EndOrder;
use crate::hub::{Hub, HubLimits};
use crate::model::session::{CloseReason, Selector};
use crate::presence::Presence;
use crate::publish::settings::PublishSettings;
use crate::reload::{self, Hangups, Reloader};
use crate::server::limits::{ConnectionCount, ServerLimits};
use crate::server::tls::TlsError;
use crate::telemetry::log::LogLevel;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;
use arc_swap::ArcSwap;
use bus::Engine;
use doors::{Doors, Plan, Role};
use live::{CloseRoute, Live};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long the bus has to say good-bye.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// How long sessions have to end cleanly where there was no drain.
const STOP_WAIT: Duration = Duration::from_secs(3);

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
    /// SIGHUP can't be heard.
    #[error("can't listen for SIGHUP: {0}")]
    Signal(io::Error),
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
    drain: Drain,
    bus: Arc<dyn Bus>,
    presence: Arc<Presence>,
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
}

/// What all workers share.
struct Shared {
    hub: Arc<Hub>,
    bus: Arc<dyn Bus>,
    presence: Arc<Presence>,
    sessions: Arc<dyn SessionStore>,
    sequences: Arc<Sequences>,
    gateway: Arc<ArcSwap<GatewaySettings>>,
    policies: Arc<ArcSwap<ChannelPolicies>>,
    publish: Arc<ArcSwap<PublishSettings>>,
    limits: Arc<ArcSwap<ServerLimits>>,
    clients: Arc<ConnectionCount>,
    private: Arc<ConnectionCount>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    drain: Drain,
    shown_config: Arc<ArcSwap<String>>,
    reloads: Reloads,
    doors: watch::Receiver<Doors>,
}

/// The files that a running instance follows.
#[derive(Debug)]
pub struct Followed {
    /// The configuration's file.
    pub path: PathBuf,
    /// What was read when it was loaded.
    pub sources: Sources,
    /// The level of the log that was started as the configuration says.
    pub log_level: LogLevel,
}

/// Binds every listener, then starts the workers. Nothing is left behind when it fails.
///
/// # Errors
/// What could not be bound or read.
pub fn start(config: Config) -> Result<Running, StartError> {
    launch(config, None)
}

/// As [`start`], and follows the configuration's files: what changes in them is reloaded.
///
/// # Errors
/// What could not be bound or read.
pub fn start_followed(config: Config, followed: Followed) -> Result<Running, StartError> {
    launch(config, Some(followed))
}

fn launch(config: Config, followed: Option<Followed>) -> Result<Running, StartError> {
    let workers = config.workers.get();
    let readiness = Readiness::new();
    let latch = readiness.latch("starting");
    descriptors::claim(config.limits.connections_max);
    let plan = Plan::make(&config, &[], workers)?;
    let metrics = Metrics::new();
    live::declare(&metrics, &config);
    metrics.set_connections_by_worker(std::iter::repeat_n(0, workers));
    let hangups = followed.as_ref().map(|_| Hangups::hear()).transpose().map_err(StartError::Signal)?;
    let (comparable, hash, log) = (Comparable::of(&config), config.hash.clone(), config.log.clone());
    let (doors, _) = watch::channel(plan.commit());
    let addresses = Addresses::of(&doors.borrow());
    let (reloads, requests) = Reloads::new();
    let shared = share(config, Arc::clone(&metrics), readiness, reloads, doors.subscribe())?;
    let (stop, stopped) = watch::channel(None);
    let (drain, bus, presence) = (shared.drain.clone(), Arc::clone(&shared.bus), Arc::clone(&shared.presence));
    let mut running = Running { addresses, drain, bus, presence, stop, threads: Vec::new() };
    for index in 0..workers {
        let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
        running.spawn(format!("worker-{index}"), move || worker::run(index, &shared, stopped))?;
    }
    if let (Some(Followed { path, sources, log_level }), Some(hangups)) = (followed, hangups) {
        let live = Live { close_route: close_route(&shared), shared, doors, log: (log_level, log) };
        let reloader = Reloader::new(path, reload::Running { comparable, hash, sources }, live, metrics);
        // Not waited for at the end: it reads files, and a network file system may hold it for ever.
        let run = move || reload::run(reloader, hangups, requests, stopped);
        std::thread::Builder::new().name("reload".to_owned()).spawn(run).map_err(StartError::Thread)?;
    }
    // Said to be ready once the bus is there as well.
    drop(latch);
    Ok(running)
}

/// What all workers share.
fn share(
    config: Config,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    reloads: Reloads,
    doors: watch::Receiver<Doors>,
) -> Result<Arc<Shared>, StartError> {
    let shown_config = Arc::new(ArcSwap::from_pointee(config.to_masked_json()));
    let policies = Arc::new(ArcSwap::from_pointee(config.channels));
    let hub_limits = HubLimits {
        channels_max: config.hub_limits.channels_max,
        history_bytes_max: config.hub_limits.history_bytes_max,
    };
    let workers = config.workers.get();
    let hub = Hub::new(workers, Clock::start(), hub_limits, Arc::clone(&policies));
    let window = config.publish.idempotency_window;
    let around = bus::Around { hub: &hub, metrics: &metrics, readiness: &readiness, window, sessions: config.sessions };
    let audience = if config.bus.is_shared() { Audience::Everywhere } else { Audience::Here };
    let Engine { bus, sessions } = bus::make(config.bus, &around)?;
    let presence = Presence::start(Arc::clone(&bus), Arc::clone(&hub), Arc::clone(metrics.presence()));
    let presence = presence.map_err(StartError::Thread)?;
    let sequences = Sequences::new(Arc::clone(&hub), audience);
    sequences.set_id_cache(config.gateway.id_cache());
    Ok(Arc::new(Shared {
        hub,
        bus,
        presence,
        sessions,
        sequences,
        gateway: Arc::new(ArcSwap::from_pointee(config.gateway)),
        policies,
        publish: Arc::new(ArcSwap::from_pointee(config.publish)),
        limits: Arc::new(ArcSwap::from_pointee(config.limits)),
        clients: ConnectionCount::new(workers),
        private: ConnectionCount::new(workers),
        metrics,
        readiness,
        drain: Drain::new(config.drain),
        shown_config,
        reloads,
        doors,
    }))
}

/// Ends the sessions of a removed route, each at its own moment in what would be a drain's spread.
fn close_route(shared: &Arc<Shared>) -> CloseRoute {
    let (hub, drain) = (Arc::clone(&shared.hub), shared.drain.clone());
    Box::new(move |route| {
        let order = EndOrder {
            selector: Selector::Route(route.into()),
            reason: CloseReason::RouteRemoved,
            window_us: drain.settings().spread.as_micros() as u64,
            seed: crate::drain::seed(),
        };
        hub.end_sessions(&order, &(Arc::new(|_| ()) as _));
    })
}

impl Addresses {
    fn of(doors: &Doors) -> Self {
        let of = |role: Role| doors.iter().filter(move |door| door.role == role);
        let one = |role: Role| of(role).next().map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |door| door.address);
        Self {
            listeners: of(Role::Clients).map(|door| (door.name(), door.address)).collect(),
            publish: one(Role::Publish),
            admin: one(Role::Admin),
        }
    }
}

impl Running {
    /// Where it listened when it started; ports that were 0 are the real ones.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The handle by which its drain is begun and watched.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Stops after a drain: requests in flight are waited for as long as the drain allows.
    pub fn leave(mut self) {
        let by = self.drain.leave_by();
        self.halt(by);
    }

    /// Stops without a drain: no more accepts, every session is asked to end, and has a moment to do so.
    pub fn stop(self) {
        drop(self);
    }

    fn halt(&mut self, by: Instant) {
        let _ = self.stop.send(Some(by));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        self.presence.shutdown(FAREWELL_WAIT);
        self.bus.shutdown(FAREWELL_WAIT);
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name(name).spawn(run).map_err(StartError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.halt(Instant::now() + STOP_WAIT);
    }
}
