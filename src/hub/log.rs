//! The bounded log of one channel, without I/O and without a clock.
//!
//! ```text
//!   evicted │ first                      end
//!   ────────┼──────┬──────┬──────┬──────┤
//!           │ 7    │ 8    │ 9    │ 10   │ ← append
//!           └──────┴──────┴──────┴──────┘
//! ```
//!
//! A sequence number counts this log's entries from 0 without holes; it never leaves the process. An offset is the
//! bus's number of a message in its channel, which may have holes.

use crate::hub::conflate::Latest;
use crate::hub::policy::{ChannelPolicy, SlowConsumer};
use crate::model::message::Message;
use crate::model::position::Position;
use crate::model::session::GapReason;
use crate::proto::chunk::Chunk;
use bytes::Bytes;
use http::HeaderValue;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// A message in its channel's log, with its wire forms, each made once for all sessions.
#[derive(Debug)]
pub struct Entry {
    /// What was published.
    pub message: Message,
    /// Where it stands.
    pub position: Position,
    /// When it was published here, in microseconds of the hub's clock.
    pub published_us: u64,
    /// The SSE frame for sessions of this one channel.
    pub sse: OnceLock<Chunk>,
    /// The raw WebSocket frame.
    pub websocket: OnceLock<Bytes>,
    /// The `pushbridge.v1.json` frame for sessions of this one channel.
    pub websocket_v1: OnceLock<Bytes>,
    /// The `cloudevents.json` frame.
    pub websocket_cloudevents: OnceLock<Bytes>,
    /// The long poll answer that has this message alone, for sessions of this one channel.
    pub long_poll: OnceLock<Box<Polled>>,
    /// What a GRIP stream of events gets.
    pub grip_events: OnceLock<Chunk>,
    /// What any other GRIP stream gets.
    pub grip_bytes: OnceLock<Chunk>,
}

/// The answer of a long poll.
#[derive(Debug, Clone)]
pub struct Polled {
    /// The cursor after it, as an entity tag.
    pub etag: HeaderValue,
    /// The JSON text.
    pub body: Bytes,
}

impl Entry {
    /// An entry whose wire forms are yet to be made.
    pub fn new(message: Message, position: Position, published_us: u64) -> Self {
        Self {
            message,
            position,
            published_us,
            sse: OnceLock::new(),
            websocket: OnceLock::new(),
            websocket_v1: OnceLock::new(),
            websocket_cloudevents: OnceLock::new(),
            long_poll: OnceLock::new(),
            grip_events: OnceLock::new(),
            grip_bytes: OnceLock::new(),
        }
    }
}

/// Messages that stay for sessions that are a moment behind, even where the channel keeps no history.
pub const LIVE_WINDOW_MESSAGES: usize = 64;

/// Where a session without a cursor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    Now,
    /// With the newest messages of each channel, this many at most.
    Last(usize),
}

/// Where a reader begins: its next entry, the position before that, and what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The sequence number of the next entry.
    pub next: u64,
    /// The position before it.
    pub at: Position,
    /// What lies between the cursor and `at`, if anything does.
    pub gap: Option<GapReason>,
}

/// How far a log has come, in messages and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The sequence number that the next entry will have.
    pub end: u64,
    /// The bytes of all that was ever appended.
    pub bytes: u64,
    /// Half of the messages that are kept.
    pub half_messages: u64,
    /// Half of the bytes that are kept.
    pub half_bytes: u64,
}

/// The newest messages of one channel.
#[derive(Debug)]
pub struct Log {
    first: u64,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    appended_bytes: u64,
    last: Position,
    /// For each earlier epoch that this one goes on from: its last message that is still in this one, unchanged.
    past: Box<[Position]>,
    evicted_offset: u64,
    /// Readers from before this sequence number missed what the bus lost, rather than being slow.
    lost_before: u64,
    lost: GapReason,
    /// Readers from before this one have read another life of the channel.
    other_life_before: u64,
    latest: Option<Latest>,
    policy: Arc<ChannelPolicy>,
}

