//! How a held response ends: by its own response, or by one that is published over it.

use crate::model::grip::{ResponseBody, ResponseParts};
use crate::model::message::Data;
use crate::proto::grip::instruct::Inner;
use crate::proto::grip::patch::{self, PatchError};
use crate::proto::packed_fields::PackedFields;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// A response while it is held. There is one for each session, so it is kept small, and apart from the buffers that it
/// was read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    status: StatusCode,
    fields: PackedFields,
    body: Box<[u8]>,
}

impl Held {
    /// Keeps a response.
    pub fn new(response: &Inner) -> Self {
        Self {
            status: response.status,
            fields: PackedFields::pack(&response.fields),
            body: response.body.as_ref().into(),
        }
    }

    /// The response again.
    pub fn response(&self) -> Inner {
        Inner { status: self.status, fields: self.fields.unpack(), body: Bytes::copy_from_slice(&self.body) }
    }
}

/// The response that a publish makes of the held one: its fields come over the held ones, of which `expose` names those
/// that stay (all, where it is not given). `body` is the published body as it was made for this client.
///
/// # Errors
/// When a patch does not fit the held body.
pub fn release(
    held: &Held,
    expose: Option<&[HeaderName]>,
    parts: &ResponseParts,
    body: Option<&[u8]>,
) -> Result<Inner, PatchError> {
    let body = match (&parts.body, body) {
        (_, Some(made)) => Bytes::copy_from_slice(made),
        (ResponseBody::Patch(patch), None) => patch::apply(&held.body, patch)?.into(),
        (ResponseBody::Held | ResponseBody::Whole(_), None) => Bytes::copy_from_slice(&held.body),
    };
    let code = parts.code.and_then(|code| StatusCode::from_u16(code).ok());
    // Whoever publishes a body and no status means 200: the held one may be one without a body.
    let has_body = !matches!(parts.body, ResponseBody::Held);
    let status = code.unwrap_or(if has_body { StatusCode::OK } else { held.status });
    let mut fields = kept(&held.fields, expose);
    if has_body {
        // What the held body was known by.
        fields.remove(ETAG);
        fields.remove(LAST_MODIFIED);
    }
    let mut over = HeaderMap::new();
    for (name, value) in &parts.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(&**name), HeaderValue::from_bytes(value)) {
            over.append(name, value);
        }
    }
    for name in over.keys() {
        fields.remove(name);
    }
    fields.extend(over);
    Ok(Inner { status, fields, body })
}

/// The response that natively published data makes: the data is the body.
pub fn release_native(held: &Held, expose: Option<&[HeaderName]>, data: &Data) -> Inner {
    let mut fields = kept(&held.fields, expose);
    fields.remove(ETAG);
    fields.remove(LAST_MODIFIED);
    let kind = match data {
        Data::Text(_) => "text/plain; charset=utf-8",
        Data::Json(_) => "application/json",
        Data::Binary(_) => "application/octet-stream",
    };
    fields.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    Inner { status: StatusCode::OK, fields, body: Bytes::copy_from_slice(data.as_bytes()) }
}

fn kept(fields: &PackedFields, expose: Option<&[HeaderName]>) -> HeaderMap {
    let fields = fields.unpack();
    let Some(expose) = expose else { return fields };
    let mut kept = HeaderMap::new();
    for (name, value) in &fields {
        if expose.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::grip::ResponseForm;
    use crate::proto::grip::items;

    fn held() -> Held {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert("x-a", HeaderValue::from_static("1"));
        fields.insert(ETAG, HeaderValue::from_static("\"1\""));
        let held = Inner { status: StatusCode::NO_CONTENT, fields, body: Bytes::from_static(b"{\"n\":1}") };
        assert_eq!(Held::new(&held).response(), held);
        Held::new(&held)
    }

    #[track_caller]
    fn check(expose: Option<&[HeaderName]>, format: serde_json::Value, status: u16, fields: &[&str], body: &str) {
        let json = serde_json::json!({"items": [{"channel": "a", "http-response": format}]}).to_string();
        let message = items::decode(json.as_bytes()).expect("an item").pop().expect("one");
        let Some(ResponseForm::Send(parts)) = message.grip.expect("grip").response else { panic!("no response") };
        let released = release(&held(), expose, &parts, parts.body.whole()).expect("released");
        let mut names: Vec<String> =
            released.fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        names.sort();
        assert_eq!((released.status.as_u16(), names), (status, fields.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!(released.body, body);
    }

    #[test]
    fn what_is_published_comes_over_what_is_held() {
        let json = serde_json::json!({"body": "hi", "headers": {"Content-Type": "text/plain"}});
        check(None, json, 200, &["content-type: text/plain", "x-a: 1"], "hi");
        let fields = ["content-type: application/json", "etag: \"1\"", "x-a: 1"];
        check(None, serde_json::json!({"code": 201}), 201, &fields, "{\"n\":1}");
        check(None, serde_json::json!({}), 204, &fields, "{\"n\":1}");
        let patch = serde_json::json!({"body-patch": [{"op": "replace", "path": "/n", "value": 2}]});
        check(Some(&[CONTENT_TYPE]), patch, 200, &["content-type: application/json"], "{\"n\":2}");
        let bad = ResponseParts { body: ResponseBody::Patch("[{}]".into()), ..ResponseParts::default() };
        assert_eq!(release(&held(), None, &bad, None), Err(PatchError::Operation(0)));
    }

    #[test]
    fn native_data_is_a_body() {
        let released = release_native(&held(), Some(&[]), &Data::Text("x".into()));
        assert_eq!((released.status, released.body.as_ref()), (StatusCode::OK, &b"x"[..]));
        assert_eq!(released.fields[CONTENT_TYPE], "text/plain; charset=utf-8");
    }
}
