//! The order of one channel's messages, by `id` and `prev-id`.
//!
//! ```text
//!  message ─▶ repeated id? ─yes─▶ dropped
//!                 │no
//!             prev-id is the last id, or nothing is known ─▶ passed, then what waited for it
//!                 │else
//!             parked until its predecessor comes, or its wait is over
//! ```
//!
//! Time is an argument, in milliseconds of any steady clock.

use crate::model::message::{Label, Message};
use std::collections::{HashMap, VecDeque};

/// How long a message waits for its predecessor, in milliseconds.
pub const WAIT_MS_MAX: u64 = 5000;
/// The most messages of a channel that wait.
pub const PARKED_MAX: usize = 100;
/// The most ids of a channel that are remembered.
pub const IDS_MAX: usize = 10_000;

/// The order of one channel.
#[derive(Debug, Default)]
pub struct Sequencer {
    last: Option<Label>,
    seen: HashMap<Label, u64>,
    order: VecDeque<(u64, Label)>,
    parked: VecDeque<Parked>,
}

#[derive(Debug)]
struct Parked {
    message: Message,
    until_ms: u64,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, and then what had waited for it.
    Passed(Vec<Message>),
    /// It waits until [`Sequencer::deadline_ms`]; what had to make room for it goes on.
    Parked(Vec<Message>),
    /// Its id was there a short while ago.
    Repeated,
}

impl Sequencer {
    /// Takes in a message with an id. `subscribed` says whether anybody is on the channel: without, nothing waits.
    pub fn offer(&mut self, message: Message, subscribed: Subscribed, id_cache_ms: u64, now_ms: u64) -> Fate {
        let Some(grip) = message.grip.as_deref() else { return Fate::Passed(vec![message]) };
        let Some(id) = grip.id.clone() else { return Fate::Passed(vec![message]) };
        self.forget(id_cache_ms, now_ms);
        if self.seen.contains_key(&id) {
            return Fate::Repeated;
        }
        self.remember(id, now_ms);
        let waits = grip.is_ordered()
            && subscribed == Subscribed::Somebody
            && grip.prev_id.as_ref().zip(self.last.as_ref()).is_some_and(|(prev_id, last)| prev_id != last);
        if !waits {
            return Fate::Passed(self.pass(message));
        }
        let mut passed = Vec::new();
        if self.parked.len() >= PARKED_MAX
            && let Some(oldest) = self.parked.pop_front()
        {
            passed = self.pass(oldest.message);
        }
        self.parked.push_back(Parked { message, until_ms: now_ms.saturating_add(WAIT_MS_MAX) });
        Fate::Parked(passed)
    }

    /// What has waited long enough, and what had waited for that.
    pub fn release(&mut self, now_ms: u64) -> Vec<Message> {
        let mut passed = Vec::new();
        while self.parked.front().is_some_and(|parked| parked.until_ms <= now_ms)
            && let Some(parked) = self.parked.pop_front()
        {
            passed.extend(self.pass(parked.message));
        }
        passed
    }

    /// When [`Sequencer::release`] has something.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.parked.front().map(|parked| parked.until_ms)
    }

    /// When the last of what waits now will have waited long enough.
    pub fn last_deadline_ms(&self) -> Option<u64> {
        self.parked.back().map(|parked| parked.until_ms)
    }

    /// Takes an id back that could not be passed on: it may come again.
    pub fn withdraw(&mut self, id: &Label) {
        self.seen.remove(id);
    }

    /// Forgets the last id: the next message is in order whatever its `prev-id` is.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// Whether there is nothing that would be missed.
    pub fn is_idle(&mut self, id_cache_ms: u64, now_ms: u64) -> bool {
        self.forget(id_cache_ms, now_ms);
        self.parked.is_empty() && self.seen.is_empty()
    }

    fn pass(&mut self, message: Message) -> Vec<Message> {
        let mut passed = vec![message];
        loop {
            if let Some(id) = passed.last().and_then(|message| message.grip.as_ref()?.id.clone()) {
                self.last = Some(id);
            }
            let last = self.last.as_ref();
            let follows = |parked: &Parked| {
                let prev_id = parked.message.grip.as_ref().and_then(|grip| grip.prev_id.as_ref());
                prev_id.is_some() && prev_id == last
            };
            let next = self.parked.iter().position(follows).and_then(|at| self.parked.remove(at));
            let Some(next) = next else { return passed };
            passed.push(next.message);
        }
    }

    fn remember(&mut self, id: Label, now_ms: u64) {
        if self.order.len() >= IDS_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back((now_ms, id.clone()));
        self.seen.insert(id, now_ms);
    }

    fn forget(&mut self, id_cache_ms: u64, now_ms: u64) {
        while let Some((since_ms, _)) = self.order.front()
            && since_ms.saturating_add(id_cache_ms) <= now_ms
            && let Some((_, id)) = self.order.pop_front()
        {
            self.seen.remove(&id);
        }
    }
}

