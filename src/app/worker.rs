//! One worker: a thread with a runtime of its own, its part of the hub, and its sockets.

use crate::admin::{self, AdminHandler};
use crate::app::doors::{self, Role};
use crate::app::{Shared, drain};
use crate::drain::{Drain, Phase};
use crate::gateway::{self, Gateway};
use crate::hub::shard::{EndOrder, Shard};
use crate::hub::wheel::TICK_MS;
use crate::model::session::{CloseReason, Selector};
use crate::publish::PublishHandler;
use crate::server::Handler;
use crate::server::connection::Server;
use crate::server::fan_out::FanOut;
use crate::server::limits::{Leave, ServerLimits};
use crate::telemetry::access;
use crate::telemetry::metrics::WorkerMetrics;
use crate::upstream::Upstreams;
use arc_swap::ArcSwap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::Instant;

/// How long connections have to send their last bytes once nothing is under way any more.
const LINGER: Duration = Duration::from_millis(500);
/// How often a worker that stops looks whether something is still under way.
const LOOK: Duration = Duration::from_millis(5);

/// Runs worker number `index` until `stopped` says by when to be done.
pub fn run(index: usize, shared: &Arc<Shared>, stopped: watch::Receiver<Option<Instant>>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, worker = index, "no runtime"),
    };
    runtime.block_on(work(index, Arc::clone(shared), stopped));
}

async fn work(index: usize, shared: Arc<Shared>, mut stopped: watch::Receiver<Option<Instant>>) {
    let shard = Shard::new(&shared.hub, index);
    let metrics = shared.metrics.worker();
    spawn_local(pump(Rc::clone(&shard), Rc::clone(&metrics)));
    spawn_local(tick(index, Arc::clone(&shared), Rc::clone(&shard), Rc::clone(&metrics)));
    let leaves = Rc::new(Leaves::default());
    spawn_local(follow(shared.drain.clone(), Rc::clone(&leaves)));
    if index == 0 {
        spawn_local(drain::conduct(Arc::clone(&shared)));
    }
    let servers = Servers::new(index, &shared, &shard, &metrics, &leaves);
    let gateway = Arc::clone(&shared.gateway);
    let upstreams = Rc::clone(&servers.upstreams);
    let doors = spawn_local(doors::keep(
        index,
        move |role| Rc::clone(servers.of(role)),
        shared.doors.clone(),
        move || upstreams.keep_only(&gateway.load().upstreams),
    ));
    let by = stopped.wait_for(Option::is_some).await.ok().and_then(|by| *by).unwrap_or_else(Instant::now);
    doors.abort();
    leaves.set(Leave::Now);
    let all = EndOrder { selector: Selector::All, reason: CloseReason::Drain, window_us: 0, seed: 0 };
    shard.end_sessions(&all);
    let under_way = || shard.sessions() + shared.clients.requests() + shared.private.requests();
    if tokio::time::timeout_at(by, until_none(under_way)).await.is_err() && under_way() > 0 {
        tracing::warn!(worker = index, sessions = shard.sessions(), "what was under way is cut off");
        shard.cut_sessions();
    }
    // What the last answers and ends left to be written.
    let _ = tokio::time::timeout(LINGER, until_none(|| shared.clients.open() + shared.private.open())).await;
    metrics.flush();
    access::flush();
}

