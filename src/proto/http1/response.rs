//! A server's response head, and what it says of the body and the connection (RFC 9112 §4, §6.3, §9.3).
//!
//! Whatever two readers could read in two ways is an error: folded lines, lengths that differ, a coding in HTTP/1.0 or
//! another than `chunked`, a length beside a coding.

use crate::proto::http1::fields::{self, Coding, FIELDS_MAX, Framing};
use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, response};
use std::mem::MaybeUninit;
use std::time::Duration;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The largest head.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most interim responses before the one that counts.
const INTERIM_MAX: usize = 100;

/// Words behind a status that are not its usual ones; goes with a response as its extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonPhrase(pub Box<[u8]>);

/// A response head.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, version and fields as they came.
    pub parts: response::Parts,
    /// The reason, if it is not the usual one of the status.
    pub reason: Option<ReasonPhrase>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether its fields say that in one way only: a single `Content-Length`, and nothing else.
    pub is_plain: bool,
    /// Whether the server keeps the connection for another request.
    pub keeps_alive: bool,
    /// How long it keeps an idle connection (`Keep-Alive: timeout=5`), if it says.
    pub keeps_idle: Option<Duration>,
}

/// Why bytes are no response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Not HTTP/1.
    #[error("what it sent is no HTTP/1.1 response: {0}")]
    Syntax(#[from] httparse::Error),
    /// Over [`HEAD_BYTES_MAX`].
    #[error("its response head is over {HEAD_BYTES_MAX} bytes")]
    TooLarge,
    /// A status outside of 100 to 999, or a field that can't be one.
    #[error("its response head has a malformed status or field")]
    Malformed,
    /// RFC 9112 §6.3.
    #[error("its Content-Length is malformed, or there are several that differ")]
    ContentLength,
    /// RFC 9112 §6.1: another coding than `chunked`, or one in HTTP/1.0.
    #[error("its Transfer-Encoding is not `chunked`")]
    TransferEncoding,
    /// RFC 9112 §6.3.
    #[error("it has both a Transfer-Encoding and a Content-Length")]
    TwoFramings,
    /// Responses without an end that say nothing.
    #[error("it sent over {INTERIM_MAX} interim responses")]
    Interim,
}

impl HeadFault {
    /// What is wrong, if it is HTTP but for where the body ends.
    pub fn framing(self) -> Option<&'static str> {
        match self {
            Self::TransferEncoding => Some("its Transfer-Encoding is not `chunked`"),
            Self::TwoFramings => Some("it has both a Transfer-Encoding and a Content-Length"),
            _ => None,
        }
    }
}

/// Takes the head of one response out of the bytes of its connection.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// How much of the buffer has been looked through for the head's end.
    searched: usize,
    interim: usize,
}

impl HeadReader {
    /// Whether an interim response came.
    pub fn has_interim(&self) -> bool {
        self.interim > 0
    }

    /// Takes the response head to a request with `method` from the front of `buffer`; `None` if it is not whole yet. The
    /// caller only appends to what is left.
    ///
    /// Interim responses before it (RFC 9110 §15.2) are taken and dropped, but for a 101. The head's fields are kept in
    /// `spare`, which is emptied: the fields of the request are of no use once its response is there.
    ///
    /// # Errors
    /// When it is none; nothing may be read after that.
    pub fn take(
        &mut self,
        buffer: &mut BytesMut,
        method: &Method,
        spare: &mut HeaderMap,
    ) -> Result<Option<ResponseHead>, HeadFault> {
        loop {
            match buffer.first() {
                None => return Ok(None),
                Some(b'H') => {}
                Some(_) => return Err(HeadFault::Syntax(httparse::Error::Version)),
            }
            let mut spans = [Span::default(); FIELDS_MAX];
            // What came before is parsed again only when the head's end is there.
            let outline = if self.searched > 0 && !fields::has_end(buffer, self.searched) {
                None
            } else {
                outline(buffer, &mut spans)?
            };
            let Some(Outline { len, status, version, reason, fields }) = outline else {
                self.searched = buffer.len();
                return if buffer.len() >= HEAD_BYTES_MAX { Err(HeadFault::TooLarge) } else { Ok(None) };
            };
            self.searched = 0;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err(HeadFault::Interim);
                }
                buffer.advance(len);
                continue;
            }
            // The fields' values share this piece of the buffer.
            let bytes = buffer.split_to(len).freeze();
            let mut parts = http::Response::new(()).into_parts().0;
            (parts.status, parts.version) = (status, version);
            parts.headers = std::mem::take(spare);
            parts.headers.clear();
            parts.headers.reserve(fields);
            let mut named = Named::default();
            for span in &spans[..fields] {
                let (name, value) = span.field(&bytes)?;
                named.note(&name);
                parts.headers.append(name, value);
            }
            let (framing, is_plain) = framing(&parts, &named, method)?;
            let keeps_alive =
                fields::keeps_alive(parts.version, &parts.headers, named.connection) && framing != Framing::UntilClose;
            let keeps_idle = if named.keep_alive { keeps_idle(&parts.headers) } else { None };
            return Ok(Some(ResponseHead { parts, reason, framing, is_plain, keeps_alive, keeps_idle }));
        }
    }
}

