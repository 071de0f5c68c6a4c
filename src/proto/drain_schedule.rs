//! When each of many sessions ends, so that their clients do not all come back at once.
//!
//! The window is cut into as many slots as there are sessions; each session gets a slot by chance, and a moment by
//! chance in the middle half of it. So the moments are even over the window at every scale, no stretch as long as a
//! slot has more than twice its share, and nothing tells which session is next. Chance is an argument: a seed.

/// The moments at which `sessions` sessions end, in microseconds from the start of a window of `window_us`: one for
/// each session, in the sessions' order, all below `window_us` (or 0 where that is 0). The same seed gives the same.
pub fn moments(sessions: usize, window_us: u64, seed: u64) -> Vec<u64> {
    let mut dice = Dice::new(seed);
    let count = sessions as u128;
    let edge = |slot: u128| (slot * u128::from(window_us) / count.max(1)) as u64;
    let mut moments: Vec<u64> = (0..count)
        .map(|slot| {
            let (start, end) = (edge(slot), edge(slot + 1));
            let quarter = (end - start) / 4;
            start + quarter + dice.below((end - start - 2 * quarter).max(1))
        })
        .collect();
    // Fisher and Yates: which session has which slot.
    for last in (1..moments.len()).rev() {
        moments.swap(last, dice.below(last as u64 + 1) as usize);
    }
    moments
}

/// Chance out of a seed (splitmix64): even, and not for secrets.
#[derive(Debug, Clone, Default)]
pub struct Dice(u64);

impl Dice {
    /// Dice that roll as `seed` says.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_session_and_no_window_are_no_matter() {
        assert!(moments(0, 60_000_000, 1).is_empty());
        assert_eq!(moments(3, 0, 1), [0, 0, 0]);
        assert_eq!(moments(5, 2, 1).iter().filter(|at| **at < 2).count(), 5);
    }

    #[test]
    fn neighbours_do_not_end_one_after_the_other() {
        let all = moments(1000, 60_000_000, 7);
        let rising = all.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((400..600).contains(&rising), "{rising} of 999 end after the one before");
    }

    proptest! {
        #[test]
        fn every_moment_is_in_the_window(count in 1..3000usize, window_us in 1..100_000_000u64, seed: u64) {
            let all = moments(count, window_us, seed);
            prop_assert_eq!(all.len(), count);
            prop_assert!(all.iter().all(|at| *at < window_us));
            prop_assert_eq!(&all, &moments(count, window_us, seed), "a seed always gives the same");
        }

        #[test]
        fn the_spread_is_even(count in 20..3000usize, window_us in 1_000_000..100_000_000u64, seed: u64) {
            let all = moments(count, window_us, seed);
            for tenth in 0..10 {
                let (start, end) = (window_us * tenth / 10, window_us * (tenth + 1) / 10);
                let here = all.iter().filter(|at| (start..end).contains(*at)).count();
                prop_assert!(here.abs_diff(count / 10) <= 2, "{} of {} in tenth {}", here, count, tenth);
            }
        }

        #[test]
        fn no_stretch_has_more_than_twice_its_share(count in 1..1000usize, window_us in 1_000_000..100_000_000u64, seed: u64) {
            let mut all = moments(count, window_us, seed);
            all.sort_unstable();
            let slot_us = window_us.div_ceil(count as u64);
            for (index, start) in all.iter().enumerate() {
                for slots in 1..4 {
                    let end = start + slots * slot_us;
                    let here = all[index..].iter().take_while(|at| **at <= end).count() as u64;
                    prop_assert!(here <= 2 * slots, "{} in {} slots", here, slots);
                }
            }
        }

        #[test]
        fn another_seed_gives_other_moments(count in 10..1000usize, seed: u64) {
            prop_assert_ne!(moments(count, 60_000_000, seed), moments(count, 60_000_000, seed ^ 1));
        }
    }
}
