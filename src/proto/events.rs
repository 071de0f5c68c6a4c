//! What backends POST to `/v1/events`: JSON events, alone, in an array or one a line.
//!
//! An event is `{channel | channels, id?, event?, data | data_base64}` and becomes one [`Message`] for each channel.
//! This file knows no size of a channel's messages and no content types; those are the publish listener's.

use crate::model::channel::{ChannelName, ChannelNameError};
use crate::model::message::{Data, Label, LabelError, Message};
use crate::proto::json::{Json, JsonError, Kind, LoneSurrogate};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;
use std::fmt;

/// The most channels of one event.
pub const CHANNELS_MAX: usize = 100;
/// The most events of one array or CloudEvents batch.
pub const EVENTS_MAX: usize = 10_000;

const FIELDS: [&str; 6] = ["channel", "channels", "id", "event", "data", "data_base64"];

/// Standard base64 (RFC 4648 §4), with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One event, checked, before it is spread over its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it goes, in order: 1 to [`CHANNELS_MAX`], each once.
    pub channels: Channels,
    /// The publisher's id.
    pub id: Option<Label>,
    /// The event's name.
    pub event: Option<Label>,
    /// The data.
    pub data: Data,
    /// The attributes of a CloudEvent, as in [`Message::cloudevent`].
    pub cloudevent: Option<Box<str>>,
}

/// One or more channels; one costs no list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    first: ChannelName,
    more: Vec<ChannelName>,
}

