//! What a client says of where it is and how long it waits.

use crate::model::session::Transport;
use http::HeaderMap;
use http::header::{HeaderName, IF_NONE_MATCH};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The client's cursor as it came: `Last-Event-ID`, else `?last_event_id=`, else, for a long poll, the first entity tag
/// of `If-None-Match`. An empty one is none (WHATWG HTML §9.2.4).
pub fn last_event_id<'a>(fields: &'a HeaderMap, query: Option<&'a str>, transport: Transport) -> Option<Cow<'a, [u8]>> {
    if let Some(id) = fields.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        return Some(Cow::Borrowed(id.as_bytes()));
    }
    let of_query = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("last_event_id=")));
    if let Some(id) = of_query.filter(|id| !id.is_empty()) {
        return Some(percent_decode_str(id).into());
    }
    if transport != Transport::LongPoll {
        return None;
    }
    let tag = fields.get(IF_NONE_MATCH)?.as_bytes().trim_ascii();
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    let Some(opaque) = tag.strip_prefix(b"\"") else { return Some(Cow::Borrowed(tag)) };
    let end = opaque.iter().position(|byte| *byte == b'"').unwrap_or(opaque.len());
    Some(Cow::Borrowed(&opaque[..end])).filter(|opaque| !opaque.is_empty())
}

/// A session's token as it came: `?session=`. An empty one is none.
pub fn session(query: Option<&str>) -> Option<Cow<'_, [u8]>> {
    let given = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("session=")));
    given.filter(|token| !token.is_empty()).map(|token| percent_decode_str(token).into())
}

/// How long the client wants to wait, in milliseconds: `Prefer: wait=<seconds>` (RFC 7240 §4.3).
pub fn wait_ms(fields: &HeaderMap) -> Option<u64> {
    let preferences = fields.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse::<u64>().ok())
        .map(|seconds| seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value))).collect()
    }

    #[track_caller]
    fn check(pairs: &[(HeaderName, &'static str)], query: Option<&str>, transport: Transport, expected: Option<&str>) {
        let fields = fields(pairs);
        let id = last_event_id(&fields, query, transport);
        assert_eq!(id.as_deref(), expected.map(str::as_bytes));
    }

    #[test]
    fn the_cursor_comes_by_field_query_or_tag() {
        use Transport::{LongPoll, Sse};
        check(&[(LAST_EVENT_ID, "a")], Some("last_event_id=b"), Sse, Some("a"));
        check(&[(LAST_EVENT_ID, "")], Some("x=1&last_event_id=b%2D"), Sse, Some("b-"));
        check(&[], Some("last_event_id="), Sse, None);
        check(&[(IF_NONE_MATCH, "\"c\"")], None, Sse, None);
        check(&[(IF_NONE_MATCH, "\"c\"")], None, LongPoll, Some("c"));
        check(&[(IF_NONE_MATCH, "W/\"c\", \"d\"")], None, LongPoll, Some("c"));
        check(&[(IF_NONE_MATCH, "*")], None, LongPoll, Some("*"));
        check(&[(IF_NONE_MATCH, "\"\"")], None, LongPoll, None);
    }

    #[test]
    fn a_session_is_named_in_the_query() {
        for (query, expected) in [
            (Some("session=a-b_"), Some("a-b_")),
            (Some("x=1&session=a%2Db&session=c"), Some("a-b")),
            (Some("session="), None),
            (Some("session"), None),
            (Some("sessions=a"), None),
            (None, None),
        ] {
            assert_eq!(session(query).as_deref(), expected.map(str::as_bytes), "{query:?}");
        }
    }

    #[test]
    fn the_wait_is_a_preference_in_seconds() {
        for (value, expected) in [
            ("wait=10", Some(10_000)),
            ("respond-async, Wait=\"5\"; x=1", Some(5_000)),
            ("wait=0", Some(0)),
            ("wait=soon", None),
            ("return=minimal", None),
        ] {
            assert_eq!(wait_ms(&fields(&[(PREFER, value)])), expected, "{value}");
        }
    }
}
