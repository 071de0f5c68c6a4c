//! The scripts that run inside Redis, and what they answer.

use crate::bus::ChannelInfo;
use crate::bus::redis::connect::Link;
use crate::bus::redis::keys::ChannelKeys;
use crate::bus::redis::run::COUNTED_WITHIN;
use crate::hub::log::LIVE_WINDOW_MESSAGES;
use crate::hub::policy::ChannelPolicy;
use crate::model::position::{IfMatch, Position};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use redis::{RedisError, RedisResult, Script};

/// How long a channel without messages is remembered, in milliseconds; readers renew it.
pub const REMEMBERED_MS: u64 = crate::hub::REMEMBERED_US / 1000;
/// The most entries of one answer.
pub const PAGE_ENTRIES_MAX: usize = 500;

/// The scripts; Redis knows them by their hashes.
#[derive(Debug)]
pub struct Scripts {
    publish: Script,
    read: Script,
    here: Script,
    describe: Script,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It stands there.
    Published(Position),
    /// It stood there already.
    Duplicate(Position),
    /// The condition failed; the channel is there.
    Moved(Position),
}

/// What is published.
pub struct Publish<'a> {
    /// The message.
    pub envelope: &'a [u8],
    /// Where its id is remembered, and for how many milliseconds.
    pub id: Option<(String, u64)>,
    /// The condition.
    pub if_match: Option<IfMatch>,
    /// What the channel keeps.
    pub policy: &'a ChannelPolicy,
}

/// The place from which on a reader reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// The newest message it has.
    pub position: Option<Position>,
    /// When Redis took that, in milliseconds; 0 if unknown. With the offset it names one message for good.
    pub taken_ms: u64,
}

/// A stretch of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The channel's newest position.
    pub last: Position,
    /// How far earlier epochs, the newest first, reach into this one: nothing up to there was lost.
    pub past: Vec<Position>,
    /// Messages after the known place, or from the oldest on if that is of another life.
    pub entries: Vec<Stored>,
}

impl Page {
    /// Whether all that was read up to `known` is in this epoch too.
    pub fn goes_on_from(&self, known: Position) -> bool {
        known.epoch == self.last.epoch
            || self.past.iter().any(|end| end.epoch == known.epoch && known.offset <= end.offset)
    }
}

/// A message in the stream, or a live one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its offset.
    pub offset: u64,
    /// When Redis took it.
    pub taken_ms: u64,
    /// The message.
    pub envelope: Vec<u8>,
}

impl Scripts {
    /// The scripts of this release.
    pub fn new() -> Self {
        Self {
            publish: Script::new(include_str!("publish.lua")),
            read: Script::new(include_str!("read.lua")),
            here: Script::new(include_str!("here.lua")),
            describe: Script::new(include_str!("describe.lua")),
        }
    }

    /// Publishes.
    ///
    /// # Errors
    /// When Redis can't be asked, or refuses. If the answer was lost, the message may have been published.
    pub async fn publish(&self, link: &Link, keys: &ChannelKeys, publish: Publish<'_>) -> RedisResult<Outcome> {
        let condition = match publish.if_match {
            None => String::new(),
            Some(IfMatch::Empty) => "0".to_owned(),
            Some(IfMatch::At(position)) => format!("{} {}", position.epoch, position.offset),
        };
        let mut run = self.publish.prepare_invoke();
        run.key(&keys.meta).key(&keys.stream);
        let window_ms = publish.id.as_ref().map_or(0, |(_, window_ms)| *window_ms);
        if let Some((key, _)) = &publish.id {
            run.key(key);
        }
        let policy = publish.policy;
        run.arg(publish.envelope)
            .arg(fresh())
            .arg(condition)
            .arg(window_ms)
            .arg(policy.history_messages_max.max(LIVE_WINDOW_MESSAGES))
            .arg(policy.history_bytes_max)
            .arg(policy.history_age_ms_max)
            .arg(remembered_ms(policy))
            .arg(&keys.live)
            .arg(link.publish_command())
            .arg(&*link.life);
        let (word, position): (String, String) = run.invoke_async(&mut link.commands.clone()).await?;
        let position = parse_position(&position).ok_or_else(nonsense)?;
        match word.as_str() {
            "published" => Ok(Outcome::Published(position)),
            "duplicate" => Ok(Outcome::Duplicate(position)),
            "moved" => Ok(Outcome::Moved(position)),
            _ => Err(nonsense()),
        }
    }

