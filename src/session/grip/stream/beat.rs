//! What a held stream is sent in silence, and when.

use crate::proto::chunk::Chunk;
use crate::proto::grip::keep_alive::{KeepAlive, Mode};

/// What is sent in silence.
pub(super) struct Beat {
    pub(super) chunk: Chunk,
    every_ms: u64,
    mode: Mode,
    /// When the last one was sent, or the first one's wait began.
    pub(super) since_ms: u64,
}

impl Beat {
    /// A keep-alive; `None` where it says nothing.
    pub(super) fn new(keep_alive: &KeepAlive, now_ms: u64) -> Option<Box<Self>> {
        let chunk = (!keep_alive.content.is_empty()).then(|| Chunk::framed_from(&keep_alive.content))?;
        Some(Box::new(Self { chunk, every_ms: keep_alive.every_ms, mode: keep_alive.mode, since_ms: now_ms }))
    }

    /// When the next one is sent, if nothing is sent before.
    pub(super) fn due_ms(&self, last_sent_ms: u64) -> u64 {
        let from_ms = match self.mode {
            Mode::Idle => last_sent_ms.max(self.since_ms),
            Mode::Interval => self.since_ms,
        };
        from_ms.saturating_add(self.every_ms)
    }
}
