//! Who may publish.

use crate::proto::grip;
use crate::publish::respond::PublishError;
use crate::publish::settings::PublishAuth;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

/// What came in place of a credential that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    /// Nothing.
    Missing,
    /// Something else.
    Wrong,
}

/// Lets a request through that proves itself in one of the ways, or any if there are none.
pub(super) fn authorize(ways: &[PublishAuth], headers: &HeaderMap, now_secs: u64) -> Result<(), PublishError> {
    if ways.is_empty() {
        return Ok(());
    }
    let given = [AUTHORIZATION, grip::SIGNATURE].map(|name| one(headers, &name));
    if given.iter().all(|field| matches!(field, Given::Nothing)) {
        return Err(PublishError::Unauthorized(Credential::Missing));
    }
    let token = match given[0] {
        Given::One(field) => bearer(field),
        Given::Nothing | Given::Several => None,
    };
    let signature = match given[1] {
        Given::One(field) => Some(field),
        Given::Nothing | Given::Several => None,
    };
    let is_accepted = |way: &PublishAuth| match way {
        PublishAuth::Bearer(secret) => token.is_some_and(|token| secret.matches(token)),
        PublishAuth::GripSig(key) => token
            .into_iter()
            .chain(signature)
            .any(|token| std::str::from_utf8(token).is_ok_and(|token| key.verify(token, now_secs).is_ok())),
    };
    // Every way is tried, so that the time says nothing of which one came close.
    let accepted = ways.iter().fold(false, |accepted, way| accepted | is_accepted(way));
    if accepted { Ok(()) } else { Err(PublishError::Unauthorized(Credential::Wrong)) }
}

/// A field that must not come twice.
#[derive(Clone, Copy)]
enum Given<'a> {
    Nothing,
    One(&'a [u8]),
    Several,
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Given<'a> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Given::Nothing,
        (Some(field), None) => Given::One(field.as_bytes()),
        (Some(_), Some(_)) => Given::Several,
    }
}

/// The token of `Bearer <token>` (RFC 6750 §2.1); the scheme is in any case (RFC 9110 §11.1).
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;
    use http::HeaderValue;

    #[track_caller]
    fn check(fields: &[&'static str], expected: Result<(), Credential>) {
        let ways = [b"one".as_slice(), b"two"].map(|token| PublishAuth::Bearer(Secret::new(token)));
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_static(field));
        }
        let found = authorize(&ways, &headers, 0).map_err(|error| match error {
            PublishError::Unauthorized(credential) => credential,
            other => panic!("{other:?}"),
        });
        assert_eq!(found, expected, "{fields:?}");
    }

    #[test]
    fn any_one_token_is_enough() {
        check(&["Bearer one"], Ok(()));
        check(&["bearer  two "], Ok(()));
        check(&[], Err(Credential::Missing));
        for field in ["Bearer", "Bearer ", "Bearer three", "Bearer onetwo", "Basic one", "one", ""] {
            check(&[field], Err(Credential::Wrong));
        }
        check(&["Bearer one", "Bearer two"], Err(Credential::Wrong));
    }

    #[test]
    fn a_grip_signature_is_enough_in_either_field() {
        let key = crate::upstream::signature::Key::parse(b"changeme").expect("a key");
        let ways = [PublishAuth::GripSig(key.clone())];
        let random = aws_lc_rs::rand::SystemRandom::new();
        let token = key.sign("backend", 1000, &random).expect("a token");
        for (name, value) in [("authorization", format!("Bearer {token}")), ("grip-sig", token)] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::try_from(value).expect("a value"));
            assert!(authorize(&ways, &headers, 1000).is_ok(), "{name}");
            let late = authorize(&ways, &headers, 10_000).expect_err("expired");
            assert!(matches!(late, PublishError::Unauthorized(Credential::Wrong)), "{name}");
        }
    }

    #[test]
    fn without_ways_everybody_may() {
        assert!(authorize(&[], &HeaderMap::new(), 0).is_ok());
    }
}
