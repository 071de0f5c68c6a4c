//! The formats of an item, and what push routes' sessions get of them.

use crate::model::grip::{
    ContentFilters, GripFormats, ResponseBody, ResponseForm, ResponseParts, StreamForm, WebSocketForm,
};
use crate::model::message::{Data, Label};
use crate::proto::event_stream::{EventStream, Item};
use crate::proto::grip::instruct;
use crate::proto::grip::items::{Fault, bad, get};
use crate::proto::grip::patch;
use crate::proto::websocket_over_http::close::lenient_number;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Map, Value};

const STREAM: &str = "http-stream";
const RESPONSE: &str = "http-response";
const WEBSOCKET: &str = "ws-message";
/// The largest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

pub(super) fn stream(format: &Value) -> Result<StreamForm, Fault> {
    let members = format.as_object().ok_or(bad(STREAM, "an object"))?;
    match action(members, STREAM)? {
        "send" => {
            let content = content(members, "content", "content-bin")?.ok_or(bad("content", "a text"))?.0;
            Ok(StreamForm::Send { content: content.into(), filters: filters(members)? })
        }
        "hint" => Ok(StreamForm::Hint),
        "close" => Ok(StreamForm::Close),
        other => Err(unknown(STREAM, other)),
    }
}

pub(super) fn response(format: &Value) -> Result<ResponseForm, Fault> {
    let members = format.as_object().ok_or(bad(RESPONSE, "an object"))?;
    match action(members, RESPONSE)? {
        "send" => {}
        "hint" => return Ok(ResponseForm::Hint),
        other => return Err(unknown(RESPONSE, other)),
    }
    let code = get(members, "code").map(|code| {
        let code = lenient_number(code).and_then(|code| u16::try_from(code).ok());
        code.filter(|code| (200..600).contains(code)).ok_or(bad("code", "a status from 200 to 599"))
    });
    let mut headers = HeaderMap::new();
    if let Some(given) = get(members, "headers") {
        instruct::read_headers(given, &mut headers)
            .map_err(|_| bad("headers", "an object or pairs of valid fields"))?;
    }
    let body = match content(members, "body", "body-bin")? {
        Some((bytes, _)) => ResponseBody::Whole(bytes.into()),
        None => match get(members, "body-patch") {
            Some(patch) if patch::is_patch(patch) => ResponseBody::Patch(patch.to_string().into()),
            Some(_) => return Err(bad("body-patch", "a JSON Patch (RFC 6902)")),
            None => ResponseBody::Held,
        },
    };
    let headers = headers.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().into())).collect();
    let reason = get(members, "reason").and_then(Value::as_str).map(Into::into);
    Ok(ResponseForm::Send(ResponseParts { code: code.transpose()?, reason, headers, body, filters: filters(members)? }))
}

pub(super) fn websocket(format: &Value) -> Result<WebSocketForm, Fault> {
    let members = format.as_object().ok_or(bad(WEBSOCKET, "an object"))?;
    match action(members, WEBSOCKET)? {
        "send" => {}
        "refresh" => return Ok(WebSocketForm::Refresh),
        "close" => {
            let code = get(members, "code").map(|code| {
                let code = lenient_number(code).and_then(|code| u16::try_from(code).ok());
                code.ok_or(bad("code", "a close code"))
            });
            let reason = get(members, "reason").and_then(Value::as_str).unwrap_or_default();
            return Ok(WebSocketForm::Close(code.transpose()?, reason.into()));
        }
        other => return Err(unknown(WEBSOCKET, other)),
    }
    let kind = get(members, "type").map(|kind| kind.as_str().ok_or(bad("type", "a text"))).transpose()?;
    let found = content(members, "content", "content-bin")?;
    if let Some(kind @ ("ping" | "pong")) = kind {
        let (bytes, _) = found.unwrap_or_default();
        if bytes.len() > CONTROL_BYTES_MAX {
            return Err(bad("content", "at most 125 bytes, as a ping or pong needs"));
        }
        return Ok(if kind == "ping" { WebSocketForm::Ping(bytes.into()) } else { WebSocketForm::Pong(bytes.into()) });
    }
    let (bytes, is_binary) = found.ok_or(bad("content", "a text"))?;
    let data = match (kind, is_binary) {
        (Some("binary"), _) | (None, true) => Data::Binary(bytes.into()),
        (Some("text"), _) | (None, false) => match String::from_utf8(bytes) {
            Ok(text) => Data::Text(text.into()),
            Err(_) => return Err(bad("content-bin", "UTF-8, as its type text needs")),
        },
        (Some(_), _) => return Err(bad("type", "text, binary, ping or pong")),
    };
    Ok(WebSocketForm::Send { data, filters: filters(members)? })
}

