//! Binary mode: attributes in `ce-` fields, data in the body (CloudEvents HTTP binding 1.0.2 §3.1).

use crate::model::message::Data;
use crate::proto::cloudevents::attribute::Context;
use crate::proto::events::{self, Event, EventError, Fault};
use crate::proto::json::Json;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode;
use std::borrow::Cow;

const SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");

/// Whether a request's fields say that it is a CloudEvent in binary mode.
pub fn is_binary(headers: &HeaderMap) -> bool {
    headers.contains_key(SPECVERSION)
}

/// Decodes an event in binary mode. `Content-Type` is its `datacontenttype` and says what the body is: JSON is taken
/// as JSON, `text/*` and XML in UTF-8 as text, anything else as bytes.
///
/// # Errors
/// The first thing that is wrong.
pub fn decode_binary(headers: &HeaderMap, body: &[u8]) -> Result<Event, EventError> {
    let mut context = Context::default();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let wrong = |fault| EventError::of(format!("ce-{attribute}"), Fault::Attribute(fault));
        match attribute {
            "datacontenttype" => return Err(wrong("is not for binary mode; say it in Content-Type")),
            "data" => return Err(wrong("is no attribute; the data is the body")),
            _ => {}
        }
        let text = field_value(value.as_bytes()).map_err(wrong)?;
        context.text(attribute, Cow::Owned(text))?;
    }
    let media_type = match headers.get(CONTENT_TYPE) {
        Some(value) => {
            let wrong = EventError::of("content-type", Fault::Attribute("is no visible ASCII text"));
            let media_type = value.to_str().map_err(|_| wrong)?;
            context.text("datacontenttype", Cow::Borrowed(media_type))?;
            media_type
        }
        None => "",
    };
    let data = body_data(media_type, body).map_err(|fault| EventError::of("the body", fault))?;
    context.into_event(data)
}

/// The attribute's value in a field (§3.1.3.2): a quoted string is unquoted, then one round of percent-decoding.
fn field_value(value: &[u8]) -> Result<String, &'static str> {
    let unquoted = match value.strip_prefix(b"\"") {
        Some(inner) => {
            Cow::Owned(unquote(inner).ok_or("starts with a quote that does not end; close it, or write it as %22")?)
        }
        None => Cow::Borrowed(value),
    };
    let decoded = percent_decode(&unquoted).collect();
    String::from_utf8(decoded).map_err(|_| "is no UTF-8 once percent-decoded; encode characters as UTF-8")
}

fn unquote(inner: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return bytes.next().is_none().then_some(out),
            b'\\' => out.push(*bytes.next()?),
            _ => out.push(byte),
        }
    }
    None
}

fn body_data(media_type: &str, body: &[u8]) -> Result<Data, Fault> {
    if body.is_empty() {
        return Ok(Data::Text("".into()));
    }
    match Form::of(media_type) {
        Form::Json => events::json_data(Json::parse(body)?),
        Form::Text => match std::str::from_utf8(body) {
            Ok(text) => Ok(Data::Text(text.into())),
            Err(_) => Err(Fault::Attribute("is no UTF-8; name its charset in Content-Type, or send it as bytes")),
        },
        Form::Bytes => Ok(Data::Binary(body.into())),
    }
}

/// What a media type says the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Text,
    Bytes,
}

impl Form {
    fn of(media_type: &str) -> Self {
        let media_type = media_type.to_ascii_lowercase();
        let (essence, parameters) = media_type.split_once(';').unwrap_or((&media_type, ""));
        let Some((kind, subtype)) = essence.trim().split_once('/') else { return Form::Bytes };
        if subtype == "json" || subtype.ends_with("+json") {
            return Form::Json;
        }
        let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
        let utf8 = charset.is_none_or(|charset| matches!(charset.trim_matches('"'), "utf-8" | "us-ascii"));
        let text = kind == "text" || subtype == "xml" || subtype.ends_with("+xml");
        if text && utf8 { Form::Text } else { Form::Bytes }
    }
}
