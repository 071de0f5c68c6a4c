//! A header block read (RFC 7541 §3, §6).
//!
//! ```text
//! 001 table size      ×2 at most, at the block's beginning
//! 1   index           a name and a value of a table
//! 01  index│name value    kept in the dynamic table
//! 0000, 0001          the same, not kept; and never to be
//! ```

use super::huffman;
use super::table::Table;
use std::ops::Range;

/// What the dynamic table may count until the peer says otherwise (RFC 9113 §6.5.2, SETTINGS_HEADER_TABLE_SIZE).
const TABLE_BYTES_INITIAL: usize = 4096;
/// A block begins with so many table size updates at most: the smallest that was meanwhile, and the last (RFC 7541 §4.2).
const UPDATES_MAX: usize = 2;
/// No integer has more bytes behind its prefix, not even as zeros (RFC 7541 §5.1).
const INTEGER_BYTES_MAX: u32 = 5;
/// No integer is larger.
const INTEGER_MAX: u64 = u32::MAX as u64;

/// Reads header blocks. One a connection.
///
/// It owns memory for the dynamic table alone, at most one and a half times what that may count and a little for each
/// entry; none while that is empty.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    table_bytes_max: usize,
}

/// Why a header block can't be read. The connection's table is unknown from there on: it ends as COMPRESSION_ERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends within a field or an update.
    #[error("the header block ends within a field")]
    Truncated,
    /// An integer has too many bytes, or does not fit 32 bits.
    #[error("an integer of the header block is too large")]
    Integer,
    /// Neither table has that entry.
    #[error("the header block names entry {index}, which is in no table")]
    Index {
        /// Counted from 1 over both.
        index: usize,
    },
    /// A Huffman string has the code of its end in it.
    #[error("a Huffman string of the header block has EOS in it")]
    EndOfString,
    /// A Huffman string ends within a symbol, or in other than up to seven ones.
    #[error("a Huffman string of the header block is badly padded")]
    Padding,
    /// The dynamic table would be larger than the settings allow.
    #[error("the header block sets a table size of {size}; {allowed} are allowed")]
    TableSize {
        /// What was asked for.
        size: usize,
        /// What the settings allow.
        allowed: usize,
    },
    /// A table size update behind a field, or a third one.
    #[error("the header block sets the table size behind its beginning, or too often")]
    UpdateMisplaced,
}

impl Decoder {
    /// `table_bytes_max` is what SETTINGS_HEADER_TABLE_SIZE allows the peer, 4096 unless it was told otherwise. The
    /// peer has to say when it takes more than 4096. Less than 4096 holds from the first block on, so it must be known
    /// to the peer before that.
    pub fn new(table_bytes_max: usize) -> Self {
        Self { table: Table::new(table_bytes_max.min(TABLE_BYTES_INITIAL)), table_bytes_max }
    }

    /// Reads a whole block: the fragments of a HEADERS frame and its CONTINUATION frames together.
    ///
    /// `field` gets name and value of each field line in their order, as they were sent: their characters are not
    /// checked. The block is read to its end whatever `field` does with them, so that the table stays right.
    ///
    /// One byte may stand for a whole entry of the table. That costs nothing here, but `field` must bound what it keeps.
    ///
    /// # Errors
    /// When it is no header block; nothing may be read after that. Fields before the fault have been handed on.
    pub fn decode(&mut self, block: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), DecodeError> {
        let mut input = Input(block);
        self.resize(&mut input)?;
        let mut unpacked = Vec::new();
        while let Some(first) = input.first() {
            unpacked.clear();
            match first {
                0x80.. => {
                    let (name, value) = self.table.get(input.integer(7)?)?;
                    field(name, value);
                }
                0x40.. => {
                    let name = self.name_to_keep(&mut input, &mut unpacked)?;
                    let value = input.text(&mut unpacked)?;
                    let (name, value) = (name.bytes(&unpacked), value.bytes(&unpacked));
                    field(name, value);
                    self.table.insert(name, value);
                }
                0x20.. => return Err(DecodeError::UpdateMisplaced),
                _ => {
                    let name = match input.integer(4)? {
                        0 => input.text(&mut unpacked)?,
                        index => Text::Plain(self.table.get(index)?.0),
                    };
                    let value = input.text(&mut unpacked)?;
                    field(name.bytes(&unpacked), value.bytes(&unpacked));
                }
            }
        }
        Ok(())
    }

    /// Takes the updates at a block's beginning (RFC 7541 §6.3).
    fn resize(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        let mut updates = 0;
        while let Some(0x20..0x40) = input.first() {
            updates += 1;
            if updates > UPDATES_MAX {
                return Err(DecodeError::UpdateMisplaced);
            }
            let (size, allowed) = (input.integer(5)?, self.table_bytes_max);
            if size > allowed {
                return Err(DecodeError::TableSize { size, allowed });
            }
            self.table.resize(size);
        }
        Ok(())
    }

