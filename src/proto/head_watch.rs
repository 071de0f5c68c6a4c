//! A look at the raw bytes of an HTTP/1.1 connection for request heads that two parsers may read differently.
//!
//! The HTTP machine behind it resolves some ambiguous heads by silently dropping a field (`Content-Length` beside
//! `Transfer-Encoding`, a second equal `Content-Length`, the fragment of a target), so that nothing above it can refuse
//! them as RFC 9112 §6.3 advises. The watch sees the bytes before they are resolved:
//!
//! ```text
//! Start ─request line→ Fields ─blank line→ Body(n) ───────────────→ Start
//!                        └────────chunked→ ChunkSize ⇄ ChunkData(n)
//!                                            └─ 0 ─→ Trailers ──→ Start
//! ```
//!
//! It follows the framing of bodies, so text in a body that looks like a head is never taken for one. It *over-reports*
//! only what no sane client sends: a line over 64 KiB, a `Content-Length` or chunk size that is no number, a bare LF
//! in a chunk size or trailer. It *under-reports* nothing as long as it is fed every byte, in order. A report is about
//! a request and all behind it; those before it are sound. So what a client sends ahead of a switch of protocols does
//! no harm: it looks like a request that never comes. The answer is 400 and close. It does not check what the HTTP
//! machine refuses by itself (spaces around names, other transfer codings, unequal lengths).

use memchr::memchr;

/// A line that is not complete yet may keep so much.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// No chunk is that large, and the CRLF behind it still counts.
const CHUNK_BYTES_MAX: u64 = u64::MAX - 2;
/// So much of it stays allocated for the next one.
const LINE_BYTES_KEPT: usize = 256;

/// Watches one connection.
#[derive(Debug, Default)]
pub struct HeadWatch {
    state: State,
    head: Head,
    line: Vec<u8>,
    /// Request lines that were seen.
    begun: u64,
    /// Requests that were asked about.
    asked: u64,
    /// The first ambiguous one, counted from 1.
    conflict: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Fields,
    Body(u64),
    ChunkSize,
    /// The CRLF behind the data counts too.
    ChunkData(u64),
    Trailers,
    /// It can't follow; this was reported.
    Lost,
}

/// What a head said about its body.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
}

