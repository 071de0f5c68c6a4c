//! A message's body out of the bytes of its connection (RFC 9112 §6, §7.1).
//!
//! ```text
//! size line ─▶ data ─▶ line end ─▶ size line ─▶ … ─▶ size 0 ─▶ trailers ─▶ done
//! ```

use crate::proto::http1::encode::may_trail;
use crate::proto::http1::fields::Framing;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest size line, with its extensions.
const SIZE_LINE_BYTES_MAX: usize = 4096;
/// All extensions of a body: they carry nothing that anybody gets.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// All trailers.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// The most trailers.
const TRAILERS_MAX: usize = 64;

/// Reads one body.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    extension_bytes_left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some of it.
    Data(Bytes),
    /// The fields behind it; it is over.
    Trailers(HeaderMap),
    /// It is over.
    End,
    /// More bytes are needed to tell.
    More,
}

/// Why a body is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The connection ended within it.
    #[error("the connection ended before the body")]
    Cut,
    /// A size line is malformed or over its bounds.
    #[error("a chunk's size is malformed")]
    ChunkSize,
    /// A chunk does not end where its size says.
    #[error("a chunk is longer than its size")]
    ChunkEnd,
    /// The trailers are malformed or over their bounds.
    #[error("the trailers are malformed or too large")]
    Trailers,
}

impl BodyReader {
    /// A body that ends so.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(len) => State::Length(len),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extension_bytes_left: EXTENSION_BYTES_MAX }
    }

    /// Whether nothing of it is left.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How much is left, if that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// The whole body from the front of `buffer`, if it has a length and is all there.
    pub fn whole(&mut self, buffer: &mut BytesMut) -> Option<Bytes> {
        let len = usize::try_from(self.left()?).ok().filter(|len| *len <= buffer.len())?;
        self.state = State::Done;
        Some(buffer.split_to(len).freeze())
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// When the body has not.
    pub fn close(&mut self) -> Result<(), BodyFault> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyFault::Cut),
        }
    }

    /// Takes what comes next from the front of `buffer`.
    ///
    /// # Errors
    /// When it is no body; nothing may be read after that.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, BodyFault> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End),
                _ if buffer.is_empty() => return Ok(Piece::More),
                State::UntilClose => return Ok(Piece::Data(buffer.split().freeze())),
                State::Length(left) => {
                    let (data, left) = part(buffer, left);
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Piece::Data(data));
                }
                State::ChunkData(left) => {
                    let (data, left) = part(buffer, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    return Ok(Piece::Data(data));
                }
                State::ChunkSize => match self.size(buffer)? {
                    None => return Ok(Piece::More),
                    Some(0) => self.state = State::Trailers,
                    Some(len) => self.state = State::ChunkData(len),
                },
                State::ChunkEnd => match &buffer[..] {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.state = State::ChunkSize;
                    }
                    [b'\r'] => return Ok(Piece::More),
                    _ => return Err(BodyFault::ChunkEnd),
                },
                State::Trailers => return self.trailers(buffer),
            }
        }
    }

    /// A chunk's size; `None` if its line is not whole yet.
    fn size(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, BodyFault> {
        let window = &buffer[..buffer.len().min(SIZE_LINE_BYTES_MAX)];
        let Some(end) = memchr::memchr(b'\n', window) else {
            return if window.len() == SIZE_LINE_BYTES_MAX { Err(BodyFault::ChunkSize) } else { Ok(None) };
        };
        let line = window[..end].strip_suffix(b"\r").ok_or(BodyFault::ChunkSize)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let is_extension = matches!(extension.trim_ascii_start().first(), None | Some(b';'));
        if !is_extension || extension.contains(&b'\r') {
            return Err(BodyFault::ChunkSize);
        }
        self.extension_bytes_left =
            self.extension_bytes_left.checked_sub(extension.len()).ok_or(BodyFault::ChunkSize)?;
        buffer.advance(end + 1);
        size.ok_or(BodyFault::ChunkSize).map(Some)
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Piece, BodyFault> {
        if buffer.starts_with(b"\n") {
            return Err(BodyFault::Trailers);
        }
        if buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.state = State::Done;
            return Ok(Piece::End);
        }
        let window = &buffer[..buffer.len().min(TRAILER_BYTES_MAX)];
        // Parsed once, when they are whole: else a server that sends byte by byte would have them parsed as often.
        let Some(end) = memchr::memmem::find(window, b"\n\r\n") else {
            return if window.len() == TRAILER_BYTES_MAX { Err(BodyFault::Trailers) } else { Ok(Piece::More) };
        };
        let section = &window[..end + 3];
        // A reader that takes no bare LF for a line's end would see another end of the body.
        if memchr::memchr_iter(b'\n', section).any(|at| !section[..at].ends_with(b"\r")) {
            return Err(BodyFault::Trailers);
        }
        let mut storage = [httparse::EMPTY_HEADER; TRAILERS_MAX];
        let parsed = httparse::parse_headers(section, &mut storage).map_err(|_| BodyFault::Trailers)?;
        let httparse::Status::Complete((len, fields)) = parsed else { return Err(BodyFault::Trailers) };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BodyFault::Trailers)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| BodyFault::Trailers)?;
            if may_trail(&name) {
                trailers.append(name, value);
            }
        }
        buffer.advance(len);
        self.state = State::Done;
        Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) })
    }
}

