//! Messages of HTTP/1.1 as bytes (RFC 9112): heads that are written, answers of a server that are read.
//!
//! A [`HeadReader`] takes a response's head from what came, a [`BodyReader`] its body. Both may be fed in any pieces, and
//! know of no connection.

mod body;
mod request;
mod response;

pub use body::{BodyFault, BodyReader, Piece};
pub use request::{encode_request_head, push_chunk_size, push_last_chunk};
pub use response::{Framing, HEAD_BYTES_MAX, HeadFault, HeadReader, ResponseHead};

use http::{HeaderMap, HeaderName, header};

/// The status line and the fields, with the empty line.
pub fn encode_head(head: &http::Response<()>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status().canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    push_fields(&mut out, head.headers());
    out.extend_from_slice(b"\r\n");
    out
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
fn may_trail(name: &HeaderName) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_a_status_line_fields_and_an_empty_line() {
        let head = http::Response::builder().status(200).header("Content-Type", "text/event-stream").body(());
        let text = String::from_utf8(encode_head(&head.expect("a head"))).expect("text");
        assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
    }
}
