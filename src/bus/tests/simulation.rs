//! What simulations of the buses share: worlds from seeds, chance, and what happened in all of them.
//!
//! A world that breaks a promise panics; its seed is told, and `PUSHBRIDGE_SEED=…` runs that one alone.

use std::ops::Range;
use std::panic::RefUnwindSafe;

const SEEDS: u64 = 10_000;

/// Runs a world for each seed. `path` is the test module's, for whoever wants to see one again.
pub fn run(path: &str, world: impl Fn(u64) -> Totals + RefUnwindSafe) {
    let seeds = seeds();
    let mut totals = Totals::default();
    for seed in seeds.clone() {
        match std::panic::catch_unwind(|| world(seed)) {
            Ok(world) => totals.add(world),
            Err(cause) => {
                let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
                let text = text.unwrap_or("it panicked");
                panic!("{text}\nto see it again: PUSHBRIDGE_SEED={seed} cargo test --lib {path}");
            }
        }
    }
    // A simulation in which nothing happens proves nothing.
    if seeds.end - seeds.start > 1 {
        assert!(totals.delivered > 100_000 && totals.gaps > 1_000 && totals.holes > 10_000, "{totals:?}");
    }
}

fn seeds() -> Range<u64> {
    match std::env::var("PUSHBRIDGE_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("PUSHBRIDGE_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    }
}

/// What happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Messages that clients got.
    pub delivered: u64,
    /// Gaps that clients heard of.
    pub gaps: u64,
    /// Live messages before which something was missing.
    pub holes: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.gaps += other.gaps;
        self.holes += other.holes;
    }
}

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// Whether what happens once in `count` times does.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}