impl HeadWatch {
    /// Sees the next bytes that were read.
    pub fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Lost => return,
                State::Body(left) => {
                    let left = skip(&mut bytes, left);
                    self.state = if left == 0 { State::Start } else { State::Body(left) };
                }
                State::ChunkData(left) => {
                    let left = skip(&mut bytes, left);
                    self.state = if left == 0 { State::ChunkSize } else { State::ChunkData(left) };
                }
                State::Start | State::Fields | State::ChunkSize | State::Trailers => self.see_line(&mut bytes),
            }
        }
    }

    /// Whether the last request has come whole, and nothing of another.
    pub fn is_between_requests(&self) -> bool {
        self.state == State::Start && self.line.is_empty()
    }

    /// The same, and it was asked about: whoever asks is not behind.
    pub fn is_level(&self) -> bool {
        self.is_between_requests() && self.begun == self.asked
    }

    /// Whether a head has begun and not ended.
    pub fn is_in_head(&self) -> bool {
        self.state == State::Fields || self.state == State::Start && !self.line.is_empty()
    }

    /// Whether the next request, or one before it, was ambiguous. To be asked once for each, in their order.
    pub fn next_is_ambiguous(&mut self) -> bool {
        self.asked += 1;
        self.conflict.is_some_and(|first| first <= self.asked)
    }

    /// Notes that the request whose bytes are seen is ambiguous.
    fn note(&mut self) {
        let ahead = u64::from(self.state == State::Start);
        self.conflict.get_or_insert(self.begun + ahead);
    }

    fn see_line(&mut self, bytes: &mut &[u8]) {
        let Some(end) = memchr(b'\n', bytes) else {
            if self.line.len() + bytes.len() > LINE_BYTES_MAX {
                self.lose();
            } else {
                self.line.extend_from_slice(bytes);
            }
            *bytes = &[];
            return;
        };
        let (piece, rest) = (&bytes[..end], &bytes[end + 1..]);
        *bytes = rest;
        if self.line.is_empty() {
            self.line_is(piece);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(piece);
            self.line_is(&line);
            if line.capacity() <= LINE_BYTES_KEPT {
                line.clear();
                self.line = line;
            }
        }
    }

    /// A whole line, without its LF.
    fn line_is(&mut self, line: &[u8]) {
        let (text, crlf) = line.strip_suffix(b"\r").map_or((line, false), |text| (text, true));
        match self.state {
            // Blank lines before a request line are skipped (RFC 9112 §2.2).
            State::Start if text.is_empty() => {}
            State::Start => {
                self.head = Head::default();
                self.state = State::Fields;
                self.begun += 1;
                if memchr(b'\r', text).is_some() || memchr(b'#', text).is_some() {
                    self.note();
                }
            }
            State::Fields if text.is_empty() => self.body_begins(),
            State::Fields => self.field(text),
            State::ChunkSize => match chunk_size(text).filter(|_| crlf) {
                Some(0) => self.state = State::Trailers,
                Some(size @ ..=CHUNK_BYTES_MAX) => self.state = State::ChunkData(size + 2),
                Some(_) | None => self.lose(),
            },
            State::Trailers if !crlf => self.lose(),
            State::Trailers if text.is_empty() => self.state = State::Start,
            State::Trailers | State::Body(_) | State::ChunkData(_) | State::Lost => {}
        }
    }

    fn field(&mut self, line: &[u8]) {
        // A bare CR (RFC 9112 §2.2) and a folded line (§5.2) are read differently by different parsers.
        let odd = matches!(line[0], b' ' | b'\t') || memchr(b'\r', line).is_some();
        let length = named(line, b"content-length");
        let is_framing = length.is_some() || named(line, b"transfer-encoding").is_some();
        if odd || (is_framing && (self.head.length.is_some() || self.head.chunked)) {
            self.note();
        }
        if let Some(value) = length {
            match decimal(value) {
                Some(length) => self.head.length = Some(length),
                None => self.lose(),
            }
        } else if is_framing {
            self.head.chunked = true;
        }
    }

    fn body_begins(&mut self) {
        self.state = match self.head {
            Head { chunked: true, .. } => State::ChunkSize,
            Head { length: Some(length @ 1..), .. } => State::Body(length),
            Head { .. } => State::Start,
        };
    }

    fn lose(&mut self) {
        self.note();
        self.state = State::Lost;
        self.line = Vec::new();
    }
}

/// Skips up to `left` bytes; what is left of `left` comes back.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    *bytes = &bytes[here..];
    left - here as u64
}

