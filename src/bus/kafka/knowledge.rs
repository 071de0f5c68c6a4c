//! What this instance knows of one partition, from reading it in order; without I/O and without a clock.
//!
//! A partition is a log that all instances read alike, so that each can judge each record by itself and all come to the
//! same judgement: which of two records with one id was the first, which was sent twice, which was written for a life of
//! the partition that was over. A publisher waits until its own instance has read its record.
//!
//! ```text
//!   not read, or read before the ids were known │ known: channel → its numbers
//!   ────────────────────────────────────────────┼──────────────────────────────┤ read
//!                                             floor
//! ```
//!
//! A channel's messages have numbers with holes between, since they share the partition with others. Above a channel's
//! floor every one of its messages is known here; what lies below may be anything.

use crate::bus::kafka::record::{Incoming, Stamp};
use crate::model::channel::ChannelName;
use crate::model::message::{Label, Message};
use crate::model::position::Position;
use std::collections::{HashMap, VecDeque};

/// Two records with one id that stand further apart than this are no duplicates.
pub const ID_DISTANCE_MAX: u64 = 100_000;
/// Messages whose numbers are known, of one partition.
const NUMBERS_MAX: usize = 256 * 1024;
/// Channels without such messages whose last number is known all the same.
const QUIET_MAX: usize = 256 * 1024;
/// Instances whose last record is known; those that have not written for the longest are forgotten first.
const WRITERS_MAX: usize = 1024;

/// How far knowledge of one partition goes.
#[derive(Debug)]
pub struct Knowledge {
    partitions: u32,
    window_ms: u64,
    /// The life of the partition; `None` until a record tells.
    epoch: Option<u64>,
    /// No life up to this one goes on.
    over: u64,
    /// The number of the newest record read.
    read: u64,
    /// Messages are not noted before one of these is reached: ids before the place where reading began are not known.
    warm_from: Option<(u64, u64)>,
    /// What is not among the channels has nothing above this.
    floor: u64,
    channels: HashMap<ChannelName, Known>,
    /// The numbers of all channels, in order, for forgetting.
    order: VecDeque<(u64, ChannelName)>,
    /// Channels whose numbers were all forgotten, with their last, in order.
    quiet: VecDeque<(u64, ChannelName)>,
    ids: HashMap<(ChannelName, Label), Seen>,
    id_order: VecDeque<(u64, u64, (ChannelName, Label))>,
    /// The newest record of each instance: its serial and its number.
    writers: HashMap<u64, (u64, u64)>,
}

/// What is known of a channel.
#[derive(Debug)]
struct Known {
    floor: u64,
    last: u64,
    /// The most numbers that are of use.
    keep: usize,
    /// Numbers and times of its messages above the floor.
    numbers: VecDeque<(u64, u64)>,
}

/// An id, where it was seen last, and where its message stands.
#[derive(Debug, Clone, Copy)]
struct Seen {
    number: u64,
    at_ms: u64,
    position: Position,
}

/// What a record turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// A message, at its place.
    Published(Position, Message),
    /// Its id is known: the message stands there.
    Duplicate(Position),
    /// It was sent twice, and counts once.
    Again,
    /// It counts for nothing: it was written for a life of the partition that is over.
    Void,
    /// The partition has begun another life here.
    Began,
    /// The topic has other partitions than this instance thinks.
    Outdated,
}

/// What a channel's log begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The life of the partition.
    pub epoch: u64,
    /// Nothing up to this number is among what follows.
    pub after: u64,
    /// The numbers of the messages that follow, in order.
    pub numbers: Vec<u64>,
    /// Up to this number there are no others.
    pub read: u64,
}

/// What a channel keeps.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// The most messages.
    pub messages_max: usize,
    /// None from before this time is wanted, in milliseconds since 1970.
    pub oldest_ms: u64,
}

impl Knowledge {
    /// Nothing is known of a partition of so many; ids count for `window_ms`.
    pub fn new(partitions: u32, window_ms: u64) -> Self {
        Self {
            partitions,
            window_ms,
            epoch: None,
            over: 0,
            read: 0,
            warm_from: None,
            floor: 0,
            channels: HashMap::new(),
            order: VecDeque::new(),
            quiet: VecDeque::new(),
            ids: HashMap::new(),
            id_order: VecDeque::new(),
            writers: HashMap::new(),
        }
    }

    /// Ids count for another time.
    pub fn set_window(&mut self, window_ms: u64) {
        self.window_ms = window_ms;
    }

