//! A client's request head, and what it says of its body and its answer (RFC 9112 §3, §6.3, §9.3).
//!
//! Whatever two readers could read in two ways is a fault: folded lines, a length beside a coding, several of either, a coding
//! in HTTP/1.0 or another than `chunked`, a fragment in the target. Nothing may be read after a fault.

use crate::proto::http1::fields::{self, Coding, FIELDS_MAX, Framing};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};
use std::mem::MaybeUninit;

/// Room for fields that are added on the way: a map that grows hashes all its names anew.
const ADDED_FIELDS: usize = 8;

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, target, version and fields.
    pub parts: request::Parts,
    /// The head as it came, with its empty line and blank lines before it; the fields' values share it.
    pub bytes: Bytes,
    /// Where the body ends.
    pub framing: Framing,
    /// What its answer depends on.
    pub asked: Asked,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
}

/// What the framing of an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Whether the answer has no body, whatever its head says.
    pub is_head: bool,
    /// Whether the client understands chunks.
    pub is_http11: bool,
    /// Whether it may send more requests.
    pub keeps_alive: bool,
    /// Whether it takes trailers (RFC 9110 §6.5.1).
    pub takes_trailers: bool,
}

impl Asked {
    /// For an answer to what is no request.
    pub const NOTHING: Self = Self { is_head: false, is_http11: true, keeps_alive: false, takes_trailers: false };
}

/// Why there is no request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// It has not the form of one.
    #[error("what came is no request of HTTP/1.1: {0}")]
    Syntax(httparse::Error),
    /// The target.
    #[error("the target is no path or URI")]
    Target,
    /// It has a `#`, which some readers drop.
    #[error("a target may not have a fragment")]
    Fragment,
    /// A field that httparse lets through.
    #[error("a field's name or value is malformed")]
    Field,
    /// RFC 9112 §6.3.
    #[error("a request may not have both transfer-encoding and content-length, nor several of either")]
    Ambiguous,
    /// RFC 9110 §8.6.
    #[error("content-length must be one decimal number")]
    ContentLength,
    /// RFC 9112 §6.1.
    #[error("transfer-encoding must be exactly `chunked`, and only in HTTP/1.1")]
    TransferEncoding,
    /// The bytes.
    #[error("the request head is over {0} bytes (limits.request_header_bytes)")]
    TooLarge(usize),
    /// The fields.
    #[error("the request head has over {FIELDS_MAX} fields")]
    TooMany,
}

impl RequestFault {
    /// The status that tells the client.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) | Self::TooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<httparse::Error> for RequestFault {
    fn from(error: httparse::Error) -> Self {
        if error == httparse::Error::TooManyHeaders { Self::TooMany } else { Self::Syntax(error) }
    }
}

/// Finds one head after the other.
#[derive(Debug, Default)]
pub struct RequestReader {
    /// How much was looked through for the end.
    searched: usize,
}

impl RequestReader {
    /// Whether it has looked at the beginning of a head.
    pub fn has_begun(&self) -> bool {
        self.searched > 0
    }

    /// The head at the front of `bytes`, and its length; `None` if it is not whole yet. Then the caller asks again with more
    /// behind the same bytes. It may have `bytes_max` bytes.
    ///
    /// # Errors
    /// When it is none, or too large.
    pub fn read(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Option<(RequestHead, usize)>, RequestFault> {
        // What came before is parsed again only when the head's end is there.
        let found = match self.searched > 0 && !fields::has_end(bytes, self.searched) {
            true => None,
            false => parse(bytes, bytes_max)?,
        };
        self.searched = if found.is_some() { 0 } else { bytes.len() };
        if found.is_none() && bytes.len() >= bytes_max {
            return Err(RequestFault::TooLarge(bytes_max));
        }
        Ok(found)
    }
}

fn parse(bytes: &[u8], bytes_max: usize) -> Result<Option<(RequestHead, usize)>, RequestFault> {
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut outline = httparse::Request::new(&mut []);
    let parsed = outline.parse_with_uninit_headers(bytes, &mut storage)?;
    let httparse::Status::Complete(len) = parsed else { return Ok(None) };
    if len > bytes_max {
        return Err(RequestFault::TooLarge(bytes_max));
    }
    // One copy, of the exact size, that all values share: what was read into is used again at once.
    let head = Bytes::copy_from_slice(&bytes[..len]);
    let part = |of: &[u8]| {
        let from = of.as_ptr() as usize - bytes.as_ptr() as usize;
        head.slice(from..from + of.len())
    };
    let mut parts = http::Request::new(()).into_parts().0;
    let target = outline.path.unwrap_or_default().as_bytes();
    if memchr::memchr(b'#', target).is_some() {
        return Err(RequestFault::Fragment);
    }
    parts.method =
        Method::from_bytes(outline.method.unwrap_or_default().as_bytes()).map_err(|_| httparse::Error::Token)?;
    parts.uri = Uri::from_maybe_shared(part(target)).map_err(|_| RequestFault::Target)?;
    parts.version = if outline.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut named = Named::default();
    parts.headers.reserve(outline.headers.len() + ADDED_FIELDS);
    for field in outline.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| RequestFault::Field)?;
        let value = HeaderValue::from_maybe_shared(part(field.value)).map_err(|_| RequestFault::Field)?;
        named.note(&name);
        parts.headers.append(name, value);
    }
    let framing = framing(&parts, &named)?;
    let asked = Asked {
        is_head: parts.method == Method::HEAD,
        is_http11: parts.version == Version::HTTP_11,
        keeps_alive: fields::keeps_alive(parts.version, &parts.headers, named.connection),
        takes_trailers: named.te && takes_trailers(&parts.headers),
    };
    let expects_continue = named.expect && asked.is_http11 && framing != Framing::Empty && expects(&parts.headers);
    Ok(Some((RequestHead { parts, bytes: head, framing, asked, expects_continue }, len)))
}

