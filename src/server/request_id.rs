//! A name for each request, to find it in logs, answers and the backend.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use http::HeaderValue;
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

impl RequestId {
    /// Its digits.
    fn digits(self) -> [u8; 16] {
        std::array::from_fn(|at| b"0123456789abcdef"[(self.0 >> (60 - 4 * at)) as usize & 15])
    }
}

impl From<RequestId> for HeaderValue {
    fn from(id: RequestId) -> Self {
        Self::from_bytes(&id.digits()).unwrap_or_else(|_| Self::from_static(""))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_digits_everywhere() {
        for id in [RequestId(0), RequestId(0x0123_4567_89ab_cdef), RequestId(u64::MAX), RequestId::next()] {
            assert_eq!(id.to_string(), format!("{:016x}", id.0));
            assert_eq!(HeaderValue::from(id), id.to_string());
        }
    }
}
