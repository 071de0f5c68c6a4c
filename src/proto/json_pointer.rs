//! JSON pointers (RFC 6901) into JSON text.

use crate::proto::json::{Json, Kind};

/// The most steps of one pointer.
pub const STEPS_MAX: usize = 32;

/// A path to one value inside a JSON text, such as `/data/customer_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: Box<str>,
    steps: Box<[Box<str>]>,
}

/// Why a text is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It is not empty and does not start with `/`.
    #[error("{0:?} is no JSON pointer: it starts with \"/\", as in \"/data/id\" (RFC 6901)")]
    Slash(String),
    /// A `~` that is no `~0` or `~1`.
    #[error("{0:?} is no JSON pointer: write ~0 for ~ and ~1 for / (RFC 6901)")]
    Tilde(String),
    /// Over [`STEPS_MAX`].
    #[error("JSON pointer {0:?} has more than {STEPS_MAX} steps")]
    TooLong(String),
}

impl Pointer {
    /// Reads a pointer; the empty one is the whole text.
    ///
    /// # Errors
    /// When it does not start with `/`, has a bad `~` or too many steps.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let shown = || text.chars().take(64).collect();
        if text.is_empty() {
            return Ok(Self { text: text.into(), steps: Box::default() });
        }
        let Some(rest) = text.strip_prefix('/') else { return Err(PointerError::Slash(shown())) };
        if rest.split('/').count() > STEPS_MAX {
            return Err(PointerError::TooLong(shown()));
        }
        if rest.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
            return Err(PointerError::Tilde(shown()));
        }
        let steps = rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~").into()).collect();
        Ok(Self { text: text.into(), steps })
    }

    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value it points at. Of members with the same name the last counts, as in most readers.
    pub fn find<'a>(&self, json: Json<'a>) -> Option<Json<'a>> {
        self.steps.iter().try_fold(json, |json, step| match json.kind() {
            Kind::Object => json.members().filter(|(name, _)| **name == **step).last().map(|(_, value)| value),
            Kind::Array => json.elements().nth(array_index(step)?),
            _ => None,
        })
    }
}

/// An index as RFC 6901 §4 writes it: digits without leading zeros.
fn array_index(step: &str) -> Option<usize> {
    let plain = step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    if plain { step.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pointer: &str, expected: Option<&str>) {
        let json = Json::parse(
            br#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8, "x": {"y": null}, "d": 1, "d": 2}"#,
        )
        .expect("JSON");
        let found = Pointer::parse(pointer).expect("a pointer").find(json);
        assert_eq!(found.map(Json::as_str), expected, "{pointer}");
    }

    #[test]
    fn pointers_find_what_the_rfc_says() {
        check("/foo", Some(r#"["bar", "baz"]"#));
        check("/foo/0", Some(r#""bar""#));
        check("/foo/1", Some(r#""baz""#));
        check("/foo/2", None);
        check("/foo/-", None);
        check("/foo/01", None);
        check("/foo/+1", None);
        check("/foo/", None);
        check("/", Some("0"));
        check("/a~1b", Some("1"));
        check("/c%d", Some("2"));
        check("/m~0n", Some("8"));
        check("/x/y", Some("null"));
        check("/x/y/z", None);
        check("/d", Some("2"));
        check("/missing", None);
    }

    #[test]
    fn the_empty_pointer_is_the_whole() {
        let json = Json::parse(b" [1] ").expect("JSON");
        assert_eq!(Pointer::parse("").expect("a pointer").find(json), Some(json));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Pointer::parse("a/b"), Err(PointerError::Slash("a/b".into())));
        assert_eq!(Pointer::parse("/a~2"), Err(PointerError::Tilde("/a~2".into())));
        assert_eq!(Pointer::parse("/a~"), Err(PointerError::Tilde("/a~".into())));
        assert!(matches!(Pointer::parse(&"/a".repeat(33)), Err(PointerError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn pointers_find_what_serde_json_finds(pointer in "(/[ab01~]{0,2}){0,3}", text in "[\\[\\]{}\":,ab01]{0,30}") {
            if let (Ok(pointer), Ok(json)) = (Pointer::parse(&pointer), Json::parse(text.as_bytes())) {
                let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                let found = pointer.find(json).map(|part| part.as_str().parse::<serde_json::Value>().expect("JSON"));
                prop_assert_eq!(found.as_ref(), value.pointer(pointer.as_str()));
            }
        }
    }
}
