//! Stripe's signature: `Stripe-Signature: t=<time>,v1=<hex>`, several `v1` while a secret is being changed.

use crate::proto::webhook::signature::{SIGNATURES_MAX, SignatureError, check_time, decode_hex, verify};
use aws_lc_rs::hmac;
use std::time::Duration;

/// The field.
pub const STRIPE_SIGNATURE: &str = "stripe-signature";

/// Verifies a delivery: HMAC-SHA-256 of `<time>.<body>` with the endpoint's secret as it is written (`whsec_…`).
/// Signatures of other versions are passed over; of a repeated time the first counts.
///
/// # Errors
/// When the time is off by more than `tolerance`, or no signature matches.
pub fn verify_delivery(
    header: &[u8],
    key: &[u8],
    body: &[u8],
    now_secs: u64,
    tolerance: Duration,
) -> Result<(), SignatureError> {
    let parts = || header.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let timestamp = parts().find_map(|part| part.strip_prefix(b"t=")).ok_or(SignatureError::Timestamp)?;
    check_time(timestamp, now_secs, tolerance)?;
    let given = parts().filter_map(|part| part.strip_prefix(b"v1=")).take(SIGNATURES_MAX);
    let mut known = given.filter_map(|hex| decode_hex(hex).ok()).peekable();
    if known.peek().is_none() {
        return Err(SignatureError::Unknown);
    }
    match known.any(|given| verify(hmac::HMAC_SHA256, key, &[timestamp, b".", body], &given).is_ok()) {
        true => Ok(()),
        false => Err(SignatureError::Mismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8] = b"whsec_test_secret";
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    const NOW: u64 = 1_614_265_330;

    fn signature(time: &str, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
        let hash = hmac::sign(&key, &[time.as_bytes(), b".", body].concat());
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[track_caller]
    fn check(header: &str, expected: Result<(), SignatureError>) {
        let result = verify_delivery(header.as_bytes(), KEY, BODY, NOW, Duration::from_secs(300));
        assert_eq!(result, expected, "{header}");
    }

    #[test]
    fn one_good_signature_of_a_fresh_time_is_enough() {
        let good = signature("1614265330", BODY);
        let other = "0".repeat(64);
        check(&format!("t=1614265330,v1={good}"), Ok(()));
        check(&format!("t=1614265330, v1={other} , v1={good},v0={other}"), Ok(()));
        check(&format!("v1={good},t=1614265330"), Ok(()));
        let early = signature("1614265030", BODY);
        check(&format!("t=1614265030,v1={early}"), Ok(()));
    }

    #[test]
    fn others_do_not_verify() {
        let good = signature("1614265330", BODY);
        check(&format!("t=1614265330,v1={}", signature("1614265330", b"{}")), Err(SignatureError::Mismatch));
        check(&format!("t=1614265331,v1={good}"), Err(SignatureError::Mismatch));
        check(&format!("t=1614265330,v1={}", &good[2..]), Err(SignatureError::Mismatch));
        check(&format!("t=1614265330,v0={good}"), Err(SignatureError::Unknown));
        check("t=1614265330,v1=xyz", Err(SignatureError::Unknown));
        check("t=1614265330", Err(SignatureError::Unknown));
        for header in ["", "v1=00", &format!("v1={good}"), &format!("t=,v1={good}x"), "t=-1,v1=00", "t=1e9,v1=00"] {
            check(header, Err(SignatureError::Timestamp));
        }
        let stale = signature("1614265029", BODY);
        let error = SignatureError::Stale { off_secs: 301, tolerance_secs: 300 };
        check(&format!("t=1614265029,v1={stale}"), Err(error));
        let many = format!("t=1614265330{},v1={good}", ",v1=00".repeat(SIGNATURES_MAX));
        check(&many, Err(SignatureError::Mismatch));
    }

    proptest! {
        #[test]
        fn any_field_verifies_or_is_refused(header: Vec<u8>, body: Vec<u8>) {
            prop_assert!(verify_delivery(&header, KEY, &body, 0, Duration::from_secs(1)).is_err());
        }
    }
}
