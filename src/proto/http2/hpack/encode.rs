//! A header block written (RFC 7541 §6), without a dynamic table and without Huffman codes.
//!
//! A response's block is made once a stream, and is small beside what flows on it. So nothing is kept to make the next
//! one smaller: it would cost each waiting connection its memory, and its sizes would tell one response of another
//! (RFC 7541 §7.1).

use super::table::STATIC;
use http::{HeaderName, HeaderValue, StatusCode};

/// The entries of the static table before this one are pseudo-header fields.
const FIRST_FIELD: usize = 15;
/// The entry whose name is `:status`.
const STATUS: usize = 8;
/// The entries with a name of `:status` end here.
const STATUS_LAST: usize = 14;

/// The first bits of each representation, and how many are left for its integer (RFC 7541 §6).
const INDEXED: (u8, u32) = (0x80, 7);
const NOT_KEPT: (u8, u32) = (0x00, 4);
const NEVER_KEPT: (u8, u32) = (0x10, 4);
/// A string literal without a Huffman code (RFC 7541 §5.2).
const PLAIN: (u8, u32) = (0x00, 7);

/// Says that the dynamic table is not used: to be sent once, at the beginning of the first block.
pub fn table_size_zero(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// The status, which is a response's first field.
pub fn status(code: StatusCode, out: &mut Vec<u8>) {
    let text = code.as_str();
    match STATIC[STATUS - 1..STATUS_LAST].iter().position(|(_, value)| *value == text) {
        Some(at) => integer(INDEXED, STATUS + at, out),
        None => {
            integer(NOT_KEPT, STATUS, out);
            string(text.as_bytes(), out);
        }
    }
}

/// A field. A sensitive value is marked to be kept by nobody on its way (RFC 7541 §7.1.3).
pub fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    let known = STATIC[FIRST_FIELD - 1..].iter().position(|(known, _)| *known == name.as_str());
    let index = known.map(|at| FIRST_FIELD + at);
    let representation = if value.is_sensitive() { NEVER_KEPT } else { NOT_KEPT };
    match index {
        Some(index) if !value.is_sensitive() && STATIC[index - 1].1.as_bytes() == value.as_bytes() => {
            integer(INDEXED, index, out);
            return;
        }
        Some(index) => integer(representation, index, out),
        None => {
            integer(representation, 0, out);
            string(name.as_str().as_bytes(), out);
        }
    }
    string(value.as_bytes(), out);
}

fn string(bytes: &[u8], out: &mut Vec<u8>) {
    integer(PLAIN, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// An integer behind the first bits of its byte (RFC 7541 §5.1).
fn integer((first_bits, prefix_bits): (u8, u32), value: usize, out: &mut Vec<u8>) {
    let prefix_max = u8::MAX >> (8 - prefix_bits);
    let Some(mut rest) = value.checked_sub(usize::from(prefix_max)) else {
        out.push(first_bits | value as u8);
        return;
    };
    out.push(first_bits | prefix_max);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, value: HeaderValue, expected: &[u8]) {
        let mut out = Vec::new();
        field(&HeaderName::try_from(name).expect("a name"), &value, &mut out);
        assert_eq!(out, expected, "{name}: {value:?}");
        assert_eq!(decoded(&out), [(name.as_bytes().to_vec(), value.as_bytes().to_vec())]);
    }

    #[track_caller]
    fn decoded(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut decoder = Decoder::new(4096);
        let mut fields = Vec::new();
        decoder.decode(block, |name, value| fields.push((name.to_vec(), value.to_vec()))).expect("a block");
        assert_eq!(decoder.table().entries(), [], "nothing is kept");
        fields
    }

    #[test]
    fn integers_are_those_of_the_appendix() {
        for (first, value, expected) in [
            ((0xe0, 5), 10, &[0xea][..]),
            ((0, 5), 1337, &[0x1f, 0x9a, 0x0a]),
            ((0, 8), 42, &[0x2a]),
            ((0, 7), 126, &[0x7e]),
            ((0x80, 7), 127, &[0xff, 0x00]),
            ((0, 7), 254, &[0x7f, 0x7f]),
            ((0, 7), 255, &[0x7f, 0x80, 0x01]),
        ] {
            let mut out = Vec::new();
            integer(first, value, &mut out);
            assert_eq!(out, expected, "{value}");
        }
    }

    #[test]
    fn known_fields_are_short() {
        check("accept-encoding", HeaderValue::from_static("gzip, deflate"), &[0x90]);
        check("vary", HeaderValue::from_static(""), &[0xbb]);
        check("accept-encoding", HeaderValue::from_static("br"), b"\x0f\x01\x02br");
        check("content-type", HeaderValue::from_static("text/event-stream"), b"\x0f\x10\x11text/event-stream");
        check("x-a", HeaderValue::from_static("b"), b"\x00\x03x-a\x01b");
        check("accept", HeaderValue::from_static("*/*"), b"\x0f\x04\x03*/*");
    }

    #[test]
    fn sensitive_values_are_never_to_be_kept() {
        let sensitive = |text| {
            let mut value = HeaderValue::from_static(text);
            value.set_sensitive(true);
            value
        };
        check("set-cookie", sensitive("a=b"), b"\x1f\x28\x03a=b");
        check("x-token", sensitive("t"), b"\x10\x07x-token\x01t");
        check("accept-encoding", sensitive("gzip, deflate"), b"\x1f\x01\x0dgzip, deflate");
    }

    #[test]
    fn every_status_is_read_back() {
        for code in 100..=999 {
            let mut out = Vec::new();
            table_size_zero(&mut out);
            status(StatusCode::from_u16(code).expect("a status"), &mut out);
            assert_eq!(decoded(&out), [(b":status".to_vec(), code.to_string().into_bytes())]);
            let known = [200, 204, 206, 304, 400, 404, 500].iter().position(|known| *known == code);
            match known {
                Some(at) => assert_eq!(out, [0x20, 0x88 + u8::try_from(at).expect("small")]),
                None => assert_eq!(out[..3], [0x20, 0x08, 3]),
            }
        }
    }

    proptest! {
        #[test]
        fn fields_are_read_back(
            fields in prop::collection::vec(
                (prop_oneof!["[a-z-]{1,40}", Just("server".to_owned()), Just("date".to_owned())], "[ -~]{0,400}", any::<bool>()),
                0..20,
            ),
        ) {
            let mut out = Vec::new();
            table_size_zero(&mut out);
            for (name, text, is_sensitive) in &fields {
                let mut value = HeaderValue::from_str(text).expect("a value");
                value.set_sensitive(*is_sensitive);
                field(&HeaderName::try_from(name).expect("a name"), &value, &mut out);
            }
            let sent: Vec<_> = fields.into_iter().map(|(name, text, _)| (name.into_bytes(), text.into_bytes())).collect();
            prop_assert_eq!(decoded(&out), sent);
        }
    }
}
