//! Close frames: which codes may appear in one, and what one looks like (RFC 6455 §5.5.1, §7.4).

use crate::proto::websocket::frame::{CONTROL_BYTES_MAX, Opcode, frame};
use crate::proto::websocket::reader::Violation;
use bytes::Bytes;

/// The longest reason text, in bytes: a control frame's payload without the code.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// What a close frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// One of those that [`may_be_sent`].
    pub code: u16,
    /// 123 bytes at most.
    pub reason: &'a str,
}

/// Whether a code may stand in a close frame: the registered ones (RFC 6455 §7.4.1, IANA's registry) and 3000–4999.
///
/// 1004 means nothing; 1005, 1006 and 1015 only tell an application what no frame said.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Makes a close frame. A code that may not be sent becomes a frame without one; a long reason is cut at a character.
pub fn encode(code: u16, reason: &str) -> Bytes {
    if !may_be_sent(code) {
        return Bytes::from_static(&[0x80 | Opcode::Close as u8, 0]);
    }
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    frame(Opcode::Close, &payload)
}

/// Reads a close frame's payload; `None` if it has no code.
///
/// # Errors
/// When it is one byte, its code may not be sent, or its reason is no UTF-8.
pub fn decode(payload: &[u8]) -> Result<Option<Close<'_>>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseLength),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::CloseCode(code));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
            Ok(Some(Close { code, reason }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::session::CloseReason;
    use proptest::prelude::*;

    #[test]
    fn codes_that_may_not_appear_become_an_empty_close() {
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535] {
            assert_eq!(&encode(code, "x")[..], [0x88, 0], "{code}");
            let [high, low] = code.to_be_bytes();
            assert_eq!(decode(&[high, low, b'x']), Err(Violation::CloseCode(code)));
        }
    }

    #[test]
    fn every_reason_of_ours_has_a_code_that_may_be_sent() {
        for reason in CloseReason::ALL {
            let frame = encode(reason.close_code(), reason.as_str());
            let expected = Close { code: reason.close_code(), reason: reason.as_str() };
            assert_eq!(decode(&frame[2..]), Ok(Some(expected)));
        }
    }

    #[test]
    fn broken_payloads_are_refused() {
        assert_eq!(decode(b""), Ok(None));
        assert_eq!(decode(&[3]), Err(Violation::CloseLength));
        assert_eq!(decode(&[3, 232, 0xff]), Err(Violation::Utf8));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = encode(1000, &"é".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert_eq!(decode(&frame[2..]).map(|c| c.map(|c| c.reason.chars().count())), Ok(Some(61)));
    }

    proptest! {
        #[test]
        fn a_close_survives_its_frame(code in prop_oneof![1000u16..1004, 1007u16..1015, 3000u16..5000], reason in ".{0,30}") {
            let frame = encode(code, &reason);
            prop_assert_eq!(decode(&frame[2..]), Ok(Some(Close { code, reason: &reason })));
        }

        #[test]
        fn any_payload_decodes_or_is_refused(payload: Vec<u8>) {
            let _ = decode(&payload);
        }
    }
}