/// Whether anybody is on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// At least one session.
    Somebody,
    /// None.
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::grip::items;
    use proptest::prelude::*;

    const CACHE_MS: u64 = 60_000;

    fn message(id: &str, prev_id: &str, no_seq: bool) -> Message {
        let item = serde_json::json!({"items": [{
            "channel": "c", "id": id, "prev-id": prev_id, "no-seq": no_seq, "ws-message": {"content": id}}]});
        items::decode(item.to_string().as_bytes()).expect("an item").pop().expect("one")
    }

    fn ids(messages: &[Message]) -> Vec<&str> {
        messages.iter().filter_map(|message| message.grip.as_ref()?.id.as_ref().map(Label::as_str)).collect()
    }

    /// Offers ids with their predecessors, a second apart, and shows what passes with each.
    #[track_caller]
    fn check(subscribed: Subscribed, offered: &[(&str, &str)], expected: &[&[&str]]) {
        let mut sequencer = Sequencer::default();
        let mut now_ms = 0;
        for ((id, prev_id), expected) in offered.iter().zip(expected) {
            let passed = match sequencer.offer(message(id, prev_id, false), subscribed, CACHE_MS, now_ms) {
                Fate::Passed(passed) | Fate::Parked(passed) => passed,
                Fate::Repeated => Vec::new(),
            };
            assert_eq!(ids(&passed), *expected, "{id} after {prev_id}");
            now_ms += 1000;
        }
    }

    #[test]
    fn messages_are_put_in_order_and_repeated_ones_dropped() {
        use Subscribed::{Nobody, Somebody};
        check(Somebody, &[("1", ""), ("3", "2"), ("2", "1"), ("3", "2")], &[&["1"], &[], &["2", "3"], &[]]);
        check(Somebody, &[("5", "4"), ("6", "5")], &[&["5"], &["6"]]);
        check(Somebody, &[("1", ""), ("4", "3"), ("3", "2"), ("2", "1")], &[&["1"], &[], &[], &["2", "3", "4"]]);
        check(Nobody, &[("1", ""), ("3", "2"), ("2", "1")], &[&["1"], &["3"], &["2"]]);
    }

    #[test]
    fn who_waits_too_long_goes_on() {
        let mut sequencer = Sequencer::default();
        let mut offer = |id, prev_id, no_seq, now_ms| {
            sequencer.offer(message(id, prev_id, no_seq), Subscribed::Somebody, CACHE_MS, now_ms)
        };
        assert!(matches!(offer("1", "", false, 0), Fate::Passed(_)));
        assert_eq!(offer("3", "2", false, 1000), Fate::Parked(Vec::new()));
        assert!(matches!(offer("9", "8", true, 1000), Fate::Passed(passed) if passed.len() == 1));
        assert_eq!(sequencer.deadline_ms(), Some(6000));
        assert!(sequencer.release(5999).is_empty());
        assert_eq!(ids(&sequencer.release(6000)), ["3"]);
        assert_eq!(sequencer.deadline_ms(), None);
        assert!(!sequencer.is_idle(CACHE_MS, 60_999));
        assert!(sequencer.is_idle(CACHE_MS, 61_000));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut sequencer = Sequencer::default();
        let _ = sequencer.offer(message("0", "", false), Subscribed::Somebody, CACHE_MS, 0);
        for n in 1..=PARKED_MAX {
            let parked =
                sequencer.offer(message(&format!("p{n}"), &format!("q{n}"), false), Subscribed::Somebody, CACHE_MS, 0);
            assert_eq!(parked, Fate::Parked(Vec::new()));
        }
        let over = sequencer.offer(message("more", "x", false), Subscribed::Somebody, CACHE_MS, 0);
        assert!(matches!(over, Fate::Parked(passed) if ids(&passed) == ["p1"]));
    }

    proptest! {
        #[test]
        fn any_order_of_a_chain_comes_out_in_order(order in Just((1..=8).collect::<Vec<u32>>()).prop_shuffle()) {
            let mut sequencer = Sequencer::default();
            let mut out = Vec::new();
            let _ = sequencer.offer(message("0", "", false), Subscribed::Somebody, CACHE_MS, 0);
            for n in order {
                if let Fate::Passed(passed) = sequencer.offer(message(&n.to_string(), &(n - 1).to_string(), false), Subscribed::Somebody, CACHE_MS, 0) {
                    out.extend(ids(&passed).into_iter().map(str::to_owned));
                }
            }
            prop_assert_eq!(out, (1..=8).map(|n| n.to_string()).collect::<Vec<_>>());
        }
    }
}