/// Which fields of a connection a head has: most have few, and to look for each would cost a hash.
#[derive(Default)]
struct Named {
    length: bool,
    coding: bool,
    connection: bool,
    keep_alive: bool,
}

impl Named {
    fn note(&mut self, name: &HeaderName) {
        self.length |= *name == CONTENT_LENGTH;
        self.coding |= *name == TRANSFER_ENCODING;
        self.connection |= *name == CONNECTION;
        self.keep_alive |= *name == KEEP_ALIVE;
    }
}

/// Where a field's name and value are in a head; heads are small.
#[derive(Clone, Copy, Default)]
struct Span {
    name: (u32, u32),
    value: (u32, u32),
}

impl Span {
    fn field(&self, head: &Bytes) -> Result<(HeaderName, HeaderValue), HeadFault> {
        let range = |(from, to): (u32, u32)| from as usize..to as usize;
        let name = HeaderName::from_bytes(&head[range(self.name)]).map_err(|_| HeadFault::Malformed)?;
        let value = HeaderValue::from_maybe_shared(head.slice(range(self.value)));
        Ok((name, value.map_err(|_| HeadFault::Malformed)?))
    }
}

/// A head whose fields are still bytes.
struct Outline {
    len: usize,
    status: StatusCode,
    version: Version,
    /// If it is not the usual one of the status.
    reason: Option<ReasonPhrase>,
    fields: usize,
}

fn outline(bytes: &[u8], spans: &mut [Span; FIELDS_MAX]) -> Result<Option<Outline>, HeadFault> {
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut storage)?;
    let httparse::Status::Complete(len) = parsed else { return Ok(None) };
    if len > HEAD_BYTES_MAX {
        return Err(HeadFault::TooLarge);
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(HeadFault::Malformed)?;
    let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = response.reason.filter(|reason| status.canonical_reason() != Some(reason));
    let within = |part: &[u8]| {
        let from = part.as_ptr() as usize - bytes.as_ptr() as usize;
        (from as u32, (from + part.len()) as u32)
    };
    for (span, field) in spans.iter_mut().zip(response.headers.iter()) {
        *span = Span { name: within(field.name.as_bytes()), value: within(field.value) };
    }
    let (reason, fields) = (reason.map(|reason| ReasonPhrase(reason.as_bytes().into())), response.headers.len());
    Ok(Some(Outline { len, status, version, reason, fields }))
}

/// Where the body ends, and whether that is said plainly.
fn framing(parts: &response::Parts, named: &Named, method: &Method) -> Result<(Framing, bool), HeadFault> {
    let coding = if named.coding { fields::coding(&parts.headers) } else { Coding::None };
    let is_chunked = match coding {
        Coding::None => false,
        Coding::Chunked => true,
        Coding::Other => return Err(HeadFault::TransferEncoding),
    };
    if is_chunked && parts.version == Version::HTTP_10 {
        return Err(HeadFault::TransferEncoding);
    }
    let (length, members) = match named.length {
        true => fields::length(&parts.headers).ok_or(HeadFault::ContentLength)?,
        false => (None, 0),
    };
    if is_chunked && length.is_some() {
        return Err(HeadFault::TwoFramings);
    }
    let is_bodiless =
        matches!(parts.status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match length {
        _ if is_bodiless || *method == Method::HEAD => (Framing::Empty, false),
        _ if is_chunked => (Framing::Chunked, false),
        Some(length) => (Framing::Length(length), members == 1),
        None => (Framing::UntilClose, false),
    })
}

