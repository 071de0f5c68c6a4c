//! A piece of a held response, framed once as an HTTP/1.1 chunk and shared by all sessions (RFC 9112 §7.1).

use bytes::Bytes;

/// Bytes to send, with their chunk framing around them where they may travel on a chunked HTTP/1.1 body.
///
/// Cloning shares the bytes. A chunked link sends [`Chunk::framed`], every other link [`Chunk::content`].
#[derive(Debug, Clone)]
pub struct Chunk {
    bytes: Bytes,
    head: u8,
    tail: u8,
}

impl Chunk {
    /// Frames `content` for a held response. It may not be empty: an empty chunk would end the body.
    pub fn framed_from(content: &[u8]) -> Self {
        Self::build(content.len(), |out| out.extend_from_slice(content))
    }

    /// Frames `len` bytes that `write` appends.
    ///
    /// # Panics
    /// In debug builds, when `write` appends another number of bytes, or `len` is 0.
    pub fn build(len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        debug_assert_ne!(len, 0);
        let mut bytes = Vec::with_capacity(len + 20);
        let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
        for at in (0..digits).rev() {
            bytes.push(b"0123456789abcdef"[(len >> (4 * at)) & 15]);
        }
        bytes.extend_from_slice(b"\r\n");
        let head = bytes.len();
        write(&mut bytes);
        debug_assert_eq!(bytes.len() - head, len);
        bytes.extend_from_slice(b"\r\n");
        Self { bytes: bytes.into(), head: head as u8, tail: 2 }
    }

    /// Bytes for a link that is never chunked (a WebSocket's).
    pub fn raw(bytes: Bytes) -> Self {
        Self { bytes, head: 0, tail: 0 }
    }

    /// The bytes with their framing.
    pub fn framed(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes without framing; shares memory.
    pub fn content(&self) -> Bytes {
        self.bytes.slice(usize::from(self.head)..self.bytes.len() - usize::from(self.tail))
    }

    /// How many bytes of content there are.
    pub fn content_len(&self) -> usize {
        self.bytes.len() - usize::from(self.head) - usize::from(self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_framed_in_hexadecimal() {
        let chunk = Chunk::framed_from(&[b'x'; 26]);
        assert_eq!(&chunk.framed()[..], b"1a\r\nxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
        assert_eq!(&chunk.content()[..], [b'x'; 26]);
        assert_eq!(chunk.content_len(), 26);
        assert_eq!(&Chunk::framed_from(b"a").framed()[..], b"1\r\na\r\n");
        assert_eq!(&Chunk::framed_from(&[0; 256]).framed()[..5], b"100\r\n");
    }
}
