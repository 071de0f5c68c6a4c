//! A model of what the scripts do in Redis: `publish.lua` and `read.lua`, for a few channels.

use super::{CHANNELS, EPOCHS_MAX, envelope};
use crate::bus::redis::script::{Page, Stored};
use crate::model::position::Position;
use std::collections::{BTreeSet, VecDeque};

pub use crate::bus::redis::script::Known;

/// One Redis, and what was ever published.
#[derive(Clone)]
pub struct Redis {
    /// The server's `run_id`.
    life: u64,
    channels: Vec<Kept>,
    kept_max: usize,
    /// Numbers that were never used: epochs, lives, milliseconds.
    fresh: u64,
    /// How many messages were ever published on each channel.
    published: [usize; CHANNELS],
    /// Those of them that Redis has lost.
    lost: [BTreeSet<usize>; CHANNELS],
}

/// What Redis has of a channel.
#[derive(Clone, Default)]
struct Kept {
    /// `None` where it has nothing.
    epoch: Option<u64>,
    offset: u64,
    life: u64,
    past: Vec<Position>,
    stream: VecDeque<Stored>,
    /// Which messages were published on it, and not lost.
    has: BTreeSet<usize>,
}

impl Kept {
    /// Another epoch, which goes on from the one before.
    fn begin_epoch(&mut self, epoch: u64, life: u64) {
        if let Some(before) = self.epoch {
            self.past.insert(0, Position { epoch: before, offset: self.offset });
            self.past.truncate(EPOCHS_MAX);
        } else {
            self.stream.clear();
        }
        (self.epoch, self.life) = (Some(epoch), life);
    }
}

impl Redis {
    /// An empty one, which keeps so many messages of a channel.
    pub fn new(kept_max: usize) -> Self {
        Self {
            life: 1,
            channels: vec![Kept::default(); CHANNELS],
            kept_max,
            fresh: 1,
            published: [0; CHANNELS],
            lost: std::array::from_fn(|_| BTreeSet::new()),
        }
    }

    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    /// How many messages were ever published on a channel.
    pub fn published(&self, channel: usize) -> usize {
        self.published[channel]
    }

    /// Whether a message was acknowledged and then lost.
    pub fn has_lost(&self, channel: usize, index: usize) -> bool {
        self.lost[channel].contains(&index)
    }

    /// The next message of a channel: its epoch, and what is sent live.
    pub fn publish(&mut self, channel: usize) -> (u64, Stored) {
        let (fresh, taken_ms, life, index) = (self.fresh(), self.fresh(), self.life, self.published[channel]);
        self.published[channel] += 1;
        let kept = &mut self.channels[channel];
        if kept.epoch.is_none() || kept.life != life {
            kept.begin_epoch(fresh, life);
        }
        kept.offset += 1;
        kept.has.insert(index);
        let stored = Stored { offset: kept.offset, taken_ms, envelope: envelope(channel, index) };
        kept.stream.push_back(stored.clone());
        while kept.stream.len() > self.kept_max {
            kept.stream.pop_front();
        }
        (kept.epoch.unwrap_or_default(), stored)
    }

    /// What follows a place; and what is sent live, where another epoch begins.
    pub fn read(&mut self, channel: usize, known: Known, count: usize) -> (Page, Option<(u64, Stored)>) {
        let (fresh, life) = (self.fresh(), self.life);
        let kept = &mut self.channels[channel];
        let mut is_new = kept.epoch.is_none() || kept.life != life;
        if is_new {
            kept.begin_epoch(fresh, life);
        }
        let goes_on = |kept: &Kept, at: Position| {
            kept.epoch == Some(at.epoch) || kept.past.iter().any(|end| end.epoch == at.epoch && at.offset <= end.offset)
        };
        let mut same = known.position.filter(|at| goes_on(kept, *at));
        if let Some(at) = same {
            let there = kept.stream.iter().find(|stored| stored.offset == at.offset);
            let is_other = there.is_some_and(|stored| known.taken_ms != 0 && stored.taken_ms != known.taken_ms);
            if at.offset > kept.offset || is_other {
                (kept.epoch, kept.past, same, is_new) = (Some(fresh), Vec::new(), None, true);
            }
        }
        let last = Position { epoch: kept.epoch.unwrap_or_default(), offset: kept.offset };
        let after = same.map_or(0, |at| at.offset);
        let entries = kept.stream.iter().filter(|stored| stored.offset > after).take(count).cloned().collect();
        let news = Stored { offset: last.offset, taken_ms: 0, envelope: Vec::new() };
        let is_told = is_new && known.position.is_some();
        (Page { last, past: kept.past.clone(), entries }, is_told.then_some((last.epoch, news)))
    }

    /// It is started anew, with what it has.
    pub fn begin_life(&mut self) {
        self.life = self.fresh();
    }

    /// It loses everything.
    pub fn forget(&mut self) {
        self.become_copy(&Self::new(self.kept_max));
    }

    /// It has what a copy of it has.
    pub fn become_copy(&mut self, copy: &Self) {
        for channel in 0..CHANNELS {
            let had = std::mem::replace(&mut self.channels[channel], copy.channels[channel].clone()).has;
            self.lost[channel].extend(had);
            self.lost[channel].retain(|index| !self.channels[channel].has.contains(index));
        }
    }

    /// The oldest messages of a channel are over.
    pub fn age(&mut self, channel: usize, count: usize) {
        let stream = &mut self.channels[channel].stream;
        stream.drain(..count.min(stream.len()));
    }
}
