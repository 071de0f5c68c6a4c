//! Error answers as `application/problem+json` (RFC 9457).

use crate::proto::json::push_string;
use serde_json::Value;
use std::fmt::Write as _;

/// The media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One error answer: `title`, `status`, `detail`, `request_id` and members of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: http::StatusCode,
    detail: String,
    members: Vec<(String, Value)>,
}

impl Problem {
    /// A problem with the status's own title. `detail` says what is wrong and what to do, in lower case.
    pub fn new(status: http::StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Vec::new() }
    }

    /// Adds a member of its own, of a name that is not there yet.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.push((name.to_owned(), value.into()));
        self
    }

    /// The status.
    pub fn status(&self) -> http::StatusCode {
        self.status
    }

    /// What is wrong.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The JSON text: what people look for first comes first, the members of its own in the order they were added.
    pub fn to_json(&self, request_id: &str) -> String {
        let mut out = "{\"title\":".to_owned();
        push_string(&mut out, self.status.canonical_reason().unwrap_or("Error"));
        // Writing to a String can't fail.
        let _ = write!(out, ",\"status\":{},\"detail\":", self.status.as_u16());
        push_string(&mut out, &self.detail);
        for (name, value) in &self.members {
            out.push(',');
            push_string(&mut out, name);
            let _ = write!(out, ":{value}");
        }
        out.push_str(",\"request_id\":");
        push_string(&mut out, request_id);
        out.push('}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_title_status_detail_and_request() {
        let problem = Problem::new(http::StatusCode::NOT_ACCEPTABLE, "no \"transport\" fits");
        let problem = problem.with("transports", vec!["sse"]).with("a", 1);
        assert_eq!(
            problem.to_json("r1"),
            r#"{"title":"Not Acceptable","status":406,"detail":"no \"transport\" fits","transports":["sse"],"a":1,"request_id":"r1"}"#
        );
    }
}
