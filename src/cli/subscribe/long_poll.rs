//! Events by one request after the other, each from where the last one ended.

use crate::cli::subscribe::dial::Dialer;
use crate::cli::subscribe::print::{Reader, Received};
use crate::cli::subscribe::request::{Connection, refused};
use crate::cli::subscribe::wire::PollAnswer;
use crate::cli::subscribe::{Attempt, Ended};
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use std::time::Duration;
use tokio::time;

const MEDIA_TYPE: &str = "application/json";
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// RFC 7240 §4.3; a time that common proxies bear.
const PREFER: (HeaderName, &str) = (HeaderName::from_static("prefer"), "wait=25");
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Polls until a request fails.
pub async fn attempt(dialer: &Dialer, reader: &mut Reader<'_>) -> Attempt {
    let mut connection = Connection::open(dialer).await?;
    let mut greeted = false;
    loop {
        if connection.is_closed() {
            connection = Connection::open(dialer).await?;
        }
        let response = connection.get(dialer, MEDIA_TYPE, reader.cursor(), &[PREFER], HEAD_TIMEOUT).await?;
        let status = response.status();
        if status != StatusCode::OK && status != StatusCode::NO_CONTENT {
            return Err(refused(response).await);
        }
        if !greeted {
            reader.connected();
            greeted = true;
        }
        if status == StatusCode::NO_CONTENT {
            if let Some(cursor) = entity_tag(response.headers()) {
                reader.set_cursor(cursor);
            }
            continue;
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = time::timeout(BODY_TIMEOUT, body).await.map_err(|_| Ended::lost("the answer came too slowly"))?;
        let body = body.map_err(Ended::lost)?.to_bytes();
        let answer: PollAnswer = serde_json::from_slice(&body).map_err(|error| {
            Ended::ForGood(anyhow::anyhow!("the answer is no long poll's ({error}); is this the URL of a push route?"))
        })?;
        if let Some(gap) = &answer.gap {
            reader.gap(gap);
        }
        for event in answer.events {
            reader.event(&Received::from(event))?;
        }
        reader.set_cursor(&answer.next);
    }
}

/// The cursor in an `ETag` (RFC 9110 §8.8.3), without quotes.
fn entity_tag(fields: &HeaderMap) -> Option<&str> {
    let text = fields.get(header::ETAG)?.to_str().ok()?;
    let text = text.strip_prefix("W/").unwrap_or(text);
    text.strip_prefix('"')?.strip_suffix('"')
}
