//! A channel's name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest channel name, in bytes.
pub const CHANNEL_NAME_BYTES_MAX: usize = 512;

/// What the names of pushbridge's own channels begin with; others can't hold it.
const OWN: char = '\u{1}';
/// What a companion's name goes on with.
const COMPANION: &str = "of:";

/// The name of a channel: 1 to 512 bytes of UTF-8 without control characters.
///
/// Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Why a text is no channel name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// No character at all.
    #[error("a channel name is empty")]
    Empty,
    /// Over [`CHANNEL_NAME_BYTES_MAX`].
    #[error("a channel name of {0} bytes is over the {CHANNEL_NAME_BYTES_MAX} allowed")]
    TooLong(usize),
    /// A control character, such as a line feed.
    #[error("channel name {0:?} has a control character; use printable characters only")]
    Control(String),
}

impl ChannelName {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// When it is empty, too long or has a control character.
    pub fn new(text: &str) -> Result<Self, ChannelNameError> {
        if text.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        if text.len() > CHANNEL_NAME_BYTES_MAX {
            return Err(ChannelNameError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(ChannelNameError::Control(text.chars().take(64).collect()));
        }
        Ok(Self(text.into()))
    }

    /// A name that came from the bus: also one of pushbridge's own, which no client and no backend can name.
    ///
    /// # Errors
    /// As [`ChannelName::new`].
    pub fn of_bus(text: &str) -> Result<Self, ChannelNameError> {
        match text.strip_prefix(OWN) {
            None => Self::new(text),
            Some(rest) => Self::new(rest.strip_prefix(COMPANION).unwrap_or(rest)).map(|_| Self(text.into())),
        }
    }

    /// The channel on which instances tell each other who is on this one.
    pub fn companion(&self) -> Self {
        Self(format!("{OWN}{COMPANION}{}", self.0).into())
    }

    /// The channel whose companion this is.
    pub fn companion_of(&self) -> Option<Self> {
        Self::new(self.0.strip_prefix(OWN)?.strip_prefix(COMPANION)?).ok()
    }

    /// The channel on which instances tell each other that they live.
    pub fn of_instances() -> Self {
        Self(format!("{OWN}instances").into())
    }

    /// Whether it is one of pushbridge's own.
    pub fn is_own(&self) -> bool {
        self.0.starts_with(OWN)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A 32-bit FNV-1a hash of the name: the same on every instance and in every version, since cursors hold it.
    pub fn hash32(&self) -> u32 {
        fnv1a(&self.0)
    }
}

/// FNV-1a, as its authors define it for 32 bits.
pub(super) fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_and_bounded() {
        assert_eq!(ChannelName::new("prices.ACME/é").map(|c| c.to_string()), Ok("prices.ACME/é".to_owned()));
        assert_eq!(ChannelName::new(""), Err(ChannelNameError::Empty));
        assert!(matches!(ChannelName::new("a\nb"), Err(ChannelNameError::Control(_))));
        assert_eq!(ChannelName::new(&"x".repeat(513)), Err(ChannelNameError::TooLong(513)));
    }

    #[test]
    fn own_channels_have_names_that_no_one_else_can_give() {
        let channel = ChannelName::new(&"é".repeat(256)).expect("a name");
        let companion = channel.companion();
        assert!(companion.is_own() && ChannelName::of_instances().is_own() && !channel.is_own());
        assert_eq!(companion.companion_of(), Some(channel.clone()));
        assert_eq!((channel.companion_of(), ChannelName::of_instances().companion_of()), (None, None));
        for own in [&companion, &ChannelName::of_instances(), &channel] {
            assert_eq!(ChannelName::of_bus(own.as_str()).as_ref(), Ok(own));
        }
        assert!(ChannelName::new(companion.as_str()).is_err());
        for wrong in ["", "\u{1}", "\u{1}of:", "\u{2}a", "\u{1}\u{1}a", "\u{1}of:a\nb"] {
            assert!(ChannelName::of_bus(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_hash_is_fnv1a() {
        let hash = |text| ChannelName::new(text).map(|c| c.hash32());
        assert_eq!(hash("a"), Ok(0xe40c_292c));
        assert_eq!(hash("foobar"), Ok(0xbf9c_f968));
    }
}
