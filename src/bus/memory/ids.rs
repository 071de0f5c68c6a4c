//! Ids that were published a short while ago.

use crate::model::channel::ChannelName;
use crate::model::message::Label;
use crate::model::position::Position;
use std::collections::{HashMap, VecDeque};

/// The most ids of one partition; beyond it the oldest is forgotten before its time.
pub const RECENT_IDS_MAX: usize = 16 * 1024;

/// Ids by channel, with the position that each got.
#[derive(Debug)]
pub struct RecentIds {
    window_us: u64,
    positions: HashMap<(ChannelName, Label), Position>,
    order: VecDeque<(u64, (ChannelName, Label))>,
}

impl RecentIds {
    /// Remembers ids for `window_us`.
    pub fn new(window_us: u64) -> Self {
        Self { window_us, positions: HashMap::new(), order: VecDeque::new() }
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
        if self.order.len() == RECENT_IDS_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.positions.remove(&oldest);
        }
        self.order.push_back((now_us, (channel.clone(), id.clone())));
        self.positions.insert((channel, id), position);
    }

    fn forget(&mut self, now_us: u64) {
        while let Some((since_us, key)) = self.order.front() {
            if since_us.saturating_add(self.window_us) > now_us {
                break;
            }
            self.positions.remove(key);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_after_the_window_and_over_the_bound() {
        let mut ids = RecentIds::new(100);
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
        for n in 0..=RECENT_IDS_MAX {
            ids.insert(channel.clone(), label(n), position, 200);
        }
        assert_eq!(ids.find(&channel, &label(0), 200), None);
        assert_eq!(ids.find(&channel, &label(1), 200), Some(position));
        assert_eq!(ids.positions.len(), RECENT_IDS_MAX);
    }
}
