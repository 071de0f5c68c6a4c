//! The frames that a server sends: never masked, never fragmented (RFC 6455 §5).
//!
//! ```text
//! FIN 000 opcode | 0 length(7) | [length(16) or length(64)] | payload
//! ```

use bytes::{Buf, Bytes};

/// The longest head of a server's frame, in bytes.
pub const HEAD_BYTES_MAX: usize = 10;
/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;

/// What a frame carries (RFC 6455 §11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A further part of a message.
    Continuation = 0,
    /// A text, or its first part.
    Text = 1,
    /// Bytes, or their first part.
    Binary = 2,
    /// The end.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping, or comes unasked.
    Pong = 10,
}

impl Opcode {
    /// The opcode of these four bits, if it is one.
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is a close, ping or pong: short, and allowed between the fragments of a message.
    pub fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

/// Makes a whole frame around `payload`.
///
/// A control frame's payload beyond [`CONTROL_BYTES_MAX`] is cut off.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let payload = if opcode.is_control() { &payload[..payload.len().min(CONTROL_BYTES_MAX)] } else { payload };
    let (head, head_len) = head(opcode, payload.len());
    let mut out = Vec::with_capacity(head_len + payload.len());
    out.extend_from_slice(&head[..head_len]);
    out.extend_from_slice(payload);
    out.into()
}

/// Makes a whole text frame of what `write` appends, which must be UTF-8, without copying it again.
pub fn text_with(bytes_expected: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(HEAD_BYTES_MAX + bytes_expected);
    out.extend_from_slice(&[0; HEAD_BYTES_MAX]);
    write(&mut out);
    debug_assert!(out.len() >= HEAD_BYTES_MAX && std::str::from_utf8(&out[HEAD_BYTES_MAX..]).is_ok());
    let (head, head_len) = head(Opcode::Text, out.len() - HEAD_BYTES_MAX);
    let start = HEAD_BYTES_MAX - head_len;
    out[start..HEAD_BYTES_MAX].copy_from_slice(&head[..head_len]);
    // Frames of messages live as long as the log: what was reserved too much is given back.
    let mut frame = Bytes::from(out.into_boxed_slice());
    frame.advance(start);
    frame
}

/// A text message.
pub fn text(payload: &str) -> Bytes {
    frame(Opcode::Text, payload.as_bytes())
}

/// A binary message.
pub fn binary(payload: &[u8]) -> Bytes {
    frame(Opcode::Binary, payload)
}

/// A ping without payload; takes no memory.
pub fn ping() -> Bytes {
    Bytes::from_static(&[FIN | Opcode::Ping as u8, 0])
}

/// The answer to a ping (RFC 6455 §5.5.3).
pub fn pong(payload: &[u8]) -> Bytes {
    if payload.is_empty() {
        return Bytes::from_static(&[FIN | Opcode::Pong as u8, 0]);
    }
    frame(Opcode::Pong, payload)
}

/// The head of a final frame of `len` bytes of payload, and the head's length (2, 4 or 10).
pub fn head(opcode: Opcode, len: usize) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut head = [0; HEAD_BYTES_MAX];
    head[0] = FIN | opcode as u8;
    let head_len = match len {
        0..=125 => {
            head[1] = len as u8;
            2
        }
        126..=0xffff => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    (head, head_len)
}

/// Takes a client's mask off a part of a payload that begins `phase` bytes into it (RFC 6455 §5.3).
///
/// Masking is its own inverse.
pub fn unmask(bytes: &mut [u8], key: [u8; 4], phase: usize) {
    let key: [u8; 4] = std::array::from_fn(|at| key[(at + phase) % 4]);
    let half = u64::from(u32::from_ne_bytes(key));
    let word = half << 32 | half;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(frame: &[u8], head: &[u8], payload_len: usize) {
        assert_eq!(&frame[..head.len()], head);
        assert_eq!(frame.len(), head.len() + payload_len);
    }

    #[test]
    fn the_head_is_as_short_as_the_length_allows() {
        check(&text(""), &[0x81, 0], 0);
        check(&text("Hello"), &[0x81, 5], 5);
        check(&binary(&[7; 125]), &[0x82, 125], 125);
        check(&binary(&[7; 126]), &[0x82, 126, 0, 126], 126);
        check(&binary(&[7; 0xffff]), &[0x82, 126, 0xff, 0xff], 0xffff);
        check(&binary(&[7; 0x1_0000]), &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 0x1_0000);
    }

    #[test]
    fn control_frames_are_short() {
        check(&ping(), &[0x89, 0], 0);
        check(&pong(b""), &[0x8a, 0], 0);
        check(&pong(b"now"), &[0x8a, 3], 3);
        check(&pong(&[1; 200]), &[0x8a, 125], 125);
    }

    #[test]
    fn a_text_written_in_place_is_the_same_frame() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = "x".repeat(len);
            let in_place = text_with(3, |out| out.extend_from_slice(payload.as_bytes()));
            assert_eq!(in_place, text(&payload), "{len}");
        }
    }

    #[test]
    fn opcodes_are_a_closed_set() {
        let known: Vec<u8> = (0..16).filter(|bits| Opcode::from_bits(*bits).is_some()).collect();
        assert_eq!(known, [0, 1, 2, 8, 9, 10]);
        assert!((0..16).filter_map(Opcode::from_bits).all(|o| o.is_control() == (o as u8 >= 8)));
    }

    proptest! {
        #[test]
        fn unmasking_in_parts_is_unmasking_byte_by_byte(bytes: Vec<u8>, key: [u8; 4], cut: prop::sample::Index) {
            let expected: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
            let mut parts = bytes.clone();
            let cut = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) };
            unmask(&mut parts[..cut], key, 0);
            unmask(&mut parts[cut..], key, cut % 4);
            prop_assert_eq!(parts, expected);
        }
    }
}
