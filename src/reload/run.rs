//! The task that waits for reasons to reload, on a thread of its own: it reads files, which may block.

use super::watch::{Followed, Watch};
use super::{Outcome, Reloader, Target, Trigger};
use crate::admin::reload::{ReloadAnswer, ReloadRequest};
use crate::config::sources::Sources;
use crate::telemetry::metrics::ReloadResult;
use std::io;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

/// A file counts as written once nothing happened for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Where something happens all the time, it is looked at after this long.
const UNQUIET_MAX: Duration = Duration::from_secs(1);
/// Changes that nobody hears of (network file systems, folders that did not exist) are found by looking.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Hears SIGHUP, which from its making on no longer ends the process; and the runtime to wait in.
#[derive(Debug)]
pub struct Hangups {
    runtime: Runtime,
    signal: Signal,
}

impl Hangups {
    /// Begins to hear.
    ///
    /// # Errors
    /// When signals can't be heard.
    pub fn hear() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let signal = signal(SignalKind::hangup())?;
        drop(inside);
        Ok(Self { runtime, signal })
    }
}

/// Reloads for every reason there is, until `stopped`. Blocks the thread.
pub fn run<T: Target>(
    reloader: Reloader<T>,
    hangups: Hangups,
    requests: mpsc::Receiver<ReloadRequest>,
    stopped: watch::Receiver<Option<Instant>>,
) {
    let Hangups { runtime, signal } = hangups;
    runtime.block_on(wait(reloader, signal, requests, stopped));
}

async fn wait<T: Target>(
    mut reloader: Reloader<T>,
    mut hangups: Signal,
    mut requests: mpsc::Receiver<ReloadRequest>,
    mut stopped: watch::Receiver<Option<Instant>>,
) {
    let (mut watch, mut changes) = Watch::new();
    let mut polls = interval_at(Instant::now() + POLL_INTERVAL, POLL_INTERVAL);
    let mut unrest = Unrest::default();
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if watch.follow(&reloader.sources().folders()) == Followed::Anew {
            reloader.look(Trigger::Files);
        }
        tokio::select! {
            _ = stopped.wait_for(Option::is_some) => return,
            Some(request) = requests.recv() => {
                let outcome = reloader.reload(Trigger::Request);
                // Whoever asked may be gone.
                let _ = request.answer.send(answer(&outcome, reloader.hash()));
            }
            Some(()) = hangups.recv() => drop(reloader.reload(Trigger::Signal)),
            Some(()) = changes.recv() => unrest.go_on(Instant::now(), Volume::of(reloader.sources())),
            () = sleep_until(unrest.over.unwrap_or_else(Instant::now)), if unrest.over.is_some() => {
                unrest = Unrest::default();
                reloader.look(Trigger::Files);
            }
            _ = polls.tick() => reloader.look(Trigger::Poll),
        }
    }
}

/// A time in which files are written; who asks for a reload does not wait for its end.
#[derive(Debug, Default)]
struct Unrest {
    /// When it began.
    since: Option<Instant>,
    /// When it counts as over.
    over: Option<Instant>,
}

impl Unrest {
    /// Something happened.
    fn go_on(&mut self, now: Instant, volume: Volume) {
        let since = *self.since.get_or_insert(now);
        self.over = Some(match volume {
            Volume::Swapped => now,
            Volume::Same => (now + QUIET).min(since + UNQUIET_MAX),
        });
    }
}

/// Whether a volume is another than was read. One is swapped at once: there is nothing to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Volume {
    Swapped,
    Same,
}

impl Volume {
    fn of(sources: &Sources) -> Self {
        if sources.is_torn() { Self::Swapped } else { Self::Same }
    }
}

fn answer(outcome: &Outcome, hash: &str) -> ReloadAnswer {
    let hash = hash.to_owned();
    match outcome {
        Outcome::Applied(diff) => {
            ReloadAnswer::Runs { result: ReloadResult::Applied.as_str(), hash, changes: diff.to_json() }
        }
        Outcome::Unchanged => ReloadAnswer::Runs {
            result: ReloadResult::Unchanged.as_str(),
            hash,
            changes: serde_json::Value::Array(Vec::new()),
        },
        Outcome::Refused(problems) => ReloadAnswer::Refused { problems: problems.lines().collect() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unrest_is_over_after_a_pause_and_does_not_last_for_ever() {
        let start = Instant::now();
        let mut unrest = Unrest::default();
        unrest.go_on(start, Volume::Same);
        assert_eq!(unrest.over, Some(start + QUIET));
        let later = start + UNQUIET_MAX - QUIET / 2;
        unrest.go_on(later, Volume::Same);
        assert_eq!(unrest.over, Some(start + UNQUIET_MAX));
        unrest.go_on(later, Volume::Swapped);
        assert_eq!(unrest.over, Some(later));
    }
}
