//! The seam to whoever answers the POSTs.

use crate::server::Response;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::HeaderMap;
use std::sync::Arc;

/// A backend of one route, with the client's path and query: each call is one POST.
pub trait Backend: 'static {
    /// Its upstream's name.
    fn upstream(&self) -> Arc<str>;

    /// Sends the fields and the body, and gives the answer once its head is there. Whoever implements it sets the time
    /// limit. Dropping the future cancels the request.
    fn post(&self, fields: HeaderMap, body: Bytes) -> LocalBoxFuture<'static, Result<Response, BackendError>>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The request surely was not processed: no connection stood, or the backend said so (RFC 9113 §8.7).
    #[error("the backend took no request: {0}")]
    NotProcessed(Box<dyn std::error::Error>),
    /// No answer in time; the request may have been processed.
    #[error("the backend did not answer in time: {0}")]
    TimedOut(Box<dyn std::error::Error>),
    /// The answer broke off or was malformed; the request may have been processed.
    #[error("the backend's answer broke off: {0}")]
    Broken(Box<dyn std::error::Error>),
}
