//! CloudEvents 1.0: the HTTP binding's three modes (structured, batched, binary) in, the JSON format out.
//!
//! The channel is the extension attribute `channel`, else `subject`; the event's name is `type`; the idempotency id is
//! `source`, a space and `id`. All attributes are kept as text, so that a subscriber gets the event as it was made.

mod attribute;
mod binary;
mod render;

pub use binary::{decode_binary, is_binary};
pub use render::structured;

use crate::model::channel::ChannelName;
use crate::model::message::{Data, Label, LabelError};
use crate::proto::events::{self, Channels, Event, EventError, Fault};
use crate::proto::json::{Json, Kind, push_string};
use attribute::Context;
use aws_lc_rs::digest;

/// The media type of one event in structured mode.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";
/// The media type of a batch.
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+json";

/// Decodes a body in structured mode: one event.
///
/// # Errors
/// The first thing that is wrong.
pub fn decode_structured(body: &[u8]) -> Result<Event, EventError> {
    event(Json::parse(body).map_err(EventError::whole)?)
}

/// Decodes a batch: an array of events, also an empty one, checked as a whole.
///
/// # Errors
/// The first thing that is wrong, with the event's index.
pub fn decode_batch(body: &[u8]) -> Result<Vec<Event>, EventError> {
    let json = Json::parse(body).map_err(EventError::whole)?;
    if json.kind() != Kind::Array {
        return Err(EventError::whole(Fault::Kind { found: json.kind(), wanted: "an array of CloudEvents" }));
    }
    events::decode_each(json, event)
}

/// An event in the JSON format (CloudEvents JSON Event Format 1.0 §3).
fn event(json: Json<'_>) -> Result<Event, EventError> {
    if json.kind() != Kind::Object {
        return Err(EventError::whole(Fault::NoObject(json.kind())));
    }
    let mut context = Context::default();
    let (mut data, mut data_base64) = (None, None);
    for (name, value) in json.members() {
        let slot = match &*name {
            "data" => &mut data,
            "data_base64" => &mut data_base64,
            _ => {
                context.member(&name, value)?;
                continue;
            }
        };
        if slot.replace(value).is_some() {
            return Err(EventError::of(name.into_owned(), Fault::Twice));
        }
    }
    let data = match (data, data_base64.filter(|value| value.kind() != Kind::Null)) {
        (Some(data), None) => events::json_data(data).map_err(|fault| EventError::of("data", fault))?,
        (None, Some(data)) => events::base64_data(data).map_err(|fault| EventError::of("data_base64", fault))?,
        (Some(_), Some(_)) => return Err(EventError::whole(Fault::BothData)),
        (None, None) => Data::Text("".into()),
    };
    context.into_event(data)
}

impl Context<'_> {
    /// The event that these attributes and `data` make.
    fn into_event(self, data: Data) -> Result<Event, EventError> {
        let required = |value: &Option<_>, field| value.clone().ok_or(EventError::of(field, Fault::Missing));
        required(&self.specversion, "specversion")?;
        let id = required(&self.id, "id")?;
        let source = required(&self.source, "source")?;
        let kind = required(&self.kind, "type")?;
        let (field, channel) = match (&self.channel, &self.subject) {
            (Some(channel), _) => ("channel", channel),
            (None, Some(subject)) => ("subject", subject),
            (None, None) => return Err(EventError::of("channel", Fault::Attribute(NO_CHANNEL))),
        };
        let channel = ChannelName::new(channel).map_err(|error| EventError::of(field, error))?;
        let id = idempotency_id(&format!("{source} {id}")).map_err(|error| EventError::of("id", error))?;
        let kind = Label::new(&kind).map_err(|error| EventError::of("type", error))?;
        Ok(Event {
            channels: Channels::one(channel),
            id: Some(id),
            event: Some(kind),
            data,
            cloudevent: Some(self.rendered.into_boxed_str()),
        })
    }
}

const NO_CHANNEL: &str =
    "is missing, and there is no \"subject\" in its place; give the extension attribute \"channel\"";

/// A text as an idempotency id: itself, or its SHA-256 if it is too long for a label.
///
/// # Errors
/// When it is empty or holds a line break.
pub(crate) fn idempotency_id(text: &str) -> Result<Label, LabelError> {
    match Label::new(text) {
        Err(LabelError::TooLong(_)) => {
            let hash = digest::digest(&digest::SHA256, text.as_bytes());
            let hex = hash.as_ref().iter().fold("sha256:".to_owned(), |mut out, byte| {
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
                out
            });
            Label::new(&hex)
        }
        other => other,
    }
}

/// Appends `"name":"text"` as the next member.
fn push_member(out: &mut String, name: &str, text: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    push_string(out, name);
    out.push(':');
    push_string(out, text);
}

#[cfg(test)]
mod tests;
