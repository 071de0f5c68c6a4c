//! Conducts a drain: what each phase means to sessions, probes, metrics and the log.

use crate::app::Shared;
use crate::drain::{self, Drain, FailReadiness, Phase, Selector};
use crate::hub::shard::EndOrder;
use crate::model::session::{CloseReason, SessionKind, Transport};
use crate::telemetry::readiness::Draining;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How often it is looked whether somebody is left.
const LOOK: Duration = Duration::from_millis(20);
/// How long workers have to tell what they cut.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// Conducts drains for as long as the process lives; one task of the whole process.
pub async fn conduct(shared: Arc<Shared>) {
    let mut state = shared.drain.watch();
    while state.wait_for(|state| state.phase != Phase::Serving).await.is_ok() {
        let mut conductor = Conductor { shared: &shared, began: Instant::now(), draining: None };
        if conductor.run(&shared.drain).await == Phase::Drained {
            shared.drain.close();
            // What the drain holds, the failing readiness above all, it holds until the end.
            std::future::pending::<()>().await;
        }
    }
}

struct Conductor<'a> {
    shared: &'a Shared,
    began: Instant,
    draining: Option<Draining>,
}

impl Conductor<'_> {
    /// Goes through the phases; the one in which it ends: drained, or serving again.
    async fn run(&mut self, drain: &Drain) -> Phase {
        let mut state = drain.watch();
        // A drain always settles first, if only for a moment.
        let mut phase = Phase::Settle;
        self.settle(drain);
        loop {
            let left = self.shared.hub.sessions();
            let next = drain.advance(left);
            if next != phase {
                phase = next;
                self.enter(phase, drain, left).await;
            }
            let is_over = matches!(phase, Phase::Serving | Phase::Drained);
            self.shared.metrics.set_drain(phase, if is_over { 0 } else { left }, self.began.elapsed());
            if is_over {
                return phase;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = state.changed() => {}
            }
        }
    }

    async fn enter(&mut self, phase: Phase, drain: &Drain, left: usize) {
        match phase {
            Phase::Serving => {
                self.draining = None;
                tracing::info!(sessions = left, "drain was taken back");
            }
            Phase::Settle => {}
            Phase::Spread => {
                self.fail_readiness();
                let spread = drain.settings().spread;
                tracing::info!(sessions = left, spread_ms = ms(spread), "drain: sessions end");
                self.end(Selector::All, spread);
            }
            Phase::Margin => tracing::info!(sessions = left, "drain: waiting for the last"),
            Phase::Drained => {
                // A second signal may come before sessions were ever asked.
                self.fail_readiness();
                let forced = if left > 0 { self.cut().await } else { 0 };
                let duration_ms = ms(self.began.elapsed());
                let requests = self.shared.clients.requests();
                tracing::info!(forced, requests, duration_ms, "drained");
            }
        }
    }

    fn settle(&mut self, drain: &Drain) {
        let settings = drain.settings();
        if settings.fail_readiness == FailReadiness::AtStart {
            self.fail_readiness();
        }
        tracing::info!(
            sessions = self.shared.hub.sessions(),
            settle_ms = ms(settings.settle),
            spread_ms = ms(settings.spread),
            margin_ms = ms(settings.margin),
            "drain begins"
        );
        self.end(Selector::Kind(SessionKind::Push(Transport::LongPoll)), Duration::ZERO);
    }

    fn fail_readiness(&mut self) {
        self.draining.get_or_insert_with(|| self.shared.readiness.drain());
    }

    fn end(&self, selector: Selector, window: Duration) {
        let window_us = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        let order = EndOrder { selector, reason: CloseReason::Drain, window_us, seed: drain::seed() };
        self.shared.hub.end_sessions(&order, &(Arc::new(|_| ()) as _));
    }

    /// Cuts what is left, and counts it; how many there were.
    async fn cut(&self) -> usize {
        #[derive(Default)]
        struct Told {
            workers: usize,
            sessions: [usize; SessionKind::ALL.len()],
        }
        let told = Arc::new((Mutex::new(Told::default()), Notify::new()));
        let tell = Arc::clone(&told);
        let counted = move |sessions: [usize; SessionKind::ALL.len()]| {
            let mut told = tell.0.lock();
            told.workers += 1;
            told.sessions.iter_mut().zip(sessions).for_each(|(sum, of_worker)| *sum += of_worker);
            drop(told);
            tell.1.notify_one();
        };
        self.shared.hub.cut_sessions(&(Arc::new(counted) as _));
        let all = async {
            while told.0.lock().workers < self.shared.hub.workers() {
                told.1.notified().await;
            }
        };
        let _ = timeout(CUT_WAIT, all).await;
        let sessions = told.0.lock().sessions;
        for (kind, count) in SessionKind::ALL.into_iter().zip(sessions) {
            self.shared.metrics.drain_forced(kind, count);
            if count > 0 {
                tracing::warn!(transport = kind.as_str(), sessions = count, "sessions were cut");
            }
        }
        sessions.iter().sum()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
