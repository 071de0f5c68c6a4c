//! What a reliable session has seen of its channels, and when it has to ask its backend again.

use crate::model::channel::ChannelName;
use crate::model::grip::GripFormats;
use crate::model::message::Label;

/// The last ids of a session, by channel. A channel without one is not reliable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    ids: Vec<(ChannelName, Label)>,
}

/// What a message is to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next.
    Next,
    /// The session has it already.
    Known,
    /// Something before it is missing: what is queued is dropped, and the backend is asked.
    Missing,
}

impl Seen {
    /// What a hold says that its response includes.
    pub fn new(ids: impl IntoIterator<Item = (ChannelName, Label)>) -> Self {
        Self { ids: ids.into_iter().collect() }
    }

    /// Whether no channel is reliable.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The last id of a channel.
    pub fn last(&self, channel: &str) -> Option<&Label> {
        self.ids.iter().find(|(known, _)| known.as_str() == channel).map(|(_, id)| id)
    }

    /// All channels with their last ids.
    pub fn iter(&self) -> impl Iterator<Item = (&ChannelName, &Label)> {
        self.ids.iter().map(|(channel, id)| (channel, id))
    }

    /// Whether a hold that starts has missed something: `newest` is the last id that was published to the channel, if
    /// that is known.
    pub fn is_behind(&self, channel: &ChannelName, newest: Option<&Label>) -> bool {
        self.last(channel.as_str()).zip(newest).is_some_and(|(last, newest)| last != newest)
    }

    /// Takes in a message of a channel.
    pub fn take_in(&mut self, channel: &ChannelName, message: &GripFormats) -> Verdict {
        let Some((_, last)) = self.ids.iter_mut().find(|(known, _)| known == channel) else { return Verdict::Next };
        let Some(id) = &message.id else { return Verdict::Next };
        if id == last {
            return Verdict::Known;
        }
        if message.is_ordered() && message.prev_id.as_ref().is_some_and(|prev_id| prev_id != last) {
            return Verdict::Missing;
        }
        if message.is_ordered() {
            *last = id.clone();
        }
        Verdict::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::grip::Order;

    fn label(text: &str) -> Label {
        Label::new(text).expect("a label")
    }

    fn message(id: &str, prev_id: Option<&str>, order: Order) -> GripFormats {
        GripFormats { id: Some(label(id)), prev_id: prev_id.map(label), order, ..GripFormats::default() }
    }

    #[test]
    fn a_session_knows_what_it_misses() {
        let channel = ChannelName::new("c").expect("a name");
        let mut seen = Seen::new([(channel.clone(), label("1"))]);
        #[track_caller]
        fn check(seen: &mut Seen, message: GripFormats, expected: Verdict, last: &str) {
            let channel = ChannelName::new("c").expect("a name");
            assert_eq!(seen.take_in(&channel, &message), expected);
            assert_eq!(seen.last("c").map(Label::as_str), Some(last));
        }
        check(&mut seen, message("2", Some("1"), Order::Counts), Verdict::Next, "2");
        check(&mut seen, message("2", Some("1"), Order::Counts), Verdict::Known, "2");
        check(&mut seen, message("4", Some("3"), Order::Counts), Verdict::Missing, "2");
        check(&mut seen, message("9", Some("8"), Order::Ignored), Verdict::Next, "2");
        check(&mut seen, message("x", None, Order::Counts), Verdict::Next, "x");
        check(&mut seen, GripFormats::default(), Verdict::Next, "x");
        let other = ChannelName::new("other").expect("a name");
        assert_eq!(seen.take_in(&other, &message("4", Some("3"), Order::Counts)), Verdict::Next);
        assert!(seen.is_behind(&channel, Some(&label("y"))));
        assert!(!seen.is_behind(&channel, Some(&label("x"))) && !seen.is_behind(&channel, None));
        assert!(!seen.is_behind(&other, Some(&label("y"))));
    }
}
