//! A channel whose companion is followed, and how far it is read.

use crate::bus::Attached;
use crate::hub::channel::Channel;
use crate::model::position::Position;
use crate::presence::Ask;
use crate::proto::presence::lives::Lives;
use crate::proto::presence::note::Note;
use crate::proto::presence::room::{Now, Read, Room};
use std::sync::Arc;

/// A channel whose members are known, or will be.
pub(super) struct Followed {
    pub(super) room: Room,
    pub(super) reading: Reading,
    /// A note is being written.
    pub(super) writes: bool,
    /// Joins and leaves are being published.
    pub(super) announces: bool,
    pub(super) asks: Vec<Ask>,
    /// Until then it is followed because somebody asked.
    pub(super) asked_until_ms: u64,
    /// When it is looked at next.
    pub(super) due_ms: u64,
}

/// Whether an own channel is read.
pub(super) enum Reading {
    /// Not yet; from then on it may be tried.
    Not { since_ms: u64 },
    /// The bus was asked.
    Opening,
    /// It is.
    Open(Follow),
}

/// An own channel that the bus follows, and the place up to which it is read.
pub(super) struct Follow {
    _attached: Attached,
    channel: Arc<Channel>,
    next: u64,
    began: bool,
}

/// What was read.
pub(super) struct Notes {
    /// The notes, where they stand, and whether they were there before.
    pub(super) notes: Vec<(Note, Position, Read)>,
    /// Whether some before them are missing.
    pub(super) lost: bool,
}

impl Follow {
    pub(super) fn new(attached: Attached, channel: Arc<Channel>) -> Self {
        Self { _attached: attached, channel, next: 0, began: false }
    }

    pub(super) fn read(&mut self) -> Notes {
        let (from, entries) = self.channel.read(self.next);
        let (lost, read) = (self.began && from > self.next, if self.began { Read::New } else { Read::Before });
        self.next = from + entries.len() as u64;
        self.began = true;
        let note = |entry: &Arc<crate::hub::log::Entry>| {
            Some((Note::decode(entry.message.data.as_bytes())?, entry.position, read))
        };
        Notes { notes: entries.iter().filter_map(note).collect(), lost }
    }
}

impl Reading {
    /// Whether the bus is to be asked now; then it counts as asked.
    pub(super) fn begin(&mut self, now: Now) -> bool {
        let begins = matches!(self, Self::Not { since_ms } if *since_ms <= now.ms);
        if begins {
            *self = Self::Opening;
        }
        begins
    }
}

impl Followed {
    pub(super) fn new(me: Arc<str>) -> Self {
        Self {
            room: Room::new(me),
            reading: Reading::Not { since_ms: 0 },
            writes: false,
            announces: false,
            asks: Vec::new(),
            asked_until_ms: 0,
            due_ms: 0,
        }
    }

    /// Takes in what is new.
    pub(super) fn read(&mut self, lives: &mut Lives, now: Now) {
        let Reading::Open(follow) = &mut self.reading else { return };
        let Notes { notes, lost } = follow.read();
        if lost {
            self.room.lost();
        }
        for (note, at, read) in &notes {
            lives.mention(&note.from);
            self.room.read(note, *at, *read, now);
        }
    }

    /// Whether there is nothing to follow it for.
    pub(super) fn is_idle(&self, now: Now) -> bool {
        let under_way = self.writes || self.announces || matches!(self.reading, Reading::Opening);
        !under_way && !self.room.is_busy() && self.asked_until_ms <= now.ms
    }

    /// When it is to be looked at by time alone.
    pub(super) fn next_ms(&self, now: Now) -> u64 {
        match &self.reading {
            Reading::Not { since_ms } => *since_ms,
            Reading::Opening => u64::MAX,
            Reading::Open(_) => self.room.due_ms(now),
        }
    }
}
