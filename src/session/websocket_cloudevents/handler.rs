//! The seam to whoever takes the events.

use crate::server::Response;
use crate::session::websocket_over_http::BackendError;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, Method};
use std::sync::Arc;

/// The backend of one route.
pub trait Handler: 'static {
    /// Its name.
    fn upstream(&self) -> Arc<str>;

    /// Sends a request to a path, and gives the answer once its head is there. Whoever implements it sets the time
    /// limit. Dropping the future cancels the request.
    fn send(
        &self,
        method: Method,
        path: &str,
        fields: HeaderMap,
        body: Bytes,
    ) -> LocalBoxFuture<'static, Result<Response, BackendError>>;
}
