//! How a message travels over a shared bus: a compact binary form, versioned.
//!
//! ```text
//! version 1 · kind of data 1 · parts · 0 · data to the end        part: tag 1 · length (LEB128) · bytes
//! ```
//!
//! What a message does not have is no part. A part with an unknown tag is passed over, so that instances of two releases
//! share a bus while one takes the other's place; what must not be passed over makes a new version. The channel, the
//! position and the time travel beside it: each bus has places of its own for them.

mod grip;

use crate::model::channel::ChannelName;
use crate::model::message::{Data, Label, Message};

const VERSION: u8 = 1;
const TEXT: u8 = 0;
const JSON: u8 = 1;
const BINARY: u8 = 2;
/// The tags of parts; each is given once and for good.
const END: u8 = 0;
const ID: u8 = 1;
const EVENT: u8 = 2;
const CLOUDEVENT: u8 = 3;
const GRIP: u8 = 4;

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
    let Message { channel: _, id, event, data, cloudevent, grip } = message;
    let mut out = Vec::with_capacity(16 + message.size_bytes());
    out.push(VERSION);
    out.push(match data {
        Data::Text(_) => TEXT,
        Data::Json(_) => JSON,
        Data::Binary(_) => BINARY,
    });
    put_text(&mut out, ID, id.as_ref().map(Label::as_str));
    put_text(&mut out, EVENT, event.as_ref().map(Label::as_str));
    put_text(&mut out, CLOUDEVENT, cloudevent.as_deref());
    if let Some(grip) = grip {
        put_part(&mut out, GRIP, &grip::encode(grip));
    }
    out.push(END);
    out.extend_from_slice(data.as_bytes());
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
    let (mut id, mut event, mut cloudevent, mut grip) = (None, None, None, None);
    while let Some((tag, part)) = take_part(&mut rest)? {
        match tag {
            ID => id = Some(label(part)?),
            EVENT => event = Some(label(part)?),
            CLOUDEVENT => cloudevent = Some(text(part)?.into()),
            GRIP => grip = Some(Box::new(grip::decode(part)?)),
            _ => {}
        }
    }
    let data = match kind {
        TEXT => Data::Text(text(rest)?.into()),
        JSON => Data::Json(text(rest)?.into()),
        BINARY => Data::Binary(rest.into()),
        _ => return Err(EnvelopeError::Damaged),
    };
    Ok(Message { channel, id, event, data, cloudevent, grip })
}

fn text(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(bytes).map_err(|_| EnvelopeError::Damaged)
}

fn label(bytes: &[u8]) -> Result<Label, EnvelopeError> {
    Label::new(text(bytes)?).map_err(|_| EnvelopeError::Damaged)
}

fn put_text(out: &mut Vec<u8>, tag: u8, text: Option<&str>) {
    if let Some(text) = text {
        put_part(out, tag, text.as_bytes());
    }
}

fn put_part(out: &mut Vec<u8>, tag: u8, part: &[u8]) {
    out.push(tag);
    put_length(out, part.len());
    out.extend_from_slice(part);
}

/// The next part; `None` at their end.
fn take_part<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, EnvelopeError> {
    let (&tag, after) = rest.split_first().ok_or(EnvelopeError::Damaged)?;
    *rest = after;
    if tag == END {
        return Ok(None);
    }
    let length = take_length(rest)?;
    let (part, after) = rest.split_at_checked(length).ok_or(EnvelopeError::Damaged)?;
    *rest = after;
    Ok(Some((tag, part)))
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
            let cloudevent = attributes.map(Into::into);
            let message = Message { channel: channel(), id, event, data, cloudevent, grip: None };
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
        assert_eq!(decode(channel(), &[1, 0, 1, 1, b'i']), Err(EnvelopeError::Damaged));
    }

    #[test]
    fn a_part_of_a_newer_release_is_passed_over() {
        let message = decode(channel(), &[1, 0, 200, 2, 9, 9, 1, 1, b'i', 0, b'x']).expect("a message");
        assert_eq!(message.id.as_ref().map(Label::as_str), Some("i"));
        assert_eq!(message.data, Data::Text("x".into()));
    }
}
