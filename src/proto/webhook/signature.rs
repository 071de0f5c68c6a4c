//! Whether a delivery was signed with a key: Standard Webhooks and keyed hashes (RFC 2104) in general.
//!
//! Comparisons take a time that depends on lengths alone.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;

/// The most signatures of one delivery that are looked at; a sender gives two while it changes keys.
pub const SIGNATURES_MAX: usize = 16;

/// Why a delivery is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The time stamp is no number.
    #[error("the time stamp is no Unix time in seconds")]
    Timestamp,
    /// The time stamp is too old or too far ahead: perhaps a replay, perhaps a wrong clock.
    #[error("the time stamp is {off_secs} s off, {tolerance_secs} s at most are allowed; check both clocks")]
    Stale {
        /// How far it is off.
        off_secs: u64,
        /// How far it may be off.
        tolerance_secs: u64,
    },
    /// No signature that could be compared.
    #[error("there is no signature in a form that is known here")]
    Unknown,
    /// No signature is of the key and the body.
    #[error("the signature does not match; check the secret, and that nothing on the way changes the body")]
    Mismatch,
}

/// The fields of a Standard Webhooks delivery.
#[derive(Debug, Clone, Copy)]
pub struct StandardWebhook<'a> {
    /// `webhook-id`.
    pub id: &'a [u8],
    /// `webhook-timestamp`: Unix time in seconds.
    pub timestamp: &'a [u8],
    /// `webhook-signature`: `v1,<base64>`, several with spaces between them.
    pub signatures: &'a [u8],
}

impl StandardWebhook<'_> {
    /// Verifies the delivery: HMAC-SHA-256 of `<id>.<timestamp>.<body>` (Standard Webhooks 1.0.0, "Symmetric").
    /// Signatures of other versions are passed over.
    ///
    /// # Errors
    /// When the time stamp is off by more than `tolerance`, or no signature matches.
    pub fn verify(&self, key: &[u8], body: &[u8], now_secs: u64, tolerance: Duration) -> Result<(), SignatureError> {
        check_time(self.timestamp, now_secs, tolerance)?;
        let expected = keyed_hash(hmac::HMAC_SHA256, key, &[self.id, b".", self.timestamp, b".", body]);
        let given = self.signatures.split(|byte| *byte == b' ').take(SIGNATURES_MAX);
        let mut known = given.filter_map(|one| STANDARD.decode(one.strip_prefix(b"v1,")?).ok()).peekable();
        if known.peek().is_none() {
            return Err(SignatureError::Unknown);
        }
        if known.any(|given| verify_slices_are_equal(&given, expected.as_ref()).is_ok()) {
            return Ok(());
        }
        Err(SignatureError::Mismatch)
    }
}

/// Verifies that `given` is the keyed hash of the parts, one after another.
///
/// # Errors
/// When it is not.
pub fn verify(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]], given: &[u8]) -> Result<(), SignatureError> {
    let expected = keyed_hash(algorithm, key, parts);
    verify_slices_are_equal(given, expected.as_ref()).map_err(|_| SignatureError::Mismatch)
}

/// Checks that a Unix time in seconds is near `now_secs`.
///
/// # Errors
/// When it is no number, or off by more than `tolerance`.
pub fn check_time(timestamp: &[u8], now_secs: u64, tolerance: Duration) -> Result<(), SignatureError> {
    let text = std::str::from_utf8(timestamp).map_err(|_| SignatureError::Timestamp)?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SignatureError::Timestamp);
    }
    let off_secs = text.parse::<u64>().map_err(|_| SignatureError::Timestamp)?.abs_diff(now_secs);
    let tolerance_secs = tolerance.as_secs();
    if off_secs > tolerance_secs {
        return Err(SignatureError::Stale { off_secs, tolerance_secs });
    }
    Ok(())
}

