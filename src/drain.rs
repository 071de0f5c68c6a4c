//! The end of an instance that drops nobody: when which phase begins, and who may change that.
//!
//! ```text
//!  Serving ──request, signal──▶ Settle ──▶ Spread ──▶ Margin ──▶ Drained ──▶ (a signal came) exit
//!     ▲                           │           └─── nobody left ─────▲  ▲
//!     └────────── cancel ─────────┘                second signal ──────┘ from anywhere
//! ```
//!
//! [`Machine`] decides, and takes the time as an argument; [`Drain`] is the handle that everybody shares. What a phase
//! means to sockets and sessions is for those who watch.

mod machine;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

pub use crate::model::drain::Phase;
pub use crate::model::session::Selector;
pub use machine::{Exit, Machine, State};

/// The checked `drain` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainSettings {
    /// How long new clients are still served.
    pub settle: Duration,
    /// Over how long sessions end.
    pub spread: Duration,
    /// How long those that did not end are waited for.
    pub margin: Duration,
    /// When `/readyz` says no.
    pub fail_readiness: FailReadiness,
}

/// When `/readyz` says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailReadiness {
    /// When the drain begins: for load balancers that ask.
    AtStart,
    /// When sessions begin to end: where endpoints are withdrawn by somebody else.
    AfterSettle,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(10),
            spread: Duration::from_secs(60),
            margin: Duration::from_secs(15),
            fail_readiness: FailReadiness::AtStart,
        }
    }
}

/// A drain can't be taken back any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CancelError {
    /// Sessions are ending already.
    #[error("the drain is past settle, in {}: sessions are ending and can't be kept", .0.as_str())]
    Past(Phase),
    /// A signal has asked the process to stop.
    #[error("a signal has asked the process to stop; only a drain that a request started can be taken back")]
    Signalled,
}

/// The shared handle; clones share it.
#[derive(Debug, Clone)]
pub struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machine: Mutex<Machine>,
    /// The machine's state, for those who wait; sent under the machine's lock.
    state: watch::Sender<State>,
    start: Instant,
}

impl Drain {
    /// An instance that serves. A drain will go as the settings then say.
    pub fn new(settings: DrainSettings) -> Self {
        let machine = Machine::new(settings);
        let state = watch::Sender::new(machine.state());
        Self(Arc::new(Inner { machine: Mutex::new(machine), state, start: Instant::now() }))
    }

    /// Adopts other settings; a drain that has begun goes on as it began.
    pub fn set_settings(&self, settings: DrainSettings) {
        self.0.machine.lock().set_settings(settings);
    }

    /// The settings of the drain that has begun, or of the next.
    pub fn settings(&self) -> DrainSettings {
        self.0.machine.lock().settings().clone()
    }

    /// Begins a drain after which the process goes on answering plain requests; nothing changes if one has begun.
    pub fn request(&self) {
        self.change(Machine::request);
    }

    /// The process was asked to stop: begins a drain, or says that the one under way ends in an exit; the second time
    /// there is no more waiting.
    pub fn signal(&self) {
        self.change(Machine::signal);
    }

    /// Takes a requested drain back while it settles. Nothing changes if none has begun.
    ///
    /// # Errors
    /// When it is too late.
    pub fn cancel(&self) -> Result<(), CancelError> {
        self.change(|machine, _| machine.cancel())
    }

    /// Goes on to the next phase if it is time, by one at most, with so many sessions left. For the one who conducts.
    pub fn advance(&self, left: usize) -> Phase {
        self.change(|machine, now_ms| machine.advance(now_ms, left));
        self.phase()
    }

    /// Says that what [`Phase::Drained`] asks for is done: the process may exit. For the one who conducts.
    pub fn close(&self) {
        self.change(|machine, _| machine.close());
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.0.state.borrow().phase
    }

    /// The state, as it changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Until when requests in flight may be waited for, once the process may exit.
    pub fn leave_by(&self) -> Instant {
        self.0.start + Duration::from_millis(self.0.machine.lock().leave_by_ms())
    }

    /// Ready when the process may exit.
    pub async fn exited(&self) {
        // The sender lives as long as this handle.
        let _ = self.watch().wait_for(State::is_exit).await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut Machine, u64) -> T) -> T {
        let now_ms = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut machine = self.0.machine.lock();
        let result = change(&mut machine, now_ms);
        let state = machine.state();
        self.0.state.send_if_modified(|known| std::mem::replace(known, state) != state);
        result
    }
}

/// A number by chance, for moments that should differ from those of other instances; no more than that.
pub fn seed() -> u64 {
    let mut seed = [0; 8];
    match SystemRandom::new().fill(&mut seed) {
        Ok(()) => u64::from_ne_bytes(seed),
        Err(_) => u64::from(std::process::id()),
    }
}
