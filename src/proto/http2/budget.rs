//! What a client may do that costs this end more than itself.
//!
//! Requests that are reset before they have an answer (CVE-2023-44487), mistakes that make this end reset a stream
//! (CVE-2025-8671) and frames that say nothing (CVE-2019-9518, CVE-2019-9515) are each as cheap to send as they are allowed to be. So
//! each is paid for, and what is paid comes back with time. A client that gives up all its requests at once can do so.

/// After how long one comes back.
const REFILL_MS: u64 = 10;
/// What there is beside one for each stream.
const SPARE: u64 = 200;

/// A connection's budget, by the generic cell rate algorithm (ITU-T I.371, annex A).
#[derive(Debug)]
pub struct Budget {
    /// When it will be full.
    full_ms: u64,
    /// How long it takes to fill up.
    whole_ms: u64,
}

/// Nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent;

impl Budget {
    /// For a connection that may have `streams_max` streams at once.
    pub fn new(streams_max: u32) -> Self {
        Self { full_ms: 0, whole_ms: (u64::from(streams_max) + SPARE) * REFILL_MS }
    }

    /// Pays for one.
    ///
    /// # Errors
    /// When there is nothing left at `now_ms`.
    pub fn pay(&mut self, now_ms: u64) -> Result<(), Spent> {
        let full_ms = self.full_ms.max(now_ms) + REFILL_MS;
        if full_ms - now_ms > self.whole_ms {
            return Err(Spent);
        }
        self.full_ms = full_ms;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_streams_may_be_given_up_at_once_and_some_more() {
        let mut budget = Budget::new(1000);
        for _ in 0..1200 {
            assert_eq!(budget.pay(5), Ok(()));
        }
        assert_eq!(budget.pay(5), Err(Spent));
        assert_eq!(budget.pay(14), Err(Spent), "less than one has come back");
    }

    #[test]
    fn what_is_paid_comes_back_with_time() {
        let mut budget = Budget::new(0);
        for _ in 0..200 {
            assert_eq!(budget.pay(1000), Ok(()));
        }
        for _ in 0..50 {
            assert_eq!(budget.pay(1500), Ok(()), "half a second's worth");
        }
        assert_eq!(budget.pay(1500), Err(Spent));
        for _ in 0..200 {
            assert_eq!(budget.pay(1_000_000), Ok(()));
        }
        assert_eq!(budget.pay(1_000_000), Err(Spent), "never more than there was");
    }
}
