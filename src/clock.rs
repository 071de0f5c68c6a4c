//! The one clock: monotonic for spans, wall time for epochs and dates.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock that started with the process, and the wall clock beside it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at (nearly) zero.
    #[expect(clippy::disallowed_methods, reason = "this is the edge where the clock is asked")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }
}

/// Milliseconds since 1970 by the machine's clock; 0 if that stands before.
#[expect(clippy::disallowed_methods, reason = "this is the edge where the clock is asked")]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
