//! The `grip` WebSocket extension: whether the backend speaks it, and what a frame of such a backend means.

use crate::proto::websocket_over_http::event::Event;
use bytes::Bytes;
use http::HeaderMap;
use http::header::SEC_WEBSOCKET_EXTENSIONS;

/// The longest message prefix, in bytes.
pub const PREFIX_BYTES_MAX: usize = 64;
/// The prefix of data when the backend chooses none.
pub const PREFIX_DEFAULT: &str = "m:";
/// The prefix of control messages.
const CONTROL_PREFIX: &[u8] = b"c:";

/// What the backend accepted of the offered `grip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// Nothing: each frame of the backend is data as it stands.
    Plain,
    /// `grip`: frames start with the prefix, or are control messages.
    Grip {
        /// What data starts with; may be empty.
        message_prefix: Box<str>,
    },
}

/// Why an answer's `Sec-WebSocket-Extensions` can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Not a list of extensions with parameters (RFC 6455 §9.1).
    #[error("Sec-WebSocket-Extensions {0:?} is malformed; answer `grip` or `grip; message-prefix=\"m:\"`")]
    Malformed(String),
    /// An extension that was not offered (RFC 6455 §4.1).
    #[error("the backend accepted the extension {0:?}; only `grip` was offered")]
    NotOffered(String),
    /// Over [`PREFIX_BYTES_MAX`].
    #[error("message-prefix has {0} bytes; {PREFIX_BYTES_MAX} at most")]
    PrefixTooLong(usize),
}

/// What a frame of the backend means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A message for the client, without its prefix.
    Data(Bytes),
    /// The JSON of a control message.
    Control(Bytes),
    /// Neither: it is passed over.
    Unknown,
}

impl Extension {
    /// Reads what the backend accepted from its answer to OPEN.
    ///
    /// # Errors
    /// When the field is malformed, or accepts what was not offered.
    pub fn negotiated(fields: &HeaderMap) -> Result<Self, ExtensionError> {
        let mut accepted = Self::Plain;
        for value in fields.get_all(SEC_WEBSOCKET_EXTENSIONS) {
            let shown = || String::from_utf8_lossy(value.as_bytes()).chars().take(128).collect::<String>();
            let text = value.to_str().map_err(|_| ExtensionError::Malformed(shown()))?;
            for element in split_unquoted(text, ',') {
                let mut parts = split_unquoted(element, ';').into_iter();
                let name = parts.next().unwrap_or_default();
                if name.is_empty() && parts.len() == 0 {
                    continue;
                }
                if !is_token(name) {
                    return Err(ExtensionError::Malformed(shown()));
                }
                if !name.eq_ignore_ascii_case("grip") {
                    return Err(ExtensionError::NotOffered(name.chars().take(64).collect()));
                }
                accepted = Self::Grip { message_prefix: message_prefix(parts, shown)? };
            }
        }
        Ok(accepted)
    }

    /// What a TEXT or BINARY of the backend means; other events mean themselves and give [`Meaning::Unknown`].
    pub fn meaning(&self, event: &Event) -> Meaning {
        let (content, is_text) = match event {
            Event::Text(content) => (content, true),
            Event::Binary(content) => (content, false),
            _ => return Meaning::Unknown,
        };
        let Self::Grip { message_prefix } = self else { return Meaning::Data(content.clone()) };
        if is_text && content.starts_with(CONTROL_PREFIX) {
            Meaning::Control(content.slice(CONTROL_PREFIX.len()..))
        } else if content.starts_with(message_prefix.as_bytes()) {
            Meaning::Data(content.slice(message_prefix.len()..))
        } else {
            Meaning::Unknown
        }
    }
}

fn message_prefix<'a>(
    parameters: impl Iterator<Item = &'a str>,
    shown: impl Fn() -> String,
) -> Result<Box<str>, ExtensionError> {
    let mut prefix = PREFIX_DEFAULT.to_owned();
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (name, value) = (name.trim(), value.trim());
        let value = if parameter.contains('=') { unquote(value) } else { Some(String::new()) };
        let (true, Some(value)) = (is_token(name), value) else { return Err(ExtensionError::Malformed(shown())) };
        // Parameters that pushbridge does not know change nothing.
        if name.eq_ignore_ascii_case("message-prefix") {
            prefix = value;
        }
    }
    if prefix.len() > PREFIX_BYTES_MAX {
        return Err(ExtensionError::PrefixTooLong(prefix.len()));
    }
    Ok(prefix.into())
}