/// Whether the instance holds more than it should (`limits.history_bytes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Within the limit: the channel's own bounds count.
    None,
    /// Over the limit: a channel keeps its newest message only, until there is room again.
    High,
}

impl Log {
    /// An empty log.
    pub fn new(epoch: u64, policy: Arc<ChannelPolicy>) -> Self {
        let mut log = Self {
            first: 0,
            entries: VecDeque::new(),
            bytes: 0,
            appended_bytes: 0,
            last: Position { epoch, offset: 0 },
            past: Box::default(),
            evicted_offset: 0,
            lost_before: 0,
            lost: GapReason::Bus,
            other_life_before: 0,
            latest: None,
            policy: Arc::default(),
        };
        log.set_policy(policy);
        log
    }

    /// Adopts another policy; its bounds count from the next append or expiry.
    pub fn set_policy(&mut self, policy: Arc<ChannelPolicy>) {
        if policy.slow_consumer != self.policy.slow_consumer || self.latest.is_none() {
            self.latest = match &policy.slow_consumer {
                SlowConsumer::Conflate(key) => Some(Latest::new(key.clone(), self.last.offset)),
                SlowConsumer::Gap | SlowConsumer::Close => None,
            };
        }
        self.policy = policy;
    }

    /// The policy in force.
    pub fn policy(&self) -> &Arc<ChannelPolicy> {
        &self.policy
    }

    /// The position of the newest message ever; offset 0 if there was none.
    pub fn last(&self) -> Position {
        self.last
    }

    /// The sequence number of the oldest entry.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The sequence number that the next entry will have.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// How much has been appended so far, and half of what is kept at most: a reader that is further behind is at risk.
    pub fn extent(&self) -> Extent {
        Extent {
            end: self.end(),
            bytes: self.appended_bytes,
            half_messages: self.policy.history_messages_max.max(LIVE_WINDOW_MESSAGES) as u64 / 2,
            half_bytes: self.policy.history_bytes_max as u64 / 2,
        }
    }

