//! Fresh session tokens, from the system's random source.

use crate::model::session_token::SessionToken;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// A token that nobody can guess; `None` if the system gives no random bits: then the session can't be resumed.
pub fn new() -> Option<SessionToken> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).ok()?;
    Some(SessionToken::from_random(bits))
}

#[cfg(test)]
mod tests {
    #[test]
    fn tokens_differ() {
        assert!(super::new().is_some() && super::new() != super::new());
    }
}
