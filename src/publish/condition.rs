//! The condition on a channel's place: `If-Match` (RFC 9110 §13.1.1).

use crate::bus::IfMatch;
use crate::publish::respond::PublishError;
use http::HeaderMap;
use http::header::IF_MATCH;

/// Why a condition can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConditionError {
    /// Not one position.
    #[error(
        "If-Match takes one position as a publish answered it, such as \"mbq3k2x1-42\", or \"0\" for a channel without messages"
    )]
    NoPosition,
    /// More than one message.
    #[error("If-Match needs exactly one event to exactly one channel; this request has {0} messages")]
    Several(usize),
    /// An NDJSON stream.
    #[error("If-Match does not go with application/x-ndjson; send one event as application/json")]
    Stream,
}

/// The request's condition, if it has one.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<IfMatch>, PublishError> {
    let mut fields = headers.get_all(IF_MATCH).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let mut parse = || {
        if fields.next().is_some() {
            return None;
        }
        let text = field.to_str().ok()?.trim();
        let text = text.strip_prefix('"').map_or(Some(text), |inner| inner.strip_suffix('"'))?;
        if text == "0" { Some(IfMatch::Empty) } else { text.parse().ok().map(IfMatch::At) }
    };
    parse().map(Some).ok_or(PublishError::Condition(ConditionError::NoPosition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::position::Position;
    use http::HeaderValue;

    #[track_caller]
    fn check(fields: &[&'static str], expected: Option<Option<IfMatch>>) {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(IF_MATCH, HeaderValue::from_static(field));
        }
        assert_eq!(read(&headers).ok(), expected, "{fields:?}");
    }

    #[test]
    fn a_condition_is_one_position_or_zero() {
        let at = Some(Some(IfMatch::At(Position { epoch: 35, offset: 42 })));
        check(&[], Some(None));
        check(&["\"z-42\""], at);
        check(&["z-42"], at);
        check(&["\"0\""], Some(Some(IfMatch::Empty)));
        check(&["0"], Some(Some(IfMatch::Empty)));
        for field in ["", "*", "\"", "\"z-42", "z-42\"", "W/\"z-42\"", "\"z-42\", \"z-43\"", "z", "00", "\"\""] {
            check(&[field], None);
        }
        check(&["z-42", "z-43"], None);
    }
}
