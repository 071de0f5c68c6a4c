//! How many messages a client may send in a time: an allowance that fills up evenly and is used one by one.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): one number says when the allowance will be full again. Time is
//! an argument.

/// How many seconds' worth of messages may come at once.
pub const BURST_SECS: u64 = 10;

/// What is left of an allowance; at first it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// When it will be full.
    full_us: u64,
}

impl Allowance {
    /// Uses it for a message, of which there may be so many a second and [`BURST_SECS`] as many at once; false if nothing
    /// is left, and nothing is used then.
    pub fn take(&mut self, per_second: u32, now_ms: u64) -> bool {
        let now_us = now_ms.saturating_mul(1000);
        let full_us = self.full_us.max(now_us) + 1_000_000 / u64::from(per_second.max(1));
        let allowed = full_us - now_us <= BURST_SECS * 1_000_000;
        if allowed {
            self.full_us = full_us;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(allowance: &mut Allowance, per_second: u32, now_ms: u64, tries: usize) -> usize {
        (0..tries).filter(|_| allowance.take(per_second, now_ms)).count()
    }

    #[test]
    fn a_burst_is_allowed_and_fills_up_evenly() {
        let mut allowance = Allowance::default();
        for (now_ms, expected) in [(5_000, 1000), (5_000, 0), (5_010, 1), (5_110, 10), (6_110, 100), (99_000, 1000)] {
            assert_eq!(taken(&mut allowance, 100, now_ms, 2000), expected, "at {now_ms}");
        }
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let mut allowance = Allowance::default();
        assert_eq!(taken(&mut allowance, 1, 0, 100), 10);
        assert!(!allowance.take(1, 999) && allowance.take(1, 1000) && !allowance.take(1, 1000));
    }

    proptest! {
        /// Whenever they come: no more than the burst and what the time since the start brought.
        #[test]
        fn never_more_than_the_rate(per_second in 1u32..2000, waits in proptest::collection::vec(0u64..3000, 1..300)) {
            let mut allowance = Allowance::default();
            let (mut now_ms, mut count) = (0, 0);
            for wait_ms in waits {
                now_ms += wait_ms;
                count += taken(&mut allowance, per_second, now_ms, 50) as u64;
                // Rounding makes a message up to a thousandth cheaper.
                let bound = (BURST_SECS * 1000 + now_ms) * u64::from(per_second) * 1002 / 1_000_000 + 1;
                prop_assert!(count <= bound, "{} > {} at {}", count, bound, now_ms);
            }
        }
    }
}
