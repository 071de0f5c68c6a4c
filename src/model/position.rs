//! Where a message stands in its channel.

use std::fmt;
use std::str::FromStr;

/// The place of a message in its channel: the channel's epoch and the offset in it.
///
/// An epoch is one unbroken life of a channel's numbering: after data was lost (a restart without storage) the
/// channel gets another epoch, so that an old offset is never mistaken for a new one. Offsets start at 1; offset 0
/// is the place before the first message. As text: `<epoch, base 36>-<offset, base 10>`, such as `mbq3k2x1-42`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the channel.
    pub epoch: u64,
    /// Which message of it, from 1.
    pub offset: u64,
}

/// A condition on the place of the channel (`If-Match`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMatch {
    /// Nothing was ever published (`"0"`).
    Empty,
    /// The newest message stands at this position.
    At(Position),
}

/// Why a text is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no position; give one that a publish answered, such as \"mbq3k2x1-42\"")]
pub struct PositionError(pub String);

impl Position {
    /// Writes it as text, piece by piece: the formatting machinery would be a twentieth of a publish call's own instructions.
    ///
    /// # Errors
    /// When `out` can't take it.
    pub fn write_to(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let mut digits = [0u8; 13];
        let mut at = digits.len();
        let mut rest = self.epoch;
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        out.write_str(std::str::from_utf8(&digits[at..]).unwrap_or_default())?;
        out.write_str("-")?;
        out.write_str(itoa::Buffer::new().format(self.offset))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (epoch, offset) = text.split_once('-')?;
            let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
            if !plain(epoch) || !plain(offset) {
                return None;
            }
            Some(Position { epoch: u64::from_str_radix(epoch, 36).ok()?, offset: offset.parse().ok()? })
        };
        parse().ok_or_else(|| PositionError(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_position_survives_its_text(epoch: u64, offset: u64) {
            let position = Position { epoch, offset };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,40}") {
            let _ = text.parse::<Position>();
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "-", "1", "1-", "-1", "1-+1", "+1-1", "zzzzzzzzzzzzzzzz-1", "a b-1"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
