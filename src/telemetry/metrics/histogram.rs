//! Durations by bucket: counted in one worker's cells, summed up in shared atomics.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets, in microseconds: 100 µs to 30 s.
pub(super) const BOUNDS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// The bounded buckets and the one for all above.
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// One worker's part of a [`Histogram`]; an observation is two additions to plain memory.
#[derive(Debug, Default)]
pub(super) struct LocalHistogram {
    counts: [Cell<u64>; BUCKETS],
    sum_us: Cell<u64>,
}

/// Durations of the whole process.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// What a [`Histogram`] holds at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Snapshot {
    /// Observations in each bucket or below it, in the order of [`BOUNDS_US`].
    pub(super) cumulative: [u64; BOUNDS_US.len()],
    /// All observations.
    pub(super) count: u64,
    /// Their sum.
    pub(super) sum_seconds: f64,
}

impl LocalHistogram {
    /// Counts one duration.
    #[inline]
    pub(super) fn observe(&self, us: u64) {
        if let Some(count) = self.counts.get(bucket(us)) {
            count.set(count.get().wrapping_add(1));
        }
        self.sum_us.set(self.sum_us.get().wrapping_add(us));
    }

    /// Moves all counts into `total`.
    pub(super) fn flush(&self, total: &Histogram) {
        for (count, total) in self.counts.iter().zip(&total.counts) {
            let count = count.take();
            if count != 0 {
                total.fetch_add(count, Relaxed);
            }
        }
        let sum_us = self.sum_us.take();
        if sum_us != 0 {
            total.sum_us.fetch_add(sum_us, Relaxed);
        }
    }
}

impl Histogram {
    /// Counts one duration at once, for what is rare enough.
    pub(super) fn observe(&self, us: u64) {
        if let Some(count) = self.counts.get(bucket(us)) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// All observations so far.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// What it holds now. The count is that of the buckets, so that the two always agree.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut count = 0;
        let mut cumulative = [0; BOUNDS_US.len()];
        for (at, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Relaxed);
            if let Some(place) = cumulative.get_mut(at) {
                *place = count;
            }
        }
        Snapshot { cumulative, count, sum_seconds: self.sum_us.load(Relaxed) as f64 / 1e6 }
    }
}

/// Which bucket a duration falls in: the first whose bound it does not pass.
#[inline]
fn bucket(us: u64) -> usize {
    BOUNDS_US.partition_point(|bound| *bound < us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for (us, expected) in [(0, 0), (100, 0), (101, 1), (30_000_000, 16), (30_000_001, 17), (u64::MAX, 17)] {
            assert_eq!(bucket(us), expected, "{us}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_between_worker_and_total(values in proptest::collection::vec(0u64..100_000_000, 0..200)) {
            let (local, total) = (LocalHistogram::default(), Histogram::default());
            for (at, value) in values.iter().enumerate() {
                local.observe(*value);
                if at % 7 == 0 {
                    local.flush(&total);
                }
            }
            local.flush(&total);
            let snapshot = total.snapshot();
            prop_assert_eq!(snapshot.count, values.len() as u64);
            prop_assert!((snapshot.sum_seconds - values.iter().sum::<u64>() as f64 / 1e6).abs() < 1e-6);
            for (bound, cumulative) in BOUNDS_US.iter().zip(snapshot.cumulative) {
                prop_assert_eq!(cumulative, values.iter().filter(|value| *value <= bound).count() as u64);
            }
        }
    }
}
