//! The part of an envelope that has a GRIP item's forms: parts within it, and within these.
//!
//! ```text
//! id · previous id · unordered · meta* · stream · response · websocket · 0          each as in the envelope
//! form: kind 1 · parts · 0
//! ```

use super::{END, EnvelopeError, label, put_length, put_part, put_text, take_length, take_part, text};
use crate::model::grip::{
    ContentFilters, GripFormats, Order, ResponseBody, ResponseForm, ResponseParts, StreamForm, WebSocketForm,
};
use crate::model::message::{Data, Label};

/// Tags of what stands beside the forms, and of these.
const ID: u8 = 1;
const PREVIOUS_ID: u8 = 2;
const UNORDERED: u8 = 3;
const META: u8 = 4;
const STREAM: u8 = 5;
const RESPONSE: u8 = 6;
const WEBSOCKET: u8 = 7;

/// Tags within a form.
const CONTENT: u8 = 1;
/// There are filters, if only none.
const FILTERED: u8 = 2;
const FILTER: u8 = 3;
const CODE: u8 = 4;
const REASON: u8 = 5;
const HEADER: u8 = 6;
const PATCH: u8 = 7;

/// Kinds of forms.
const SEND: u8 = 0;
const HINT: u8 = 1;
const CLOSE: u8 = 2;
const SEND_JSON: u8 = 3;
const SEND_BINARY: u8 = 4;
const PING: u8 = 5;
const PONG: u8 = 6;

/// What stands in a form; which of it counts, its kind says.
#[derive(Default)]
struct Form<'a> {
    content: Option<&'a [u8]>,
    filters: Option<Vec<Box<str>>>,
    code: Option<u16>,
    reason: Option<&'a str>,
    headers: Vec<(Box<str>, Box<[u8]>)>,
    patch: Option<&'a str>,
}

/// The part's bytes.
pub(super) fn encode(grip: &GripFormats) -> Vec<u8> {
    let GripFormats { id, prev_id, order, meta, stream, response, websocket } = grip;
    let mut out = Vec::with_capacity(32 + grip.size_bytes());
    put_text(&mut out, ID, id.as_ref().map(Label::as_str));
    put_text(&mut out, PREVIOUS_ID, prev_id.as_ref().map(Label::as_str));
    if *order == Order::Ignored {
        put_part(&mut out, UNORDERED, &[]);
    }
    for (name, value) in meta {
        put_part(&mut out, META, &pair(name, value.as_bytes()));
    }
    if let Some(form) = stream {
        put_part(&mut out, STREAM, &encode_stream(form));
    }
    if let Some(form) = response {
        put_part(&mut out, RESPONSE, &encode_response(form));
    }
    if let Some(form) = websocket {
        put_part(&mut out, WEBSOCKET, &encode_websocket(form));
    }
    out.push(END);
    out
}

fn encode_stream(form: &StreamForm) -> Vec<u8> {
    let mut out = Vec::new();
    match form {
        StreamForm::Send { content, filters } => {
            out.push(SEND);
            put_part(&mut out, CONTENT, content);
            put_filters(&mut out, filters);
        }
        StreamForm::Hint => out.push(HINT),
        StreamForm::Close => out.push(CLOSE),
    }
    out.push(END);
    out
}

fn encode_response(form: &ResponseForm) -> Vec<u8> {
    let mut out = Vec::new();
    match form {
        ResponseForm::Send(ResponseParts { code, reason, headers, body, filters }) => {
            out.push(SEND);
            put_code(&mut out, *code);
            put_text(&mut out, REASON, reason.as_deref());
            for (name, value) in headers {
                put_part(&mut out, HEADER, &pair(name, value));
            }
            match body {
                ResponseBody::Held => {}
                ResponseBody::Whole(bytes) => put_part(&mut out, CONTENT, bytes),
                ResponseBody::Patch(patch) => put_part(&mut out, PATCH, patch.as_bytes()),
            }
            put_filters(&mut out, filters);
        }
        ResponseForm::Hint => out.push(HINT),
    }
    out.push(END);
    out
}

