//! Frames: their heads, and those that a server writes (RFC 9113 §4.1, §6).

use crate::proto::http2::Reason;

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;
/// The longest payload that is taken, and the longest that every peer takes (RFC 9113 §4.2).
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// DATA and HEADERS: the stream's last.
pub const END_STREAM: u8 = 0x1;
/// SETTINGS and PING: an answer.
pub const ACK: u8 = 0x1;
/// HEADERS and CONTINUATION: the block's last.
pub const END_HEADERS: u8 = 0x4;
/// DATA and HEADERS: padding follows.
pub const PADDED: u8 = 0x8;
/// HEADERS: five bytes of priority come first.
pub const PRIORITY: u8 = 0x20;

/// What a frame is (RFC 9113 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A piece of a body.
    Data,
    /// A head, or trailers.
    Headers,
    /// Deprecated; ignored.
    Priority,
    /// The end of a stream by one side's wish.
    RstStream,
    /// The other end's limits.
    Settings,
    /// Never sent by a client.
    PushPromise,
    /// Is the other end there?
    Ping,
    /// The other end begins no more streams.
    GoAway,
    /// The other end takes more data.
    WindowUpdate,
    /// More of a header block.
    Continuation,
    /// To be ignored (RFC 9113 §5.5).
    Unknown,
}

impl Kind {
    fn of(code: u8) -> Self {
        match code {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub len: usize,
    /// What it is.
    pub kind: Kind,
    /// Its flags, by kind.
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
}

impl Head {
    /// Reads the head at the beginning of `bytes`, if it is there whole.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD_BYTES>()?;
        Some(Self {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind: Kind::of(kind),
            flags,
            // The first bit means nothing.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        })
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn head(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    let [_, a, b, c] = (len as u32).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, d, e, f, g]);
}

/// The head of a DATA frame; `len` bytes are to follow.
pub fn data_head(out: &mut Vec<u8>, stream: u32, len: usize, flags: u8) {
    head(out, len, 0, flags, stream);
}

/// A header block, in as many frames as the peer's `payload_bytes_max` makes of it.
pub fn headers(out: &mut Vec<u8>, stream: u32, block: &[u8], flags: u8, payload_bytes_max: usize) {
    let (first, mut rest) = block.split_at(block.len().min(payload_bytes_max));
    let last = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
    head(out, first.len(), 1, flags | last(rest), stream);
    out.extend_from_slice(first);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(payload_bytes_max));
        head(out, part.len(), 9, last(after), stream);
        out.extend_from_slice(part);
        rest = after;
    }
}

/// RST_STREAM.
pub fn rst_stream(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    head(out, 4, 3, 0, stream);
    out.extend_from_slice(&reason.0.to_be_bytes());
}

/// SETTINGS.
pub fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    head(out, values.len() * 6, 4, 0, 0);
    for (id, value) in values {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// The answer to SETTINGS.
pub fn settings_ack(out: &mut Vec<u8>) {
    head(out, 0, 4, ACK, 0);
}

/// PING, or with [`ACK`] the answer to one.
pub fn ping(out: &mut Vec<u8>, payload: [u8; 8], flags: u8) {
    head(out, 8, 6, flags, 0);
    out.extend_from_slice(&payload);
}

/// GOAWAY: streams up to `last` are answered.
pub fn go_away(out: &mut Vec<u8>, last: u32, reason: Reason, what: &str) {
    head(out, 8 + what.len(), 7, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.0.to_be_bytes());
    out.extend_from_slice(what.as_bytes());
}

/// WINDOW_UPDATE; stream 0 is the connection.
pub fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    head(out, 4, 8, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let mut out = Vec::new();
        data_head(&mut out, 5, 0x01_02_03, END_STREAM);
        let head = Head { len: 0x01_02_03, kind: Kind::Data, flags: END_STREAM, stream: 5 };
        assert_eq!(Head::read(&out), Some(head));
        assert_eq!(Head::read(&out[..8]), None);
        out[5] |= 0x80;
        assert_eq!(Head::read(&out), Some(head), "the reserved bit");
        assert!(head.has(END_STREAM) && !head.has(PADDED));
    }

    #[test]
    fn a_long_header_block_goes_on_in_continuations() {
        let mut out = Vec::new();
        headers(&mut out, 7, b"abcdefg", END_STREAM, 3);
        assert_eq!(
            out, b"\0\0\x03\x01\x01\0\0\0\x07abc\0\0\x03\x09\0\0\0\0\x07def\0\0\x01\x09\x04\0\0\0\x07g",
            "END_STREAM on the first, END_HEADERS on the last"
        );
        out.clear();
        headers(&mut out, 7, b"abc", 0, 3);
        assert_eq!(out, b"\0\0\x03\x01\x04\0\0\0\x07abc");
    }

    #[test]
    fn control_frames_are_as_the_rfc_has_them() {
        let mut out = Vec::new();
        settings(&mut out, &[(3, 100), (4, 65_535)]);
        assert_eq!(out, b"\0\0\x0c\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\0\xff\xff");
        out.clear();
        go_away(&mut out, 3, Reason::ENHANCE_YOUR_CALM, "why");
        assert_eq!(out, b"\0\0\x0b\x07\0\0\0\0\0\0\0\0\x03\0\0\0\x0bwhy");
        out.clear();
        ping(&mut out, *b"12345678", ACK);
        window_update(&mut out, 9, 256);
        rst_stream(&mut out, 9, Reason::CANCEL);
        settings_ack(&mut out);
        assert_eq!(
            out,
            b"\0\0\x08\x06\x01\0\0\0\x0012345678\0\0\x04\x08\0\0\0\0\x09\0\0\x01\0\
              \0\0\x04\x03\0\0\0\0\x09\0\0\0\x08\0\0\0\x04\x01\0\0\0\0"
        );
    }
}
