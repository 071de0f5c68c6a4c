//! The context attributes of one CloudEvent, gathered one by one (CloudEvents 1.0.2 §3).

use crate::proto::cloudevents::push_member;
use crate::proto::events::{self, EventError, Fault};
use crate::proto::json::{Json, Kind, push_string};
use std::borrow::Cow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The most attributes of one event.
pub const ATTRIBUTES_MAX: usize = 64;
/// The longest name of an attribute, in bytes; the standard advises 20.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;

/// The attributes seen so far.
#[derive(Debug, Default)]
pub(super) struct Context<'a> {
    pub(super) specversion: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) source: Option<Cow<'a, str>>,
    pub(super) kind: Option<Cow<'a, str>>,
    pub(super) subject: Option<Cow<'a, str>>,
    pub(super) channel: Option<Cow<'a, str>>,
    /// All of them as JSON members.
    pub(super) rendered: String,
    names: Vec<Box<str>>,
}

impl<'a> Context<'a> {
    /// Takes an attribute of the JSON format: a string, a boolean or an integer; null is not set.
    pub(super) fn member(&mut self, name: &str, value: Json<'a>) -> Result<(), EventError> {
        self.admit(name)?;
        let wrong = |fault| EventError::of(name.to_owned(), fault);
        match value.kind() {
            Kind::Null => return Ok(()),
            Kind::String => {
                let text = events::string(value).map_err(wrong)?;
                check(name, &text).map_err(wrong)?;
                self.keep(name, text);
            }
            Kind::Bool | Kind::Number if !is_known(name) => {
                if value.kind() == Kind::Number && value.as_str().parse::<i32>().is_err() {
                    return Err(wrong(Fault::Attribute("is a number, but no 32-bit integer; give a string")));
                }
            }
            found => return Err(wrong(Fault::Kind { found, wanted: "a string" })),
        }
        if !self.rendered.is_empty() {
            self.rendered.push(',');
        }
        push_string(&mut self.rendered, name);
        self.rendered.push(':');
        self.rendered.push_str(value.as_str());
        Ok(())
    }

    /// Takes an attribute whose value came as text.
    pub(super) fn text(&mut self, name: &str, text: Cow<'a, str>) -> Result<(), EventError> {
        self.admit(name)?;
        check(name, &text).map_err(|fault| EventError::of(name.to_owned(), fault))?;
        push_member(&mut self.rendered, name, &text);
        self.keep(name, text);
        Ok(())
    }

    fn keep(&mut self, name: &str, text: Cow<'a, str>) {
        let slot = match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "channel" => &mut self.channel,
            _ => return,
        };
        *slot = Some(text);
    }

    fn admit(&mut self, name: &str) -> Result<(), EventError> {
        let shown = || name.chars().take(64).collect::<String>();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || name.len() > ATTRIBUTE_NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(EventError::of(shown(), Fault::Attribute(BAD_NAME)));
        }
        if self.names.iter().any(|known| **known == *name) {
            return Err(EventError::of(shown(), Fault::Twice));
        }
        if self.names.len() == ATTRIBUTES_MAX {
            return Err(EventError::of(shown(), Fault::Attribute("is one attribute too many; 64 at most")));
        }
        self.names.push(name.into());
        Ok(())
    }
}

const BAD_NAME: &str = "is no attribute name; CloudEvents allows a-z and 0-9 only";

fn is_known(name: &str) -> bool {
    matches!(
        name,
        "specversion" | "id" | "source" | "type" | "datacontenttype" | "dataschema" | "subject" | "time" | "channel"
    )
}

/// What the standard says of an attribute's value.
fn check(name: &str, text: &str) -> Result<(), Fault> {
    if text.chars().any(char::is_control) {
        return Err(Fault::Attribute("holds a control character, which may not appear in a CloudEvents attribute"));
    }
    if text.is_empty() && is_known(name) {
        return Err(Fault::Attribute("is empty; give it a value, or leave it out if it is optional"));
    }
    match name {
        "specversion" if text != "1.0" => Err(Fault::Attribute("is not \"1.0\", the one version that is spoken here")),
        "time" if OffsetDateTime::parse(text, &Rfc3339).is_err() => {
            Err(Fault::Attribute("is no RFC 3339 time; write it as in 2026-01-31T12:00:00Z"))
        }
        _ => Ok(()),
    }
}
