//! A session that lasts one answer: waits until there is something, or until its time is over.

use crate::hub::log::{Entry, Polled};
use crate::hub::shard::{Delivery, Subscription};
use crate::model::cursor::Cursor;
use crate::model::session::{CloseReason, Transport};
use crate::proto::long_poll::{Answer, MEDIA_TYPE};
use crate::server::Response;
use crate::server::body::Body;
use crate::server::date::push_http_date;
use crate::telemetry::metrics::WorkerMetrics;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// The size at which an answer takes no more messages; the next poll gets the rest at once.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The starts of both answers, up to the entity tag's value.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: ";
const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\netag: ";
/// Room for `Content-Length`, `Date` and what separates fields.
const FRAME_BYTES_MAX: usize = 96;

/// What a poll is answered with.
#[derive(Debug, Clone)]
pub enum Answered {
    /// 200: events or a gap.
    Events(Polled),
    /// 204: nothing came. The cursor as an entity tag.
    Nothing(HeaderValue),
}

/// Waits up to `wait_ms` for something to answer.
///
/// Cancel-safe: nothing is taken from the channels for good; the client's next poll has the old cursor.
pub async fn wait(mut subscription: Subscription, wait_ms: u64, metrics: Rc<WorkerMetrics>) -> Answered {
    let until_ms = subscription.shard().now_ms() + wait_ms;
    subscription.set_deadline(until_ms);
    let mut open = Open { reason: CloseReason::ClientGone, metrics };
    open.metrics.session_opened(Transport::LongPoll);
    poll_fn(|cx| {
        loop {
            let mut collected = Collected::default();
            let end = collected.collect(&mut subscription, &open.metrics);
            if !collected.is_empty() || end.is_some() || subscription.shard().now_ms() >= until_ms {
                open.reason = end.unwrap_or(CloseReason::Done);
                return Poll::Ready(collected.answer(&subscription));
            }
            if subscription.poll_wait(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

impl Answered {
    /// As a response: 200 or 204, with the cursor as `ETag`.
    pub fn into_response(self) -> Response {
        let (etag, mut response) = match self {
            Self::Events(Polled { etag, body }) => {
                let mut response = Response::new(Body::full(body));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
                (etag, response)
            }
            Self::Nothing(etag) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                (etag, response)
            }
        };
        response.headers_mut().insert(ETAG, etag);
        response
    }

    /// The same as the bytes of HTTP/1.1; `fields` are the bytes of more fields.
    pub fn encode(&self, fields: &[&[u8]]) -> Bytes {
        let (etag, body, start) = match self {
            Self::Events(Polled { etag, body }) => (etag, &body[..], OK),
            Self::Nothing(etag) => (etag, &b""[..], NO_CONTENT),
        };
        let fields_len: usize = fields.iter().map(|part| part.len()).sum();
        let mut out = Vec::with_capacity(start.len() + etag.len() + fields_len + body.len() + FRAME_BYTES_MAX);
        out.extend_from_slice(start);
        out.extend_from_slice(etag.as_bytes());
        out.extend_from_slice(b"\r\n");
        fields.iter().for_each(|part| out.extend_from_slice(part));
        if let Self::Events(_) = self {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"date: ");
        push_http_date(&mut out);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
        out.into()
    }

    /// The response's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Events(_) => StatusCode::OK,
            Self::Nothing(_) => StatusCode::NO_CONTENT,
        }
    }
}

/// What there is now. The usual answer is one message, which all sessions of its channel share.
#[derive(Default)]
struct Collected {
    first: Option<Arc<Entry>>,
    more: Answer,
    /// The cursor after `more`. It is not always the session's place: a gap behind events waits for the next poll.
    next: Option<String>,
}

impl Collected {
    fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }

    /// Takes what there is; the reason if the session is to end.
    fn collect(&mut self, subscription: &mut Subscription, metrics: &WorkerMetrics) -> Option<CloseReason> {
        let one_channel = subscription.len() == 1;
        while self.more.len() < ANSWER_BYTES_MAX {
            let before = self.more.len();
            match subscription.next()? {
                // A GRIP item without a form for long polls.
                Delivery::Message(entry) if entry.message.data_for(Transport::LongPoll).is_none() => {
                    if self.first.is_none() && self.more.is_empty() {
                        self.next = None;
                    }
                }
                Delivery::Message(entry) if one_channel && self.is_empty() => {
                    deliver(metrics, subscription, &entry, entry.message.size_bytes());
                    self.first = Some(entry);
                }
                Delivery::Message(entry) => {
                    self.unshare();
                    let cursor = subscription.cursor().encode();
                    self.more.push(&entry.message, &cursor);
                    self.next = Some(cursor);
                    deliver(metrics, subscription, &entry, self.more.len() - before);
                }
                Delivery::Gap(gap) => {
                    let reason = gap.reason;
                    if self.first.is_some() || !self.more.push_gap(gap) {
                        return None;
                    }
                    self.next = Some(subscription.cursor().encode());
                    metrics.gap(reason);
                }
                Delivery::Conflated(messages) => metrics.conflated(messages),
                Delivery::End(reason) => return Some(reason),
            }
        }
        None
    }

    /// The first message becomes one of several.
    fn unshare(&mut self) {
        if let Some(first) = self.first.take() {
            self.more.push(&first.message, &own_cursor(&first));
        }
    }

    fn answer(self, subscription: &Subscription) -> Answered {
        match (self.first, self.next) {
            (Some(entry), _) => {
                Answered::Events(Polled::clone(entry.long_poll.get_or_init(|| Box::new(alone(&entry)))))
            }
            (None, Some(next)) if !self.more.is_empty() => {
                Answered::Events(Polled { etag: etag(&next), body: self.more.to_json(&next).into() })
            }
            (None, next) => Answered::Nothing(etag(&next.unwrap_or_else(|| subscription.cursor().encode()))),
        }
    }
}

/// The answer that has this message alone.
fn alone(entry: &Entry) -> Polled {
    let cursor = own_cursor(entry);
    let mut answer = Answer::default();
    answer.push(&entry.message, &cursor);
    Polled { etag: etag(&cursor), body: answer.to_json(&cursor).into() }
}

/// The place after a message, for sessions of its channel alone.
fn own_cursor(entry: &Entry) -> String {
    Cursor::one(&entry.message.channel, entry.position).encode()
}

fn deliver(metrics: &WorkerMetrics, subscription: &Subscription, entry: &Entry, bytes: usize) {
    let latency_us = subscription.shard().now_us().saturating_sub(entry.published_us);
    metrics.delivered(Transport::LongPoll, bytes, latency_us);
}

/// The cursor as an entity tag (RFC 9110 §8.8.3).
fn etag(cursor: &str) -> HeaderValue {
    // A cursor is URL-safe base64.
    HeaderValue::from_str(&format!("\"{cursor}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Counts the session's end, also when the client goes first.
struct Open {
    reason: CloseReason,
    metrics: Rc<WorkerMetrics>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.session_closed(Transport::LongPoll, self.reason);
    }
}
