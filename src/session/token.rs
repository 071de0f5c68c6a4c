//! Session tokens: fresh ones from the system's random source, and how a client is told.

use crate::model::session_token::SessionToken;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Whether what the client came with was honoured in full; there if it gave anything.
const RESUMED: HeaderName = HeaderName::from_static("pushbridge-resumed");
/// By what a client gets its session back.
const SESSION: HeaderName = HeaderName::from_static("pushbridge-session");

/// A token that nobody can guess; `None` if the system gives no random bits: then the session can't be resumed.
pub fn new() -> Option<SessionToken> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).ok()?;
    Some(SessionToken::from_random(bits))
}

/// Tells a client by the fields of its answer.
pub fn tell(fields: &mut HeaderMap, token: Option<&SessionToken>, resumed: Option<bool>) {
    if let Some(resumed) = resumed {
        fields.insert(RESUMED, HeaderValue::from_static(if resumed { "true" } else { "false" }));
    }
    if let Some(mut value) = token.and_then(|token| HeaderValue::from_str(token.as_str()).ok()) {
        value.set_sensitive(true);
        fields.insert(SESSION, value);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn tokens_differ() {
        assert!(super::new().is_some() && super::new() != super::new());
    }
}
