//! Who may publish.

use crate::publish::respond::PublishError;
use crate::publish::settings::PublishAuth;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// What came in place of a credential that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    /// Nothing.
    Missing,
    /// Something else.
    Wrong,
}

/// Lets a request through that proves itself in one of the ways, or any if there are none.
pub(super) fn authorize(ways: &[PublishAuth], headers: &HeaderMap) -> Result<(), PublishError> {
    if ways.is_empty() {
        return Ok(());
    }
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let field = fields.next().ok_or(PublishError::Unauthorized(Credential::Missing))?;
    let token = bearer(field.as_bytes()).filter(|_| fields.next().is_none());
    let token = token.ok_or(PublishError::Unauthorized(Credential::Wrong))?;
    // Every way is tried, so that the time says nothing of which one came close.
    let accepted = ways.iter().fold(false, |accepted, PublishAuth::Bearer(secret)| accepted | secret.matches(token));
    if accepted { Ok(()) } else { Err(PublishError::Unauthorized(Credential::Wrong)) }
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
        let found = authorize(&ways, &headers).map_err(|error| match error {
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
    fn without_ways_everybody_may() {
        assert!(authorize(&[], &HeaderMap::new()).is_ok());
    }
}
