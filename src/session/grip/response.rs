//! A held response: waits until something is published, which is the response, or until its time is over.

use crate::hub::HubError;
use crate::hub::shard::{Delivery, Subscription};
use crate::model::message::Message;
use crate::model::session::{CloseReason, Transport};
use crate::proto::grip::holding::{Holding, ResponsePart};
use crate::proto::grip::instruct::Inner;
use crate::proto::grip::recovery::Verdict;
use crate::proto::grip::release::{Held, release, release_native};
use crate::session::grip::{Joined, join};
use crate::telemetry::metrics::WorkerMetrics;
use http::{HeaderName, HeaderValue};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// What a held response starts with.
pub struct Start {
    /// A place in no channel yet, with its label.
    pub subscription: Subscription,
    /// Its channels and words.
    pub holding: Holding,
    /// What it is when its time is over.
    pub held: Held,
    /// The held fields that stay on what is published; `None`: all.
    pub expose: Option<Vec<HeaderName>>,
    /// How long it waits, in milliseconds.
    pub wait_ms: u64,
    /// How long it waits at least before its backend is asked again, in milliseconds.
    pub pause_ms: u64,
    /// Whether its backend can be asked again at all.
    pub again: Again,
    /// The worker's metrics.
    pub metrics: Rc<WorkerMetrics>,
}

/// Whether a request can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It had no body, or its body is at hand.
    Possible,
    /// Its body is gone.
    Impossible,
}

/// How a held response ends.
#[derive(Debug)]
pub enum Outcome {
    /// The client gets this.
    Answer(Inner),
    /// The backend is to be asked again, and to be told what was seen (`Grip-Last`).
    Ask(Vec<HeaderValue>),
}

/// A held response that has joined its channels: from then on nothing is missed.
pub struct Waiting {
    start: Start,
    until_ms: u64,
    /// From when the backend is asked again, if it is to be.
    ask_from_ms: Option<u64>,
    not_before_ms: u64,
    recoveries: u32,
    open: Open,
}

/// Ready at its end. Dropped before, the client's next request begins anew.
impl Future for Waiting {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.get_mut().poll_end(cx)
    }
}

impl Waiting {
    /// Joins the channels.
    ///
    /// # Errors
    /// When the hub takes no more.
    pub fn join(mut start: Start) -> Result<Self, HubError> {
        let now_ms = start.subscription.shard().now_ms();
        let joined = join(&mut start.subscription, &start.holding)?;
        start.metrics.session_opened(Transport::LongPoll);
        let mut waiting = Self {
            until_ms: now_ms.saturating_add(start.wait_ms),
            ask_from_ms: None,
            not_before_ms: now_ms.saturating_add(start.pause_ms),
            recoveries: start.subscription.shard().recoveries(),
            open: Open { reason: CloseReason::ClientGone, metrics: Rc::clone(&start.metrics) },
            start,
        };
        if joined == Joined::Behind {
            waiting.ask();
        }
        Ok(waiting)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let recoveries = self.start.subscription.shard().recoveries();
            if self.recoveries != recoveries && self.start.holding.is_reliable() {
                self.ask();
            }
            self.recoveries = recoveries;
            if self.ask_from_ms.is_none()
                && let Some((answer, reason)) = self.read()
            {
                self.open.reason = reason;
                return Poll::Ready(Outcome::Answer(answer));
            }
            let now_ms = self.start.subscription.shard().now_ms();
            let end = self.start.subscription.is_asked_to_end().filter(|_| self.ask_from_ms.is_some());
            if end.is_some() || now_ms >= self.until_ms {
                self.open.reason = end.unwrap_or(CloseReason::Done);
                return Poll::Ready(Outcome::Answer(self.start.held.response()));
            }
            let waits_until_ms = match self.ask_from_ms {
                Some(ask_from_ms) if ask_from_ms <= now_ms => {
                    self.open.reason = CloseReason::Done;
                    return Poll::Ready(Outcome::Ask(self.start.holding.last()));
                }
                Some(ask_from_ms) => ask_from_ms.min(self.until_ms),
                None => self.until_ms,
            };
            self.start.subscription.set_deadline(waits_until_ms);
            if self.ask_from_ms.is_some() {
                self.start.subscription.stall(cx);
                return Poll::Pending;
            }
            if self.start.subscription.poll_wait(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Has the backend asked again, as soon as that may be. Where it can't be, the time is over.
    fn ask(&mut self) {
        match self.start.again {
            Again::Possible => self.ask_from_ms = Some(self.not_before_ms),
            Again::Impossible => self.until_ms = 0,
        }
    }

    /// Takes in what is published, until there is an answer or the backend is to be asked.
    fn read(&mut self) -> Option<(Inner, CloseReason)> {
        while self.ask_from_ms.is_none() {
            match self.start.subscription.next()? {
                Delivery::Message(entry) => {
                    if let Some(answer) = self.take_in(&entry.message) {
                        let latency_us = self.start.subscription.shard().now_us().saturating_sub(entry.published_us);
                        self.start.metrics.delivered(Transport::LongPoll, answer.body.len(), latency_us);
                        return Some((answer, CloseReason::Done));
                    }
                }
                Delivery::Gap(gap) => {
                    self.start.metrics.gap(gap.reason);
                    if gap.channels.iter().any(|channel| self.start.holding.seen(channel).is_some()) {
                        self.ask();
                    } else {
                        // The client asks again, and its backend knows what there is.
                        return Some((self.start.held.response(), CloseReason::Gap));
                    }
                }
                Delivery::Conflated(messages) => self.start.metrics.conflated(messages),
                Delivery::End(reason) => return Some((self.start.held.response(), reason)),
            }
        }
        None
    }

    fn take_in(&mut self, message: &Message) -> Option<Inner> {
        match self.start.holding.take_in(message) {
            Verdict::Known => return None,
            Verdict::Missing => {
                self.ask();
                return None;
            }
            Verdict::Next => {}
        }
        let Start { holding, held, expose, metrics, .. } = &self.start;
        match holding.response(message) {
            Ok(ResponsePart::Native(data)) => Some(release_native(held, expose.as_deref(), data)),
            Ok(ResponsePart::Release(parts, body)) => match release(held, expose.as_deref(), parts, body.as_deref()) {
                Ok(answer) => Some(answer),
                Err(error) => {
                    tracing::debug!(%error, channel = %message.channel, "a body-patch does not fit; its backend is asked");
                    self.ask();
                    None
                }
            },
            Ok(ResponsePart::Hint) => {
                self.ask();
                None
            }
            Err(dropped) => {
                metrics.grip_dropped(dropped);
                None
            }
        }
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
