//! The ids that publishers give the messages of a channel, as far as its log knows them: where a reliable session goes on.

use crate::hub::Hub;
use crate::hub::log::Entry;
use crate::hub::shard::Order;
use crate::model::channel::ChannelName;
use crate::model::message::Label;
use crate::model::position::Position;
use std::sync::atomic::Ordering;

/// Where a channel stands, seen from the last id that a session has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The log has what follows; the session goes on after this place.
    After(Position),
    /// The channel has other ids by now, and the log does not say what lies between: something may be missing.
    Behind,
    /// Nothing is known of the channel's ids.
    Unknown,
}

impl Hub {
    /// Where a session goes on whose last id on a channel is `seen`.
    pub fn standing(&self, channel: &ChannelName, seen: &Label) -> Standing {
        let Some(channel) = self.find(channel.as_str()) else { return Standing::Unknown };
        let since_us = self.ids_since_us.load(Ordering::Relaxed);
        let log = channel.log.lock();
        let mut standing = Standing::Unknown;
        for entry in log.entries_newest_first() {
            let Some(grip) = entry.message.grip.as_ref().filter(|_| entry.published_us >= since_us) else { continue };
            if grip.id.as_ref() == Some(seen) {
                return Standing::After(entry.position);
            }
            if !grip.is_ordered() {
                continue;
            }
            standing = match &grip.prev_id {
                Some(prev_id) if prev_id == seen => return Standing::After(before(entry)),
                _ => Standing::Behind,
            };
        }
        standing
    }

    /// Forgets the ids of all channels, and has every session look whether it is reliable and has to ask its backend.
    pub fn forget_ids(&self) {
        self.ids_since_us.store(self.clock().now_us(), Ordering::Relaxed);
        for inbox in &self.inboxes {
            inbox.order(Order::Recover);
        }
    }
}

fn before(entry: &Entry) -> Position {
    Position { offset: entry.position.offset - 1, ..entry.position }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::hub::HubLimits;
    use crate::proto::grip::items;
    use std::sync::Arc;

    fn hub(ids: &[(&str, &str)]) -> Arc<Hub> {
        let hub = Hub::new(1, Clock::start(), HubLimits::default(), Arc::default());
        for (id, prev_id) in ids {
            let json = serde_json::json!({"items": [
                {"channel": "a", "id": id, "prev-id": prev_id, "http-stream": {"content": "x"}}]});
            for message in items::decode(json.to_string().as_bytes()).expect("items") {
                let channel = hub.open(&message.channel).expect("a channel");
                hub.append(&channel, message, None).expect("appended");
            }
        }
        hub
    }

    #[track_caller]
    fn check(ids: &[(&str, &str)], seen: &str, expected: Option<Option<u64>>) {
        let channel = ChannelName::new("a").expect("a name");
        let found = match hub(ids).standing(&channel, &Label::new(seen).expect("an id")) {
            Standing::After(position) => Some(Some(position.offset)),
            Standing::Behind => Some(None),
            Standing::Unknown => None,
        };
        assert_eq!(found, expected, "{seen} in {ids:?}");
    }

    #[test]
    fn a_log_says_where_a_session_goes_on() {
        let ids = [("1", ""), ("2", "1"), ("3", "2")];
        check(&ids, "2", Some(Some(2)));
        check(&ids, "3", Some(Some(3)));
        check(&ids, "0", Some(None));
        check(&[("7", "6"), ("8", "7")], "6", Some(Some(0)));
        check(&[("1", ""), ("2", "1"), ("1", ""), ("2", "1")], "1", Some(Some(3)));
        check(&[], "1", None);
    }

    #[test]
    fn forgotten_ids_say_nothing() {
        let hub = hub(&[("1", ""), ("2", "1")]);
        hub.ids_since_us.store(u64::MAX, Ordering::Relaxed);
        let channel = ChannelName::new("a").expect("a name");
        assert_eq!(hub.standing(&channel, &Label::new("1").expect("an id")), Standing::Unknown);
    }
}
