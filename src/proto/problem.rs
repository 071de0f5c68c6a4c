//! Error answers as `application/problem+json` (RFC 9457).

use serde_json::{Map, Value};

/// The media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One error answer: `title`, `status`, `detail`, `request_id` and members of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: http::StatusCode,
    detail: String,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem with the status's own title. `detail` says what is wrong and what to do, in lower case.
    pub fn new(status: http::StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Map::new() }
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
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

    /// The JSON text.
    pub fn to_json(&self, request_id: &str) -> String {
        let mut members = Map::new();
        members.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
        members.insert("status".into(), self.status.as_u16().into());
        members.insert("detail".into(), self.detail.as_str().into());
        members.insert("request_id".into(), request_id.into());
        members.extend(self.members.iter().map(|(name, value)| (name.clone(), value.clone())));
        Value::Object(members).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_title_status_detail_and_request() {
        let problem =
            Problem::new(http::StatusCode::NOT_ACCEPTABLE, "no transport fits").with("transports", vec!["sse"]);
        let value: Value = serde_json::from_str(&problem.to_json("r1")).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "title": "Not Acceptable", "status": 406, "detail": "no transport fits",
                "request_id": "r1", "transports": ["sse"]
            })
        );
    }
}
