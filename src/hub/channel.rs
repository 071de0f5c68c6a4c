//! A channel of this instance: its log, and which shards want to know when it moves.

use crate::hub::log::{Entry, Log};
use crate::hub::policy::ChannelPolicy;
use crate::model::channel::ChannelName;
use crate::model::position::Position;
use parking_lot::Mutex;
use std::sync::Arc;
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
    /// The bytes that had ever been appended then.
    pub(in crate::hub) copied_bytes: AtomicU64,
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

    /// Whether it is known here what became of a place, of this epoch or of one that it goes on from.
    pub fn knows(&self, at: Position) -> bool {
        self.log.lock().knows(at)
    }

    /// The entries from a sequence number on, and the number of the first of them: a later one than asked for where some
    /// are gone, or the bus lost them.
    pub fn read(&self, next: u64) -> (u64, Vec<Arc<Entry>>) {
        let log = self.log.lock();
        let from = next.max(log.first());
        (from, log.entries_from(from).cloned().collect())
    }

    /// How many messages its log keeps.
    pub fn messages(&self) -> usize {
        self.log.lock().len()
    }

    /// What it keeps and how it treats slow sessions.
    pub fn policy(&self) -> Arc<ChannelPolicy> {
        Arc::clone(self.log.lock().policy())
    }

    /// Whether publishers run ahead of the shards by half of what the log keeps.
    pub fn is_congested(&self) -> bool {
        let extent = self.log.lock().extent();
        self.marks.iter().filter(|mark| mark.is_present()).any(|mark| {
            let (end, bytes) = (mark.copied.load(Ordering::Relaxed), mark.copied_bytes.load(Ordering::Relaxed));
            let ahead = extent.end.saturating_sub(end);
            // One message that is larger than half of what is kept is no reason to wait.
            ahead > extent.half_messages || ahead > 1 && extent.bytes.saturating_sub(bytes) > extent.half_bytes
        })
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
