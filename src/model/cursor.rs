//! The opaque text by which a client says what it has seen.
//!
//! Bytes: a version (1), then for each channel its name's 32-bit FNV-1a hash (big endian), its epoch and its offset
//! (LEB128), then a 16-bit check sum (big endian) over all before; the whole as unpadded URL-safe base64. One
//! channel takes about 20 characters. The check sum tells a cut or mistyped cursor (400) from an old one (a gap); it
//! is no signature, and needs none: a cursor gives no access, the route and its auth do.

use crate::model::channel::ChannelName;
use crate::model::position::Position;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The most channels that a cursor holds.
pub const CURSOR_CHANNELS_MAX: usize = 1000;
/// The longest cursor text that is looked at, in bytes.
pub const CURSOR_BYTES_MAX: usize = 24 * 1024;

const VERSION: u8 = 1;

/// A position for each channel of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    places: Vec<(u32, Position)>,
}

/// Why a text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed cursor; give back an id, `next` or ETag just as it came, or none to start anew")]
pub struct CursorError;

impl Cursor {
    /// A cursor of one channel.
    pub fn one(channel: &ChannelName, position: Position) -> Self {
        Self { places: vec![(channel.hash32(), position)] }
    }

    /// A cursor of several channels, in their order.
    pub fn of<'a>(places: impl IntoIterator<Item = (&'a ChannelName, Position)>) -> Self {
        Self { places: places.into_iter().map(|(channel, position)| (channel.hash32(), position)).collect() }
    }

    /// Where the client is in `channel`, if the cursor knows the channel.
    pub fn position(&self, channel: &ChannelName) -> Option<Position> {
        let hash = channel.hash32();
        self.places.iter().find(|(known, _)| *known == hash).map(|(_, position)| *position)
    }

    /// The opaque text.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(3 + self.places.len() * 14);
        bytes.push(VERSION);
        for (hash, position) in &self.places {
            bytes.extend_from_slice(&hash.to_be_bytes());
            put_varint(&mut bytes, position.epoch);
            put_varint(&mut bytes, position.offset);
        }
        let sum = check_sum(&bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the opaque text.
    ///
    /// # Errors
    /// When the text was not made by [`Cursor::encode`].
    pub fn decode(text: &[u8]) -> Result<Self, CursorError> {
        if text.len() > CURSOR_BYTES_MAX {
            return Err(CursorError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let (body, sum) = bytes.split_last_chunk::<2>().ok_or(CursorError)?;
        if check_sum(body) != u16::from_be_bytes(*sum) {
            return Err(CursorError);
        }
        let (&version, mut rest) = body.split_first().ok_or(CursorError)?;
        if version != VERSION {
            return Err(CursorError);
        }
        let mut places = Vec::new();
        while !rest.is_empty() {
            let (hash, after) = rest.split_first_chunk::<4>().ok_or(CursorError)?;
            rest = after;
            let epoch = take_varint(&mut rest)?;
            let offset = take_varint(&mut rest)?;
            if places.len() == CURSOR_CHANNELS_MAX {
                return Err(CursorError);
            }
            places.push((u32::from_be_bytes(*hash), Position { epoch, offset }));
        }
        Ok(Self { places })
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, CursorError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(CursorError)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return Err(CursorError);
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(CursorError)
}

/// FNV-1a folded to 16 bits.
fn check_sum(bytes: &[u8]) -> u16 {
    let hash = bytes.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash >> 16) as u16 ^ hash as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor() -> impl Strategy<Value = Cursor> {
        let place = (any::<u32>(), any::<u64>(), any::<u64>());
        proptest::collection::vec(place, 0..20).prop_map(|places| Cursor {
            places: places.into_iter().map(|(hash, epoch, offset)| (hash, Position { epoch, offset })).collect(),
        })
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(cursor in cursor()) {
            let text = cursor.encode();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(Cursor::decode(text.as_bytes()), Ok(cursor));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let _ = Cursor::decode(&bytes);
            let _ = Cursor::decode(URL_SAFE_NO_PAD.encode(&bytes).as_bytes());
        }

        #[test]
        fn a_cut_cursor_is_refused(cursor in cursor(), keep in 0usize..30) {
            let text = cursor.encode();
            prop_assume!(keep < text.len());
            // A 16-bit sum misses one cut in 65,536; those that it lets through must still be whole places.
            if let Ok(read) = Cursor::decode(&text.as_bytes()[..keep]) {
                prop_assert!(read.places.len() <= cursor.places.len());
            }
        }
    }

    #[test]
    fn one_channel_is_short() {
        let channel = ChannelName::new("prices.ACME").expect("a name");
        let cursor = Cursor::one(&channel, Position { epoch: 1_790_000_000_000, offset: 123_456 });
        assert!(cursor.encode().len() <= 22, "{}", cursor.encode());
        assert_eq!(cursor.position(&channel).map(|p| p.offset), Some(123_456));
    }
}
