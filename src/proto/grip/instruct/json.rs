//! The JSON form of an instruct.

use crate::proto::grip::instruct::{Inner, Instruct, InstructError, hold_timeout_ms, mode, status};
use crate::proto::grip::keep_alive::KeepAlive;
use crate::proto::websocket_over_http::close::lenient_number;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

/// Reads the JSON text into what the fields said already.
pub(super) fn read(instruct: &mut Instruct, body: &[u8]) -> Result<(), InstructError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| InstructError::Json { line: error.line(), column: error.column() })?;
    let members = value.as_object().ok_or(InstructError::Json { line: 1, column: 1 })?;
    if let Some(hold) = get(members, "hold") {
        read_hold(instruct, object(hold, "hold")?)?;
    }
    if let Some(response) = get(members, "response") {
        let (inner, given) = read_response(object(response, "response")?)?;
        instruct.response = Some(inner);
        instruct.status = instruct.status.or(given);
    }
    Ok(())
}

fn read_hold(instruct: &mut Instruct, hold: &Map<String, Value>) -> Result<(), InstructError> {
    let word = get(hold, "mode").map_or(Ok("response"), |value| text(value, "hold.mode"))?;
    instruct.hold = Some(mode(word)?);
    let list = get(hold, "channels").map_or(Ok(&[][..]), |value| array(value, "hold.channels"))?;
    for channel in list {
        let channel = object(channel, "hold.channels")?;
        let name = channel.get("name").ok_or(bad("hold.channels[].name", "a text"))?;
        let prev_id = get(channel, "prev-id").map(|id| id_text(id, "hold.channels[].prev-id")).transpose()?;
        let filters = get(channel, "filters").map_or(Ok(&[][..]), |value| array(value, "hold.channels[].filters"))?;
        let filters: Vec<&str> =
            filters.iter().map(|name| text(name, "hold.channels[].filters")).collect::<Result<_, _>>()?;
        instruct.add_channel(text(name, "hold.channels[].name")?, prev_id.as_deref(), filters.into_iter())?;
    }
    if let Some(timeout) = get(hold, "timeout") {
        instruct.timeout_ms = hold_timeout_ms(lenient_number(timeout), "hold.timeout")?;
    }
    if let Some(keep_alive) = get(hold, "keep-alive") {
        let keep_alive = object(keep_alive, "hold.keep-alive")?;
        let content = content(keep_alive, "content", "content-bin")?.unwrap_or_default();
        let secs = get(keep_alive, "timeout").map(lenient_number);
        let secs = secs.map(|secs| secs.ok_or(InstructError::Timeout("hold.keep-alive.timeout"))).transpose()?;
        let word = get(keep_alive, "mode").map(|value| text(value, "hold.keep-alive.mode")).transpose()?;
        instruct.keep_alive = Some(KeepAlive::new(content, secs, word)?);
    }
    if let Some(meta) = get(hold, "meta") {
        for (name, value) in object(meta, "hold.meta")? {
            instruct.set_meta(name.clone(), text(value, "hold.meta")?.to_owned());
        }
    }
    Ok(())
}

fn read_response(response: &Map<String, Value>) -> Result<(Inner, Option<StatusCode>), InstructError> {
    let mut inner = Inner::default();
    let mut given = None;
    if let Some(code) = get(response, "code") {
        let code = lenient_number(code).ok_or(bad("response.code", "a number"))?;
        given = Some(status(&code.to_string())?);
        inner.status = given.unwrap_or_default();
    }
    if let Some(headers) = get(response, "headers") {
        read_headers(headers, &mut inner.fields)?;
    }
    inner.body = Bytes::from(content(response, "body", "body-bin")?.unwrap_or_default());
    Ok((inner, given))
}

/// Reads `{name: value}` or `[[name, value]]`. Fields of framing are passed over.
pub(in crate::proto::grip) fn read_headers(headers: &Value, fields: &mut HeaderMap) -> Result<(), InstructError> {
    const MEMBER: &str = "response.headers";
    const EXPECTED: &str = "a map of texts, or a list of pairs of texts";
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::try_from(name).map_err(|_| bad(MEMBER, "of valid names"))?;
        let value = HeaderValue::try_from(value).map_err(|_| bad(MEMBER, "of valid values"))?;
        let is_ours = name.as_str().starts_with("grip-");
        if !is_ours && ![CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&name) {
            fields.append(name, value);
        }
        Ok(())
    };
    match headers {
        Value::Object(map) => {
            map.iter().try_for_each(|(name, value)| add(name, value.as_str().ok_or(bad(MEMBER, EXPECTED))?))
        }
        Value::Array(list) => list.iter().try_for_each(|pair| match pair.as_array().map(Vec::as_slice) {
            Some([Value::String(name), Value::String(value)]) => add(name, value),
            _ => Err(bad(MEMBER, EXPECTED)),
        }),
        _ => Err(bad(MEMBER, EXPECTED)),
    }
}

fn content(
    members: &Map<String, Value>,
    plain: &'static str,
    encoded: &'static str,
) -> Result<Option<Vec<u8>>, InstructError> {
    if let Some(value) = get(members, encoded) {
        let bytes = STANDARD.decode(text(value, encoded)?).map_err(|_| bad(encoded, "base64"))?;
        return Ok(Some(bytes));
    }
    get(members, plain).map(|value| Ok(text(value, plain)?.as_bytes().to_vec())).transpose()
}

fn bad(member: &'static str, expected: &'static str) -> InstructError {
    InstructError::Member { member, expected }
}

/// A member, where `null` is as good as none.
fn get<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !value.is_null())
}

fn object<'a>(value: &'a Value, member: &'static str) -> Result<&'a Map<String, Value>, InstructError> {
    value.as_object().ok_or(bad(member, "an object"))
}

fn array<'a>(value: &'a Value, member: &'static str) -> Result<&'a [Value], InstructError> {
    value.as_array().map(Vec::as_slice).ok_or(bad(member, "a list"))
}

fn text<'a>(value: &'a Value, member: &'static str) -> Result<&'a str, InstructError> {
    value.as_str().ok_or(bad(member, "a text"))
}

fn id_text(value: &Value, member: &'static str) -> Result<String, InstructError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(bad(member, "a text")),
    }
}
