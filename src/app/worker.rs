//! One worker: a thread with a runtime of its own, its part of the hub, and its sockets.

use crate::admin::AdminHandler;
use crate::app::Shared;
use crate::gateway::{self, Gateway};
use crate::hub::shard::Shard;
use crate::hub::wheel::TICK_MS;
use crate::model::session::CloseReason;
use crate::publish::PublishHandler;
use crate::server::Handler;
use crate::server::connection::Server;
use crate::server::limits::ServerLimits;
use crate::server::listener::{self, ListenerSettings};
use crate::telemetry::metrics::WorkerMetrics;
use crate::upstream::Upstreams;
use arc_swap::ArcSwap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

/// How long sessions have to end cleanly once the process stops.
const STOP_MS_MAX: u64 = 3000;

/// A bound socket and who answers behind it.
pub struct Door {
    pub settings: ListenerSettings,
    pub tls: Option<TlsAcceptor>,
    pub socket: std::net::TcpListener,
    pub role: Role,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Clients,
    Publish,
    Admin,
}

/// Runs worker number `index` until `stopped`.
pub fn run(index: usize, shared: &Arc<Shared>, doors: Vec<Door>, stopped: watch::Receiver<bool>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, worker = index, "no runtime"),
    };
    runtime.block_on(work(index, Arc::clone(shared), doors, stopped));
}

async fn work(index: usize, shared: Arc<Shared>, doors: Vec<Door>, mut stopped: watch::Receiver<bool>) {
    let shard = Shard::new(&shared.hub, index);
    let metrics = shared.metrics.worker();
    spawn_local(pump(Rc::clone(&shard), Rc::clone(&metrics)));
    spawn_local(tick(index, Arc::clone(&shared), Rc::clone(&shard), Rc::clone(&metrics)));
    let servers = Servers::new(&shared, &shard, &metrics);
    let mut accepts = Vec::new();
    for Door { settings, tls, socket, role } in doors {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => {
                let server = Rc::clone(servers.of(role));
                accepts.push(spawn_local(listener::accept(server, settings, tls, socket)));
            }
            Err(error) => tracing::error!(%error, listener = %settings.name, "can't listen"),
        }
    }
    let _ = stopped.wait_for(|stop| *stop).await;
    accepts.iter().for_each(tokio::task::JoinHandle::abort);
    shard.end_all(CloseReason::Drain);
    let patience = tokio::time::timeout(Duration::from_millis(STOP_MS_MAX), async {
        while shard.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    if patience.await.is_err() {
        tracing::warn!(worker = index, sessions = shard.sessions(), "sessions were cut off");
    }
    metrics.flush();
}

/// The servers of a worker, by who answers.
struct Servers {
    clients: Rc<Server>,
    publish: Rc<Server>,
    admin: Rc<Server>,
}

impl Servers {
    fn new(shared: &Arc<Shared>, shard: &Rc<Shard>, metrics: &Rc<WorkerMetrics>) -> Self {
        let gateway = Gateway::new(gateway::Parts {
            settings: Arc::clone(&shared.gateway),
            policies: Arc::clone(&shared.policies),
            shard: Rc::clone(shard),
            bus: Arc::clone(&shared.bus),
            upstreams: Rc::new(Upstreams::new(Rc::clone(metrics))),
            metrics: Rc::clone(metrics),
            access: shared.access,
        });
        let publish = PublishHandler::new(
            Arc::clone(&shared.publish),
            Arc::clone(&shared.policies),
            Arc::clone(&shared.bus),
            Arc::clone(&shared.sequences),
            Rc::clone(metrics),
        );
        let admin =
            AdminHandler::new(Arc::clone(&shared.metrics), shared.readiness.clone(), Arc::clone(&shared.shown_config));
        let private = Arc::new(ArcSwap::from_pointee(private_limits()));
        let server = |handler: Rc<dyn Handler>, limits: &Arc<ArcSwap<ServerLimits>>, count| {
            Rc::new(Server {
                handler,
                limits: Arc::clone(limits),
                count: Arc::clone(count),
                metrics: Rc::clone(metrics),
            })
        };
        Self {
            clients: server(Rc::new(gateway), &shared.limits, &shared.clients),
            publish: server(Rc::new(publish), &private, &shared.private),
            admin: server(Rc::new(admin), &private, &shared.private),
        }
    }

    fn of(&self, role: Role) -> &Rc<Server> {
        match role {
            Role::Clients => &self.clients,
            Role::Publish => &self.publish,
            Role::Admin => &self.admin,
        }
    }
}

/// The private listeners have places of their own, so that clients can't take them; a backend may use many.
fn private_limits() -> ServerLimits {
    ServerLimits { connections_max: 10_000, connections_per_ip_max: 10_000, ..ServerLimits::default() }
}

/// Brings what was published to this worker's sessions.
async fn pump(shard: Rc<Shard>, metrics: Rc<WorkerMetrics>) {
    poll_fn(|cx| {
        let clock = shard.clock();
        shard.poll_pump(cx, |published_us| metrics.fanned_out(clock.now_us().saturating_sub(published_us)))
    })
    .await;
}

/// Keeps the time of the shard, flushes the worker's metrics; the first worker looks after the hub as well.
async fn tick(index: usize, shared: Arc<Shared>, shard: Rc<Shard>, metrics: Rc<WorkerMetrics>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn = 0;
    loop {
        ticks.tick().await;
        shard.tick();
        metrics.flush();
        if index == 0 {
            // A quarter of the partitions at each tick: all of them once a second.
            for _ in 0..shared.hub.partitions() / 4 {
                shared.hub.sweep(turn);
                turn += 1;
            }
            let figures = shared.hub.figures();
            shared.metrics.set_hub(figures.channels as u64, figures.history_bytes as u64, figures.messages as u64);
        }
    }
}
