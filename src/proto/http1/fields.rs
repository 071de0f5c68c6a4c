//! What the heads of both directions have in common: where a head ends, where its body ends, whether its connection lasts
//! (RFC 9112 §2.1, §6, §9.3).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

/// The most fields of a head.
pub(super) const FIELDS_MAX: usize = 100;

/// Where a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none; behind a 101 comes another protocol.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection; only a response's.
    UntilClose,
}

/// What `Transfer-Encoding` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Nothing.
    None,
    /// `chunked`, once and nothing else.
    Chunked,
    /// Anything that two readers could read in two ways, or one can't read.
    Other,
}

/// Whether a head's end comes after the first `from` bytes, which have none.
pub(super) fn has_end(bytes: &[u8], from: usize) -> bool {
    memchr::memchr_iter(b'\n', &bytes[from..]).any(|at| {
        let line = &bytes[..from + at];
        line.ends_with(b"\n") || line.ends_with(b"\n\r")
    })
}

pub(super) fn coding(headers: &HeaderMap) -> Coding {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Coding::None,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        _ => Coding::Other,
    }
}

/// The one length that all fields and list members say, and how many say it; `None` if they differ, or one is none.
pub(super) fn length(headers: &HeaderMap) -> Option<(Option<u64>, usize)> {
    let (mut length, mut members) = (None, 0);
    for member in headers.get_all(CONTENT_LENGTH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
    {
        let digits = member.trim_ascii();
        let number = digits.iter().try_fold(0_u64, |number, digit| {
            digit.is_ascii_digit().then(|| number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))).flatten()
        });
        match number {
            Some(number) if !digits.is_empty() && length.is_none_or(|before| before == number) => length = Some(number),
            _ => return None,
        }
        members += 1;
    }
    Some((length, members))
}

/// Whether more may follow on the connection. `is_named`: whether the head has a `Connection` at all.
pub(super) fn keeps_alive(version: Version, headers: &HeaderMap, is_named: bool) -> bool {
    let mut keeps = version == Version::HTTP_11;
    if !is_named {
        return keeps;
    }
    for option in headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let option = option.trim_ascii();
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keeps |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keeps
}