/// The trimmed parts of `text` between separators that are not in a quoted string.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => {
                parts.push(text[start..at].trim());
                start = at + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// A parameter's value: a token, or a quoted string (RFC 9110 §5.6.4).
fn unquote(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else { return is_token(value).then(|| value.to_owned()) };
    let mut out = String::new();
    let mut characters = inner.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(out),
            '\\' => out.push(characters.next()?),
            other => out.push(other),
        }
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn negotiate(values: &[&str]) -> Result<Extension, ExtensionError> {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(value).expect("a field value"));
        }
        Extension::negotiated(&fields)
    }

    #[track_caller]
    fn check_prefix(value: &str, prefix: &str) {
        assert_eq!(negotiate(&[value]), Ok(Extension::Grip { message_prefix: prefix.into() }), "{value}");
    }

    #[test]
    fn the_backend_may_choose_its_prefix() {
        assert_eq!(negotiate(&[]), Ok(Extension::Plain));
        assert_eq!(negotiate(&[""]), Ok(Extension::Plain));
        check_prefix("grip", "m:");
        check_prefix(" GRIP ", "m:");
        check_prefix("grip; message-prefix=\"\"", "");
        check_prefix("grip;message-prefix=x", "x");
        check_prefix("grip ; Message-Prefix = \"a;b,\\\"c\" ; other", "a;b,\"c");
        check_prefix(", grip,", "m:");
    }

    #[test]
    fn what_was_not_offered_or_is_malformed_is_refused() {
        let refused = |value: &str| negotiate(&[value]).expect_err("refused");
        assert_eq!(refused("permessage-deflate"), ExtensionError::NotOffered("permessage-deflate".into()));
        assert_eq!(refused("grip, x"), ExtensionError::NotOffered("x".into()));
        for value in [
            "gr ip",
            "grip; message-prefix=\"a",
            "grip; message-prefix=a b",
            "grip; =x",
            "grip; message-prefix=\"a\"b",
            "\"grip\"",
            "grip;",
        ] {
            assert_eq!(refused(value), ExtensionError::Malformed(value.into()), "{value}");
        }
        let long = format!("grip; message-prefix={}", "x".repeat(65));
        assert_eq!(refused(&long), ExtensionError::PrefixTooLong(65));
    }

    #[track_caller]
    fn check(extension: &Extension, event: Event, expected: Meaning) {
        assert_eq!(extension.meaning(&event), expected, "{event:?}");
    }

    #[test]
    fn frames_mean_what_their_prefix_says() {
        let grip = |prefix: &str| Extension::Grip { message_prefix: prefix.into() };
        let (text, binary) = (|t: &'static str| Event::Text(t.into()), |t: &'static str| Event::Binary(t.into()));
        let (data, control) = (|t: &'static str| Meaning::Data(t.into()), |t: &'static str| Meaning::Control(t.into()));
        check(&Extension::Plain, text("c:{}"), data("c:{}"));
        check(&Extension::Plain, binary("m:x"), data("m:x"));
        check(&grip("m:"), text("m:hi"), data("hi"));
        check(&grip("m:"), binary("m:hi"), data("hi"));
        check(&grip("m:"), text("c:{}"), control("{}"));
        check(&grip("m:"), binary("c:{}"), Meaning::Unknown);
        check(&grip("m:"), text("hi"), Meaning::Unknown);
        check(&grip("m:"), text(""), Meaning::Unknown);
        check(&grip(""), text("hi"), data("hi"));
        check(&grip(""), text("c:{}"), control("{}"));
        check(&grip(""), binary("c:{}"), data("c:{}"));
    }

    proptest! {
        #[test]
        fn any_field_is_read_or_refused(value in "[ -~]{0,80}") {
            let _ = negotiate(&[&value]);
        }

        #[test]
        fn any_prefix_survives_quoting(prefix in "[ -~]{0,64}") {
            let quoted = prefix.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(
                negotiate(&[&format!("grip; message-prefix=\"{quoted}\"")]),
                Ok(Extension::Grip { message_prefix: prefix.into() })
            );
        }
    }
}
