//! What a backend's response asks for: a hold, links, meta and a status, by `Grip-*` fields or as JSON.

mod json;

pub(in crate::proto::grip) use json::read_headers;

use crate::model::channel::{ChannelName, ChannelNameError};
use crate::model::message::{Label, LabelError};
use crate::proto::grip::INSTRUCT_MEDIA_TYPE;
use crate::proto::grip::keep_alive::{KeepAlive, KeepAliveError};
use crate::proto::grip::parameters::{self, Element, SyntaxError};
use crate::proto::websocket_over_http::control::{FILTERS_MAX, Filter};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// How long a held response waits when nothing is said, in seconds.
pub const TIMEOUT_DEFAULT_SECS: u64 = 55;
/// The shortest wait of a held response, in seconds.
pub const TIMEOUT_SECS_MIN: u64 = 5;
/// The longest wait, of holds and of next links, in seconds.
pub const TIMEOUT_SECS_MAX: u64 = 24 * 60 * 60;
/// When a next link is asked again when nothing is said, in seconds.
pub const NEXT_DEFAULT_SECS: u64 = 120;
/// The largest body that is read as a whole: a JSON instruct, or a held response's.
pub const BODY_BYTES_MAX: usize = 100_000;
/// The most words of meta, and the most bytes of them together.
pub const META_WORDS_MAX: usize = 32;
/// The most bytes of meta.
pub const META_BYTES_MAX: usize = 8 * 1024;
/// The longest link, in bytes.
const LINK_BYTES_MAX: usize = 8 * 1024;

/// What a response asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruct {
    /// How the client is held, if it is.
    pub hold: Option<Mode>,
    /// Its channels; each once.
    pub channels: Vec<Channel>,
    /// How long a held response waits, in milliseconds.
    pub timeout_ms: u64,
    /// What a held stream is sent in silence.
    pub keep_alive: Option<KeepAlive>,
    /// Words about the session that filters look at.
    pub meta: Vec<(Box<str>, Box<str>)>,
    /// Where the stream goes on.
    pub next: Option<NextLink>,
    /// Who is told when the client is gone.
    pub gone: Option<Box<str>>,
    /// The status for the client.
    pub status: Option<StatusCode>,
    /// The fields of the held response that stay on a released one; `None`: all that can.
    pub expose: Option<Vec<HeaderName>>,
    /// The response, of a JSON instruct.
    pub response: Option<Inner>,
}

/// How a client is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until something is published, which is the response.
    Response,
    /// As a response that goes on with what is published.
    Stream,
}

/// A channel of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// The last id that the response includes: the session is reliable then.
    pub prev_id: Option<Label>,
    /// In their order, each once.
    pub filters: Vec<Filter>,
    /// How many filters pushbridge does not know.
    pub unknown_filters: usize,
}

/// Where a stream goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextLink {
    /// A path and query, or a URL of the same upstream.
    pub uri: Box<str>,
    /// When it is asked without need, in milliseconds.
    pub timeout_ms: u64,
}

