//! What a client may do that costs this end more than itself.
//!
//! Requests that are reset before they have an answer (CVE-2023-44487), mistakes that make this end reset a stream
//! (CVE-2025-8671) and frames that say nothing (CVE-2019-9518, CVE-2019-9515) are each as cheap to send as they are allowed to be. So
//! each is paid for, and what is paid comes back with time. A client that gives up all its requests at once can do so.

/// After how long all has come back.
const REFILL_US: u64 = 5_000_000;
/// What there is beside one for each stream.
const SPARE: u64 = 200;

/// A connection's budget, by the generic cell rate algorithm (ITU-T I.371, annex A).
#[derive(Debug)]
pub struct Budget {
    /// When it will be full.
    full_us: u64,
    /// After how long one comes back.
    one_us: u64,
}

/// Nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent;

impl Budget {
    /// For a connection that may have `streams_max` streams at once.
    pub fn new(streams_max: u32) -> Self {
        Self { full_us: 0, one_us: REFILL_US / (u64::from(streams_max) + SPARE) }
    }

    /// Pays for one.
    ///
    /// # Errors
    /// When there is nothing left at `now_ms`.
    pub fn pay(&mut self, now_ms: u64) -> Result<(), Spent> {
        let now_us = now_ms.saturating_mul(1000);
        let full_us = self.full_us.max(now_us).saturating_add(self.one_us);
        if full_us - now_us > REFILL_US {
            return Err(Spent);
        }
        self.full_us = full_us;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paid(budget: &mut Budget, now_ms: u64) -> usize {
        (0..10_000).take_while(|_| budget.pay(now_ms).is_ok()).count()
    }

    #[test]
    fn all_streams_may_be_given_up_at_once_and_some_more() {
        let mut budget = Budget::new(1000);
        assert_eq!(paid(&mut budget, 5), 1200);
        assert_eq!(paid(&mut budget, 8), 0, "less than one has come back");
    }

    #[test]
    fn what_is_paid_comes_back_with_time() {
        let mut budget = Budget::new(0);
        let counts = [1000, 1500, 3000, 1_000_000].map(|now_ms| paid(&mut budget, now_ms));
        assert_eq!(counts, [200, 20, 60, 200], "40 a second, and never more than there was");
    }

    #[test]
    fn any_number_of_streams_has_a_budget() {
        assert!(paid(&mut Budget::new(u32::MAX), 1) > 9000);
    }
}