    /// The name of a field that goes into the table. One out of the table is copied: its entry may have to go for the
    /// new one (RFC 7541 §4.4).
    fn name_to_keep<'b>(&self, input: &mut Input<'b>, unpacked: &mut Vec<u8>) -> Result<Text<'b>, DecodeError> {
        match input.integer(6)? {
            0 => input.text(unpacked),
            index => {
                unpacked.extend_from_slice(self.table.get(index)?.0);
                Ok(Text::Unpacked(0..unpacked.len()))
            }
        }
    }
}

/// A name or a value: as it lies somewhere, or in the buffer of what was unpacked.
enum Text<'b> {
    Plain(&'b [u8]),
    Unpacked(Range<usize>),
}

impl<'b> Text<'b> {
    fn bytes(self, unpacked: &'b [u8]) -> &'b [u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Unpacked(range) => &unpacked[range],
        }
    }
}

/// What is left of a block.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn first(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (byte, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// An integer whose prefix is the lower bits of the next byte (RFC 7541 §5.1).
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, DecodeError> {
        let prefix_max = u8::MAX >> (8 - prefix_bits);
        let prefix = self.byte()? & prefix_max;
        if prefix < prefix_max {
            return Ok(usize::from(prefix));
        }
        let mut value = u64::from(prefix);
        for at in 0..INTEGER_BYTES_MAX {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                let value = Some(value).filter(|value| *value <= INTEGER_MAX);
                return value.and_then(|value| usize::try_from(value).ok()).ok_or(DecodeError::Integer);
            }
        }
        Err(DecodeError::Integer)
    }

    /// A string literal (RFC 7541 §5.2).
    fn text(&mut self, unpacked: &mut Vec<u8>) -> Result<Text<'b>, DecodeError> {
        let is_packed = self.first().is_some_and(|first| first >= 0x80);
        let len = self.integer(7)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        if !is_packed {
            return Ok(Text::Plain(bytes));
        }
        let start = unpacked.len();
        huffman::unpack(bytes, unpacked)?;
        Ok(Text::Unpacked(start..unpacked.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Decoder {
        pub(in super::super) fn table(&self) -> &Table {
            &self.table
        }
    }

    #[track_caller]
    fn check(prefix_bits: u32, bytes: &[u8], expected: Result<usize, DecodeError>) {
        let mut input = Input(bytes);
        assert_eq!(input.integer(prefix_bits), expected, "{bytes:02x?}");
        assert!(expected.is_err() || input.0.is_empty(), "{bytes:02x?}");
    }

    #[test]
    fn integers_are_those_of_the_appendix() {
        check(5, &[0b1110_1010], Ok(10)); // C.1.1
        check(5, &[0x1f, 0x9a, 0x0a], Ok(1337)); // C.1.2
        check(8, &[0x2a], Ok(42)); // C.1.3
    }

    #[test]
    fn integers_end_at_their_bounds() {
        for prefix_bits in 1..=8 {
            let max = u8::MAX >> (8 - prefix_bits);
            check(prefix_bits, &[max - 1], Ok(usize::from(max) - 1));
            check(prefix_bits, &[max], Err(DecodeError::Truncated));
            check(prefix_bits, &[max, 0], Ok(usize::from(max)));
            check(prefix_bits, &[max, 0x7f], Ok(usize::from(max) + 127));
            check(prefix_bits, &[max, 0x80], Err(DecodeError::Truncated));
            check(prefix_bits, &[max, 0x80, 0x01], Ok(usize::from(max) + 128));
            // Zeros that say nothing: four are borne, no more.
            check(prefix_bits, &[max, 0x80, 0x80, 0x80, 0x80, 0x00], Ok(usize::from(max)));
            check(prefix_bits, &[max, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], Err(DecodeError::Integer));
            check(prefix_bits, &[&[max][..], &[0x80; 1000]].concat(), Err(DecodeError::Integer));
            check(prefix_bits, &[&[max][..], &[0xff; 1000]].concat(), Err(DecodeError::Integer));
        }
        let most = usize::try_from(u32::MAX).expect("64 bits");
        check(5, &[0x1f, 0xe0, 0xff, 0xff, 0xff, 0x0f], Ok(most));
        check(5, &[0x1f, 0xe1, 0xff, 0xff, 0xff, 0x0f], Err(DecodeError::Integer));
        check(5, &[0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f], Err(DecodeError::Integer));
        check(5, &[], Err(DecodeError::Truncated));
    }
}
