//! Events from a `text/event-stream` (WHATWG HTML §9.2).

use crate::cli::subscribe::dial::Dialer;
use crate::cli::subscribe::print::{Gap, Reader, Received};
use crate::cli::subscribe::request::{Connection, refused};
use crate::cli::subscribe::{Attempt, Ended};
use crate::proto::event_stream::{Event, EventStream, Item};
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use std::time::Duration;
use tokio::time;

const MEDIA_TYPE: &str = "text/event-stream";
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A server sends at least a comment each 25 s or so; after this much silence the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Reads one stream to its end.
pub async fn attempt(dialer: &Dialer, reader: &mut Reader<'_>) -> Attempt {
    let mut connection = Connection::open(dialer).await?;
    let no_cache = [(header::CACHE_CONTROL, "no-store")];
    let response = connection.get(dialer, MEDIA_TYPE, reader.cursor(), &no_cache, HEAD_TIMEOUT).await?;
    if response.status() == StatusCode::NO_CONTENT {
        return Err(Ended::Done);
    }
    if response.status() != StatusCode::OK {
        return Err(refused(response).await);
    }
    let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(MEDIA_TYPE) {
        let error = format!("the answer is {media_type:?}, not {MEDIA_TYPE}; is this the URL of a push route?");
        return Err(Ended::ForGood(anyhow::anyhow!(error)));
    }
    reader.connected();
    let mut stream = EventStream::new(reader.cursor(), EVENT_BYTES_MAX);
    let mut body = response.into_body();
    loop {
        let frame =
            time::timeout(SILENCE_MAX, body.frame()).await.map_err(|_| Ended::lost("the stream fell silent"))?;
        let frame = frame.ok_or_else(|| Ended::lost("the stream ended"))?.map_err(Ended::lost)?;
        let Ok(bytes) = frame.into_data() else { continue };
        let mut items = Vec::new();
        stream.feed(&bytes, |item| items.push(item)).map_err(|error| Ended::ForGood(error.into()))?;
        for item in items {
            match item {
                Item::Retry(retry_ms) => reader.set_retry_ms(retry_ms),
                Item::Event(event) => take(event, reader)?,
            }
        }
        reader.set_cursor(stream.last_event_id());
    }
}

fn take(event: Event, reader: &mut Reader<'_>) -> Result<(), Ended> {
    if event.name == "gap" {
        reader.set_cursor(&event.id);
        reader.gap(&serde_json::from_str::<Gap>(&event.data).unwrap_or_default());
        return Ok(());
    }
    let name = (!event.name.is_empty()).then_some(event.name);
    reader.event(&Received { id: event.id, event: name, data: event.data })
}