    /// The bytes that the entries count for.
    pub fn bytes(&self) -> usize {
        self.bytes + self.latest.as_ref().map_or(0, Latest::bytes)
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to replay.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The position that the next message gets where this log numbers its own messages (the embedded bus).
    pub fn next_position(&self) -> Position {
        Position { epoch: self.last.epoch, offset: self.last.offset + 1 }
    }

    /// Appends a message whose position is above [`Log::last`] in the same epoch, and evicts what is over the bounds.
    pub fn append(&mut self, message: Message, position: Position, now_us: u64, pressure: Pressure) {
        debug_assert!(position.epoch == self.last.epoch && position.offset > self.last.offset);
        let entry = Arc::new(Entry::new(message, position, now_us));
        self.last = position;
        self.bytes += entry.message.size_bytes();
        self.appended_bytes += entry.message.size_bytes() as u64;
        if let Some(latest) = &mut self.latest {
            latest.insert(&entry, self.policy.history_bytes_max);
        }
        self.entries.push_back(entry);
        self.evict(now_us, pressure);
    }

    /// Goes on at another place after a stretch that can't be had: the log is emptied, and `last` becomes the position
    /// before what follows (its epoch may be another one). Every reader that was there hears of a gap with `reason`.
    pub fn skip_to(&mut self, last: Position, reason: GapReason) {
        // One sequence number is left out, so that also a reader that was at the end falls off.
        self.first = self.end() + 1;
        self.entries.clear();
        self.bytes = 0;
        self.last = last;
        self.evicted_offset = last.offset;
        self.lost_before = self.first;
        self.lost = reason;
        if reason == GapReason::Epoch {
            self.other_life_before = self.first;
        }
        if let SlowConsumer::Conflate(key) = &self.policy.slow_consumer {
            self.latest = Some(Latest::new(key.clone(), last.offset));
        }
    }

    /// Why a reader whose next entry was `next` has fallen off.
    pub fn reason_of_fall(&self, next: u64) -> GapReason {
        // Whoever slept through both has to hear of the graver: what is known to it may come again.
        match next {
            next if next < self.other_life_before => GapReason::Epoch,
            next if next < self.lost_before => self.lost,
            _ => GapReason::Slow,
        }
    }

    /// Says that everything up to `last` is gone: for a log that starts in the middle of a channel's life.
    pub fn start_at(&mut self, last: Position) {
        debug_assert!(self.entries.is_empty());
        self.last = last;
        self.evicted_offset = last.offset;
        if let SlowConsumer::Conflate(key) = &self.policy.slow_consumer {
            self.latest = Some(Latest::new(key.clone(), last.offset));
        }
    }

    /// Moves the end on where the bus says that nothing stands between: a cursor from there is then no cursor of
    /// another life. What is not after the end, in its epoch, changes nothing.
    pub fn advance_to(&mut self, last: Position) {
        if last.epoch == self.last.epoch && last.offset > self.last.offset {
            self.last = last;
        }
    }

    /// Goes on in `epoch` with all that is here: up to each place of `past` that epoch's messages are those of this one,
    /// and a cursor there is no cursor of another life.
    pub fn renew(&mut self, epoch: u64, past: Box<[Position]>) {
        self.last.epoch = epoch;
        self.past = past;
    }

    /// Whether it is known here what became of a place: it is not ahead, nor of an epoch that was never heard of.
    pub fn knows(&self, at: Position) -> bool {
        let is_past = || self.past.iter().any(|end| end.epoch == at.epoch);
        at.epoch == self.last.epoch && at.offset <= self.last.offset || is_past()
    }

    /// The place in this epoch of a cursor; `None` if it is one of another life.
    fn here(&self, cursor: Position) -> Option<Position> {
        let end = match cursor.epoch == self.last.epoch {
            true => self.last.offset,
            false => self.past.iter().find(|end| end.epoch == cursor.epoch)?.offset.min(self.last.offset),
        };
        (cursor.offset <= end).then_some(Position { epoch: self.last.epoch, ..cursor })
    }

    /// Evicts what has grown too old.
    pub fn expire(&mut self, now_us: u64, pressure: Pressure) {
        self.evict(now_us, pressure);
        let oldest_us = now_us.saturating_sub(self.policy.history_age_ms_max.saturating_mul(1000));
        if let Some(latest) = &mut self.latest {
            latest.expire(oldest_us);
        }
    }

    /// Entries from a sequence number on, oldest first.
    pub fn entries_from(&self, next: u64) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().skip(next.saturating_sub(self.first) as usize)
    }

    /// All entries, newest first.
    pub fn entries_newest_first(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().rev()
    }

    /// Where a reader with this cursor begins; without one, where `start` says.
    pub fn place(&self, cursor: Option<Position>, start: Start) -> Place {
        let Some(cursor) = cursor else { return self.place_at_start(start) };
        let Some(cursor) = self.here(cursor) else {
            return Place { gap: Some(GapReason::Epoch), ..self.place_at(self.first) };
        };
        if cursor.offset < self.evicted_offset {
            return Place { gap: Some(GapReason::Evicted), ..self.place_at(self.first) };
        }
        let index = self.entries.partition_point(|entry| entry.position.offset <= cursor.offset);
        Place { next: self.first + index as u64, at: cursor, gap: None }
    }

    /// What conflation keeps of the messages after `at` that are no longer entries; `None` where the channel does not
    /// conflate, or where conflation itself had to drop a value that the reader has not seen.
    pub fn conflated(&self, at: Position) -> Option<Vec<Arc<Entry>>> {
        self.latest.as_ref()?.between(at.offset, self.evicted_offset)
    }

