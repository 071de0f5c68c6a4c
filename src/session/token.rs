//! A session's token: unguessable text.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A fresh token: 128 random bits as 22 URL-safe characters.
pub fn new() -> Box<str> {
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // Without a random source a token would be guessable: better one that nothing accepts.
        return Box::default();
    }
    URL_SAFE_NO_PAD.encode(bytes).into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn tokens_are_long_and_differ() {
        let (first, second) = (super::new(), super::new());
        assert!(first.len() == 22 && first != second);
    }
}
