//! In which form a request brings its events.

use crate::proto::cloudevents;
use crate::publish::respond::PublishError;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

/// The media types of `POST /v1/events`, for the `Accept` field of a 415 (RFC 9110 §15.5.16).
pub(super) const TAKEN: &str =
    "application/json, application/x-ndjson, application/cloudevents+json, application/cloudevents-batch+json";

/// The form of a request's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One event or an array.
    Json,
    /// One event a line.
    Ndjson,
    /// A CloudEvent in structured mode.
    CloudEvent,
    /// CloudEvents in batched mode.
    CloudEventBatch,
    /// A CloudEvent in binary mode.
    CloudEventBinary,
}

impl Form {
    /// The form that the fields name.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, PublishError> {
        plain_coding(headers)?;
        if headers.get(CONTENT_TYPE).is_some_and(|field| field == "application/json")
            && !cloudevents::is_binary(headers)
        {
            // As nearly everybody writes it.
            return Ok(Self::Json);
        }
        let given = headers.get(CONTENT_TYPE).map(|field| String::from_utf8_lossy(field.as_bytes()));
        let given = given.as_deref().unwrap_or("");
        let (essence, parameters) = given.split_once(';').unwrap_or((given, ""));
        let essence = essence.trim();
        let is = |media_type: &str| essence.eq_ignore_ascii_case(media_type);
        let form = if is("application/json") && !cloudevents::is_binary(headers) {
            Self::Json
        } else if is("application/x-ndjson") && !cloudevents::is_binary(headers) {
            Self::Ndjson
        } else if is(cloudevents::MEDIA_TYPE) {
            Self::CloudEvent
        } else if is(cloudevents::BATCH_MEDIA_TYPE) {
            Self::CloudEventBatch
        } else if cloudevents::is_binary(headers) && !starts_with(essence, "application/cloudevents") {
            return Ok(Self::CloudEventBinary);
        } else {
            return Err(PublishError::MediaType(shown(given)));
        };
        if utf8(parameters) { Ok(form) } else { Err(PublishError::MediaType(shown(given))) }
    }
}

/// Refuses what is compressed.
pub(super) fn plain_coding(headers: &HeaderMap) -> Result<(), PublishError> {
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(PublishError::Coding),
        _ => Ok(()),
    }
}

/// Whether the fields name JSON of any kind.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(CONTENT_TYPE).and_then(|field| field.to_str().ok()) else { return false };
    let essence = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn utf8(parameters: &str) -> bool {
    parameters.split(';').filter_map(|parameter| parameter.trim().split_once('=')).all(|(name, value)| {
        let value = value.trim_matches('"');
        !name.eq_ignore_ascii_case("charset")
            || value.eq_ignore_ascii_case("utf-8")
            || value.eq_ignore_ascii_case("us-ascii")
    })
}

fn shown(given: &str) -> String {
    given.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[track_caller]
    fn check(content_type: Option<&'static str>, specversion: Option<&'static str>, expected: Option<Form>) {
        let mut headers = HeaderMap::new();
        content_type.map(|value| headers.insert(CONTENT_TYPE, HeaderValue::from_static(value)));
        specversion.map(|value| headers.insert("ce-specversion", HeaderValue::from_static(value)));
        assert_eq!(Form::of(&headers).ok(), expected, "{content_type:?} {specversion:?}");
    }

    #[test]
    fn content_types_name_the_form() {
        check(Some("application/json"), None, Some(Form::Json));
        check(Some("Application/JSON ; charset=\"UTF-8\""), None, Some(Form::Json));
        check(Some("application/x-ndjson"), None, Some(Form::Ndjson));
        check(Some("application/cloudevents+json; charset=utf-8"), None, Some(Form::CloudEvent));
        check(Some("application/cloudevents+json"), Some("1.0"), Some(Form::CloudEvent));
        check(Some("application/cloudevents-batch+json"), None, Some(Form::CloudEventBatch));
        check(Some("application/json"), Some("1.0"), Some(Form::CloudEventBinary));
        check(Some("image/png"), Some("1.0"), Some(Form::CloudEventBinary));
        check(Some("text/plain; charset=latin1"), Some("1.0"), Some(Form::CloudEventBinary));
        check(None, Some("1.0"), Some(Form::CloudEventBinary));
    }

    #[test]
    fn other_types_are_refused() {
        for content_type in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            check(Some(content_type), None, None);
        }
        check(None, None, None);
        check(Some("application/json; charset=utf-16"), None, None);
        check(Some("application/cloudevents+avro"), Some("1.0"), None);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(matches!(Form::of(&headers), Err(PublishError::Coding)));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
        assert!(Form::of(&headers).is_ok());
    }
}