    fn place_at_start(&self, start: Start) -> Place {
        let back = match start {
            Start::Now => 0,
            Start::Last(count) => count.min(self.policy.history_messages_max).min(self.entries.len()),
        };
        self.place_at(self.end() - back as u64)
    }

    /// A reader whose next entry is `next`, and who knows all before.
    fn place_at(&self, next: u64) -> Place {
        let offset = match self.entries.get((next - self.first) as usize) {
            Some(entry) => entry.position.offset - 1,
            None => self.last.offset,
        };
        Place { next, at: Position { epoch: self.last.epoch, offset }, gap: None }
    }

    fn evict(&mut self, now_us: u64, pressure: Pressure) {
        let messages_max = self.policy.history_messages_max.max(LIVE_WINDOW_MESSAGES);
        let oldest_us = now_us.saturating_sub(self.policy.history_age_ms_max.saturating_mul(1000));
        while let Some(oldest) = self.entries.front() {
            let newest_only = self.entries.len() == 1;
            let over = self.entries.len() > messages_max
                || self.bytes > self.policy.history_bytes_max
                || pressure == Pressure::High;
            // The newest message stays whatever its size, so that every session gets it; only age takes it.
            if !(oldest.published_us < oldest_us || over && !newest_only) {
                break;
            }
            self.bytes -= oldest.message.size_bytes();
            self.evicted_offset = oldest.position.offset;
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::channel::ChannelName;
    use crate::model::message::Data;
    use proptest::prelude::*;

    fn message(text: &str) -> Message {
        Message {
            channel: ChannelName::new("c").expect("a name"),
            id: None,
            event: None,
            data: Data::Text(text.into()),
            cloudevent: None,
            grip: None,
        }
    }

    fn log(messages_max: usize, bytes_max: usize) -> Log {
        let policy = ChannelPolicy {
            history_messages_max: messages_max,
            history_bytes_max: bytes_max,
            history_age_ms_max: 1000,
            ..ChannelPolicy::default()
        };
        Log::new(7, Arc::new(policy))
    }

    fn append(log: &mut Log, text: &str, now_us: u64) {
        let position = log.next_position();
        log.append(message(text), position, now_us, Pressure::None);
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 7, offset }
    }

    #[test]
    fn the_log_keeps_its_bounds() {
        let mut log = log(100, 1000);
        for _ in 0..150 {
            append(&mut log, "0123456789", 0);
        }
        assert_eq!((log.first(), log.end(), log.bytes()), (50, 150, 1000));
        log.expire(1_000_001, Pressure::None);
        assert_eq!((log.first(), log.end(), log.bytes()), (150, 150, 0));
        assert_eq!(log.last(), at(150));
    }

    #[test]
    fn a_message_over_the_bytes_bound_stays_until_the_next() {
        let mut log = log(100, 4);
        append(&mut log, "0123456789", 0);
        assert_eq!(log.len(), 1);
        append(&mut log, "0123456789", 0);
        assert_eq!((log.first(), log.len()), (1, 1));
    }

    #[test]
    fn under_pressure_a_channel_keeps_its_newest() {
        let mut log = log(100, 1000);
        append(&mut log, "a", 0);
        append(&mut log, "b", 0);
        log.expire(0, Pressure::High);
        assert_eq!((log.first(), log.len()), (1, 1));
    }

    #[test]
    fn places_follow_cursor_and_start() {
        let mut log = log(64, 10_000);
        assert_eq!(log.place(None, Start::Last(5)), Place { next: 0, at: at(0), gap: None });
        for _ in 0..100 {
            append(&mut log, "x", 0);
        }
        assert_eq!(log.place(None, Start::Now), Place { next: 100, at: at(100), gap: None });
        assert_eq!(log.place(None, Start::Last(3)), Place { next: 97, at: at(97), gap: None });
        assert_eq!(log.place(None, Start::Last(500)), Place { next: 36, at: at(36), gap: None });
        assert_eq!(log.place(Some(at(98)), Start::Now), Place { next: 98, at: at(98), gap: None });
        assert_eq!(log.place(Some(at(36)), Start::Now), Place { next: 36, at: at(36), gap: None });
        let evicted = Place { next: 36, at: at(36), gap: Some(GapReason::Evicted) };
        assert_eq!(log.place(Some(at(35)), Start::Now), evicted);
        let epoch = Place { next: 36, at: at(36), gap: Some(GapReason::Epoch) };
        assert_eq!(log.place(Some(at(101)), Start::Now), epoch);
        assert_eq!(log.place(Some(Position { epoch: 6, offset: 98 }), Start::Now), epoch);
    }

    #[test]
    fn an_advanced_log_knows_cursors_from_there() {
        let mut log = log(64, 10_000);
        log.start_at(at(10));
        log.append(message("x"), at(12), 0, Pressure::None);
        log.advance_to(at(20));
        log.advance_to(at(19));
        log.advance_to(Position { epoch: 8, offset: 30 });
        assert_eq!(log.last(), at(20));
        assert_eq!(log.place(Some(at(20)), Start::Now), Place { next: 1, at: at(20), gap: None });
        assert_eq!(log.place(Some(at(15)), Start::Now), Place { next: 1, at: at(15), gap: None });
        assert_eq!(log.place(Some(at(10)), Start::Now), Place { next: 0, at: at(10), gap: None });
        assert_eq!(log.place(Some(at(9)), Start::Now).gap, Some(GapReason::Evicted));
        assert_eq!(log.place(Some(at(21)), Start::Now).gap, Some(GapReason::Epoch));
    }

    #[test]
    fn a_renewed_log_knows_cursors_of_what_it_kept() {
        let mut log = log(64, 10_000);
        for _ in 0..5 {
            append(&mut log, "x", 0);
        }
        let of = |epoch, offset| Position { epoch, offset };
        // Epoch 6 lost what came after its third message, this one nothing.
        log.renew(8, [at(5), of(6, 3)].into());
        append(&mut log, "x", 0);
        assert_eq!(log.last(), of(8, 6));
        assert_eq!(log.place(Some(at(5)), Start::Now), Place { next: 5, at: of(8, 5), gap: None });
        assert_eq!(log.place(Some(at(2)), Start::Now), Place { next: 2, at: of(8, 2), gap: None });
        assert_eq!(log.place(Some(of(6, 3)), Start::Now), Place { next: 3, at: of(8, 3), gap: None });
        let lost = Place { next: 0, at: of(8, 0), gap: Some(GapReason::Epoch) };
        for cursor in [at(6), of(6, 4), of(5, 1), of(8, 7)] {
            assert_eq!(log.place(Some(cursor), Start::Now), lost, "{cursor}");
        }
        assert!(log.knows(at(6)) && log.knows(of(6, 9)) && log.knows(of(8, 6)), "that they are lost is known, too");
        assert!(!log.knows(of(8, 7)) && !log.knows(of(5, 1)));
    }

    proptest! {
        /// Whatever is appended with whatever holes: a reader at any offset gets all that follows, or a gap.
        #[test]
        fn a_cursor_gets_what_follows_or_a_gap(steps in proptest::collection::vec(1u64..5, 0..300), cursor in 0u64..900) {
            let mut log = log(64, 100_000);
            let mut offsets = Vec::new();
            for step in steps {
                let offset = log.last().offset + step;
                log.append(message("x"), at(offset), 0, Pressure::None);
                offsets.push(offset);
            }
            let place = log.place(Some(at(cursor)), Start::Now);
            let read: Vec<u64> = log.entries_from(place.next).map(|entry| entry.position.offset).collect();
            let missed: Vec<u64> = offsets.iter().copied().filter(|offset| *offset > cursor).collect();
            if place.gap.is_none() {
                prop_assert_eq!(read, missed);
            } else {
                prop_assert!(offsets.ends_with(&read));
                prop_assert!(missed.len() > read.len() || cursor > log.last().offset);
            }
        }
    }
}
