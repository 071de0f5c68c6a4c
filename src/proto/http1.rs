//! The head of an HTTP/1.1 response as bytes (RFC 9112 §4, §5).

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
pub fn push_fields(out: &mut Vec<u8>, fields: &http::HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
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
