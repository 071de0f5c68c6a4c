//! Path patterns: `/prices/{symbol}`, `/docs/**`.
//!
//! A path is split at `/` first, then each segment is percent-decoded once: an encoded `%2F` never splits.

use percent_encoding::{percent_decode, percent_decode_str};
use std::fmt;

/// The most segments in one pattern.
const SEGMENTS_MAX: usize = 64;
/// The most parameters in one pattern.
const PARAMETERS_MAX: usize = 16;

/// A pattern over paths: literal segments, `{x}` for one non-empty segment, and a last `**` for the rest, also empty.
///
/// `/docs/**` matches `/docs`, `/docs/` and all below; `/docs` and `/docs/` are two paths.
#[derive(Debug, Clone)]
pub struct PathPattern {
    text: Box<str>,
    segments: Vec<Segment>,
    rest: Rest,
    parameters: Vec<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// These bytes, decoded.
    Literal(Box<[u8]>),
    /// Any, but not empty.
    Parameter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Any,
}

/// The parameters of a matched path, still encoded, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params<'t, 'p> {
    names: &'t [Box<str>],
    values: Vec<&'p str>,
}

/// Why a text is no path pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// It does not start at the root.
    #[error("{0:?} does not start with `/`; write \"/{1}\"")]
    Relative(String, String),
    /// An empty segment before the last.
    #[error("{0:?} has an empty segment; write one `/` between two segments")]
    EmptySegment(String),
    /// A `.` or `..` segment, which no request is let through with.
    #[error("{0:?} has a \".\" or \"..\" segment, which never matches; remove it")]
    DotSegment(String),
    /// A star that is not a last segment `**`.
    #[error("{0:?} has a star in a wrong place; write `{{name}}` for one segment, or a last `/**` for the rest")]
    Star(String),
    /// A brace that is not around a whole segment.
    #[error("{0:?} has a brace that is not around a whole segment; write `/{{name}}/`")]
    Brace(String),
    /// A parameter whose name is no name.
    #[error("{0:?} has a parameter {1:?}; name it with letters, digits and `_`, not a digit first")]
    Name(String, String),
    /// A parameter that comes twice.
    #[error("{0:?} has the parameter {1:?} twice; give each its own name")]
    Twice(String, String),
    /// A query, fragment, control character or incomplete escape.
    #[error("{0:?} has {1:?}, which is no part of a path; write it percent-encoded")]
    Character(String, char),
    /// Too many segments or parameters.
    #[error("{0:?} has more than {SEGMENTS_MAX} segments or {PARAMETERS_MAX} parameters")]
    TooMany(String),
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        let own = || text.to_owned();
        let inner = text.strip_prefix('/').ok_or_else(|| PathPatternError::Relative(own(), own()))?;
        if let Some(character) = forbidden_character(text) {
            return Err(PathPatternError::Character(own(), character));
        }
        let mut segments = Vec::new();
        let mut parameters: Vec<Box<str>> = Vec::new();
        let mut rest = Rest::Nothing;
        let mut split = inner.split('/').peekable();
        while let Some(part) = split.next() {
            let last = split.peek().is_none();
            if part == "**" && last {
                rest = Rest::Any;
            } else if part.contains('*') {
                return Err(PathPatternError::Star(own()));
            } else if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                if !is_parameter_name(name) {
                    return Err(PathPatternError::Name(own(), name.to_owned()));
                }
                if parameters.iter().any(|known| &**known == name) {
                    return Err(PathPatternError::Twice(own(), name.to_owned()));
                }
                parameters.push(name.into());
                segments.push(Segment::Parameter);
            } else if part.contains(['{', '}']) {
                return Err(PathPatternError::Brace(own()));
            } else if part.is_empty() && !last {
                return Err(PathPatternError::EmptySegment(own()));
            } else if is_dot_segment(part.as_bytes()) {
                return Err(PathPatternError::DotSegment(own()));
            } else {
                segments.push(Segment::Literal(percent_decode_str(part).collect()));
            }
        }
        if segments.len() > SEGMENTS_MAX || parameters.len() > PARAMETERS_MAX {
            return Err(PathPatternError::TooMany(own()));
        }
        Ok(Self { text: text.into(), segments, rest, parameters })
    }

    /// Whether an encoded path without its query matches, and with what parameters.
    pub fn matches<'t, 'p>(&'t self, path: &'p str) -> Option<Params<'t, 'p>> {
        let mut given = path.strip_prefix('/')?.split('/');
        let mut values = Vec::new();
        for segment in &self.segments {
            let part = given.next()?;
            match segment {
                Segment::Literal(literal) if is_same(part, literal) => {}
                Segment::Parameter if !part.is_empty() => {
                    if values.is_empty() {
                        values.reserve_exact(self.parameters.len());
                    }
                    values.push(part);
                }
                _ => return None,
            }
        }
        (self.rest == Rest::Any || given.next().is_none()).then_some(Params { names: &self.parameters, values })
    }

    /// Whether this matches all that `other` matches.
    pub fn covers(&self, other: &PathPattern) -> bool {
        let enough = other.segments.len() >= self.segments.len();
        let ends =
            self.rest == Rest::Any || (other.rest == Rest::Nothing && other.segments.len() == self.segments.len());
        enough
            && ends
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(mine), Segment::Literal(theirs)) => mine == theirs,
                (Segment::Literal(_), Segment::Parameter) => false,
                (Segment::Parameter, Segment::Literal(theirs)) => !theirs.is_empty(),
                (Segment::Parameter, Segment::Parameter) => true,
            })
    }

    /// The names of its parameters, in their order.
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = &str> {
        self.parameters.iter().map(|name| &**name)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first segment, decoded, if only one will do.
    pub(super) fn first_literal(&self) -> Option<&[u8]> {
        match self.segments.first() {
            Some(Segment::Literal(literal)) => Some(literal),
            _ => None,
        }
    }
}

