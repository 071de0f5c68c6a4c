//! Ids that were published a short while ago.

use crate::model::channel::ChannelName;
use crate::model::message::Label;
use crate::model::position::Position;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most ids that an instance remembers; beyond it a partition forgets its oldest before its time.
pub const RECENT_IDS_MAX: usize = 1024 * 1024;

/// Ids by channel, with the position that each got.
#[derive(Debug)]
pub struct RecentIds {
    window_us: u64,
    /// How many ids all partitions remember together.
    count: Arc<AtomicUsize>,
    count_max: usize,
    positions: HashMap<(ChannelName, Label), Position>,
    order: VecDeque<(u64, (ChannelName, Label))>,
}

impl RecentIds {
    /// Remembers ids for `window_us`; `count` is shared by partitions that have room for `count_max` together.
    pub fn new(window_us: u64, count: Arc<AtomicUsize>, count_max: usize) -> Self {
        Self { window_us, count, count_max, positions: HashMap::new(), order: VecDeque::new() }
    }

    /// Remembers ids for another time.
    pub fn set_window(&mut self, window_us: u64) {
        self.window_us = window_us;
    }

    /// The position of an id that was published within the window.
    pub fn find(&mut self, channel: &ChannelName, id: &Label, now_us: u64) -> Option<Position> {
        self.forget(now_us);
        self.positions.get(&(channel.clone(), id.clone())).copied()
    }

    /// Remembers an id that is not there yet.
    pub fn insert(&mut self, channel: ChannelName, id: Label, position: Position, now_us: u64) {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.count_max {
            self.forget_oldest();
        }
        self.order.push_back((now_us, (channel.clone(), id.clone())));
        self.positions.insert((channel, id), position);
    }

    /// Forgets what was published before the window.
    pub fn forget(&mut self, now_us: u64) {
        while self.order.front().is_some_and(|(since_us, _)| since_us.saturating_add(self.window_us) <= now_us) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.order.pop_front() {
            self.positions.remove(&oldest);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_after_the_window_and_over_the_bound() {
        let count = Arc::default();
        let mut ids = RecentIds::new(100, Arc::clone(&count), 3);
        let mut others = RecentIds::new(100, Arc::clone(&count), 3);
        let channel = ChannelName::new("c").expect("a name");
        let label = |n: usize| Label::new(&n.to_string()).expect("a label");
        let position = Position { epoch: 1, offset: 1 };
        ids.insert(channel.clone(), label(0), position, 0);
        assert_eq!(ids.find(&channel, &label(0), 99), Some(position));
        assert_eq!(ids.find(&channel, &label(0), 100), None);
        ids.insert(channel.clone(), label(0), position, 100);
        ids.set_window(50);
        assert_eq!(ids.find(&channel, &label(0), 149), Some(position));
        assert_eq!(ids.find(&channel, &label(0), 150), None);
        others.insert(channel.clone(), label(0), position, 200);
        for n in 0..3 {
            ids.insert(channel.clone(), label(n), position, 200);
        }
        assert_eq!(ids.find(&channel, &label(0), 200), None, "there is room for two more");
        assert_eq!(ids.find(&channel, &label(1), 200), Some(position));
        assert_eq!((ids.positions.len(), count.load(Ordering::Relaxed)), (2, 3));
        others.forget(300);
        ids.insert(channel.clone(), label(3), position, 299);
        assert_eq!((ids.positions.len(), count.load(Ordering::Relaxed)), (3, 3), "what others forget makes room");
    }
}