    /// Reading begins after this number; what was written before `warm_ms` may have had duplicates before it.
    pub fn begin(&mut self, after: u64, warm_ms: u64) {
        self.forget();
        (self.read, self.floor) = (after, after);
        self.warm_from = (after > 0).then_some((after.saturating_add(ID_DISTANCE_MAX), warm_ms));
    }

    /// Reading begins anew, since the partition's end was lost.
    pub fn begin_anew(&mut self, after: u64, warm_ms: u64) {
        self.end_life(self.epoch.unwrap_or(0));
        self.begin(after, warm_ms);
    }

    /// Records up to this number were removed before they could be read.
    pub fn miss(&mut self, through: u64) {
        self.channels.clear();
        self.order.clear();
        self.quiet.clear();
        (self.read, self.floor) = (through, through);
    }

    /// All that there was at the beginning has been read.
    pub fn catch_up(&mut self) {
        self.warm_from = None;
    }

    /// The life of the partition, if it is known.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// No life up to this one goes on.
    pub fn over(&self) -> u64 {
        self.over
    }

    /// The number of the newest record read.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Passes over a record that was written by something else.
    pub fn pass_over(&mut self, number: u64) {
        self.read = self.read.max(number);
    }

    /// Judges the next record. `keep` says how many numbers of a channel are of use.
    pub fn take(&mut self, incoming: Incoming, keep: impl FnOnce(&ChannelName) -> usize) -> Judgement {
        let Incoming { number, at_ms, stamp, message } = incoming;
        self.read = self.read.max(number);
        if let Some((warm_number, warm_ms)) = self.warm_from
            && (number > warm_number || at_ms >= warm_ms)
        {
            self.warm_from = None;
        }
        if stamp.partitions > self.partitions {
            return Judgement::Outdated;
        }
        let judgement = match message {
            None => self.judge_epoch(number, stamp),
            Some(message) => self.judge(number, at_ms, stamp, message),
        };
        match &judgement {
            Judgement::Published(_, message) => self.note(number, at_ms, &message.channel, keep),
            _ if self.warm_from.is_some() => self.floor = number,
            _ => {}
        }
        judgement
    }

    fn judge_epoch(&mut self, number: u64, stamp: Stamp) -> Judgement {
        // Of two instances that begin a life at once, the one whose record comes first does.
        let begins = number == stamp.after + 1 && stamp.epoch > self.over && stamp.partitions == self.partitions;
        if !begins || self.epoch.is_some_and(|epoch| epoch >= stamp.epoch) {
            return Judgement::Void;
        }
        self.live(stamp.epoch, number);
        Judgement::Began
    }

    fn judge(&mut self, number: u64, at_ms: u64, stamp: Stamp, message: Message) -> Judgement {
        if stamp.partitions < self.partitions {
            // Written by an instance for which the channel may stand in another partition.
            self.end_life(stamp.epoch);
            return Judgement::Void;
        }
        if number <= stamp.after {
            // The writer had read further: what it had read is no longer there.
            self.end_life(stamp.epoch);
            return Judgement::Void;
        }
        if stamp.epoch <= self.over || self.epoch.is_some_and(|epoch| stamp.epoch < epoch) {
            return Judgement::Void;
        }
        match self.epoch {
            Some(epoch) if epoch < stamp.epoch => self.live(stamp.epoch, number - 1),
            Some(_) => {}
            None => self.epoch = Some(stamp.epoch),
        }
        if self.is_again(number, stamp) {
            return Judgement::Again;
        }
        let position = Position { epoch: stamp.epoch, offset: number };
        match self.see(number, at_ms, &message, position) {
            Some(first) => Judgement::Duplicate(first),
            None => Judgement::Published(position, message),
        }
    }

    /// Another life begins after this number.
    fn live(&mut self, epoch: u64, after: u64) {
        self.forget();
        self.epoch = Some(epoch);
        self.floor = after;
        self.warm_from = None;
    }

    fn end_life(&mut self, epoch: u64) {
        self.over = self.over.max(epoch);
        if self.epoch.is_some_and(|epoch| epoch <= self.over) {
            self.epoch = None;
        }
    }

    fn forget(&mut self) {
        self.channels.clear();
        self.order.clear();
        self.quiet.clear();
        self.ids.clear();
        self.id_order.clear();
        self.writers.clear();
    }