/// At most `left` bytes of `buffer`, and how many are left then.
fn part(buffer: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    let data = if len == buffer.len() { buffer.split() } else { buffer.split_to(len) };
    (data.freeze(), left - len as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// What is read of `text` when it comes in pieces of `step` bytes and then the connection ends: the body, its
    /// trailers, and what is left behind it.
    fn read(framing: Framing, text: &[u8], step: usize) -> Result<Read, BodyFault> {
        let (mut reader, mut buffer) = (BodyReader::new(framing), BytesMut::new());
        let (mut body, mut pieces) = (Vec::new(), text.chunks(step));
        loop {
            match reader.next(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::Trailers(trailers) => {
                    buffer.extend_from_slice(&pieces.collect::<Vec<_>>().concat());
                    return Ok((body, Some(trailers), buffer.to_vec()));
                }
                Piece::End => {
                    buffer.extend_from_slice(&pieces.collect::<Vec<_>>().concat());
                    return Ok((body, None, buffer.to_vec()));
                }
                Piece::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => reader.close()?,
                },
            }
        }
    }

    #[track_caller]
    fn check(framing: Framing, text: &str, expected: Result<(&str, Option<&str>, &str), BodyFault>) {
        for step in [1, 2, 3, 7, text.len().max(1)] {
            let found = read(framing, text.as_bytes(), step);
            let found = found.map(|(body, trailers, rest)| {
                let sum =
                    trailers.map(|fields| fields.get("x-sum").map_or("", |sum| sum.to_str().expect("text")).to_owned());
                (String::from_utf8(body).expect("text"), sum, String::from_utf8(rest).expect("text"))
            });
            let expected = expected.map(|(body, sum, rest)| (body.to_owned(), sum.map(str::to_owned), rest.to_owned()));
            assert_eq!(found, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        check(Framing::Length(3), "abcd", Ok(("abc", None, "d")));
        check(Framing::Length(3), "ab", Err(BodyFault::Cut));
        check(Framing::Length(0), "d", Ok(("", None, "d")));
        check(Framing::Empty, "d", Ok(("", None, "d")));
        check(Framing::UntilClose, "abc", Ok(("abc", None, "")));
        check(Framing::UntilClose, "", Ok(("", None, "")));
        check(Framing::Chunked, "2\r\nab\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\nz", Ok(("ab0123456789", None, "z")));
        check(Framing::Chunked, "2 ;x\r\nab\r\n000\r\n\r\n", Ok(("ab", None, "")));
    }

    #[test]
    fn trailers_come_behind_the_last_chunk_without_what_frames_a_message() {
        check(Framing::Chunked, "1\r\na\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\nz", Ok(("a", Some("7"), "z")));
        check(Framing::Chunked, "1\r\na\r\n0\r\nContent-Length: 9\r\n\r\n", Ok(("a", None, "")));
    }

    #[test]
    fn chunks_that_can_be_read_in_two_ways_are_refused() {
        for size in ["", "x", "-1", "+1", "0x1", "1 1", "1\ra", "1;a\rb", "1g", "11111111111111111", ";a", " 1"] {
            check(Framing::Chunked, &format!("{size}\r\na\r\n0\r\n\r\n"), Err(BodyFault::ChunkSize));
        }
        check(Framing::Chunked, "1\na\r\n0\r\n\r\n", Err(BodyFault::ChunkSize));
        check(Framing::Chunked, "1\r\nab\r\n0\r\n\r\n", Err(BodyFault::ChunkEnd));
        check(Framing::Chunked, "1\r\na\n0\r\n\r\n", Err(BodyFault::ChunkEnd));
        check(Framing::Chunked, "1\r\na\r\n0\r\nno field\r\n\r\n", Err(BodyFault::Trailers));
        check(Framing::Chunked, "1\r\na\r\n0\r\n\nGET / HTTP/1.1\r\n\r\n", Err(BodyFault::Trailers));
        check(Framing::Chunked, "1\r\na\r\n0\r\nA: b\n\nGET / HTTP/1.1\r\n\r\n", Err(BodyFault::Trailers));
        check(Framing::Chunked, "1\r\na\r\n0\r\nA: b\nC: d\r\n\r\n", Err(BodyFault::Trailers));
        for cut in ["", "1", "1\r\n", "1\r\na", "1\r\na\r\n", "1\r\na\r\n0\r\n", "1\r\na\r\n0\r\nx-sum: 7\r\n"] {
            check(Framing::Chunked, cut, Err(BodyFault::Cut));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let one = format!("1;{}\r\na\r\n", "x".repeat(SIZE_LINE_BYTES_MAX / 2));
        let some = EXTENSION_BYTES_MAX / (SIZE_LINE_BYTES_MAX / 2 + 1);
        assert!(read(Framing::Chunked, format!("{}0\r\n\r\n", one.repeat(some)).as_bytes(), 1000).is_ok());
        assert_eq!(read(Framing::Chunked, one.repeat(some + 1).as_bytes(), 1000).err(), Some(BodyFault::ChunkSize));
        let line = format!("1;{}", "x".repeat(SIZE_LINE_BYTES_MAX));
        assert_eq!(read(Framing::Chunked, line.as_bytes(), 1000).err(), Some(BodyFault::ChunkSize));
        let trailer = format!("0\r\nx: {}", "x".repeat(TRAILER_BYTES_MAX));
        assert_eq!(read(Framing::Chunked, trailer.as_bytes(), 1000).err(), Some(BodyFault::Trailers));
        let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(TRAILERS_MAX + 1));
        assert_eq!(read(Framing::Chunked, many.as_bytes(), 1000).err(), Some(BodyFault::Trailers));
    }

    proptest! {
        #[test]
        fn what_is_chunked_is_read_in_any_pieces(chunks: Vec<Vec<u8>>, step in 1..40_usize) {
            let mut text = Vec::new();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                crate::proto::http1::push_chunk_size(&mut text, chunk.len());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            crate::proto::http1::push_last_chunk(&mut text, None, &[]);
            prop_assert_eq!(read(Framing::Chunked, &text, step), Ok((chunks.concat(), None, Vec::new())));
        }

        #[test]
        fn any_bytes_do_no_harm(bytes: Vec<u8>, step in 1..9_usize) {
            let _ = read(Framing::Chunked, &bytes, step);
        }
    }
}
