//! A name for each request, to find it in logs, answers and the backend.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::cell::Cell;
use std::fmt;

/// A request's id: 16 hexadecimal digits, unique among instances as far as chance allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

thread_local! {
    static NEXT: Cell<u64> = Cell::new(random());
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without a random source ids count from 0: they stay unique within a worker.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

impl RequestId {
    /// The next id of this worker: a Weyl sequence from a random start, so that ids look unlike each other.
    pub fn next() -> Self {
        Self(NEXT.with(|next| next.replace(next.get().wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
