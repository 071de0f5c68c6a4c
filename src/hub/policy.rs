//! What a channel keeps and how it treats a session that falls behind.

use crate::model::channel::ChannelName;
use crate::model::pattern::ChannelPattern;
use std::sync::Arc;

/// The checked policy of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// The most messages that are kept.
    pub history_messages_max: usize,
    /// The longest that a message is kept.
    pub history_age_ms_max: u64,
    /// The most bytes that are kept (`Message::size_bytes`).
    pub history_bytes_max: usize,
    /// What happens to a session that falls off the log's end.
    pub slow_consumer: SlowConsumer,
    /// The largest message that may be published, in bytes of data.
    pub message_bytes_max: usize,
    /// What is known of who is on it.
    pub presence: Presence,
}

/// What is known of who is on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// How many sessions there are.
    Counts,
    /// Which users have sessions.
    Members,
    /// As [`Presence::Members`], and joins and leaves are published on the channel.
    Announced {
        /// How long a user may have no session before that is a leave.
        leave_after_ms: u64,
    },
}

impl Presence {
    /// How long a user may be away, if that is announced.
    pub fn leave_after_ms(self) -> Option<u64> {
        match self {
            Self::Counts | Self::Members => None,
            Self::Announced { leave_after_ms } => Some(leave_after_ms),
        }
    }
}

/// What pushbridge's own channels keep: the notes of more than half an hour, from which an instance that begins to read
/// learns what the others know.
const OWN: ChannelPolicy = ChannelPolicy {
    history_messages_max: 4096,
    history_age_ms_max: 60 * 60 * 1000,
    history_bytes_max: 16 * 1024 * 1024,
    slow_consumer: SlowConsumer::Gap,
    message_bytes_max: 256 * 1024,
    presence: Presence::Counts,
};

impl Default for ChannelPolicy {
    fn default() -> Self {
        Self {
            history_messages_max: 1000,
            history_age_ms_max: 5 * 60 * 1000,
            history_bytes_max: 1024 * 1024,
            slow_consumer: SlowConsumer::Gap,
            message_bytes_max: 64 * 1024,
            presence: Presence::Counts,
        }
    }
}

/// What happens to a session that falls off the log's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is told of a gap and goes on with what is still there.
    Gap,
    /// It is closed.
    Close,
    /// It gets the newest message of each key that it missed.
    Conflate(ConflateKey),
}

/// What makes two messages of a channel stand for the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflateKey {
    /// The event name.
    Event,
    /// The value at a JSON pointer into the data (RFC 6901).
    Pointer(Box<str>),
}

/// The policies of the configuration's `channels`, in their order: the first match wins.
#[derive(Debug, Clone)]
pub struct ChannelPolicies {
    entries: Vec<(ChannelPattern, Arc<ChannelPolicy>)>,
    default: Arc<ChannelPolicy>,
    own: Arc<ChannelPolicy>,
}

impl Default for ChannelPolicies {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl ChannelPolicies {
    /// Policies by pattern; channels that none covers get [`ChannelPolicy::default`].
    pub fn new(entries: Vec<(ChannelPattern, ChannelPolicy)>) -> Self {
        let entries = entries.into_iter().map(|(pattern, policy)| (pattern, Arc::new(policy))).collect();
        Self { entries, default: Arc::default(), own: Arc::new(OWN) }
    }

    /// The policy of a channel.
    pub fn of(&self, channel: &ChannelName) -> Arc<ChannelPolicy> {
        if channel.is_own() {
            return Arc::clone(&self.own);
        }
        let covering = self.entries.iter().find(|(pattern, _)| pattern.matches(channel.as_str()));
        Arc::clone(covering.map_or(&self.default, |(_, policy)| policy))
    }

    /// The patterns and their policies, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&ChannelPattern, &ChannelPolicy)> {
        self.entries.iter().map(|(pattern, policy)| (pattern, &**policy))
    }

    /// The policy of channels that no pattern covers.
    pub fn default_policy(&self) -> &ChannelPolicy {
        &self.default
    }
}