/// The value of a field line with this name, given in lower case.
fn named<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The size in front of a chunk; extensions are left out (RFC 9112 §7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(bytes: &str, expected: bool) {
        let mut whole = HeadWatch::default();
        whole.see(bytes.as_bytes());
        assert_eq!(whole.conflict.is_some(), expected, "whole: {bytes:?}");
        let mut split = HeadWatch::default();
        bytes.as_bytes().chunks(1).for_each(|byte| split.see(byte));
        assert_eq!(split.conflict.is_some(), expected, "byte by byte: {bytes:?}");
    }

    #[test]
    fn ambiguous_heads_are_noted() {
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", true);
        check("POST / HTTP/1.1\nTRANSFER-encoding:chunked\ncontent-LENGTH:3\n\n", true);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", true);
        check("GET / HTTP/1.1\r\n\rA: b\r\n\r\n", true);
        check("GET /a#b HTTP/1.1\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", true);
    }

    #[test]
    fn plain_heads_and_bodies_that_look_like_heads_are_not() {
        check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", false);
        check(
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        );
        let text = "A: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n#";
        check(&format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{text}GET / HTTP/1.1\r\n\r\n", text.len()), false);
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}{:X};e=1\r\n{text}\r\n0\r\nContent-Length: 3\r\n\r\n", text.len()), false);
    }

    #[test]
    fn a_conflict_behind_a_body_is_seen() {
        let bad = "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello{bad}"), true);
        check(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{bad}"), true);
        check(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: 1\n\n{bad}"), true);
    }

    #[test]
    fn requests_before_an_ambiguous_one_are_sound() {
        let sound = "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
        for bad in ["GET /a#b HTTP/1.1\r\n\r\n", "\u{1}#\n\n"] {
            let mut watch = HeadWatch::default();
            watch.see(format!("{sound}{sound}{bad}{sound}").as_bytes());
            assert_eq!([(); 4].map(|()| watch.next_is_ambiguous()), [false, false, true, true], "{bad:?}");
        }
        let mut watch = HeadWatch::default();
        watch.see(format!("{sound}POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n!").as_bytes());
        assert_eq!([(); 2].map(|()| watch.next_is_ambiguous()), [false, false]);
        watch.see(b"\n");
        assert!(watch.next_is_ambiguous());
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut watch = HeadWatch::default();
        for _ in 0..100 {
            watch.see(&[b'a'; 1024]);
        }
        assert!(watch.next_is_ambiguous());
        assert_eq!(watch.line.capacity(), 0);
    }

    proptest! {
        #[test]
        fn any_split_of_any_bytes_is_seen_alike(bytes in "(POST|[Cc]ontent-[Ll]ength: ?[0-9]{0,3}|Transfer-Encoding:|chunked|\r\n|\n|\r|[ #:a-f0-9]){0,60}", cuts in proptest::collection::vec(0usize..400, 0..6)) {
            let mut whole = HeadWatch::default();
            whole.see(bytes.as_bytes());
            let mut split = HeadWatch::default();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                split.see(&bytes.as_bytes()[pair[0]..pair[1]]);
            }
            prop_assert_eq!(whole.state, split.state);
            prop_assert_eq!(whole.conflict.is_some(), split.conflict.is_some());
        }

        #[test]
        fn what_the_http_machine_would_accept_is_judged_by_its_own_reading(
            target in "/[a-z#?%]{0,4}",
            fields in proptest::collection::vec(
                "(Content-Length|CONTENT-length|content-lengt|Transfer-Encoding|transfer-ENCODING|Te|x)( )?:[ \\t]{0,2}([0-9]{1,3}|chunked|[+]1|5, 5|)[ \\t]?(\r\n|\n|\r|\r\n )",
                0..5,
            ),
            blank in "(\r\n|\n){1,2}",
        ) {
            let bytes = format!("POST {target} HTTP/1.1\r\n{}{blank}", fields.concat());
            let mut storage = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut storage);
            if let Ok(httparse::Status::Complete(used)) = request.parse(bytes.as_bytes()) {
                let mut watch = HeadWatch::default();
                watch.see(&bytes.as_bytes()[..used]);
                let values = |name: &str| request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value).collect::<Vec<_>>();
                let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
                let expected = lengths.len() + codings.len() > 1
                    || lengths.iter().any(|value| decimal(value).is_none())
                    || target.contains('#');
                prop_assert_eq!(watch.conflict.is_some(), expected, "{:?}", bytes);
            }
        }

        #[test]
        fn well_formed_requests_never_conflict_and_a_smuggled_one_always_does(
            bodies in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80)), 0..5),
        ) {
            let mut bytes = Vec::new();
            for (chunked, body) in &bodies {
                if *chunked {
                    bytes.extend_from_slice(b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(7) {
                        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                        bytes.extend_from_slice(chunk);
                        bytes.extend_from_slice(b"\r\n");
                    }
                    bytes.extend_from_slice(b"0\r\n\r\n");
                } else {
                    bytes.extend_from_slice(format!("PUT /x HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
                    bytes.extend_from_slice(body);
                }
            }
            let mut watch = HeadWatch::default();
            watch.see(&bytes);
            prop_assert!(watch.conflict.is_none());
            prop_assert_eq!(watch.state, State::Start);
            watch.see(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n");
            prop_assert!(watch.conflict.is_some());
        }
    }
}
