//! Reading a request's body within a size and without endless waits.

use crate::publish::respond::PublishError;
use crate::server::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as HttpBody;
use std::pin::Pin;
use std::time::Duration;

/// How long a reader waits for the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// For more of a body or line that has begun, and for the client to take an answer.
    pub(super) progress: Duration,
    /// For the next NDJSON line.
    pub(super) line: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { progress: Duration::from_secs(30), line: Duration::from_secs(300) }
    }
}

/// The next data of a body; `None` at its end.
pub(super) async fn next(body: &mut Body, wait: Duration) -> Result<Option<Bytes>, PublishError> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let frame = tokio::time::timeout(wait, frame).await.map_err(|_| PublishError::BodyStalled(wait))?;
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            None => return Ok(None),
            Some(Ok(Ok(data))) => return Ok(Some(data)),
            // Trailers say nothing here.
            Some(Ok(Err(_))) => {}
            Some(Err(error)) => return Err(PublishError::BodyBroken(error.to_string())),
        }
    }
}

/// Reads a body whole. One that announces too much is refused before it is read.
pub(super) async fn whole(mut body: Body, bytes_max: usize, waits: Waits) -> Result<Bytes, PublishError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(PublishError::BodyTooLarge(bytes_max));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(data) = next(&mut body, waits.progress).await? {
        let read = first.len().max(all.len());
        if data.len() > bytes_max.saturating_sub(read) {
            return Err(PublishError::BodyTooLarge(bytes_max));
        }
        if read == 0 {
            // Most bodies are one piece: nothing is copied then.
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
