//! Close codes and reasons, and which of them may stand on the wire (RFC 6455 §7.4).

use bytes::Bytes;

/// The longest reason of a close frame, in bytes: a control frame's 125 without the code (RFC 6455 §5.5).
pub const REASON_BYTES_MAX: usize = 123;

/// What a close frame says. Without a code it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Close {
    /// The code, if the frame has one.
    pub code: Option<u16>,
    /// The reason: empty without a code.
    pub reason: String,
}

/// Why bytes are no content of a CLOSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// A code takes two bytes.
    #[error("has 1 byte; a close code takes 2")]
    HalfCode,
    /// The reason is no UTF-8.
    #[error("has a reason that is no UTF-8")]
    ReasonNotUtf8,
}

impl Close {
    /// A close with a code and a reason.
    pub fn new(code: u16, reason: &str) -> Self {
        Self { code: Some(code), reason: reason.to_owned() }
    }

    /// Reads the content of a CLOSE event or close frame: nothing, or a big-endian code and a UTF-8 reason.
    ///
    /// # Errors
    /// When there is half a code, or the reason is no UTF-8.
    pub fn decode(content: &[u8]) -> Result<Self, CloseError> {
        let Some((code, reason)) = content.split_first_chunk::<2>() else {
            return if content.is_empty() { Ok(Self::default()) } else { Err(CloseError::HalfCode) };
        };
        let reason = std::str::from_utf8(reason).map_err(|_| CloseError::ReasonNotUtf8)?;
        Ok(Self { code: Some(u16::from_be_bytes(*code)), reason: reason.to_owned() })
    }

    /// The content of a CLOSE event: empty without a code.
    pub fn encode(&self) -> Bytes {
        let Some(code) = self.code else { return Bytes::new() };
        [&code.to_be_bytes()[..], self.reason.as_bytes()].concat().into()
    }

    /// The close that a client may be sent: a code that may not appear on the wire (0, 1005, 1006 …) makes it empty,
    /// and a long reason is cut at a character.
    #[must_use]
    pub fn for_wire(mut self) -> Self {
        if !self.code.is_some_and(is_wire_code) {
            return Self::default();
        }
        let mut end = self.reason.len().min(REASON_BYTES_MAX);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        self.reason.truncate(end);
        self
    }
}

/// Whether a close frame may carry `code`: 1000–1003, 1007–1014 and 3000–4999 (RFC 6455 §7.4, IANA).
pub fn is_wire_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A whole number that a backend's JSON gives as a number or as a numeric string, such as a close code or a timeout.
pub fn lenient_number(value: &serde_json::Value) -> Option<u64> {
    match value {
        serde_json::Value::String(text) if text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().ok()
        }
        other => other.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn only_codes_of_the_wire_reach_clients() {
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(Close::new(code, "why").for_wire(), Close::default(), "{code}");
        }
        for code in [1000, 1001, 1003, 1007, 1011, 1012, 3000, 4000, 4999] {
            assert_eq!(Close::new(code, "why").for_wire(), Close::new(code, "why"), "{code}");
        }
        assert_eq!(Close::default().for_wire(), Close::default());
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let close = Close::new(1000, &"é".repeat(100)).for_wire();
        assert_eq!(close.reason, "é".repeat(61));
    }

    #[test]
    fn half_a_code_and_bad_text_are_refused() {
        assert_eq!(Close::decode(b""), Ok(Close::default()));
        assert_eq!(Close::decode(b"\x03"), Err(CloseError::HalfCode));
        assert_eq!(Close::decode(b"\x03\xe8"), Ok(Close::new(1000, "")));
        assert_eq!(Close::decode(b"\x03\xe8\xff"), Err(CloseError::ReasonNotUtf8));
    }

    #[test]
    fn numbers_may_be_strings() {
        for (value, expected) in [
            (json!(4000), Some(4000)),
            (json!("4000"), Some(4000)),
            (json!(""), None),
            (json!("4e3"), None),
            (json!("+1"), None),
            (json!(-1), None),
            (json!(1.5), None),
            (json!("99999999999"), None),
            (json!(null), None),
        ] {
            assert_eq!(lenient_number(&value), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_close_survives_its_bytes(code: u16, reason in ".{0,60}") {
            let close = Close::new(code, &reason);
            prop_assert_eq!(Close::decode(&close.encode()), Ok(close));
        }

        #[test]
        fn a_close_for_the_wire_fits_a_control_frame(code: u16, reason in ".{0,200}") {
            let close = Close::new(code, &reason).for_wire();
            prop_assert!(close.encode().len() <= 125);
            prop_assert!(close.code.is_none_or(is_wire_code));
        }
    }
}
