//! A channel's name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest channel name, in bytes.
pub const CHANNEL_NAME_BYTES_MAX: usize = 512;

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
    fn the_hash_is_fnv1a() {
        let hash = |text| ChannelName::new(text).map(|c| c.hash32());
        assert_eq!(hash("a"), Ok(0xe40c_292c));
        assert_eq!(hash("foobar"), Ok(0xbf9c_f968));
    }
}
