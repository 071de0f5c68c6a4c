//! From when until when a certificate is valid: the one part of X.509 that is read here (RFC 5280 §4.1.2.5).
//!
//! It verifies nothing: the certificate is the operator's own.

use time::{Date, Month, PrimitiveDateTime, Time};

/// When a certificate may be used, in Unix seconds; both ends count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before_secs: i64,
    /// The last second.
    pub not_after_secs: i64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`: the version.
const VERSION: u8 = 0xa0;

impl Validity {
    /// Reads it from a certificate in DER; `None` if that is malformed.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (whole, _) = element(certificate, SEQUENCE)?;
        let (mut fields, _) = element(whole, SEQUENCE)?;
        if fields.first() == Some(&VERSION) {
            fields = element(fields, VERSION)?.1;
        }
        // The serial number, the signature's algorithm and the issuer stand before.
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            fields = element(fields, tag)?.1;
        }
        let (validity, _) = element(fields, SEQUENCE)?;
        let (not_before_secs, rest) = moment(validity)?;
        let (not_after_secs, _) = moment(rest)?;
        Some(Self { not_before_secs, not_after_secs })
    }
}

/// The contents of the first element, and what follows it (X.690 §8.1, definite lengths).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (first == tag).then(|| rest.split_at_checked(length))?
}

/// A `Time`, in Unix seconds, and what follows it: `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn moment(der: &[u8]) -> Option<(i64, &[u8])> {
    let (year_digits, tag) = match der.first()? {
        &UTC_TIME => (2, UTC_TIME),
        _ => (4, GENERALIZED_TIME),
    };
    let (text, rest) = element(der, tag)?;
    let (digits, b"Z") = text.split_at_checked(year_digits + 10)? else { return None };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0u16, |number, digit| number * 10 + u16::from(digit - b'0'));
    let (year, fields) = digits.split_at(year_digits);
    let year = match (number(year), year_digits) {
        (year @ 50.., 2) => 1900 + year,
        (year, 2) => 2000 + year,
        (year, _) => year,
    };
    let field = |at: usize| fields.get(2 * at..2 * at + 2).and_then(|digits| u8::try_from(number(digits)).ok());
    let date = Date::from_calendar_date(i32::from(year), Month::try_from(field(0)?).ok()?, field(1)?).ok()?;
    let time = Time::from_hms(field(2)?, field(3)?, field(4)?).ok()?;
    Some((PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let der = certificate((2024, 2, 29), (2051, 1, 2));
        let expected = Validity { not_before_secs: 1_709_164_800, not_after_secs: 2_556_230_400 };
        assert_eq!(Validity::of(&der), Some(expected));
        assert_eq!(
            Validity::of(&certificate((1975, 1, 1), (2049, 12, 31))).map(|v| v.not_before_secs),
            Some(157_766_400)
        );
    }

    #[test]
    fn a_certificate_that_is_cut_off_has_none() {
        let der = certificate((2024, 1, 1), (2025, 1, 1));
        for length in 0..der.len() {
            assert_eq!(Validity::of(&der[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Validity::of(&bytes);
            let _ = moment(&bytes);
        }
    }
}
