//! A session that lasts one answer: waits until there is something, or until its time is over.

use crate::hub::shard::{Delivery, Subscription};
use crate::model::session::{CloseReason, Transport};
use crate::proto::long_poll::{Answer, MEDIA_TYPE};
use crate::server::Response;
use crate::server::body::Body;
use crate::telemetry::metrics::WorkerMetrics;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use http::{HeaderMap, StatusCode};
use std::future::poll_fn;
use std::rc::Rc;
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
    let (answer, next) = poll_fn(|cx| {
        loop {
            let (answer, next, end) = collect(&mut subscription, &open.metrics);
            if !answer.is_empty() || end.is_some() || subscription.shard().now_ms() >= until_ms {
                open.reason = end.unwrap_or(CloseReason::Done);
                return Poll::Ready((answer, next));
            }
            if subscription.poll_wait(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
    respond(&answer, &next)
}

/// What there is now, the cursor after it, and the reason if the session is to end.
fn collect(subscription: &mut Subscription, metrics: &WorkerMetrics) -> (Answer, String, Option<CloseReason>) {
    let mut answer = Answer::default();
    let mut next = subscription.cursor().encode();
    while answer.len() < ANSWER_BYTES_MAX {
        match subscription.next() {
            None => break,
            // A GRIP item without a form for long polls.
            Some(Delivery::Message(entry)) if entry.message.data_for(Transport::LongPoll).is_none() => {
                if answer.is_empty() {
                    next = subscription.cursor().encode();
                }
            }
            Some(Delivery::Message(entry)) => {
                next = subscription.cursor().encode();
                let before = answer.len();
                answer.push(&entry.message, &next);
                let latency_us = subscription.shard().now_us().saturating_sub(entry.published_us);
                metrics.delivered(Transport::LongPoll, answer.len() - before, latency_us);
            }
            Some(Delivery::Gap(gap)) => {
                let reason = gap.reason;
                // A gap behind events waits for the next poll: `next` is still before it.
                if !answer.push_gap(gap) {
                    break;
                }
                metrics.gap(reason);
                next = subscription.cursor().encode();
            }
            Some(Delivery::Conflated(messages)) => metrics.conflated(messages),
            Some(Delivery::End(reason)) => return (answer, next, Some(reason)),
        }
    }
    (answer, next, None)
}

fn respond(answer: &Answer, next: &str) -> Response {
    let mut response = if answer.is_empty() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        let mut response = Response::new(Body::full(answer.to_json(next)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    };
    set_cursor(response.headers_mut(), next);
    response
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
