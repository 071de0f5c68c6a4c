//! Heads that are written, and the framing of a chunked body (RFC 9112 §3, §4, §7.1).

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

/// The request line and the fields, with the empty line. A target that is only a query gets its `/`.
pub fn encode_request_head(out: &mut Vec<u8>, method: &Method, target: &str, fields: &HeaderMap) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    if !target.starts_with(['/', '*']) {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    push_fields(out, fields);
    out.extend_from_slice(b"\r\n");
}

/// The status line and the fields, with the empty line. Without a `reason` the status has its usual one.
pub fn encode_response_head(out: &mut Vec<u8>, status: StatusCode, reason: Option<&[u8]>, fields: &HeaderMap) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().as_bytes()));
    out.extend_from_slice(b"\r\n");
    push_fields(out, fields);
    out.extend_from_slice(b"\r\n");
}

/// Field lines, without the empty line.
pub fn push_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        push_field(out, name, value.as_bytes());
    }
}

fn push_field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.reserve(name.as_str().len() + value.len() + 4);
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether a field may stand behind a body: not what frames, routes or describes the message (RFC 9110 §6.5.1).
pub(super) fn may_trail(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 13] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::HOST,
        header::MAX_FORWARDS,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
    ];
    !NEVER.contains(name)
}

/// The line before a chunk of `len` bytes, which may not be none: that would be the last chunk.
pub fn push_chunk_size(out: &mut Vec<u8>, len: usize) {
    debug_assert_ne!(len, 0);
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for at in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(len >> (4 * at)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// The last chunk with those of `trailers` that `Trailer` has announced (RFC 9110 §6.6.2) and that may stand there.
pub fn push_last_chunk(out: &mut Vec<u8>, trailers: Option<HeaderMap>, announced: &[HeaderName]) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        let names = trailers.keys().filter(|name| announced.contains(name) && may_trail(name));
        for name in names {
            for value in trailers.get_all(name) {
                push_field(out, name, value.as_bytes());
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::{CONTENT_LENGTH, HOST};

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_head_has_a_request_line_fields_and_an_empty_line() {
        let mut fields = HeaderMap::new();
        fields.insert(HOST, HeaderValue::from_static("a.example"));
        fields.append("x-a", HeaderValue::from_static("1"));
        fields.append("x-a", HeaderValue::from_static("2"));
        let head = text(|out| encode_request_head(out, &Method::GET, "/a?b", &fields));
        assert_eq!(head, "GET /a?b HTTP/1.1\r\nhost: a.example\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
        let line = |target: &str| text(|out| encode_request_head(out, &Method::OPTIONS, target, &HeaderMap::new()));
        assert_eq!(line("*"), "OPTIONS * HTTP/1.1\r\n\r\n");
        assert_eq!(line("?a"), "OPTIONS /?a HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_response_has_a_status_line_fields_and_an_empty_line() {
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        let head = |status, reason| {
            let status = StatusCode::from_u16(status).expect("a status");
            text(|out| encode_response_head(out, status, reason, &fields))
        };
        assert_eq!(head(200, None), "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
        assert!(head(200, Some(b"Fine")).starts_with("HTTP/1.1 200 Fine\r\n"));
        assert!(head(299, None).starts_with("HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for len in [1, 15, 16, 255, 256, 65_536, usize::MAX] {
            assert_eq!(text(|out| push_chunk_size(out, len)), format!("{len:x}\r\n"));
        }
    }

    #[test]
    fn only_announced_trailers_that_frame_nothing_are_written() {
        let mut trailers = HeaderMap::new();
        trailers.append("x-sum", HeaderValue::from_static("7"));
        trailers.append("x-sum", HeaderValue::from_static("8"));
        trailers.append("x-other", HeaderValue::from_static("1"));
        trailers.append(CONTENT_LENGTH, HeaderValue::from_static("5"));
        let announced = [HeaderName::from_static("x-sum"), CONTENT_LENGTH];
        let last = text(|out| push_last_chunk(out, Some(trailers), &announced));
        assert_eq!(last, "0\r\nx-sum: 7\r\nx-sum: 8\r\n\r\n");
        assert_eq!(text(|out| push_last_chunk(out, None, &[])), "0\r\n\r\n");
    }
}
