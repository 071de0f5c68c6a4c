//! Times counted in buckets that are 1/64 of their value wide.

use serde_json::{Value, json};

const FINE_BITS: u32 = 6;

/// How often each time was seen.
#[derive(Debug, Default, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Counts one time of `ns`.
    pub fn record(&mut self, ns: u64) {
        let at = bucket(ns);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Adds what [`Histogram::to_json`] of another process wrote.
    pub fn add_json(&mut self, value: &Value) {
        for pair in value["buckets"].as_array().into_iter().flatten() {
            let (Some(at), Some(count)) = (pair[0].as_u64(), pair[1].as_u64()) else { continue };
            let at = at as usize;
            if at >= self.counts.len() {
                self.counts.resize(at + 1, 0);
            }
            self.counts[at] += count;
            self.total += count;
        }
        self.max = self.max.max(value["max"].as_u64().unwrap_or(0));
    }

    /// All buckets that are not empty, for [`Histogram::add_json`].
    pub fn to_json(&self) -> Value {
        let buckets: Vec<_> = self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(at, count)| json!([at, count]))
            .collect();
        json!({ "buckets": buckets, "max": self.max })
    }

    /// Percentiles in milliseconds.
    pub fn summary_ms(&self) -> Value {
        json!({
            "p50": self.quantile(0.50) as f64 / 1e6, "p90": self.quantile(0.90) as f64 / 1e6,
            "p99": self.quantile(0.99) as f64 / 1e6, "max": self.max as f64 / 1e6,
        })
    }

    fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(at).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(ns: u64) -> usize {
    let shift = (64 - FINE_BITS - 1).saturating_sub(ns.leading_zeros());
    ((u64::from(shift) << FINE_BITS) + (ns >> shift)) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> FINE_BITS).saturating_sub(1);
    let rest = bucket - (shift << FINE_BITS);
    ((rest + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_within_a_64th() {
        for ns in (0..1_000_000).chain([u64::from(u32::MAX), 1 << 50]) {
            let end = upper_end(bucket(ns));
            assert!(end >= ns && end - ns <= ns / 64, "{ns} in a bucket up to {end}");
        }
    }

    #[test]
    fn percentiles_survive_the_way_through_json() {
        let (mut one, mut all) = (Histogram::default(), Histogram::default());
        (1..=1000).for_each(|ms| one.record(ms * 1_000_000));
        all.add_json(&one.to_json());
        let p50 = all.summary_ms()["p50"].as_f64().expect("a number");
        assert!((500.0..510.0).contains(&p50), "{p50}");
        assert_eq!(all.summary_ms()["max"], 1000.0);
    }
}
