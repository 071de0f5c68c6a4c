//! A problem document as a response.

use crate::proto::problem::{MEDIA_TYPE, Problem};
use crate::server::Response;
use crate::server::body::Body;
use crate::server::request_id::RequestId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

/// The response that carries `problem`.
pub fn response(problem: &Problem, request_id: RequestId) -> Response {
    let mut response = http::Response::new(Body::full(problem.to_json(&request_id.to_string())));
    *response.status_mut() = problem.status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
