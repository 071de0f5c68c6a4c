//! The names of a channel's keys.
//!
//! `<prefix>:{<channel>}:<what>`; what stands in braces is the hash tag of Redis Cluster, so that all keys of a channel
//! are on one node. `%`, `{` and `}` of a channel's name are percent-encoded.

use crate::model::channel::ChannelName;
use crate::model::session_token::SessionKey;

/// Makes and reads keys.
#[derive(Debug, Clone)]
pub struct Keys {
    start: String,
    prefix: String,
}

/// The keys of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelKeys {
    /// A hash: epoch, offset and what trimming needs.
    pub meta: String,
    /// The stream: IDs are `<offset>-<milliseconds>`.
    pub stream: String,
    /// Where live messages are sent.
    pub live: String,
    /// A hash: sessions and lease of each instance.
    pub presence: String,
    base: String,
}

impl Keys {
    /// Keys that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { start: format!("{prefix}:{{"), prefix: prefix.to_owned() }
    }

    /// The keys of a channel.
    pub fn of(&self, channel: &ChannelName) -> ChannelKeys {
        let mut base = String::with_capacity(self.start.len() + channel.as_str().len() + 8);
        base.push_str(&self.start);
        for c in channel.as_str().chars() {
            match c {
                '%' => base.push_str("%25"),
                '{' => base.push_str("%7b"),
                '}' => base.push_str("%7d"),
                c => base.push(c),
            }
        }
        base.push('}');
        ChannelKeys {
            meta: format!("{base}:meta"),
            stream: format!("{base}:log"),
            live: format!("{base}:live"),
            presence: format!("{base}:here"),
            base,
        }
    }

    /// The channel that a live message was sent on.
    pub fn channel_of(&self, live: &[u8]) -> Option<ChannelName> {
        let name = live.strip_prefix(self.start.as_bytes())?.strip_suffix(b"}:live")?;
        let name = std::str::from_utf8(name).ok()?;
        let name = name.replace("%7b", "{").replace("%7d", "}").replace("%25", "%");
        ChannelName::of_bus(&name).ok()
    }

    /// That an instance lives.
    pub fn instance(&self, instance: &str) -> String {
        format!("{}:instance:{instance}", self.prefix)
    }

    /// Where a session waits for its client.
    pub fn session(&self, key: &SessionKey) -> String {
        format!("{}:session:{}", self.prefix, key.as_str())
    }
}

impl ChannelKeys {
    /// Where an idempotency id is remembered.
    pub fn id(&self, id: &str) -> String {
        format!("{}:id:{id}", self.base)
    }

    /// Where an attempt is remembered that the library may send again by itself.
    pub fn attempt(&self, token: &str) -> String {
        format!("{}:try:{token}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_channel_is_found_by_its_live_key(name in "[a-z%{}:.725bd]{1,40}") {
            let (keys, channel) = (Keys::new("p"), ChannelName::new(&name).expect("a name"));
            let of = keys.of(&channel);
            prop_assert_eq!(keys.channel_of(of.live.as_bytes()), Some(channel));
            // One hash tag, not empty, the same in each.
            for key in [&of.meta, &of.stream, &of.presence, &of.id("x}{"), &of.attempt("x")] {
                let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
                prop_assert_eq!(tag, of.live.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag));
                prop_assert!(tag.is_some_and(|tag| !tag.is_empty()));
            }
        }
    }
}