/// What is wrong with an event, and in which one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventError {
    /// Which event of an array, from 0; `None` for what was sent alone.
    pub index: Option<usize>,
    /// Which member.
    pub field: Option<Cow<'static, str>>,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with an event or one of its members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not JSON at all.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// JSON, but no object.
    #[error("{} is no event; send an object such as {{\"channel\": \"news\", \"data\": \"hello\"}}", .0.noun())]
    NoObject(Kind),
    /// More than [`EVENTS_MAX`].
    #[error("more than {EVENTS_MAX} events at once; split them, or stream them as application/x-ndjson")]
    TooManyEvents,
    /// A member that no event has.
    #[error("is no member of an event; {}", near(.0))]
    Unknown(Option<&'static str>),
    /// A member twice.
    #[error("is given twice; leave one out")]
    Twice,
    /// A member of another kind.
    #[error("is {}, but must be {wanted}", .found.noun())]
    Kind {
        /// What it is.
        found: Kind,
        /// What it must be, with the article.
        wanted: &'static str,
    },
    /// Half a surrogate pair.
    #[error(transparent)]
    Surrogate(#[from] LoneSurrogate),
    /// No channel.
    #[error("no channel is named; give \"channel\": \"news\", or \"channels\": [\"a\", \"b\"]")]
    NoChannel,
    /// `channels` with nothing in it.
    #[error("is empty; name at least one channel")]
    NoChannels,
    /// `channel` and `channels`.
    #[error("both \"channel\" and \"channels\" are given; leave one out")]
    BothChannels,
    /// A bad name.
    #[error("is no channel name: {0}")]
    Channel(#[from] ChannelNameError),
    /// More than [`CHANNELS_MAX`].
    #[error("names more than {CHANNELS_MAX} channels; split the event")]
    TooManyChannels,
    /// A channel twice, which would deliver the event twice.
    #[error("names {0} twice; name it once")]
    SameChannel(ChannelName),
    /// A bad id or event name.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// No data.
    #[error("no data is given; give \"data\" (any JSON) or \"data_base64\" (bytes)")]
    NoData,
    /// `data` and `data_base64`.
    #[error("both \"data\" and \"data_base64\" are given; leave one out")]
    BothData,
    /// Not base64.
    #[error("is no base64 ({0}); use the alphabet with + and / (RFC 4648 §4)")]
    Base64(base64::DecodeError),
    /// A CloudEvents attribute that must be there.
    #[error("is missing; CloudEvents 1.0 requires it")]
    Missing,
    /// A CloudEvents attribute with an unusable value.
    #[error("{0}")]
    Attribute(&'static str),
}

impl Event {
    /// The messages: one for each channel, in order.
    pub fn into_messages(self) -> impl Iterator<Item = Message> {
        let Self { channels: Channels { first, more }, id, event, data, cloudevent } = self;
        let mut last = Some(Message { channel: first, id, event, data, cloudevent, grip: None });
        let mut more = more.into_iter();
        std::iter::from_fn(move || {
            let message = last.take()?;
            // The data is copied only while another channel waits for it.
            last = more.next().map(|channel| Message { channel, ..message.clone() });
            Some(message)
        })
    }
}

impl Channels {
    /// One channel.
    pub fn one(channel: ChannelName) -> Self {
        Self { first: channel, more: Vec::new() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1 + self.more.len()
    }

    /// The channels in order.
    pub fn iter(&self) -> impl Iterator<Item = &ChannelName> {
        std::iter::once(&self.first).chain(&self.more)
    }

    fn add(&mut self, channel: ChannelName) -> Result<(), Fault> {
        if self.count() == CHANNELS_MAX {
            return Err(Fault::TooManyChannels);
        }
        if self.iter().any(|known| *known == channel) {
            return Err(Fault::SameChannel(channel));
        }
        self.more.push(channel);
        Ok(())
    }
}

impl EventError {
    /// An error of a whole event.
    pub(crate) fn whole(fault: impl Into<Fault>) -> Self {
        Self { index: None, field: None, fault: fault.into() }
    }

    /// An error of one member.
    pub(crate) fn of(field: impl Into<Cow<'static, str>>, fault: impl Into<Fault>) -> Self {
        Self { index: None, field: Some(field.into()), fault: fault.into() }
    }

    /// The same error, of the event at `index` of an array.
    #[must_use]
    pub(crate) fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.index, &self.field) {
            (Some(index), Some(field)) => write!(f, "event {index}: {field:?} {}", self.fault),
            (Some(index), None) => write!(f, "event {index}: {}", self.fault),
            (None, Some(field)) => write!(f, "{field:?} {}", self.fault),
            (None, None) => write!(f, "{}", self.fault),
        }
    }
}

impl std::error::Error for EventError {}

fn near(known: &Option<&'static str>) -> String {
    match known {
        Some(known) => format!("did you mean {known:?}?"),
        None => format!("an event has {}", FIELDS.join(", ")),
    }
}

/// Decodes an `application/json` body: an event, or an array of them, checked as a whole.
///
/// # Errors
/// The first thing that is wrong, with the event's index if it stands in an array.
pub fn decode(body: &[u8]) -> Result<Vec<Event>, EventError> {
    let json = Json::parse(body).map_err(EventError::whole)?;
    decode_each(json, event)
}

/// Decodes one NDJSON line: an event.
///
/// # Errors
/// The first thing that is wrong; an array is no event here.
pub fn decode_line(line: &[u8]) -> Result<Event, EventError> {
    event(Json::parse(line).map_err(EventError::whole)?)
}

/// Decodes an array of events, or one alone, with `one`.
pub(crate) fn decode_each<'a>(
    json: Json<'a>,
    one: impl Fn(Json<'a>) -> Result<Event, EventError>,
) -> Result<Vec<Event>, EventError> {
    if json.kind() != Kind::Array {
        return Ok(vec![one(json)?]);
    }
    let mut events = Vec::new();
    for (index, element) in json.elements().enumerate() {
        if index == EVENTS_MAX {
            return Err(EventError::whole(Fault::TooManyEvents));
        }
        events.push(one(element).map_err(|error| error.at(index))?);
    }
    Ok(events)
}

fn event(json: Json<'_>) -> Result<Event, EventError> {
    if json.kind() != Kind::Object {
        return Err(EventError::whole(Fault::NoObject(json.kind())));
    }
    let mut members = [None; FIELDS.len()];
    for (name, value) in json.members() {
        let Some(at) = FIELDS.iter().position(|field| *field == name) else {
            let near = nearest(&name);
            return Err(EventError::of(shown(&name), Fault::Unknown(near)));
        };
        if members[at].replace(value).is_some() {
            return Err(EventError::of(FIELDS[at], Fault::Twice));
        }
    }
    let [channel, channels, id, event, data, data_base64] = members;
    // Many serialisers write null for what is not set. `data` alone may be null and mean it.
    let set = |member: Option<Json<'_>>| member.is_some_and(|value| value.kind() != Kind::Null);
    let channels = match (channel.filter(|_| set(channel)), channels.filter(|_| set(channels))) {
        (Some(channel), None) => {
            Channels::one(channel_name(channel).map_err(|fault| EventError::of("channel", fault))?)
        }
        (None, Some(channels)) => channel_list(channels).map_err(|fault| EventError::of("channels", fault))?,
        (Some(_), Some(_)) => return Err(EventError::whole(Fault::BothChannels)),
        (None, None) => return Err(EventError::whole(Fault::NoChannel)),
    };
    let data = match (data, data_base64.filter(|_| set(data_base64))) {
        (Some(data), None) => json_data(data).map_err(|fault| EventError::of("data", fault))?,
        (None, Some(data)) => base64_data(data).map_err(|fault| EventError::of("data_base64", fault))?,
        (Some(_), Some(_)) => return Err(EventError::whole(Fault::BothData)),
        (None, None) => return Err(EventError::whole(Fault::NoData)),
    };
    let label = |field: &'static str, member: Option<Json<'_>>| {
        member
            .filter(|_| set(member))
            .map(|value| label(value).map_err(|fault| EventError::of(field, fault)))
            .transpose()
    };
    Ok(Event { channels, id: label("id", id)?, event: label("event", event)?, data, cloudevent: None })
}

/// A `data` member: a string is its characters, anything else compact JSON text.
pub(crate) fn json_data(value: Json<'_>) -> Result<Data, Fault> {
    match value.string() {
        Some(text) => Ok(Data::Text(text?.into())),
        None => Ok(Data::Json(value.compact())),
    }
}

/// A `data_base64` member.
pub(crate) fn base64_data(value: Json<'_>) -> Result<Data, Fault> {
    let bytes = BASE64.decode(string(value)?.as_bytes()).map_err(Fault::Base64)?;
    Ok(Data::Binary(bytes.into()))
}

/// The characters of a member that must be a string.
pub(crate) fn string(value: Json<'_>) -> Result<Cow<'_, str>, Fault> {
    let text = value.string().ok_or(Fault::Kind { found: value.kind(), wanted: "a string" })?;
    Ok(text?)
}

fn channel_name(value: Json<'_>) -> Result<ChannelName, Fault> {
    Ok(ChannelName::new(&string(value)?)?)
}

fn channel_list(value: Json<'_>) -> Result<Channels, Fault> {
    if value.kind() != Kind::Array {
        return Err(Fault::Kind { found: value.kind(), wanted: "an array of names; for one name use \"channel\"" });
    }
    let mut names = value.elements().map(channel_name);
    let mut channels = Channels::one(names.next().ok_or(Fault::NoChannels)??);
    names.try_for_each(|name| channels.add(name?))?;
    Ok(channels)
}

fn label(value: Json<'_>) -> Result<Label, Fault> {
    Ok(Label::new(&string(value)?)?)
}

/// The known member that `name` most likely stands for.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let alias = match name.as_str() {
        "topic" | "topics" | "room" | "stream" => Some("channel"),
        "type" | "name" | "event_type" => Some("event"),
        "payload" | "message" | "body" | "content" => Some("data"),
        "event_id" | "message_id" | "key" => Some("id"),
        "binary" | "bytes" | "base64" => Some("data_base64"),
        _ => None,
    };
    alias.or_else(|| {
        let near = FIELDS.iter().map(|field| (strsim::damerau_levenshtein(field, &name), *field)).min()?;
        (near.0 <= 2 && near.0 < near.1.len()).then_some(near.1)
    })
}

/// A name that came from the network, cut to what an error text may show.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
