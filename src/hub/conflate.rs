//! The newest message of each key, for sessions that fell off a conflating channel's log.

use crate::hub::log::Entry;
use crate::hub::policy::ConflateKey;
use crate::model::message::{Data, Message};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The most keys that a channel remembers; the longest untouched goes first.
pub const CONFLATE_KEYS_MAX: usize = 10_000;

/// The newest message of each key.
#[derive(Debug)]
pub struct Latest {
    key: ConflateKey,
    offset_by_key: HashMap<Box<str>, u64>,
    by_offset: BTreeMap<u64, (Box<str>, Arc<Entry>)>,
    bytes: usize,
    /// The highest offset of a value that was dropped without a newer one of its key.
    dropped_offset: u64,
}

impl Latest {
    /// Remembers nothing of what came up to `offset`.
    pub fn new(key: ConflateKey, offset: u64) -> Self {
        Self { key, offset_by_key: HashMap::new(), by_offset: BTreeMap::new(), bytes: 0, dropped_offset: offset }
    }

    /// The bytes that the remembered messages count for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Remembers `entry` in place of its key's older message.
    pub fn insert(&mut self, entry: &Arc<Entry>, bytes_max: usize) {
        let key = key_of(&self.key, &entry.message);
        let offset = entry.position.offset;
        if let Some(old) = self.offset_by_key.insert(key.clone(), offset)
            && let Some((_, entry)) = self.by_offset.remove(&old)
        {
            self.bytes -= entry.message.size_bytes();
        }
        self.bytes += entry.message.size_bytes();
        self.by_offset.insert(offset, (key, Arc::clone(entry)));
        while self.by_offset.len() > CONFLATE_KEYS_MAX || self.bytes > bytes_max && self.by_offset.len() > 1 {
            self.drop_oldest();
        }
    }

    /// Forgets what was published before `oldest_us`.
    pub fn expire(&mut self, oldest_us: u64) {
        while self.by_offset.first_key_value().is_some_and(|(_, (_, entry))| entry.published_us < oldest_us) {
            self.drop_oldest();
        }
    }

    /// The newest of each key after `after`, up to and with `until`, oldest first; `None` if one was dropped.
    pub fn between(&self, after: u64, until: u64) -> Option<Vec<Arc<Entry>>> {
        if self.dropped_offset > after {
            return None;
        }
        if after >= until {
            return Some(Vec::new());
        }
        Some(self.by_offset.range(after + 1..=until).map(|(_, (_, entry))| Arc::clone(entry)).collect())
    }

    fn drop_oldest(&mut self) {
        if let Some((offset, (key, entry))) = self.by_offset.pop_first() {
            self.offset_by_key.remove(&key);
            self.bytes -= entry.message.size_bytes();
            self.dropped_offset = offset;
        }
    }
}

/// The key's text. Messages without the event or value share the empty key.
fn key_of(key: &ConflateKey, message: &Message) -> Box<str> {
    match key {
        ConflateKey::Event => message.event.as_ref().map_or("", |event| event.as_str()).into(),
        ConflateKey::Pointer(pointer) => match &message.data {
            Data::Json(text) => serde_json::from_str::<serde_json::Value>(text)
                .ok()
                .and_then(|value| value.pointer(pointer).map(ToString::to_string))
                .unwrap_or_default()
                .into(),
            Data::Text(_) | Data::Binary(_) => "".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::channel::ChannelName;
    use crate::model::message::Label;
    use crate::model::position::Position;

    fn entry(offset: u64, event: &str, json: &str) -> Arc<Entry> {
        let message = Message {
            channel: ChannelName::new("c").expect("a name"),
            id: None,
            event: Label::new(event).ok(),
            data: Data::Json(json.into()),
            cloudevent: None,
            grip: None,
        };
        Arc::new(Entry::new(message, Position { epoch: 1, offset }, offset))
    }

    fn offsets(latest: &Latest, after: u64, until: u64) -> Option<Vec<u64>> {
        Some(latest.between(after, until)?.iter().map(|entry| entry.position.offset).collect())
    }

    #[test]
    fn the_newest_of_each_event_stays() {
        let mut latest = Latest::new(ConflateKey::Event, 0);
        for (offset, event) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "")] {
            latest.insert(&entry(offset, event, "0"), 1000);
        }
        assert_eq!(offsets(&latest, 0, 5), Some(vec![2, 3, 4, 5]));
        assert_eq!(offsets(&latest, 2, 4), Some(vec![3, 4]));
        assert_eq!(offsets(&latest, 5, 5), Some(vec![]));
    }

    #[test]
    fn a_pointer_picks_the_key() {
        let mut latest = Latest::new(ConflateKey::Pointer("/s".into()), 0);
        for (offset, json) in [(1, r#"{"s":1}"#), (2, r#"{"s":"1"}"#), (3, r#"{"s":1}"#), (4, "{}"), (5, "[]")] {
            latest.insert(&entry(offset, "", json), 1000);
        }
        assert_eq!(offsets(&latest, 0, 5), Some(vec![2, 3, 5]));
    }

    #[test]
    fn a_dropped_value_makes_a_gap() {
        let mut latest = Latest::new(ConflateKey::Event, 0);
        latest.insert(&entry(1, "a", "0"), 1000);
        latest.insert(&entry(2, "b", "0"), 1000);
        latest.expire(2);
        assert_eq!(offsets(&latest, 0, 2), None);
        assert_eq!(offsets(&latest, 1, 2), Some(vec![2]));
    }

    #[test]
    fn bytes_are_bounded() {
        let mut latest = Latest::new(ConflateKey::Event, 0);
        for offset in 1..=10 {
            latest.insert(&entry(offset, &offset.to_string(), "0123456789"), 50);
        }
        assert!(latest.bytes() <= 50);
        assert_eq!(offsets(&latest, 0, 10), None);
    }
}
