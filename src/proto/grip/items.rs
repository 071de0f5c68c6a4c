//! What backends publish: `{"items": [{channel, id, prev-id, meta, formats…}]}`.

mod formats;

use crate::model::channel::{ChannelName, ChannelNameError};
use crate::model::grip::{GripFormats, Order, Words};
use crate::model::message::{Label, LabelError, Message};
use serde_json::{Map, Value};

/// The most items of one request.
pub const ITEMS_MAX: usize = 10_000;
/// The most words of an item's meta.
pub const META_WORDS_MAX: usize = 32;
/// The most bytes of an item's meta.
pub const META_BYTES_MAX: usize = 8 * 1024;

/// What is wrong with a request, and with which item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{fault}", self.place())]
pub struct ItemsError {
    /// Which item, from 0.
    pub index: Option<usize>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not JSON.
    #[error("the body is no JSON (line {0}, column {1})")]
    Json(usize, usize),
    /// No `items`.
    #[error("the body is no object with a list \"items\"")]
    NoItems,
    /// Over [`ITEMS_MAX`].
    #[error("more than {ITEMS_MAX} items; split them")]
    TooMany,
    /// A member is missing, or of another type.
    #[error("{member:?} is missing or is not {expected}")]
    Member {
        /// Which one.
        member: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// A bad name.
    #[error("{0}")]
    Channel(#[from] ChannelNameError),
    /// A bad id.
    #[error("{0:?} {1}")]
    Id(&'static str, LabelError),
    /// An action that a format does not have.
    #[error("{format:?} has no action {action:?}")]
    Action {
        /// The format.
        format: &'static str,
        /// What was given.
        action: String,
    },
    /// No format at all.
    #[error("no format is given; give http-stream, http-response or ws-message")]
    NoFormat,
    /// Too much meta.
    #[error("over {META_WORDS_MAX} words or {META_BYTES_MAX} bytes of meta")]
    Meta,
}

impl ItemsError {
    fn place(&self) -> String {
        self.index.map_or_else(String::new, |index| format!("item {index}: "))
    }
}

/// Reads a request's body: all items, or the first that is wrong.
///
/// # Errors
/// What is wrong.
pub fn decode(body: &[u8]) -> Result<Vec<Message>, ItemsError> {
    let whole = |fault| ItemsError { index: None, fault };
    let value: Value =
        serde_json::from_slice(body).map_err(|error| whole(Fault::Json(error.line(), error.column())))?;
    let items = value.get("items").and_then(Value::as_array).ok_or(whole(Fault::NoItems))?;
    if items.len() > ITEMS_MAX {
        return Err(whole(Fault::TooMany));
    }
    let read = |(index, item)| self::item(item).map_err(|fault| ItemsError { index: Some(index), fault });
    items.iter().enumerate().map(read).collect()
}

fn item(item: &Value) -> Result<Message, Fault> {
    let members = item.as_object().ok_or(bad("item", "an object"))?;
    let channel = get(members, "channel").and_then(Value::as_str).ok_or(bad("channel", "a text"))?;
    let formats = match get(members, "formats") {
        Some(formats) => formats.as_object().ok_or(bad("formats", "an object"))?,
        None => members,
    };
    let order = match get(members, "no-seq") {
        None | Some(Value::Bool(false)) => Order::Counts,
        Some(Value::Bool(true)) => Order::Ignored,
        Some(_) => return Err(bad("no-seq", "true or false")),
    };
    // A format that is not among `formats` may still stand on the item.
    let format = |name: &'static str| get(formats, name).or_else(|| get(members, name));
    let grip = GripFormats {
        id: id(members, "id")?,
        prev_id: id(members, "prev-id")?,
        order,
        meta: meta(members)?,
        stream: format("http-stream").map(formats::stream).transpose()?,
        response: format("http-response").map(formats::response).transpose()?,
        websocket: format("ws-message").map(formats::websocket).transpose()?,
    };
    if grip.stream.is_none() && grip.response.is_none() && grip.websocket.is_none() {
        return Err(Fault::NoFormat);
    }
    let (event, data) = formats::for_push(&grip);
    let channel = ChannelName::new(channel)?;
    Ok(Message { channel, id: None, event, data, cloudevent: None, grip: Some(Box::new(grip)) })
}

fn id(members: &Map<String, Value>, name: &'static str) -> Result<Option<Label>, Fault> {
    let text = match get(members, name) {
        None => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(bad(name, "a text")),
    };
    match Label::new(&text) {
        Err(LabelError::Empty) => Ok(None),
        label => label.map(Some).map_err(|error| Fault::Id(name, error)),
    }
}

fn meta(members: &Map<String, Value>) -> Result<Words, Fault> {
    let Some(meta) = get(members, "meta") else { return Ok(Vec::new()) };
    let mut words = Vec::new();
    for (name, value) in meta.as_object().ok_or(bad("meta", "an object of texts"))? {
        let value = value.as_str().ok_or(bad("meta", "an object of texts"))?;
        words.push((name.as_str().into(), value.into()));
    }
    let bytes: usize = words.iter().map(|(name, value): &(Box<str>, Box<str>)| name.len() + value.len()).sum();
    if words.len() > META_WORDS_MAX || bytes > META_BYTES_MAX { Err(Fault::Meta) } else { Ok(words) }
}

fn bad(member: &'static str, expected: &'static str) -> Fault {
    Fault::Member { member, expected }
}

/// A member, where `null` is as good as none.
fn get<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests;