async fn until_none(mut count: impl FnMut() -> usize) {
    while count() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the clients of a worker's listeners are asked to go.
struct Leaves {
    clients: watch::Sender<Leave>,
    private: watch::Sender<Leave>,
}

impl Default for Leaves {
    fn default() -> Self {
        Self { clients: watch::Sender::new(Leave::Stay), private: watch::Sender::new(Leave::Stay) }
    }
}

impl Leaves {
    fn set(&self, leave: Leave) {
        self.clients.send_replace(leave);
        self.private.send_replace(leave);
    }
}

/// Asks clients to go while there is a drain. Backends and operators stay: they are needed until the end.
async fn follow(drain: Drain, leaves: Rc<Leaves>) {
    let mut state = drain.watch();
    loop {
        let phase = state.borrow_and_update().phase;
        let leave = if phase == Phase::Serving { Leave::Stay } else { Leave::AfterAnswer };
        leaves.clients.send_if_modified(|known| {
            // Once it is Now, it stays so.
            let changes = *known != Leave::Now && *known != leave;
            if changes {
                *known = leave;
            }
            changes
        });
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// The servers of a worker, by who answers.
struct Servers {
    upstreams: Rc<Upstreams>,
    clients: Rc<Server>,
    publish: Rc<Server>,
    admin: Rc<Server>,
}

impl Servers {
    fn new(
        index: usize,
        shared: &Arc<Shared>,
        shard: &Rc<Shard>,
        metrics: &Rc<WorkerMetrics>,
        leaves: &Leaves,
    ) -> Self {
        let upstreams = Rc::new(Upstreams::new(Rc::clone(metrics)));
        let gateway = Gateway::new(gateway::Parts {
            settings: Arc::clone(&shared.gateway),
            policies: Arc::clone(&shared.policies),
            shard: Rc::clone(shard),
            bus: Arc::clone(&shared.bus),
            sessions: Arc::clone(&shared.sessions),
            upstreams: Rc::clone(&upstreams),
            metrics: Rc::clone(metrics),
            drain: shared.drain.clone(),
        });
        let publish = PublishHandler::new(
            Arc::clone(&shared.publish),
            Arc::clone(&shared.policies),
            Arc::clone(&shared.bus),
            Arc::clone(&shared.sequences),
            Arc::clone(&shared.presence),
            Rc::clone(metrics),
        );
        let admin = AdminHandler::new(admin::Parts {
            metrics: Arc::clone(&shared.metrics),
            readiness: shared.readiness.clone(),
            config: Arc::clone(&shared.shown_config),
            drain: shared.drain.clone(),
            hub: Arc::clone(&shared.hub),
            reloads: shared.reloads.clone(),
        });
        let private = Arc::new(ArcSwap::from_pointee(private_limits()));
        let server =
            |handler: Rc<dyn Handler>, limits: &Arc<ArcSwap<ServerLimits>>, count, leave: &watch::Sender<Leave>| {
                Rc::new(Server {
                    worker: index,
                    handler,
                    limits: Arc::clone(limits),
                    count: Arc::clone(count),
                    leave: leave.subscribe(),
                    metrics: Rc::clone(metrics),
                })
            };
        Self {
            upstreams,
            clients: server(Rc::new(gateway), &shared.limits, &shared.clients, &leaves.clients),
            publish: server(Rc::new(publish), &private, &shared.private, &leaves.private),
            admin: server(Rc::new(admin), &private, &shared.private, &leaves.private),
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

/// Brings what was published to this worker's sessions, and ends those whose moment has come.
async fn pump(shard: Rc<Shard>, metrics: Rc<WorkerMetrics>) {
    let clock = shard.clock();
    let mut fan_out = FanOut::new(Rc::clone(&shard), Rc::clone(&metrics));
    let mut next_end = pin!(tokio::time::sleep(Duration::ZERO));
    loop {
        // Ready when it has had its turn.
        poll_fn(|cx| {
            loop {
                let lag = |published_us| metrics.fanned_out(clock.now_us().saturating_sub(published_us));
                let pumped = shard.poll_pump(cx, lag, &mut fan_out);
                if pumped.is_pending() {
                    fan_out.forget();
                }
                let Some(at_us) = shard.end_due() else { return pumped };
                let wait = Duration::from_micros(at_us.saturating_sub(clock.now_us()));
                next_end.as_mut().reset(Instant::now() + wait);
                if next_end.as_mut().poll(cx).is_pending() {
                    return pumped;
                }
            }
        })
        .await;
        // The runtime looks at its sockets in between, too.
        tokio::task::yield_now().await;
    }
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
        access::flush();
        if index == 0 {
            // A quarter of the partitions at each tick: all of them once a second.
            for _ in 0..shared.hub.partitions() / 4 {
                shared.hub.sweep(turn);
                turn += 1;
            }
            shared.metrics.set_connections_max(shared.limits.load().connections_max as u64);
            let clients = &shared.clients;
            let by_worker = (0..shared.hub.workers()).map(|worker| clients.open_at(worker) as u64);
            shared.metrics.set_connections_by_worker(by_worker);
            let figures = shared.hub.figures();
            shared.metrics.set_hub(figures.channels as u64, figures.history_bytes as u64, figures.messages as u64);
        }
    }
}