/// Which fields of a connection a head has: most have few, and to look for each would cost a hash.
#[derive(Default)]
struct Named {
    lengths: usize,
    codings: usize,
    connection: bool,
    te: bool,
    expect: bool,
}

impl Named {
    fn note(&mut self, name: &HeaderName) {
        self.lengths += usize::from(*name == CONTENT_LENGTH);
        self.codings += usize::from(*name == TRANSFER_ENCODING);
        self.connection |= *name == CONNECTION;
        self.te |= *name == TE;
        self.expect |= *name == EXPECT;
    }
}

fn framing(parts: &request::Parts, named: &Named) -> Result<Framing, RequestFault> {
    if named.lengths + named.codings > 1 {
        return Err(RequestFault::Ambiguous);
    }
    if named.codings == 1 {
        let is_chunked = fields::coding(&parts.headers) == Coding::Chunked && parts.version == Version::HTTP_11;
        return if is_chunked { Ok(Framing::Chunked) } else { Err(RequestFault::TransferEncoding) };
    }
    if named.lengths == 0 {
        return Ok(Framing::Empty);
    }
    match fields::length(&parts.headers) {
        Some((Some(0), 1)) => Ok(Framing::Empty),
        Some((Some(length), 1)) => Ok(Framing::Length(length)),
        _ => Err(RequestFault::ContentLength),
    }
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

fn expects(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES_MAX: usize = 8192;

    fn read(text: &[u8]) -> Result<Option<(RequestHead, usize)>, RequestFault> {
        RequestReader::default().read(text, BYTES_MAX)
    }

    #[track_caller]
    fn check(head: &str, expected: Result<Framing, RequestFault>) {
        let found = read(format!("{head}\r\n\r\nrest").as_bytes());
        assert_eq!(found.map(|found| found.map(|(head, _)| head.framing)), expected.map(Some), "{head:?}");
    }

    #[test]
    fn a_head_is_read_and_the_rest_is_left() {
        let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a:  2 \r\nContent-Length: 4\r\n\r\nbody";
        let (head, len) = read(text).expect("a head").expect("whole");
        assert_eq!((&head.parts.method, head.parts.uri.to_string()), (&Method::POST, "/a?b".to_owned()));
        assert_eq!(head.parts.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((&text[len..], head.framing), (&b"body"[..], Framing::Length(4)));
        assert_eq!(head.bytes, text[..len]);
    }

    #[test]
    fn the_end_of_the_body_is_what_rfc_9112_says() {
        check("GET / HTTP/1.1", Ok(Framing::Empty));
        check("POST / HTTP/1.1\r\nContent-Length: 0", Ok(Framing::Empty));
        check("POST / HTTP/1.1\ncontent-LENGTH:7", Ok(Framing::Length(7)));
        check("GET / HTTP/1.0\r\nContent-Length: 7", Ok(Framing::Length(7)));
        check("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked", Ok(Framing::Chunked));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_a_fault() {
        use RequestFault::{Ambiguous, ContentLength, Fragment, Target, TransferEncoding};
        for both in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "TRANSFER-encoding:chunked\ncontent-LENGTH:3",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Content-Length: 3\r\nContent-Length: 3",
        ] {
            check(&format!("POST / HTTP/1.1\r\n{both}"), Err(Ambiguous));
        }
        for length in ["", "+5", "-1", "5, 5", "5,", "0x5", "5 5", "18446744073709551616"] {
            check(&format!("POST / HTTP/1.1\r\nContent-Length: {length}"), Err(ContentLength));
        }
        for coding in ["", "gzip, chunked", "chunked, chunked", "identity", "xchunked", "chunked;a"] {
            check(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: {coding}"), Err(TransferEncoding));
        }
        check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked", Err(TransferEncoding));
        check("GET /a#b HTTP/1.1", Err(Fragment));
        check("GET a?b/%zz HTTP/1.1", Err(Target));
        for head in [
            "GET / HTTP/1.1\r\nA: b\r\n c",
            "GET / HTTP/1.1\r\n A: b",
            "GET / HTTP/1.1\r\nA : b",
            "GET / HTTP/1.1\r\nA: b\rC: d",
            "GET / HTTP/1.1\r\n\rA: b",
            "GET / HTTP/1.1\r\nA: b\0",
            "GET / HTTP/1.1\r\nA: \x0bb",
            "GET / HTTP/1.1\r\n: b",
            "GET / HTTP/1.1\r\nA",
            "GET / HTTP/1.1 ",
            "GET / HTTP/2.0",
            "GET /a b HTTP/1.1",
            "GET /",
            "G\0T / HTTP/1.1",
            " GET / HTTP/1.1",
            "\x16\x03\x01",
        ] {
            let fault = read(format!("{head}\r\n\r\n").as_bytes()).err();
            assert_eq!(fault.map(RequestFault::status), Some(StatusCode::BAD_REQUEST), "{head:?}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        let long = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(BYTES_MAX));
        for end in ["", "\r\n\r\n"] {
            assert_eq!(read(format!("{long}{end}").as_bytes()).err(), Some(RequestFault::TooLarge(BYTES_MAX)));
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(read(many.as_bytes()).err(), Some(RequestFault::TooMany));
        let fits = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX));
        assert!(read(fits.as_bytes()).expect("no fault").is_some());
    }

    #[test]
    fn the_answer_depends_on_version_connection_and_te() {
        let asked = |head: &str| read(format!("{head}\r\n\r\n").as_bytes()).expect("no fault").expect("whole").0.asked;
        let plain = Asked { is_head: false, is_http11: true, keeps_alive: true, takes_trailers: false };
        assert_eq!(asked("GET / HTTP/1.1"), plain);
        assert_eq!(asked("HEAD / HTTP/1.1"), Asked { is_head: true, ..plain });
        assert_eq!(asked("GET / HTTP/1.1\r\nConnection: x, Close"), Asked { keeps_alive: false, ..plain });
        assert_eq!(asked("GET / HTTP/1.1\r\nTE: gzip, Trailers"), Asked { takes_trailers: true, ..plain });
        let old = Asked { is_http11: false, keeps_alive: false, ..plain };
        assert_eq!(asked("GET / HTTP/1.0"), old);
        assert_eq!(asked("GET / HTTP/1.0\r\nConnection: Keep-Alive"), Asked { keeps_alive: true, ..old });
    }

    #[test]
    fn only_a_client_with_a_body_waits_for_a_100() {
        let expects = |text: &str| read(text.as_bytes()).expect("no fault").expect("whole").0.expects_continue;
        assert!(expects("PUT / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n"));
        assert!(!expects("PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"));
        assert!(!expects("PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"));
    }

    /// What is found when a text comes in pieces of `step` bytes.
    fn in_pieces(text: &[u8], step: usize) -> Result<Option<String>, RequestFault> {
        let mut reader = RequestReader::default();
        for end in (step..text.len() + step).step_by(step) {
            if let Some((head, len)) = reader.read(&text[..end.min(text.len())], BYTES_MAX)? {
                return Ok(Some(format!("{:?} {:?} {:?} {len}", head.parts, head.framing, head.asked)));
            }
        }
        Ok(None)
    }

    proptest! {
        #[test]
        fn a_head_is_the_same_in_any_pieces(
            target in "/[a-z?%]{0,4}",
            fields in prop::collection::vec(("(Content-Length|Transfer-Encoding|Te|[A-Za-z-]{1,9})", "(chunked|[0-9]{1,3}|[ -~]{0,9})"), 0..9),
            line_end in prop::sample::select(vec!["\r\n", "\n"]),
            step in 1..40_usize,
        ) {
            let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}{line_end}")).collect();
            let text = format!("{line_end}GET {target} HTTP/1.1{line_end}{fields}{line_end}rest");
            prop_assert_eq!(in_pieces(text.as_bytes(), step), in_pieces(text.as_bytes(), text.len()));
        }

        #[test]
        fn what_is_let_through_has_one_framing_at_most(
            target in "/[a-z#?%]{0,4}",
            fields in prop::collection::vec(
                "(Content-Length|CONTENT-length|content-lengt|Transfer-Encoding|transfer-ENCODING|Te|x)( )?:[ \\t]{0,2}([0-9]{1,3}|chunked|[+]1|5, 5|)[ \\t]?(\r\n|\n|\r|\r\n )",
                0..5,
            ),
            blank in "(\r\n|\n){1,2}",
        ) {
            let text = format!("POST {target} HTTP/1.1\r\n{}{blank}", fields.concat());
            if let Ok(Some((_, len))) = read(text.as_bytes()) {
                let head = text[..len].to_ascii_lowercase();
                let framing = |line: &&str| line.starts_with("content-length") || line.starts_with("transfer-encoding");
                prop_assert!(head.split('\n').filter(framing).count() <= 1, "{head:?}");
                prop_assert!(!target.contains('#') && !head.replace("\r\n", "").contains('\r') && !head.contains("\n "), "{head:?}");
            }
        }

        #[test]
        fn any_bytes_in_any_pieces_do_no_harm(bytes: Vec<u8>, step in 1..9_usize) {
            let _ = in_pieces(&bytes, step);
            let _ = in_pieces(&[b"GET / HTTP/1.1\r\n", &bytes[..]].concat(), step);
        }
    }
}
