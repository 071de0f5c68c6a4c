//! A session that lasts one answer: waits until there is something, or until its time is over.

use crate::hub::log::Entry;
use crate::hub::shard::{Delivery, Subscription};
use crate::model::cursor::Cursor;
use crate::model::session::{CloseReason, Transport};
use crate::proto::long_poll::{Answer, MEDIA_TYPE};
use crate::server::Response;
use crate::server::body::Body;
use crate::telemetry::metrics::WorkerMetrics;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use http::{HeaderMap, StatusCode};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// The size at which an answer takes no more messages; the next poll gets the rest at once.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Waits up to `wait_ms` and answers: 200 with events or a gap, else 204; both with the cursor as `ETag`.
///
/// Cancel-safe: nothing is taken from the channels for good; the client's next poll has the old cursor.
pub async fn answer(mut subscription: Subscription, wait_ms: u64, metrics: Rc<WorkerMetrics>) -> Response {
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
                return Poll::Ready(collected.respond(&subscription));
            }
            if subscription.poll_wait(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
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

    fn respond(self, subscription: &Subscription) -> Response {
        let next = match (&self.first, self.next) {
            (Some(entry), _) => own_cursor(entry),
            (None, Some(next)) => next,
            (None, None) => subscription.cursor().encode(),
        };
        let body = match &self.first {
            Some(entry) => Some(entry.long_poll.get_or_init(|| alone(entry)).clone()),
            None if self.more.is_empty() => None,
            None => Some(self.more.to_json(&next).into()),
        };
        let mut response = match body {
            Some(body) => {
                let mut response = Response::new(Body::full(body));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
                response
            }
            None => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
        };
        set_cursor(response.headers_mut(), &next);
        response
    }
}

/// The answer that has this message alone.
fn alone(entry: &Entry) -> Bytes {
    let cursor = own_cursor(entry);
    let mut answer = Answer::default();
    answer.push(&entry.message, &cursor);
    answer.to_json(&cursor).into()
}

/// The place after a message, for sessions of its channel alone.
fn own_cursor(entry: &Entry) -> String {
    Cursor::one(&entry.message.channel, entry.position).encode()
}

fn deliver(metrics: &WorkerMetrics, subscription: &Subscription, entry: &Entry, bytes: usize) {
    let latency_us = subscription.shard().now_us().saturating_sub(entry.published_us);
    metrics.delivered(Transport::LongPoll, bytes, latency_us);
}

/// Gives the cursor as `ETag`.
pub fn set_cursor(fields: &mut HeaderMap, cursor: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{cursor}\"")) {
        fields.insert(ETAG, value);
    }
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
