//! By what a client gets its session back: a token that only it has, and the key under which the session is kept.
//!
//! The key is a digest of the token and of what the token is bound to. So who reads the store learns no token, a token
//! finds nothing where it does not belong (and is not used up there), and looking one up compares no secret.

use crate::model::channel::{ChannelName, fnv1a};
use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;

/// How long a token is, in characters.
pub const TOKEN_CHARS: usize = 22;
/// What a key is the text of.
const KEY_BYTES: usize = 32;

/// 128 random bits as 22 URL-safe characters. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(Box<str>);

/// The name under which a session is kept: 43 URL-safe characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionKey(Box<str>);

impl SessionToken {
    /// The token of these bits, which nobody may be able to guess.
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(bits).into())
    }

    /// Reads what a client gives back; `None` if it never was a token.
    pub fn parse(text: &[u8]) -> Option<Self> {
        // As many characters could stand for other bits too, of which only one spelling is a token.
        let bits = URL_SAFE_NO_PAD.decode(text).ok().filter(|_| text.len() == TOKEN_CHARS)?;
        Some(Self::from_random(bits.try_into().ok()?))
    }

    /// The text, for its client alone.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the session is kept that has this token on a route, whose own channels (by the request's path) are `own`.
    pub fn key(&self, route: &str, own: &[ChannelName]) -> SessionKey {
        self.digest(b"pushbridge session 1\0", route, own.iter().map(ChannelName::as_str))
    }

    /// Where the bridged session is kept that has this token on a route and path.
    pub fn key_on_path(&self, route: &str, path: &str) -> SessionKey {
        self.digest(b"pushbridge bridge 1\0", route, std::iter::once(path))
    }

    fn digest<'a>(&self, kind: &[u8], route: &str, bound_to: impl Iterator<Item = &'a str>) -> SessionKey {
        let mut digest = Context::new(&SHA256);
        digest.update(kind);
        // Lengths, so that no two routes and channels read alike.
        let mut part = |text: &str| {
            digest.update(&(text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        };
        part(&self.0);
        part(route);
        bound_to.for_each(part);
        SessionKey(URL_SAFE_NO_PAD.encode(digest.finish()).into())
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(***)")
    }
}

impl SessionKey {
    /// Reads a key that stands in a store; `None` if it never was one.
    pub fn parse(text: &str) -> Option<Self> {
        let digest = URL_SAFE_NO_PAD.decode(text).ok()?;
        (digest.len() == KEY_BYTES).then(|| Self(text.into()))
    }

    /// A number that is the same for the same key, always and everywhere.
    pub fn hash32(&self) -> u32 {
        fnv1a(&self.0)
    }

    /// The text: `A–Z a–z 0–9 - _`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> ChannelName {
        ChannelName::new(text).expect("a name")
    }

    proptest! {
        #[test]
        fn a_token_survives_its_text(bits: [u8; 16]) {
            let token = SessionToken::from_random(bits);
            prop_assert_eq!(token.as_str().len(), TOKEN_CHARS);
            prop_assert_eq!(SessionToken::parse(token.as_str().as_bytes()), Some(token));
        }

        #[test]
        fn any_text_is_a_token_or_none(text in "[A-Za-z0-9_%-]{20,24}|.{0,40}") {
            if let Some(token) = SessionToken::parse(text.as_bytes()) {
                prop_assert_eq!(token.as_str(), text);
            }
        }

        #[test]
        fn keys_differ_with_every_bit_route_and_channel(bits: [u8; 16], bit in 0usize..128) {
            let token = SessionToken::from_random(bits);
            let mut other = bits;
            other[bit / 8] ^= 1 << (bit % 8);
            let key = token.key("r", &[name("a")]);
            prop_assert_ne!(&key, &SessionToken::from_random(other).key("r", &[name("a")]));
            for (route, own) in [("s", vec!["a"]), ("ra", vec![]), ("r", vec![]), ("r", vec!["b"]), ("r", vec!["a", "b"])] {
                let own: Vec<_> = own.into_iter().map(name).collect();
                prop_assert_ne!(&key, &token.key(route, &own), "{}", route);
            }
            prop_assert_eq!(&key, &token.key("r", &[name("a")]));
            prop_assert_ne!(&key, &token.key_on_path("r", "a"));
            prop_assert_ne!(token.key_on_path("r", "a"), token.key_on_path("r", "b"));
        }
    }

    #[test]
    fn a_token_does_not_print_and_its_key_does_not_tell_it() {
        let token = SessionToken::from_random([7; 16]);
        assert_eq!(format!("{token:?}"), "SessionToken(***)");
        let key = token.key("r", &[]);
        assert!(key.as_str().len() == 43 && !key.as_str().contains(token.as_str()));
    }
}