/// The response of a JSON instruct.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inner {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those of framing and of GRIP.
    pub fields: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why a response that speaks GRIP can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstructError {
    /// A field's value is no text.
    #[error("{0}: it is no text")]
    NoText(HeaderName),
    /// A field's syntax.
    #[error("{0}: {1}")]
    Syntax(HeaderName, SyntaxError),
    /// `Grip-Hold` is neither.
    #[error("{0:?} is no hold; write response or stream")]
    Mode(String),
    /// A hold without a channel.
    #[error("a hold without a channel; name one by Grip-Channel, or in hold.channels")]
    NoChannel,
    /// A bad name.
    #[error("Grip-Channel: {0}")]
    Channel(#[from] ChannelNameError),
    /// A bad id.
    #[error("Grip-Channel: prev-id {0}")]
    Id(#[from] LabelError),
    /// More than [`FILTERS_MAX`] of a channel.
    #[error("Grip-Channel: {0} filters of a channel; {FILTERS_MAX} at most")]
    Filters(usize),
    /// No number of seconds in its range.
    #[error("{0}: no whole number of seconds up to {TIMEOUT_SECS_MAX}")]
    Timeout(&'static str),
    /// The keep-alive.
    #[error("Grip-Keep-Alive: {0}")]
    KeepAlive(#[from] KeepAliveError),
    /// Too much meta.
    #[error("Grip-Set-Meta: over {META_WORDS_MAX} words or {META_BYTES_MAX} bytes")]
    Meta,
    /// A link that is none.
    #[error("Grip-Link: empty, or over {LINK_BYTES_MAX} bytes")]
    Link,
    /// A status that no final response has.
    #[error("Grip-Status: {0:?} is no status from 200 to 599")]
    Status(String),
    /// A JSON instruct with another status.
    #[error("application/grip-instruct with status {0}; it needs 200")]
    NotOk(StatusCode),
    /// Not JSON. What stands there may be payload, and is not told.
    #[error("the instruct is no JSON object (line {line}, column {column})")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A member of another type.
    #[error("the instruct's {member} is not {expected}")]
    Member {
        /// Which one.
        member: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
}

/// Whether a response speaks GRIP: it has a `Grip-*` field, or is a JSON instruct.
pub fn is_instruct(fields: &HeaderMap) -> bool {
    is_json(fields) || fields.keys().any(|name| name.as_str().starts_with("grip-"))
}

/// Whether a response's body is a JSON instruct.
pub fn is_json(fields: &HeaderMap) -> bool {
    let value = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split_once(';').map_or(value, |(essence, _)| essence);
    essence.trim().eq_ignore_ascii_case(INSTRUCT_MEDIA_TYPE)
}

impl Instruct {
    /// Nothing yet.
    fn empty() -> Self {
        Self {
            hold: None,
            channels: Vec::new(),
            timeout_ms: TIMEOUT_DEFAULT_SECS * 1000,
            keep_alive: None,
            meta: Vec::new(),
            next: None,
            gone: None,
            status: None,
            expose: None,
            response: None,
        }
    }

    /// Reads the `Grip-*` fields of a response.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_fields(fields: &HeaderMap) -> Result<Self, InstructError> {
        let mut instruct = Self::empty();
        instruct.read_fields(fields)?;
        instruct.check()
    }

    /// Reads a JSON instruct with the fields beside it, which may hold links, meta and a status as well.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(status: StatusCode, fields: &HeaderMap, body: &[u8]) -> Result<Self, InstructError> {
        if status != StatusCode::OK {
            return Err(InstructError::NotOk(status));
        }
        let mut instruct = Self::empty();
        instruct.read_fields(fields)?;
        json::read(&mut instruct, body)?;
        instruct.check()
    }

    /// The words about the session.
    pub fn meta(&self, name: &str) -> Option<&str> {
        self.meta.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    fn check(self) -> Result<Self, InstructError> {
        let bytes: usize = self.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.meta.len() > META_WORDS_MAX || bytes > META_BYTES_MAX {
            return Err(InstructError::Meta);
        }
        Ok(self)
    }

    fn read_fields(&mut self, fields: &HeaderMap) -> Result<(), InstructError> {
        if let Some(mode) = one(fields, "grip-hold")? {
            self.hold = Some(self::mode(mode.trim())?);
        }
        for element in elements(fields, "grip-channel")? {
            let filters = element.all("filter");
            self.add_channel(&element.value, element.get("prev-id"), filters)?;
        }
        if let Some(timeout) = one(fields, "grip-timeout")? {
            self.timeout_ms = hold_timeout_ms(timeout.trim().parse().ok(), "Grip-Timeout")?;
        }
        if let Some(value) = one(fields, "grip-keep-alive")? {
            self.keep_alive = Some(KeepAlive::parse(value)?);
        }
        for value in texts(fields, "grip-set-meta")? {
            let syntax = |error| InstructError::Syntax(HeaderName::from_static("grip-set-meta"), error);
            for (name, value) in parameters::pairs(value).map_err(syntax)? {
                self.set_meta(name, value);
            }
        }
        for link in elements(fields, "grip-link")? {
            self.add_link(&link)?;
        }
        if let Some(status) = one(fields, "grip-status")? {
            self.status = Some(self::status(status)?);
        }
        for element in elements(fields, "grip-expose-headers")? {
            let names = self.expose.get_or_insert_default();
            names.extend(HeaderName::try_from(element.value).ok());
        }
        Ok(())
    }

    fn add_channel<'a>(
        &mut self,
        name: &str,
        prev_id: Option<&str>,
        filters: impl Iterator<Item = &'a str>,
    ) -> Result<(), InstructError> {
        let name = ChannelName::new(name)?;
        let prev_id = prev_id.filter(|id| !id.is_empty()).map(Label::new).transpose()?;
        let mut channel = Channel { name, prev_id, filters: Vec::new(), unknown_filters: 0 };
        let mut count = 0;
        for filter in filters {
            count += 1;
            match Filter::from_name(filter) {
                Some(filter) if channel.filters.contains(&filter) => {}
                Some(filter) => channel.filters.push(filter),
                None => channel.unknown_filters += 1,
            }
        }
        if count > FILTERS_MAX {
            return Err(InstructError::Filters(count));
        }
        match self.channels.iter_mut().find(|known| known.name == channel.name) {
            Some(known) => *known = channel,
            None => self.channels.push(channel),
        }
        Ok(())
    }

    fn set_meta(&mut self, name: String, value: String) {
        match self.meta.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = value.into(),
            None => self.meta.push((name.into(), value.into())),
        }
    }

    fn add_link(&mut self, link: &Element) -> Result<(), InstructError> {
        if link.value.len() > LINK_BYTES_MAX {
            return Err(InstructError::Link);
        }
        let secs = match link.get("timeout") {
            None => NEXT_DEFAULT_SECS,
            Some(text) => {
                let secs = text.parse().ok().filter(|secs| (1..=TIMEOUT_SECS_MAX).contains(secs));
                secs.ok_or(InstructError::Timeout("Grip-Link"))?
            }
        };
        match link.get("rel") {
            Some("next") => self.next = Some(NextLink { uri: link.value.as_str().into(), timeout_ms: secs * 1000 }),
            Some("gone") => self.gone = Some(link.value.as_str().into()),
            // Relations that are yet to come mean nothing here.
            _ => {}
        }
        Ok(())
    }
}

fn mode(word: &str) -> Result<Mode, InstructError> {
    match word {
        "response" => Ok(Mode::Response),
        "stream" => Ok(Mode::Stream),
        other => Err(InstructError::Mode(other.chars().take(32).collect())),
    }
}

fn hold_timeout_ms(secs: Option<u64>, what: &'static str) -> Result<u64, InstructError> {
    let secs = secs.filter(|secs| *secs <= TIMEOUT_SECS_MAX).ok_or(InstructError::Timeout(what))?;
    Ok(secs.max(TIMEOUT_SECS_MIN) * 1000)
}

/// `304`, `304 Not Modified`: a reason phrase is passed over.
fn status(text: &str) -> Result<StatusCode, InstructError> {
    let code = text.trim().split(' ').next().unwrap_or_default();
    let code = code.parse::<u16>().ok().filter(|code| (200..600).contains(code));
    let code = code.and_then(|code| StatusCode::from_u16(code).ok());
    code.ok_or_else(|| InstructError::Status(text.chars().take(32).collect()))
}

/// The texts of a field's lines.
fn texts<'a>(fields: &'a HeaderMap, name: &'static str) -> Result<Vec<&'a str>, InstructError> {
    let no_text = |_| InstructError::NoText(HeaderName::from_static(name));
    fields
        .get_all(name)
        .iter()
        .map(|value: &HeaderValue| std::str::from_utf8(value.as_bytes()).map_err(no_text))
        .collect()
}

/// The text of a field that has one line; of several the last counts.
fn one<'a>(fields: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, InstructError> {
    Ok(texts(fields, name)?.pop())
}

fn elements(fields: &HeaderMap, name: &'static str) -> Result<Vec<Element>, InstructError> {
    let mut elements = Vec::new();
    for text in texts(fields, name)? {
        let syntax = |error| InstructError::Syntax(HeaderName::from_static(name), error);
        elements.extend(parameters::list(text).map_err(syntax)?);
    }
    Ok(elements)
}

#[cfg(test)]
mod tests;