fn encode_websocket(form: &WebSocketForm) -> Vec<u8> {
    let mut out = Vec::new();
    match form {
        WebSocketForm::Send { data, filters } => {
            out.push(match data {
                Data::Text(_) => SEND,
                Data::Json(_) => SEND_JSON,
                Data::Binary(_) => SEND_BINARY,
            });
            put_part(&mut out, CONTENT, data.as_bytes());
            put_filters(&mut out, filters);
        }
        WebSocketForm::Ping(content) | WebSocketForm::Pong(content) => {
            out.push(if matches!(form, WebSocketForm::Ping(_)) { PING } else { PONG });
            put_part(&mut out, CONTENT, content);
        }
        WebSocketForm::Close(code, reason) => {
            out.push(CLOSE);
            put_code(&mut out, *code);
            put_part(&mut out, REASON, reason.as_bytes());
        }
        WebSocketForm::Refresh => out.push(HINT),
    }
    out.push(END);
    out
}

fn put_filters(out: &mut Vec<u8>, filters: &ContentFilters) {
    if let Some(filters) = filters {
        put_part(out, FILTERED, &[]);
        filters.iter().for_each(|filter| put_part(out, FILTER, filter.as_bytes()));
    }
}

fn put_code(out: &mut Vec<u8>, code: Option<u16>) {
    if let Some(code) = code {
        put_part(out, CODE, &code.to_be_bytes());
    }
}

fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + value.len() + 2);
    put_length(&mut out, name.len());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(value);
    out
}

/// Reads what [`encode`] wrote; parts of newer releases are passed over.
pub(super) fn decode(mut part: &[u8]) -> Result<GripFormats, EnvelopeError> {
    let mut grip = GripFormats::default();
    while let Some((tag, part)) = take_part(&mut part)? {
        match tag {
            ID => grip.id = Some(label(part)?),
            PREVIOUS_ID => grip.prev_id = Some(label(part)?),
            UNORDERED => grip.order = Order::Ignored,
            META => {
                let (name, value) = split_pair(part)?;
                grip.meta.push((name.into(), text(value)?.into()));
            }
            STREAM => grip.stream = decode_stream(part)?,
            RESPONSE => grip.response = decode_response(part)?,
            WEBSOCKET => grip.websocket = decode_websocket(part)?,
            _ => {}
        }
    }
    Ok(grip)
}

fn decode_stream(part: &[u8]) -> Result<Option<StreamForm>, EnvelopeError> {
    let (kind, form) = Form::read(part)?;
    Ok(match kind {
        SEND => Some(StreamForm::Send { content: form.content()?.into(), filters: form.filters() }),
        HINT => Some(StreamForm::Hint),
        CLOSE => Some(StreamForm::Close),
        _ => None,
    })
}

fn decode_response(part: &[u8]) -> Result<Option<ResponseForm>, EnvelopeError> {
    let (kind, form) = Form::read(part)?;
    Ok(match kind {
        SEND => Some(ResponseForm::Send(ResponseParts {
            code: form.code,
            reason: form.reason.map(Into::into),
            body: match (form.content, form.patch) {
                (Some(bytes), _) => ResponseBody::Whole(bytes.into()),
                (None, Some(patch)) => ResponseBody::Patch(patch.into()),
                (None, None) => ResponseBody::Held,
            },
            filters: form.filters.map(Vec::into_boxed_slice),
            headers: form.headers,
        })),
        HINT => Some(ResponseForm::Hint),
        _ => None,
    })
}

fn decode_websocket(part: &[u8]) -> Result<Option<WebSocketForm>, EnvelopeError> {
    let (kind, form) = Form::read(part)?;
    let data = match kind {
        SEND => Data::Text(text(form.content()?)?.into()),
        SEND_JSON => Data::Json(text(form.content()?)?.into()),
        SEND_BINARY => Data::Binary(form.content()?.into()),
        PING => return Ok(Some(WebSocketForm::Ping(form.content()?.into()))),
        PONG => return Ok(Some(WebSocketForm::Pong(form.content()?.into()))),
        CLOSE => return Ok(Some(WebSocketForm::Close(form.code, form.reason.unwrap_or_default().into()))),
        HINT => return Ok(Some(WebSocketForm::Refresh)),
        _ => return Ok(None),
    };
    Ok(Some(WebSocketForm::Send { data, filters: form.filters() }))
}