fn keeps_idle(headers: &HeaderMap) -> Option<Duration> {
    let mut parameters = headers.get(KEEP_ALIVE)?.to_str().ok()?.split(',');
    let seconds = parameters.find_map(|parameter| parameter.trim().strip_prefix("timeout=")?.parse().ok());
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(text: &str, method: &Method) -> Result<Option<ResponseHead>, HeadFault> {
        HeadReader::default().take(&mut BytesMut::from(text), method, &mut HeaderMap::new())
    }

    /// The head is one, its body ends so, and the connection lasts or not.
    #[track_caller]
    fn check(method: &Method, head: &str, expected: Result<(Framing, bool), HeadFault>) {
        let found = take(&format!("{head}\r\n\r\nrest"), method);
        assert_eq!(found.map(|head| head.map(|head| (head.framing, head.keeps_alive))), expected.map(Some));
    }

    fn get(head: &str, expected: Result<(Framing, bool), HeadFault>) {
        check(&Method::GET, head, expected);
    }

    #[test]
    fn a_head_is_taken_and_the_rest_is_left() {
        let mut buffer = BytesMut::from("HTTP/1.1 200 Fine\r\nX-A: 1\r\nx-a:  2 \r\nContent-Length: 3\r\n\r\nabc");
        let head = HeadReader::default()
            .take(&mut buffer, &Method::GET, &mut HeaderMap::new())
            .expect("a head")
            .expect("whole");
        assert_eq!((head.parts.status, head.parts.version), (StatusCode::OK, Version::HTTP_11));
        assert_eq!(head.parts.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.reason, Some(ReasonPhrase((*b"Fine").into())));
        assert_eq!((&buffer[..], head.framing), (&b"abc"[..], Framing::Length(3)));
        let usual = take("HTTP/1.1 404 Not Found\r\n\r\n", &Method::GET).expect("a head").expect("whole");
        assert_eq!(usual.reason, None);
    }

    #[test]
    fn interim_responses_are_dropped_and_a_switch_is_not() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let status = |text: &str| take(text, &Method::GET).expect("no fault").map(|head| head.parts.status.as_u16());
        assert_eq!(status(interim), None);
        assert_eq!(status(&format!("{interim}HTTP/1.1 204 No Content\r\n\r\n")), Some(204));
        assert_eq!(status(&format!("{interim}HTTP/1.1 101 Switching Protocols\r\n\r\n")), Some(101));
    }

    #[test]
    fn the_end_of_the_body_is_what_rfc_9112_says() {
        use Framing::{Chunked, Empty, Length, UntilClose};
        get("HTTP/1.1 200 OK\r\nContent-Length: 5", Ok((Length(5), true)));
        get("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5", Ok((Length(5), true)));
        get("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", Ok((Chunked, true)));
        get("HTTP/1.1 200 OK", Ok((UntilClose, false)));
        get("HTTP/1.1 204 No Content\r\nContent-Length: 5", Ok((Empty, true)));
        get("HTTP/1.1 304 Not Modified\r\nContent-Length: 5", Ok((Empty, true)));
        get("HTTP/1.1 101 Switching Protocols\r\nTransfer-Encoding: chunked", Ok((Empty, true)));
        check(&Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5", Ok((Empty, true)));
        check(&Method::HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", Ok((Empty, true)));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused_or_ends_the_connection() {
        for both in
            ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"]
        {
            get(&format!("HTTP/1.1 200 OK\r\n{both}"), Err(HeadFault::TwoFramings));
            check(&Method::HEAD, &format!("HTTP/1.1 200 OK\r\n{both}"), Err(HeadFault::TwoFramings));
        }
        for coding in [
            "gzip",
            "gzip, chunked",
            "chunked, chunked",
            "chunked, identity",
            "identity",
            "xchunked",
            "\"chunked\"",
            "",
        ] {
            get(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}"), Err(HeadFault::TransferEncoding));
        }
        let twice = "Transfer-Encoding: chunked\r\n".repeat(2);
        get(&format!("HTTP/1.1 200 OK\r\n{}", twice.trim_end()), Err(HeadFault::TransferEncoding));
        for length in ["", "+5", "-1", "5, 6", "5,", "0x5", "5 5", "18446744073709551616"] {
            get(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}"), Err(HeadFault::ContentLength));
        }
        get("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6", Err(HeadFault::ContentLength));
        get("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", Err(HeadFault::TransferEncoding));
        for head in [
            "HTTP/1.1 200 OK\r\nA: b\r\n c",
            "HTTP/1.1 200 OK\r\nA : b",
            "HTTP/1.1 200 OK\r\nA: b\rC: d",
            "HTTP/1.1 200 OK\r\nA: b\0",
            "HTTP/1.1 200 OK\r\n: b",
            "HTTP/1.1 200 OK\r\n A: b",
            "HTTP/1.1 20 OK",
            "HTTP/2.0 200 OK",
            "SSH-2.0",
            "HTTP/1.1 099 X",
            "\r\nHTTP/1.1 200 OK",
        ] {
            assert!(take(&format!("{head}\r\n\r\n"), &Method::GET).is_err(), "{head}");
        }
        let many = "A: b\r\n".repeat(FIELDS_MAX + 1);
        assert!(take(&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), &Method::GET).is_err());
        let long = "b".repeat(HEAD_BYTES_MAX);
        assert_eq!(take(&format!("HTTP/1.1 200 OK\r\nA: {long}"), &Method::GET).err(), Some(HeadFault::TooLarge));
        assert_eq!(
            take(&format!("HTTP/1.1 200 OK\r\nA: {long}\r\n\r\n"), &Method::GET).err(),
            Some(HeadFault::TooLarge)
        );
    }

    #[test]
    fn a_connection_lasts_as_the_version_and_the_field_say() {
        let check = |version: &str, connection: &str, expected| {
            get(&format!("HTTP/{version} 204 No Content{connection}"), Ok((Framing::Empty, expected)));
        };
        check("1.1", "", true);
        check("1.1", "\r\nConnection: close", false);
        check("1.1", "\r\nConnection: close\r\nConnection: keep-alive", false);
        check("1.1", "\r\nConnection: x, Close", false);
        check("1.0", "", false);
        check("1.0", "\r\nConnection: Keep-Alive", true);
    }

    #[test]
    fn interim_responses_without_end_are_refused() {
        let interim = "HTTP/1.1 102 Processing\r\n\r\n";
        let end = "HTTP/1.1 204 No Content\r\n\r\n";
        assert!(take(&format!("{}{end}", interim.repeat(INTERIM_MAX)), &Method::GET).expect("no fault").is_some());
        assert_eq!(take(&interim.repeat(INTERIM_MAX + 1), &Method::GET).err(), Some(HeadFault::Interim));
    }

    /// What is found when a text comes in pieces of `step` bytes, and what is left of it.
    fn in_pieces(text: &[u8], step: usize) -> (Result<Option<String>, HeadFault>, Vec<u8>) {
        let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
        let mut pieces = text.chunks(step);
        let found = loop {
            let Some(piece) = pieces.next() else { break Ok(None) };
            buffer.extend_from_slice(piece);
            match reader.take(&mut buffer, &Method::GET, &mut HeaderMap::new()) {
                Ok(None) => {}
                Ok(Some(ResponseHead { parts, framing, keeps_alive, .. })) => {
                    break Ok(Some(format!("{:?} {:?} {framing:?} {keeps_alive}", parts.status, parts.headers)));
                }
                Err(fault) => break Err(fault),
            }
        };
        (found, [buffer.to_vec(), pieces.collect::<Vec<_>>().concat()].concat())
    }

    #[test]
    fn what_a_head_says_of_idle_connections_and_how_plainly_it_tells_its_length() {
        let head = |fields: &str| {
            let head =
                take(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"), &Method::GET).expect("no fault").expect("whole");
            (head.is_plain, head.keeps_idle.map(|time| time.as_secs()))
        };
        assert_eq!(head("Content-Length: 5"), (true, None));
        assert_eq!(head("Content-Length: 5\r\nKeep-Alive: max=3, timeout=7"), (true, Some(7)));
        assert_eq!(head("Content-Length: 5, 5\r\nKeep-Alive: timeout=x"), (false, None));
        assert_eq!(head("Content-Length: 5\r\nContent-Length: 5"), (false, None));
        assert_eq!(head("Transfer-Encoding: chunked"), (false, None));
    }

    proptest! {
        #[test]
        fn a_head_is_the_same_in_any_pieces(
            fields in prop::collection::vec(("[A-Za-z-]{1,9}", "[ -~]{0,9}"), 0..9),
            interim in 0..3_usize,
            line_end in prop::sample::select(vec!["\r\n", "\n"]),
            step in 1..40_usize,
        ) {
            let mut text = "HTTP/1.1 100 Continue\r\n\r\n".repeat(interim);
            text += "HTTP/1.1 200 OK\r\n";
            for (name, value) in fields {
                text += &format!("{name}: {value}{line_end}");
            }
            text += &format!("{line_end}rest");
            let whole = in_pieces(text.as_bytes(), text.len());
            prop_assert!(whole.0.is_err() || whole.1 == b"rest");
            prop_assert_eq!(in_pieces(text.as_bytes(), step).0, whole.0);
        }

        #[test]
        fn any_bytes_in_any_pieces_do_no_harm(bytes: Vec<u8>, cut: prop::sample::Index) {
            let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
            text.extend(&bytes);
            for whole in [&bytes[..], &text] {
                let mut buffer = BytesMut::from(&whole[..cut.index(whole.len() + 1)]);
                let _ = HeadReader::default().take(&mut buffer, &Method::GET, &mut HeaderMap::new());
                let _ = HeadReader::default().take(&mut BytesMut::from(whole), &Method::GET, &mut HeaderMap::new());
            }
        }

        #[test]
        fn a_part_of_a_head_is_no_head(cut in 0..62_usize) {
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n";
            prop_assert!(take(&text[..cut], &Method::GET).expect("no fault").is_none());
        }
    }
}