impl PartialEq for PathPattern {
    /// Two patterns are the same when they match the same paths with the same parameters.
    fn eq(&self, other: &Self) -> bool {
        self.segments == other.segments && self.rest == other.rest && self.parameters == other.parameters
    }
}

impl Eq for PathPattern {}

impl<'p> Params<'_, 'p> {
    /// The encoded segment that stands for `name`.
    pub fn get(&self, name: &str) -> Option<&'p str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Names and encoded segments, in the path's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'p str)> {
        self.names.iter().map(|name| &**name).zip(self.values.iter().copied())
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Letters, digits and `_`, not a digit first.
pub(super) fn is_parameter_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a path has a segment that decodes to `.` or `..`.
pub(super) fn has_dot_segment(path: &str) -> bool {
    path.as_bytes().split(|byte| *byte == b'/').skip(1).any(is_dot_segment)
}

fn is_dot_segment(segment: &[u8]) -> bool {
    // Dots are one byte, or three (`%2e`).
    matches!(segment.len(), 1..=6)
        && matches!(segment[0], b'.' | b'%')
        && (percent_decode(segment).eq(*b".") || percent_decode(segment).eq(*b".."))
}

fn is_same(part: &str, literal: &[u8]) -> bool {
    part.as_bytes() == literal || (part.contains('%') && percent_decode_str(part).eq(literal.iter().copied()))
}

