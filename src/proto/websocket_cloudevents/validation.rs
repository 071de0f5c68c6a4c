//! The question whether a URL wants events, and its answer (CloudEvents HTTP webhook 1.0.2 §4, "abuse protection").

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Who asks, in the question and in every event.
pub const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
/// Who may send, in the answer: names, or `*`.
pub const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
/// The field by which the service's libraries know its requests.
pub const SERVICE_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("ce-awpsversion"), HeaderValue::from_static("1.0"));
/// How much of a field of the backend is shown.
const SHOWN_BYTES_MAX: usize = 200;

/// Why a URL gets no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Another status than 2xx.
    #[error("the backend answered {0} to the OPTIONS that asks whether it takes events; it has to answer 200")]
    Status(StatusCode),
    /// No field.
    #[error("the backend's answer to OPTIONS has no WebHook-Allowed-Origin; it has to name {0:?}, or be *")]
    NoOrigin(Box<str>),
    /// Only other names.
    #[error("the backend's WebHook-Allowed-Origin is {allowed:?}; it has to name {origin:?}, or be *")]
    OtherOrigin {
        /// Who asked.
        origin: Box<str>,
        /// What the field says, its beginning.
        allowed: Box<str>,
    },
}

/// The fields of the question.
pub fn question(origin: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.extend(HeaderValue::from_str(origin).ok().map(|origin| (REQUEST_ORIGIN, origin)));
    let (name, value) = SERVICE_VERSION;
    fields.insert(name, value);
    fields
}

/// Whether an answer allows `origin` to send: it names it, in any case of letters and perhaps in a list, or `*`.
///
/// # Errors
/// Why it does not.
pub fn check(status: StatusCode, fields: &HeaderMap, origin: &str) -> Result<(), Denied> {
    if !status.is_success() {
        return Err(Denied::Status(status));
    }
    let mut values = fields.get_all(ALLOWED_ORIGIN).iter().peekable();
    if values.peek().is_none() {
        return Err(Denied::NoOrigin(origin.into()));
    }
    let names = |value: &HeaderValue| {
        let mut names = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(origin.as_bytes()))
    };
    if values.any(names) {
        return Ok(());
    }
    let all: Vec<&[u8]> = fields.get_all(ALLOWED_ORIGIN).iter().map(HeaderValue::as_bytes).collect();
    let all = all.join(&b", "[..]);
    let shown = String::from_utf8_lossy(&all[..all.len().min(SHOWN_BYTES_MAX)]);
    Err(Denied::OtherOrigin { origin: origin.into(), allowed: shown.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_answer(status: u16, values: &[&str], expected: Result<(), Denied>) {
        let values = values.iter().map(|value| (ALLOWED_ORIGIN, HeaderValue::from_str(value).expect("a value")));
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(check(status, &values.collect(), "push.example"), expected);
    }

    #[test]
    fn an_origin_is_allowed_by_its_name_or_a_star() {
        check_answer(200, &["*"], Ok(()));
        check_answer(204, &["push.example"], Ok(()));
        check_answer(200, &["a.example, Push.Example ,b.example"], Ok(()));
        check_answer(200, &["a.example", "push.example"], Ok(()));
        let denied =
            |allowed: &str| Err(Denied::OtherOrigin { origin: "push.example".into(), allowed: allowed.into() });
        check_answer(200, &["a.example", "*.example"], denied("a.example, *.example"));
        check_answer(200, &["push.example.evil"], denied("push.example.evil"));
        check_answer(200, &[""], denied(""));
        check_answer(200, &[&"x".repeat(9000)], denied(&"x".repeat(200)));
        check_answer(200, &[], Err(Denied::NoOrigin("push.example".into())));
        check_answer(405, &["*"], Err(Denied::Status(StatusCode::METHOD_NOT_ALLOWED)));
        check_answer(301, &["*"], Err(Denied::Status(StatusCode::MOVED_PERMANENTLY)));
    }

    #[test]
    fn the_question_names_who_asks() {
        let fields = question("push.example");
        assert_eq!(
            (&fields["webhook-request-origin"], &fields["ce-awpsversion"]),
            (&HeaderValue::from_static("push.example"), &HeaderValue::from_static("1.0"))
        );
    }
}