    fn is_again(&mut self, number: u64, stamp: Stamp) -> bool {
        let newest = self.writers.entry(stamp.instance).or_default();
        if stamp.serial <= newest.0 {
            return true;
        }
        *newest = (stamp.serial, number);
        if self.writers.len() > WRITERS_MAX
            && let Some((&oldest, _)) = self.writers.iter().min_by_key(|(_, (_, number))| *number)
        {
            self.writers.remove(&oldest);
        }
        false
    }

    /// Notes an id; where its message stands, if it was known.
    fn see(&mut self, number: u64, at_ms: u64, message: &Message, position: Position) -> Option<Position> {
        let key = (message.channel.clone(), message.id.clone()?);
        self.forget_ids(number, at_ms);
        let known = self.ids.get(&key).map(|seen| seen.position);
        let seen = Seen { number, at_ms, position: known.unwrap_or(position) };
        self.ids.insert(key.clone(), seen);
        self.id_order.push_back((number, at_ms, key));
        known
    }

    fn forget_ids(&mut self, number: u64, at_ms: u64) {
        while let Some((seen, seen_ms, key)) = self.id_order.front() {
            let near = number.saturating_sub(*seen) <= ID_DISTANCE_MAX;
            if near && at_ms < seen_ms.saturating_add(self.window_ms) {
                break;
            }
            // An id that came again stands further back in the order, too.
            if self.ids.get(key).is_some_and(|last| last.number == *seen) {
                self.ids.remove(key);
            }
            self.id_order.pop_front();
        }
    }

    /// Where the message with this id stands, if it was published within the window.
    pub fn find(&self, channel: &ChannelName, id: &Label, now_ms: u64) -> Option<Position> {
        let seen = self.ids.get(&(channel.clone(), id.clone()))?;
        let near = self.read.saturating_sub(seen.number) < ID_DISTANCE_MAX;
        (near && now_ms < seen.at_ms.saturating_add(self.window_ms)).then_some(seen.position)
    }

    fn note(&mut self, number: u64, at_ms: u64, channel: &ChannelName, keep: impl FnOnce(&ChannelName) -> usize) {
        if self.warm_from.is_some() {
            self.floor = number;
            return;
        }
        let known = self.channels.entry(channel.clone()).or_insert_with(|| Known {
            floor: self.floor,
            last: 0,
            keep: keep(channel).max(1),
            numbers: VecDeque::new(),
        });
        known.last = number;
        known.numbers.push_back((number, at_ms));
        if known.numbers.len() > known.keep
            && let Some((dropped, _)) = known.numbers.pop_front()
        {
            known.floor = dropped;
        }
        self.order.push_back((number, channel.clone()));
        if self.order.len() > NUMBERS_MAX {
            self.forget_number();
        }
    }

    fn forget_number(&mut self) {
        let Some((number, channel)) = self.order.pop_front() else { return };
        let Some(known) = self.channels.get_mut(&channel) else { return };
        if known.numbers.front().is_some_and(|(oldest, _)| *oldest == number) {
            known.numbers.pop_front();
            known.floor = number;
            if known.numbers.is_empty() {
                self.quiet.push_back((number, channel));
            }
        }
        if self.quiet.len() > QUIET_MAX
            && let Some((last, channel)) = self.quiet.pop_front()
            && self.channels.get(&channel).is_some_and(|known| known.last == last)
        {
            self.channels.remove(&channel);
            self.floor = self.floor.max(last);
        }
    }

    /// What a channel's log begins with; `None` until the life of the partition is known.
    pub fn backlog(&self, channel: &ChannelName, kept: Kept) -> Option<Backlog> {
        let epoch = self.epoch?;
        let Some(known) = self.channels.get(channel) else {
            return Some(Backlog { epoch, after: self.floor, numbers: Vec::new(), read: self.read });
        };
        let too_many = known.numbers.len().saturating_sub(kept.messages_max);
        let too_old = known.numbers.iter().take_while(|(_, at_ms)| *at_ms < kept.oldest_ms).count();
        let skipped = too_many.max(too_old);
        let after = match skipped {
            0 => known.floor,
            _ => known.numbers[skipped - 1].0,
        };
        let numbers = known.numbers.iter().skip(skipped).map(|(number, _)| *number).collect();
        Some(Backlog { epoch, after, numbers, read: self.read })
    }

    /// The channel's newest message, and how many are known.
    pub fn newest(&self, channel: &ChannelName) -> Option<(Position, usize)> {
        let (epoch, known) = (self.epoch?, self.channels.get(channel)?);
        Some((Position { epoch, offset: known.last }, known.numbers.len()))
    }
}

#[cfg(test)]
mod tests;