fn forbidden_character(text: &str) -> Option<char> {
    if let Some(found) = text.chars().find(|c| matches!(c, '?' | '#' | ' ' | '\\') || c.is_control()) {
        return Some(found);
    }
    let escaped = |rest: &str| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    text.match_indices('%').any(|(at, _)| !escaped(&text[at + 1..])).then_some('%')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: Option<&[(&str, &str)]>) {
        let pattern = PathPattern::parse(pattern).expect("a pattern");
        let params = pattern.matches(path);
        let found = params.as_ref().map(|params| params.iter().collect::<Vec<_>>());
        assert_eq!(found.as_deref(), expected, "{pattern} on {path}");
    }

    #[test]
    fn segments_are_split_then_decoded_once() {
        check("/", "/", Some(&[]));
        check("/", "", None);
        check("/a b".replace(' ', "%20").as_str(), "/a%20b", Some(&[]));
        check("/prices/{symbol}", "/prices/ACME", Some(&[("symbol", "ACME")]));
        check("/prices/{symbol}", "/prices/", None);
        check("/prices/{symbol}", "/prices", None);
        check("/prices/{symbol}", "/prices/A/B", None);
        check("/prices/{symbol}", "/prices/A%2FB", Some(&[("symbol", "A%2FB")]));
        check("/prices/{symbol}", "/%70rices/%2541", Some(&[("symbol", "%2541")]));
        check("/a/b", "/a%2Fb", None);
        check("/a%2Fb", "/a%2fb", Some(&[]));
        check("/a%2Fb", "/a/b", None);
        check("/a%25", "/a%25", Some(&[]));
        check("/a", "/a/", None);
        check("/a/", "/a/", Some(&[]));
        check("/{a}/{b}", "/1/2", Some(&[("a", "1"), ("b", "2")]));
        check("/x", "/%zz", None);
    }

    #[test]
    fn the_rest_may_be_empty() {
        for path in ["/", "/a", "/a/b", "//"] {
            check("/**", path, Some(&[]));
        }
        for path in ["/docs", "/docs/", "/docs/a/b", "/docs//"] {
            check("/docs/**", path, Some(&[]));
        }
        check("/docs/**", "/docsx", None);
        check("/{t}/**", "/x", Some(&[("t", "x")]));
        check("/{t}/**", "/", None);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(PathPattern::parse(text).expect_err("an error").to_string(), expected);
    }

    #[test]
    fn bad_patterns_say_what_to_write() {
        refused("prices", "\"prices\" does not start with `/`; write \"/prices\"");
        refused("/a//b", "\"/a//b\" has an empty segment; write one `/` between two segments");
        let star = "has a star in a wrong place; write `{name}` for one segment, or a last `/**` for the rest";
        for text in ["/*", "/a*", "/**/b", "/***"] {
            refused(text, &format!("{text:?} {star}"));
        }
        refused("/a{b}", "\"/a{b}\" has a brace that is not around a whole segment; write `/{name}/`");
        let name = "name it with letters, digits and `_`, not a digit first";
        refused("/{}", &format!("\"/{{}}\" has a parameter \"\"; {name}"));
        refused("/{1a}", &format!("\"/{{1a}}\" has a parameter \"1a\"; {name}"));
        refused("/{a}/{a}", "\"/{a}/{a}\" has the parameter \"a\" twice; give each its own name");
        refused("/a?b", "\"/a?b\" has '?', which is no part of a path; write it percent-encoded");
        refused("/a%2", "\"/a%2\" has '%', which is no part of a path; write it percent-encoded");
        refused("/a/../b", "\"/a/../b\" has a \".\" or \"..\" segment, which never matches; remove it");
        refused(&"/a".repeat(65), &format!("{:?} has more than 64 segments or 16 parameters", "/a".repeat(65)));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "/?[a/{}*%.é]{0,20}", path in ".{0,40}") {
            if let Ok(pattern) = PathPattern::parse(&text) {
                let _ = pattern.matches(&path);
                prop_assert_eq!(PathPattern::parse(pattern.as_str()), Ok(pattern));
            }
        }

        #[test]
        fn a_parameter_is_what_stood_there(value in "[^/]{1,20}") {
            let pattern = PathPattern::parse("/a/{x}/b").expect("a pattern");
            let path = format!("/a/{value}/b");
            prop_assert_eq!(pattern.matches(&path).and_then(|params| params.get("x")), Some(&*value));
        }
    }
}
