//! How a message travels over a shared bus: a compact binary form, versioned.
//!
//! ```text
//! version 1 · kind of data 1 · length of id (LEB128) id · length of event, event · length of CloudEvent attributes,
//! attributes · data to the end
//! ```
//!
//! An absent id, event or attributes have length 0, which none that is there can have. The channel, the position and
//! the time travel beside it: each bus has places of its own for them.

use crate::model::channel::ChannelName;
use crate::model::message::{Data, Label, Message};

const VERSION: u8 = 1;
const TEXT: u8 = 0;
const JSON: u8 = 1;
const BINARY: u8 = 2;

/// Why bytes from a bus are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Another program wrote it, or a newer one.
    #[error("is of version {0}, and only {VERSION} is known; do all instances run the same release?")]
    Version(u8),
    /// It was cut or damaged, or is none.
    #[error("is damaged")]
    Damaged,
}

/// The message's bytes, but for its channel.
pub fn encode(message: &Message) -> Vec<u8> {
    let (id, event) = (text_of(&message.id), text_of(&message.event));
    let attributes = message.cloudevent.as_deref().unwrap_or("");
    let data = message.data.as_bytes();
    let mut out = Vec::with_capacity(2 + 9 + id.len() + event.len() + attributes.len() + data.len());
    out.push(VERSION);
    out.push(match &message.data {
        Data::Text(_) => TEXT,
        Data::Json(_) => JSON,
        Data::Binary(_) => BINARY,
    });
    for part in [id, event, attributes] {
        put_length(&mut out, part.len());
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(data);
    out
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When it was written by something else.
pub fn decode(channel: ChannelName, bytes: &[u8]) -> Result<Message, EnvelopeError> {
    let (&version, rest) = bytes.split_first().ok_or(EnvelopeError::Damaged)?;
    if version != VERSION {
        return Err(EnvelopeError::Version(version));
    }
    let (&kind, mut rest) = rest.split_first().ok_or(EnvelopeError::Damaged)?;
    let id = take_label(&mut rest)?;
    let event = take_label(&mut rest)?;
    let attributes = take_text(&mut rest)?;
    let text = || std::str::from_utf8(rest).map(Box::from).map_err(|_| EnvelopeError::Damaged);
    let data = match kind {
        TEXT => Data::Text(text()?),
        JSON => Data::Json(text()?),
        BINARY => Data::Binary(rest.into()),
        _ => return Err(EnvelopeError::Damaged),
    };
    Ok(Message { channel, id, event, data, cloudevent: (!attributes.is_empty()).then(|| attributes.into()) })
}

fn text_of(label: &Option<Label>) -> &str {
    label.as_ref().map_or("", Label::as_str)
}

fn take_label(rest: &mut &[u8]) -> Result<Option<Label>, EnvelopeError> {
    match take_text(rest)? {
        "" => Ok(None),
        text => Label::new(text).map(Some).map_err(|_| EnvelopeError::Damaged),
    }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, EnvelopeError> {
    let length = take_length(rest)?;
    let (text, after) = rest.split_at_checked(length).ok_or(EnvelopeError::Damaged)?;
    *rest = after;
    std::str::from_utf8(text).map_err(|_| EnvelopeError::Damaged)
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn take_length(rest: &mut &[u8]) -> Result<usize, EnvelopeError> {
    let mut length = 0;
    for shift in (0..28).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(EnvelopeError::Damaged)?;
        *rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(EnvelopeError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel() -> ChannelName {
        ChannelName::new("c").expect("a name")
    }

    fn data() -> impl Strategy<Value = Data> {
        prop_oneof![
            ".{0,300}".prop_map(|text| Data::Text(text.into())),
            ".{0,300}".prop_map(|text| Data::Json(text.into())),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Data::Binary(bytes.into())),
        ]
    }

    fn label() -> impl Strategy<Value = Option<Label>> {
        proptest::option::of("[^\r\n\0]{1,60}".prop_map(|text| Label::new(&text).expect("a label")))
    }

    proptest! {
        #[test]
        fn a_message_survives_its_envelope(
            id in label(), event in label(), data in data(), attributes in proptest::option::of(".{1,200}"),
        ) {
            let message = Message { channel: channel(), id, event, data, cloudevent: attributes.map(Into::into) };
            prop_assert_eq!(decode(channel(), &encode(&message)), Ok(message));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(channel(), &bytes);
            let _ = decode(channel(), &[&[VERSION, TEXT], &*bytes].concat());
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        assert_eq!(decode(channel(), &[2, 0, 0]), Err(EnvelopeError::Version(2)));
        assert_eq!(decode(channel(), &[]), Err(EnvelopeError::Damaged));
        assert_eq!(decode(channel(), &[1, 3, 0, 0, 0]), Err(EnvelopeError::Damaged));
        assert_eq!(decode(channel(), &[1, 0, 9, b'a']), Err(EnvelopeError::Damaged));
    }
}
