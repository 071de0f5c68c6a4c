//! Words that a backend gives pushbridge to keep: `Set-Meta-X` in an answer comes back as `Meta-X` in later requests.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The most words that are kept.
pub const META_WORDS_MAX: usize = 32;
/// The most bytes of names and values together.
pub const META_BYTES_MAX: usize = 8 * 1024;

/// What the backend asked to keep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    words: Vec<(HeaderName, HeaderValue)>,
    changes: u32,
}

/// A word was passed over because of [`META_WORDS_MAX`] or [`META_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: over {META_WORDS_MAX} words or {META_BYTES_MAX} bytes of meta")]
pub struct MetaFull(pub HeaderName);

impl Meta {
    /// Takes in the `Set-Meta-*` fields of an answer: an empty value deletes. Of a repeated field the last counts.
    ///
    /// # Errors
    /// Each word that was passed over.
    pub fn learn(&mut self, fields: &HeaderMap) -> Vec<MetaFull> {
        let mut full = Vec::new();
        for (name, value) in fields {
            let Some(word) = name.as_str().strip_prefix("set-") else { continue };
            if !word.starts_with("meta-") || word.len() == "meta-".len() {
                continue;
            }
            let Ok(word) = HeaderName::from_bytes(word.as_bytes()) else { continue };
            if let Err(error) = self.set(word, value.clone()) {
                full.push(error);
            }
        }
        full
    }

    /// The words of a session that was elsewhere before, as [`Meta::kept`] gave them; what can be none is passed over.
    pub fn restored(kept: &[(Box<str>, Box<str>)]) -> Self {
        let mut meta = Self::default();
        for (name, value) in kept {
            let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
            let value = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name.as_str().starts_with("meta-"));
            if let Some((name, value)) = name.zip(value) {
                // Within the bounds when it was kept, unless they became narrower.
                let _ = meta.set(name, value);
            }
        }
        meta
    }

    /// The words as text, a byte of a value as the character of its number.
    pub fn kept(&self) -> Vec<(Box<str>, Box<str>)> {
        let text = |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect::<String>();
        self.words.iter().map(|(name, value)| (name.as_str().into(), text(value).into())).collect()
    }

    /// A word as text, by its name without `Meta-`.
    pub fn word(&self, name: &str) -> Option<&str> {
        let is_named = |known: &HeaderName| known.as_str().strip_prefix("meta-") == Some(name);
        let (_, value) = self.words.iter().find(|(known, _)| is_named(known))?;
        std::str::from_utf8(value.as_bytes()).ok()
    }

    /// How often the words have changed.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Adds the words to a request's fields.
    pub fn echo(&self, fields: &mut HeaderMap) {
        for (name, value) in &self.words {
            fields.insert(name.clone(), value.clone());
        }
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), MetaFull> {
        let known = self.words.iter().position(|(known, _)| *known == name);
        if value.is_empty() {
            if let Some(at) = known {
                self.words.remove(at);
                self.changes = self.changes.wrapping_add(1);
            }
            return Ok(());
        }
        let others = self.words.iter().filter(|(known, _)| *known != name);
        let bytes = others.map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
        let fits = bytes + name.as_str().len() + value.len() <= META_BYTES_MAX;
        match known {
            Some(at) if fits => self.words[at].1 = value,
            None if fits && self.words.len() < META_WORDS_MAX => self.words.push((name, value)),
            _ => return Err(MetaFull(name)),
        }
        self.changes = self.changes.wrapping_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_the_same_again_and_anything_else_is_passed_over() {
        let mut meta = Meta::default();
        let mut given = fields(&[("set-meta-a", "x y")]);
        given.insert("set-meta-b", HeaderValue::from_bytes(b"caf\xe9\xff").expect("a value"));
        assert_eq!(meta.learn(&given), []);
        let again = Meta::restored(&meta.kept());
        let (mut there, mut here) = (HeaderMap::new(), HeaderMap::new());
        meta.echo(&mut there);
        again.echo(&mut here);
        assert_eq!(there.len(), 2);
        assert_eq!(there, here);
        let foreign = [("grip-sig", "x"), ("meta-\r", "x"), ("meta-x", "a\r\nb"), ("meta-y", "\u{20ac}")];
        assert_eq!(Meta::restored(&foreign.map(|(name, value)| (name.into(), value.into()))).kept(), []);
    }

    fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            fields.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        fields
    }

    fn echoed(meta: &Meta) -> Vec<(String, String)> {
        let mut fields = HeaderMap::new();
        meta.echo(&mut fields);
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        let mut pairs: Vec<_> = fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        pairs.sort();
        pairs
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn words_come_back_until_they_are_deleted() {
        let mut meta = Meta::default();
        assert_eq!(
            meta.learn(&fields(&[("Set-Meta-User", "bob"), ("Set-Meta-", "x"), ("Set-Cookie", "a"), ("Meta-Z", "q")])),
            []
        );
        assert_eq!(echoed(&meta), [pair("meta-user", "bob")]);
        assert_eq!((meta.word("user"), meta.word("use")), (Some("bob"), None));
        assert_eq!(meta.learn(&fields(&[("set-meta-user", "eve"), ("set-meta-room", "7")])), []);
        let before = meta.changes();
        assert_eq!(echoed(&meta), [pair("meta-room", "7"), pair("meta-user", "eve")]);
        assert_eq!(meta.learn(&fields(&[("set-meta-user", ""), ("set-meta-unknown", "")])), []);
        assert_eq!(echoed(&meta), [pair("meta-room", "7")]);
        assert_ne!(meta.changes(), before);
    }

    #[test]
    fn words_are_bounded_in_number_and_size() {
        let mut meta = Meta::default();
        for n in 0..META_WORDS_MAX {
            assert_eq!(meta.learn(&fields(&[(&format!("set-meta-{n}"), "v")])), []);
        }
        let one_more = meta.learn(&fields(&[("set-meta-more", "v")]));
        assert_eq!(one_more, [MetaFull(HeaderName::from_static("meta-more"))]);
        assert_eq!(meta.learn(&fields(&[("set-meta-0", "other")])), [], "a known word can change");
        assert_eq!(meta.learn(&fields(&[("set-meta-0", &"x".repeat(META_BYTES_MAX))])).len(), 1);
        assert!(echoed(&meta).contains(&pair("meta-0", "other")));
    }
}
