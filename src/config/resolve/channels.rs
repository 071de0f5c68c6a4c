//! The `channels` section.

use super::Resolver;
use crate::config::defaults;
use crate::config::file::{Channel, File, Presence as PresenceWord, SlowConsumer as SlowWord};
use crate::config::quantity::Size;
use crate::config::read::{Given, WordOr, quote};
use crate::hub::policy::{ChannelPolicies, ChannelPolicy, ConflateKey, Presence, SlowConsumer};
use crate::model::pattern::ChannelPattern;
use std::time::Duration;

/// A message of up to 64 MiB, a history of up to 16 GiB.
const MESSAGE_BYTES_RANGE: std::ops::RangeInclusive<u64> = 1..=64 << 20;
const HISTORY_BYTES_RANGE: std::ops::RangeInclusive<u64> = 1..=16 << 30;
/// The hub looks at ages no finer than this, and a month is beyond what memory is for.
const AGE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(30 * 24 * 3600);

/// A reconnect takes a second at least; who is away for longer than ten minutes is gone.
const LEAVE_AFTER_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// What an instance announces that then crashes is announced by another, under the same id, within this time.
const WINDOW_MIN: Duration = Duration::from_secs(120);

impl Resolver<'_> {
    pub(super) fn channels(&mut self, file: &File, window: Duration) -> ChannelPolicies {
        let mut entries: Vec<(ChannelPattern, ChannelPolicy)> = Vec::new();
        for channel in file.channels.value().into_iter().flatten() {
            let pattern =
                self.required(&channel.value.r#match, &channel.spot, "match", "write a pattern, such as prices.*");
            let pattern = pattern.and_then(|given| Some((self.pattern(given)?, given)));
            let policy = self.policy(channel, window);
            let Some((pattern, given)) = pattern else { continue };
            if entries.iter().any(|(known, _)| known == &pattern || known.as_str() == "**") {
                let text = "never applies, since an earlier entry covers it; remove it or move it up";
                self.warnings.add(&given.spot, format!("{} {text}", quote(&given.value)));
            }
            entries.push((pattern, policy));
        }
        ChannelPolicies::new(entries)
    }

    /// A pattern over channel names.
    pub(super) fn pattern(&mut self, given: &Given<String>) -> Option<ChannelPattern> {
        ChannelPattern::new(&given.value).map_err(|error| self.problems.add(&given.spot, error.to_string())).ok()
    }

    fn policy(&mut self, channel: &Given<Channel>, window: Duration) -> ChannelPolicy {
        let default = defaults::channel();
        let shape = &channel.value;
        let history = shape.history.value().cloned().unwrap_or_default();
        let age = self.span(&history.max_age, AGE_RANGE, Duration::from_millis(default.history_age_ms_max));
        let policy = ChannelPolicy {
            history_messages_max: self.count_usize(&history.messages, 1..=10_000_000, default.history_messages_max),
            history_age_ms_max: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            history_bytes_max: self.size(&history.max_bytes, HISTORY_BYTES_RANGE, default.history_bytes_max as u64),
            slow_consumer: self.slow_consumer(channel),
            message_bytes_max: self.size(&shape.max_message, MESSAGE_BYTES_RANGE, default.message_bytes_max as u64),
            presence: self.presence(channel, window),
        };
        if policy.message_bytes_max > policy.history_bytes_max {
            let (message, history_bytes) =
                (Size(policy.message_bytes_max as u64), Size(policy.history_bytes_max as u64));
            let text = format!("max_message ({message}) is over history.max_bytes ({history_bytes}), so that a");
            let spot = shape.max_message.given().map(|given| &given.spot);
            let spot = spot.or(history.max_bytes.given().map(|given| &given.spot)).unwrap_or(&channel.spot);
            self.problems
                .add(spot, format!("{text} message may not fit; raise history.max_bytes or lower max_message"));
        }
        policy
    }

    fn presence(&mut self, channel: &Given<Channel>, window: Duration) -> Presence {
        let Some(given) = channel.value.presence.given() else { return Presence::Counts };
        let announced = match &given.value {
            WordOr::Word(PresenceWord::Counts) => return Presence::Counts,
            WordOr::Word(PresenceWord::Members) => return Presence::Members,
            WordOr::Keys(announced) => announced,
        };
        let remedy = "say how long a user may be away before that is a leave, such as 10s";
        if self.required(&announced.leave_after, &given.spot, "leave_after", remedy).is_none() {
            return Presence::Members;
        }
        if window < WINDOW_MIN {
            let text =
                "joins and leaves need publish.idempotency_window to be 2m or longer, so that none is published twice";
            self.problems.add(&given.spot, text);
        }
        let leave_after = self.span(&announced.leave_after, LEAVE_AFTER_RANGE, Duration::ZERO);
        Presence::Announced { leave_after_ms: u64::try_from(leave_after.as_millis()).unwrap_or(u64::MAX) }
    }

    fn slow_consumer(&mut self, channel: &Given<Channel>) -> SlowConsumer {
        let Some(given) = channel.value.slow_consumer.given() else { return defaults::channel().slow_consumer };
        let conflate = match &given.value {
            WordOr::Word(SlowWord::Gap) => return SlowConsumer::Gap,
            WordOr::Word(SlowWord::Close) => return SlowConsumer::Close,
            WordOr::Keys(conflate) => conflate,
        };
        let remedy = "write event, or a JSON pointer such as /symbol";
        let Some(key) = self.required(&conflate.conflate_by, &given.spot, "conflate_by", remedy) else {
            return SlowConsumer::Gap;
        };
        match key.value.as_str() {
            "event" => SlowConsumer::Conflate(ConflateKey::Event),
            pointer if is_pointer(pointer) => SlowConsumer::Conflate(ConflateKey::Pointer(pointer.into())),
            _ => {
                self.problems.add(&key.spot, format!("{} is no key; {remedy}", quote(&key.value)));
                SlowConsumer::Gap
            }
        }
    }
}

/// Whether a text is a JSON pointer to something inside (RFC 6901 §3).
fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.split('~').skip(1).all(|after| after.starts_with(['0', '1']))
}