/// Reads hexadecimal digits of either case.
///
/// # Errors
/// When there is something else, or half a byte.
pub fn decode_hex(text: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(SignatureError::Unknown);
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return Err(SignatureError::Unknown);
    }
    text.chunks_exact(2).map(|pair| Ok((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

/// Reads padded base64 (RFC 4648 §4).
///
/// # Errors
/// When it is none.
pub fn decode_base64(text: &[u8]) -> Result<Vec<u8>, SignatureError> {
    STANDARD.decode(text).map_err(|_| SignatureError::Unknown)
}

fn keyed_hash(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTES_5: Duration = Duration::from_secs(300);

    /// The example of the Standard Webhooks reference libraries.
    fn example() -> (Vec<u8>, StandardWebhook<'static>, &'static [u8], u64) {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let delivery = StandardWebhook {
            id: b"msg_p5jXN8AQM9LWM0D4loKWxJek",
            timestamp: b"1614265330",
            signatures: b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        };
        (key, delivery, br#"{"test": 2432232314}"#, 1_614_265_330)
    }

    #[test]
    fn the_standard_example_verifies() {
        let (key, delivery, body, now) = example();
        assert_eq!(delivery.verify(&key, body, now, MINUTES_5), Ok(()));
        assert_eq!(delivery.verify(&key, body, now + 300, MINUTES_5), Ok(()));
        assert_eq!(delivery.verify(&key, body, now - 300, MINUTES_5), Ok(()));
        let several = StandardWebhook {
            signatures: b"v1a,AAAA v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v2,x",
            ..delivery
        };
        assert_eq!(several.verify(&key, body, now, MINUTES_5), Ok(()));
    }

    #[test]
    fn other_bodies_keys_ids_and_times_do_not_verify() {
        let (key, delivery, body, now) = example();
        let verify = |delivery: StandardWebhook<'_>| delivery.verify(&key, body, now, MINUTES_5);
        assert_eq!(delivery.verify(&key, b"{}", now, MINUTES_5), Err(SignatureError::Mismatch));
        assert_eq!(delivery.verify(b"other", body, now, MINUTES_5), Err(SignatureError::Mismatch));
        assert_eq!(verify(StandardWebhook { id: b"msg_2", ..delivery }), Err(SignatureError::Mismatch));
        assert_eq!(verify(StandardWebhook { timestamp: b"1614265331", ..delivery }), Err(SignatureError::Mismatch));
        for signatures in [b"".as_slice(), b"v1", b"v1,", b"v2,AAAA", b"v1,?"] {
            let result = verify(StandardWebhook { signatures, ..delivery });
            assert!(matches!(result, Err(SignatureError::Unknown | SignatureError::Mismatch)), "{result:?}");
        }
        for off in [now + 301, now - 301] {
            let stale = SignatureError::Stale { off_secs: 301, tolerance_secs: 300 };
            assert_eq!(delivery.verify(&key, body, off, MINUTES_5), Err(stale));
        }
        for timestamp in [b"".as_slice(), b"-1", b"+1614265330", b"1614265330.0", b"\xff", b"99999999999999999999"] {
            let result = verify(StandardWebhook { timestamp, ..delivery });
            assert_eq!(result, Err(SignatureError::Timestamp), "{timestamp:?}");
        }
    }

    #[test]
    fn only_the_first_signatures_are_looked_at() {
        let (key, delivery, body, now) = example();
        let many = [b"v1,AAAA ".repeat(SIGNATURES_MAX), delivery.signatures.to_vec()].concat();
        let result = StandardWebhook { signatures: &many, ..delivery }.verify(&key, body, now, MINUTES_5);
        assert_eq!(result, Err(SignatureError::Mismatch));
    }

    /// RFC 4231 §4.3.
    #[test]
    fn keyed_hashes_are_those_of_the_rfc() {
        let data: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        let sha256 = decode_hex(b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843").expect("hex");
        let sha512 = decode_hex(
            b"164B7A7BFCF819E2E395FBE73B56E0A387BD64222E831FD610270CD7EA2505549758BF75C05A994A6D034F65F8F0E6FDCAEAB1A34D4A6B4B636E070A38BCE737",
        );
        assert_eq!(verify(hmac::HMAC_SHA256, b"Jefe", data, &sha256), Ok(()));
        assert_eq!(verify(hmac::HMAC_SHA512, b"Jefe", data, &sha512.expect("hex")), Ok(()));
        assert_eq!(verify(hmac::HMAC_SHA256, b"jefe", data, &sha256), Err(SignatureError::Mismatch));
        assert_eq!(verify(hmac::HMAC_SHA256, b"Jefe", data, &sha256[..31]), Err(SignatureError::Mismatch));
        assert_eq!(verify(hmac::HMAC_SHA256, b"Jefe", data, b""), Err(SignatureError::Mismatch));
    }

    proptest! {
        #[test]
        fn hexadecimal_reads_back(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            prop_assert_eq!(decode_hex(hex.as_bytes()), Ok(bytes.clone()));
            prop_assert_eq!(decode_hex(hex.to_ascii_lowercase().as_bytes()), Ok(bytes));
            prop_assert_eq!(decode_hex(&hex.as_bytes()[1..]), Err(SignatureError::Unknown));
        }

        #[test]
        fn any_fields_verify_or_are_refused(id: Vec<u8>, timestamp: Vec<u8>, signatures: Vec<u8>, body: Vec<u8>) {
            let delivery = StandardWebhook { id: &id, timestamp: &timestamp, signatures: &signatures };
            prop_assert!(delivery.verify(b"key", &body, 0, MINUTES_5).is_err());
            let _ = decode_hex(&signatures);
        }
    }
}