    /// Reads what follows `from` (an offset of the known epoch).
    ///
    /// # Errors
    /// When Redis can't be asked.
    pub async fn read(
        &self,
        link: &Link,
        keys: &ChannelKeys,
        known: Known,
        from: u64,
        policy: &ChannelPolicy,
    ) -> RedisResult<Page> {
        let (epoch, offset) = known.position.map_or((String::new(), 0), |at| (at.epoch.to_string(), at.offset));
        let mut run = self.read.prepare_invoke();
        run.key(&keys.meta).key(&keys.stream);
        run.arg(fresh())
            .arg(epoch)
            .arg(offset)
            .arg(known.taken_ms)
            .arg(from)
            .arg(PAGE_ENTRIES_MAX)
            .arg(remembered_ms(policy))
            .arg(&keys.live)
            .arg(link.publish_command())
            .arg(&*link.life);
        type Entries = Vec<(String, (String, Vec<u8>))>;
        type Answer = (String, String, String, Entries);
        let (epoch, offset, past, entries): Answer = run.invoke_async(&mut link.commands.clone()).await?;
        let past = past.split(',').filter(|end| !end.is_empty()).map(|end| parse_position(end).ok_or_else(nonsense));
        let last = parse_position(&format!("{epoch} {offset}")).ok_or_else(nonsense)?;
        let entries = entries.into_iter().map(|(id, (_, envelope))| {
            let (offset, taken_ms) = id.split_once('-').ok_or_else(nonsense)?;
            let number = |text: &str| text.parse().map_err(|_| nonsense());
            Ok(Stored { offset: number(offset)?, taken_ms: number(taken_ms)?, envelope })
        });
        Ok(Page { last, past: past.collect::<RedisResult<_>>()?, entries: entries.collect::<RedisResult<_>>()? })
    }
}

impl Scripts {
    /// Says how many sessions an instance has on a channel, for the time of a lease.
    ///
    /// # Errors
    /// When Redis can't be asked.
    pub async fn here(
        &self,
        link: &Link,
        keys: &ChannelKeys,
        instance: &str,
        sessions: usize,
        lease_ms: u64,
    ) -> RedisResult<()> {
        let mut run = self.here.prepare_invoke();
        run.key(&keys.presence).arg(instance).arg(sessions).arg(lease_ms);
        run.invoke_async(&mut link.commands.clone()).await
    }

    /// Tells of a channel.
    ///
    /// # Errors
    /// When Redis can't be asked.
    pub async fn describe(&self, link: &Link, keys: &ChannelKeys) -> RedisResult<ChannelInfo> {
        let mut run = self.describe.prepare_invoke();
        run.key(&keys.meta).key(&keys.stream).key(&keys.presence);
        type Answer = (String, String, usize, Vec<(String, usize)>);
        let (epoch, offset, history_messages, here): Answer = run.invoke_async(&mut link.commands.clone()).await?;
        let position = parse_position(&format!("{epoch} {offset}")).ok_or_else(nonsense)?;
        Ok(ChannelInfo {
            position: (position.offset > 0).then_some(position),
            history_messages,
            instances: here.into_iter().map(|(instance, sessions)| (instance.into(), sessions)).collect(),
            counted_within: COUNTED_WITHIN,
        })
    }
}

/// Reads a live message: `epoch offset milliseconds envelope`; without an envelope it only says that the epoch changed.
pub fn parse_live(payload: &[u8]) -> Option<(u64, Stored)> {
    let mut parts = payload.splitn(4, |b| *b == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (epoch, offset, taken_ms) = (number()?, number()?, number()?);
    Some((epoch, Stored { offset, taken_ms, envelope: parts.next()?.to_vec() }))
}

fn parse_position(text: &str) -> Option<Position> {
    let (epoch, offset) = text.split_once(' ')?;
    Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
}

fn nonsense() -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, "a script answered something else than it should"))
}

/// A channel's memory outlives its messages, so that its numbering goes on.
fn remembered_ms(policy: &ChannelPolicy) -> u64 {
    policy.history_age_ms_max.saturating_add(REMEMBERED_MS)
}

/// 48 random bits: no two lives of a channel share one.
pub fn fresh() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes[2..]) {
        Ok(()) => u64::from_be_bytes(bytes).max(1),
        Err(_) => crate::hub::clock::unix_ms(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn live_messages_are_read() {
        let stored = Stored { offset: 7, taken_ms: 1700, envelope: b"a b".to_vec() };
        assert_eq!(parse_live(b"42 7 1700 a b"), Some((42, stored)));
        assert_eq!(parse_live(b"42 7 0 ").map(|(_, stored)| stored.envelope), Some(Vec::new()));
        assert_eq!(parse_live(b"42 7 1700"), None);
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_live(&bytes);
        }
    }
}