/// What event streams and long polls of push routes get: the stream's content, read as SSE fields if it is so formed,
/// or else the response's body. Content that is made for `build-id` has its `%%` as `%`; its id is the backend's.
pub(super) fn for_push(grip: &GripFormats) -> (Option<Label>, Data) {
    let (content, filters) = match (&grip.stream, &grip.response) {
        (Some(StreamForm::Send { content, filters }), _) => (content, filters),
        (_, Some(ResponseForm::Send(ResponseParts { body: ResponseBody::Whole(body), filters, .. }))) => {
            (body, filters)
        }
        (_, Some(ResponseForm::Send(ResponseParts { body: ResponseBody::Patch(patch), .. }))) => {
            return (None, Data::Json(patch.clone()));
        }
        _ => return (None, websocket_data(grip)),
    };
    let Ok(text) = std::str::from_utf8(content) else { return (None, Data::Binary(content.clone())) };
    let is_escaped = filters.iter().flatten().any(|name| matches!(&**name, "build-id" | "var-subst"));
    let plain = |text: &str| if is_escaped { text.replace("%%", "%") } else { text.to_owned() };
    if matches!(grip.stream, Some(StreamForm::Send { .. }))
        && let Some((event, data)) = as_event(text)
    {
        let event = event.and_then(|event| Label::new(&plain(&event)).ok());
        return (event, Data::Text(plain(&data).into()));
    }
    (None, Data::Text(plain(text).into()))
}

fn websocket_data(grip: &GripFormats) -> Data {
    match &grip.websocket {
        Some(WebSocketForm::Send { data, .. }) => data.clone(),
        _ => Data::Text("".into()),
    }
}

/// The one event of a content that is an event stream.
fn as_event(text: &str) -> Option<(Option<String>, String)> {
    let is_field = |line: &str| {
        let name = line.split(':').next().unwrap_or_default();
        matches!(name, "" | "data" | "event" | "id" | "retry")
    };
    if !(text.ends_with("\n\n") || text.ends_with("\r\n\r\n")) || !text.lines().all(is_field) {
        return None;
    }
    let mut events = Vec::new();
    let mut reader = EventStream::new("", text.len() + 16);
    let read = reader.feed(text.as_bytes(), |item| {
        if let Item::Event(event) = item {
            events.push((event.name, event.data));
        }
    });
    match (read, events.len()) {
        (Ok(()), 1) => {
            events.pop().map(|(event, data)| ((!event.is_empty() && event != "message").then_some(event), data))
        }
        _ => None,
    }
}

fn action<'a>(members: &'a Map<String, Value>, format: &'static str) -> Result<&'a str, Fault> {
    match get(members, "action") {
        None => Ok("send"),
        Some(Value::String(action)) => Ok(action),
        Some(_) => Err(unknown(format, "that is no text")),
    }
}

fn unknown(format: &'static str, action: &str) -> Fault {
    Fault::Action { format, action: action.chars().take(32).collect() }
}

/// A content and whether it came as base64.
fn content(
    members: &Map<String, Value>,
    plain: &'static str,
    encoded: &'static str,
) -> Result<Option<(Vec<u8>, bool)>, Fault> {
    if let Some(value) = get(members, encoded) {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        return bytes.map(|bytes| Some((bytes, true))).ok_or(bad(encoded, "base64"));
    }
    match get(members, plain) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some((text.as_bytes().to_vec(), false))),
        Some(_) => Err(bad(plain, "a text")),
    }
}

fn filters(members: &Map<String, Value>) -> Result<ContentFilters, Fault> {
    const EXPECTED: &str = "a list of at most 5 filter names";
    let Some(list) = get(members, "content-filters") else { return Ok(None) };
    let list = list.as_array().filter(|list| list.len() <= 5).ok_or(bad("content-filters", EXPECTED))?;
    let names = list.iter().map(|name| name.as_str().map(Into::into).ok_or(bad("content-filters", EXPECTED)));
    names.collect::<Result<_, _>>().map(Some)
}
