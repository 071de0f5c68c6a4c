//! Channel names with parameters of the path: `prices.{symbol}`.

use crate::model::channel::{CHANNEL_NAME_BYTES_MAX, ChannelName, ChannelNameError};
use crate::route::path::{Params, is_parameter_name};
use percent_encoding::percent_decode_str;
use std::fmt;

/// The longest decoded parameter in a channel name, in bytes.
pub const PARAMETER_BYTES_MAX: usize = 255;

/// A channel name with `{parameter}`s, which a request's path fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Parameter(Box<str>),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("{0:?} has a brace without its partner; write `{{name}}`")]
    Brace(String),
    /// A parameter whose name is no name.
    #[error("{0:?} has a parameter {1:?}; name one of the path's parameters")]
    Name(String, String),
    /// What stands between the parameters can be in no channel name.
    #[error(transparent)]
    Channel(#[from] ChannelNameError),
}

/// Why a request's parameters make no channel name: 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The path has no such parameter (the configuration is checked for this).
    #[error("the path has no parameter {0:?}")]
    Missing(Box<str>),
    /// A `%` without two hexadecimal digits.
    #[error("the path's {0:?} has an incomplete percent-encoding")]
    Escape(Box<str>),
    /// Over [`PARAMETER_BYTES_MAX`].
    #[error("the path's {0:?} has {1} bytes; {PARAMETER_BYTES_MAX} at most")]
    TooLong(Box<str>, usize),
    /// It does not decode to UTF-8.
    #[error("the path's {0:?} is no UTF-8")]
    Utf8(Box<str>),
    /// A control character or `/`.
    #[error("the path's {0:?} has a control character or `/`, which may not be in a channel's name")]
    Character(Box<str>),
    /// The whole is no channel name.
    #[error(transparent)]
    Channel(#[from] ChannelNameError),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When braces or names are wrong, or the rest can be in no channel name.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let brace = || TemplateError::Brace(text.to_owned());
        let mut parts = Vec::new();
        let mut literals = String::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(open);
            let (name, after) = after.strip_prefix('{').and_then(|after| after.split_once('}')).ok_or_else(brace)?;
            if name.contains('{') {
                return Err(brace());
            }
            if !is_parameter_name(name) {
                return Err(TemplateError::Name(text.to_owned(), name.to_owned()));
            }
            if !before.is_empty() {
                literals.push_str(before);
                parts.push(Part::Literal(before.into()));
            }
            parts.push(Part::Parameter(name.into()));
            rest = after;
        }
        if !rest.is_empty() {
            literals.push_str(rest);
            parts.push(Part::Literal(rest.into()));
        }
        if !literals.is_empty() || parts.is_empty() {
            ChannelName::new(&literals)?;
        }
        Ok(Self { parts })
    }

    /// The parameters it needs, in their order; one may come twice.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Parameter(name) => Some(&**name),
            Part::Literal(_) => None,
        })
    }

    /// The channel of a request, its parameters decoded once.
    ///
    /// # Errors
    /// When a parameter has more than 255 bytes, is no UTF-8, or has a control character or `/`; or when the whole
    /// is too long for a channel's name.
    pub fn fill(&self, params: &Params<'_, '_>) -> Result<ChannelName, ParamError> {
        if let [Part::Literal(only)] = &*self.parts {
            return Ok(ChannelName::new(only)?);
        }
        let mut name = String::with_capacity(64);
        for part in &self.parts {
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Parameter(parameter) => {
                    let value = params.get(parameter).ok_or_else(|| ParamError::Missing(parameter.clone()))?;
                    append(&mut name, parameter, value)?;
                }
            }
            if name.len() > CHANNEL_NAME_BYTES_MAX {
                break;
            }
        }
        Ok(ChannelName::new(&name)?)
    }
}

fn append(name: &mut String, parameter: &str, value: &str) -> Result<(), ParamError> {
    let escaped = |rest: &[u8]| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit);
    let bytes = value.as_bytes();
    if memchr::memchr_iter(b'%', bytes).any(|at| !escaped(&bytes[at + 1..])) {
        return Err(ParamError::Escape(parameter.into()));
    }
    let length = percent_decode_str(value).count();
    if length > PARAMETER_BYTES_MAX {
        return Err(ParamError::TooLong(parameter.into(), length));
    }
    let decoded = percent_decode_str(value).decode_utf8().map_err(|_| ParamError::Utf8(parameter.into()))?;
    if decoded.chars().any(|c| c.is_control() || c == '/') {
        return Err(ParamError::Character(parameter.into()));
    }
    name.push_str(&decoded);
    Ok(())
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::Parameter(name) => write!(f, "{{{name}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::path::PathPattern;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn fill(template: &str, value: &str) -> Result<String, ParamError> {
        let pattern = PathPattern::parse("/{x}").expect("a pattern");
        let path = format!("/{value}");
        let params = pattern.matches(&path).expect("a match");
        Template::parse(template).expect("a template").fill(&params).map(|channel| channel.to_string())
    }

    #[test]
    fn parameters_are_decoded_once() {
        assert_eq!(fill("prices.{x}", "ACME"), Ok("prices.ACME".to_owned()));
        assert_eq!(fill("{x}", "caf%C3%A9%20%2541"), Ok("café %41".to_owned()));
        assert_eq!(fill("a-{x}-{x}-b", "1"), Ok("a-1-1-b".to_owned()));
        assert_eq!(fill("news", "ignored"), Ok("news".to_owned()));
        assert_eq!(fill("{x}", &"%41".repeat(255)), Ok("A".repeat(255)));
    }

    #[test]
    fn parameters_that_no_channel_may_have_are_refused() {
        let x = || "x".into();
        assert_eq!(fill("{x}", "a%2Fb"), Err(ParamError::Character(x())));
        assert_eq!(fill("{x}", "a%0Ab"), Err(ParamError::Character(x())));
        assert_eq!(fill("{x}", "%C2%85"), Err(ParamError::Character(x())));
        assert_eq!(fill("{x}", "%ff"), Err(ParamError::Utf8(x())));
        assert_eq!(fill("{x}", "%zz"), Err(ParamError::Escape(x())));
        assert_eq!(fill("{x}", "a%"), Err(ParamError::Escape(x())));
        assert_eq!(fill("{x}", &"a".repeat(256)), Err(ParamError::TooLong(x(), 256)));
        assert_eq!(fill("{y}", "a"), Err(ParamError::Missing("y".into())));
        assert!(matches!(fill("{x}{x}{x}", &"a".repeat(200)), Err(ParamError::Channel(_))));
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(Template::parse(text).expect_err("an error").to_string(), expected);
    }

    #[test]
    fn bad_templates_say_what_is_wrong() {
        refused("", "a channel name is empty");
        for text in ["a{b", "a}b", "{a{b}}", "}"] {
            refused(text, &format!("{text:?} has a brace without its partner; write `{{name}}`"));
        }
        refused("a.{}", "\"a.{}\" has a parameter \"\"; name one of the path's parameters");
        refused("a\n", "channel name \"a\\n\" has a control character; use printable characters only");
    }

    proptest! {
        #[test]
        fn an_encoded_value_comes_back(value in "[^/\\p{Cc}]{1,60}") {
            let encoded = utf8_percent_encode(&value, NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(fill("{x}", &encoded), Ok(value));
        }

        #[test]
        fn any_segment_fills_or_is_refused(value in "[^/]{1,300}") {
            let _ = fill("a.{x}", &value);
        }

        #[test]
        fn a_template_survives_its_text(text in "[a-z{}]{0,12}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(template.to_string(), text);
            }
        }
    }
}
