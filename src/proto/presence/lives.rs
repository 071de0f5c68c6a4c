//! Which instances live: those whose beats come through the bus.
//!
//! There is no clock here. An instance's own beats, as they come back, are the measure: who was not heard for
//! [`BEATS_MISSED_MAX`] of them is dead. While the bus is down nobody's beats come, and nobody dies of it.

use std::collections::HashMap;
use std::sync::Arc;

/// How often an instance beats.
pub const BEAT_EVERY_MS: u64 = 5_000;
/// How many own beats another instance may miss.
pub const BEATS_MISSED_MAX: u64 = 3;
/// Instances that are kept in mind at most.
const INSTANCES_MAX: usize = 10_000;
/// For how many own beats a dead instance is kept in mind.
const REMEMBERED_BEATS: u64 = 720;

/// What is known of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It beats.
    Alive,
    /// It said good-bye.
    Left,
    /// It says nothing any more.
    Dead,
}

/// The beats that came.
#[derive(Debug)]
pub struct Lives {
    me: Arc<str>,
    turn: u64,
    others: HashMap<Arc<str>, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    turn: u64,
    left: bool,
}

impl Lives {
    /// What `me` knows before it heard anything.
    pub fn new(me: Arc<str>) -> Self {
        Self { me, turn: 0, others: HashMap::new() }
    }

    /// A beat came.
    pub fn beat(&mut self, from: &str) {
        if *from == *self.me {
            self.turn += 1;
            let turn = self.turn;
            self.others.retain(|_, seen| turn - seen.turn < REMEMBERED_BEATS);
            return;
        }
        self.see(from, false);
    }

    /// An instance said good-bye.
    pub fn leave(&mut self, from: &str) {
        if *from != *self.me {
            self.see(from, true);
        }
    }

    /// An instance was heard of: if it never was before, its beats are awaited from now on.
    pub fn mention(&mut self, from: &str) {
        if *from != *self.me && !self.others.contains_key(from) {
            self.see(from, false);
        }
    }

    /// What is known of an instance; one that was never heard of lives.
    pub fn life(&self, instance: &str) -> Life {
        match self.others.get(instance) {
            Some(seen) if seen.left => Life::Left,
            Some(seen) if self.turn - seen.turn > BEATS_MISSED_MAX => Life::Dead,
            _ => Life::Alive,
        }
    }

    /// Those that are dead or have left.
    pub fn gone(&self) -> impl Iterator<Item = &Arc<str>> {
        self.others.keys().filter(|instance| self.life(instance) != Life::Alive)
    }

    fn see(&mut self, from: &str, left: bool) {
        if self.others.len() < INSTANCES_MAX || self.others.contains_key(from) {
            self.others.insert(from.into(), Seen { turn: self.turn, left });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_misses_too_many_beats_is_dead_until_it_beats_again() {
        let mut lives = Lives::new("me".into());
        lives.beat("x");
        for _ in 0..BEATS_MISSED_MAX {
            lives.beat("me");
            assert_eq!(lives.life("x"), Life::Alive);
        }
        lives.beat("me");
        assert_eq!((lives.life("x"), lives.life("me"), lives.life("new")), (Life::Dead, Life::Alive, Life::Alive));
        lives.mention("x");
        assert_eq!(lives.life("x"), Life::Dead, "a mention is no beat");
        lives.beat("x");
        assert_eq!(lives.life("x"), Life::Alive);
        lives.leave("x");
        assert_eq!(lives.life("x"), Life::Left);
        lives.leave("me");
        assert_eq!(lives.life("me"), Life::Alive);
    }

    #[test]
    fn nobody_dies_while_no_beat_comes() {
        let mut lives = Lives::new("me".into());
        lives.mention("x");
        assert_eq!(lives.life("x"), Life::Alive);
        for _ in 0..4 {
            lives.beat("me");
            lives.beat("x");
        }
        assert_eq!(lives.life("x"), Life::Alive);
    }
}
