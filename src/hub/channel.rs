//! A channel of this instance: its log, and which shards want to know when it moves.

use crate::hub::log::Log;
use crate::model::channel::ChannelName;
use crate::model::position::Position;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// A channel: shared by the bus, which appends, and the shards, which copy what is new.
#[derive(Debug)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    pub(in crate::hub) log: Mutex<Log>,
    pub(in crate::hub) marks: Box<[Mark]>,
    pub(in crate::hub) sessions: AtomicUsize,
    /// When it was opened or last appended to, in microseconds of the hub's clock.
    pub(in crate::hub) moved_us: AtomicU64,
}

/// One shard's interest in a channel.
#[derive(Debug, Default)]
pub(in crate::hub) struct Mark {
    state: AtomicU8,
    /// The end of the log, as far as the shard has copied it.
    pub(in crate::hub) copied: AtomicU64,
}

const ABSENT: u8 = 0;
const CLEAN: u8 = 1;
const RAISED: u8 = 2;

impl Channel {
    pub(in crate::hub) fn new(name: ChannelName, log: Log, workers: usize, now_us: u64) -> Self {
        Self {
            name,
            log: Mutex::new(log),
            marks: (0..workers).map(|_| Mark::default()).collect(),
            sessions: AtomicUsize::new(0),
            moved_us: AtomicU64::new(now_us),
        }
    }

    /// How many sessions of this instance are on it.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// The position of the newest message ever; offset 0 if there was none.
    pub fn last(&self) -> Position {
        self.log.lock().last()
    }

    /// Whether publishers run ahead of the shards by half of what the log keeps.
    pub fn is_congested(&self) -> bool {
        let (end, kept) = {
            let log = self.log.lock();
            (log.end(), log.policy().history_messages_max.max(crate::hub::log::LIVE_WINDOW_MESSAGES))
        };
        let slowest =
            self.marks.iter().filter(|mark| mark.is_present()).map(|mark| mark.copied.load(Ordering::Relaxed));
        slowest.min().is_some_and(|copied| end.saturating_sub(copied) > kept as u64 / 2)
    }
}

impl Mark {
    /// Notes that the log has moved; true if the shard is interested and did not know yet.
    pub(in crate::hub) fn raise(&self) -> bool {
        self.state.compare_exchange(CLEAN, RAISED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The shard is about to look: what moves from now on raises the mark again.
    pub(in crate::hub) fn lower(&self) {
        let _ = self.state.compare_exchange(RAISED, CLEAN, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The shard has its first session on the channel. Called under the log's lock.
    pub(in crate::hub) fn join(&self) {
        self.state.store(CLEAN, Ordering::Release);
    }

    /// The shard's last session left.
    pub(in crate::hub) fn leave(&self) {
        self.state.store(ABSENT, Ordering::Release);
    }

    fn is_present(&self) -> bool {
        self.state.load(Ordering::Acquire) != ABSENT
    }
}