impl<'a> Form<'a> {
    fn read(part: &'a [u8]) -> Result<(u8, Self), EnvelopeError> {
        let (&kind, mut rest) = part.split_first().ok_or(EnvelopeError::Damaged)?;
        let mut form = Self::default();
        while let Some((tag, part)) = take_part(&mut rest)? {
            match tag {
                CONTENT => form.content = Some(part),
                FILTERED => form.filters = Some(Vec::new()),
                FILTER => form.filters.get_or_insert_default().push(text(part)?.into()),
                CODE => form.code = Some(u16::from_be_bytes(part.try_into().map_err(|_| EnvelopeError::Damaged)?)),
                REASON => form.reason = Some(text(part)?),
                HEADER => {
                    let (name, value) = split_pair(part)?;
                    form.headers.push((name.into(), value.into()));
                }
                PATCH => form.patch = Some(text(part)?),
                _ => {}
            }
        }
        Ok((kind, form))
    }

    fn content(&self) -> Result<&'a [u8], EnvelopeError> {
        self.content.ok_or(EnvelopeError::Damaged)
    }

    fn filters(self) -> ContentFilters {
        self.filters.map(Vec::into_boxed_slice)
    }
}

fn split_pair(mut part: &[u8]) -> Result<(&str, &[u8]), EnvelopeError> {
    let length = take_length(&mut part)?;
    let (name, value) = part.split_at_checked(length).ok_or(EnvelopeError::Damaged)?;
    Ok((text(name)?, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = Box<str>> {
        ".{0,20}".prop_map(Into::into)
    }

    fn bytes() -> impl Strategy<Value = Box<[u8]>> {
        vec(any::<u8>(), 0..300).prop_map(Into::into)
    }

    fn filters() -> impl Strategy<Value = ContentFilters> {
        option::of(vec(word(), 0..3).prop_map(Into::into))
    }

    fn a_label() -> impl Strategy<Value = Option<Label>> {
        option::of("[^\r\n\0]{1,60}".prop_map(|text| Label::new(&text).expect("a label")))
    }

    fn stream() -> impl Strategy<Value = StreamForm> {
        prop_oneof![
            (bytes(), filters()).prop_map(|(content, filters)| StreamForm::Send { content, filters }),
            Just(StreamForm::Hint),
            Just(StreamForm::Close),
        ]
    }

    fn response() -> impl Strategy<Value = ResponseForm> {
        let body = prop_oneof![
            Just(ResponseBody::Held),
            bytes().prop_map(ResponseBody::Whole),
            word().prop_map(ResponseBody::Patch),
        ];
        let parts = (option::of(any::<u16>()), option::of(word()), vec((word(), bytes()), 0..3), body, filters());
        prop_oneof![
            parts.prop_map(|(code, reason, headers, body, filters)| {
                ResponseForm::Send(ResponseParts { code, reason, headers, body, filters })
            }),
            Just(ResponseForm::Hint),
        ]
    }

    fn websocket() -> impl Strategy<Value = WebSocketForm> {
        let data =
            prop_oneof![word().prop_map(Data::Text), word().prop_map(Data::Json), bytes().prop_map(Data::Binary),];
        prop_oneof![
            (data, filters()).prop_map(|(data, filters)| WebSocketForm::Send { data, filters }),
            bytes().prop_map(WebSocketForm::Ping),
            bytes().prop_map(WebSocketForm::Pong),
            (option::of(any::<u16>()), word()).prop_map(|(code, reason)| WebSocketForm::Close(code, reason)),
            Just(WebSocketForm::Refresh),
        ]
    }

    proptest! {
        #[test]
        fn every_form_survives(
            ids in (a_label(), a_label()),
            order in prop_oneof![Just(Order::Counts), Just(Order::Ignored)],
            meta in vec((word(), word()), 0..3),
            forms in (option::of(stream()), option::of(response()), option::of(websocket())),
        ) {
            let ((id, prev_id), (stream, response, websocket)) = (ids, forms);
            let grip = GripFormats { id, prev_id, order, meta, stream, response, websocket };
            prop_assert_eq!(decode(&encode(&grip)), Ok(grip));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[&[STREAM, 100], &*bytes].concat());
        }
    }

    #[test]
    fn a_kind_of_a_newer_release_is_no_form() {
        assert_eq!(decode(&[STREAM, 2, 99, END, END]), Ok(GripFormats::default()));
        assert_eq!(decode(&[STREAM, 2, SEND, END, END]), Err(EnvelopeError::Damaged));
    }
}
