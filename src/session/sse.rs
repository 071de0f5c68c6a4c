//! A session as an event stream: what is new in its channels, until the client, the hub or a stall ends it.

use crate::hub::log::Entry;
use crate::hub::shard::{Delivery, Subscription};
use crate::model::cursor::Cursor;
use crate::model::session::{CloseReason, Transport};
use crate::proto::chunk::Chunk;
use crate::proto::sse;
use crate::server::fan_out::Form;
use crate::server::{Held, Link};
use crate::telemetry::metrics::WorkerMetrics;
use futures_util::future::LocalBoxFuture;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::{Context, Poll};

/// How long an `EventSource` waits before it reconnects, unless told otherwise.
pub const RETRY_MS: u64 = 2000;
/// How long an `EventSource` waits that was sent away: by chance, one of these.
pub const MOVED_RETRY_MS: Range<u64> = 250..5000;
/// How long a client may take nothing before the session is closed.
pub const STALL_MS_MAX: u64 = 60_000;
/// How long the clean end may take.
const FINISH_MS_MAX: u64 = 5_000;
/// Messages that one session sends before the others of its worker have their turn.
const TURN_MESSAGES_MAX: usize = 256;

/// What goes to a client over chunked HTTP/1.1 while the session rests.
static FORM: Form = Form {
    transport: Transport::Sse,
    frame: |entry| {
        let chunk = entry.message.data_for(Transport::Sse).map(|_| chunk_of(entry))?;
        Some((chunk.framed(), chunk.content_len()))
    },
};

static KEEP_ALIVE: LazyLock<Chunk> = LazyLock::new(|| Chunk::framed_from(sse::KEEP_ALIVE));

/// A session that starts with the stream's head.
pub struct Sse {
    /// What it reads.
    pub subscription: Subscription,
    /// A comment is sent after this much silence.
    pub keep_alive_ms: u64,
    /// The worker's metrics.
    pub metrics: Rc<WorkerMetrics>,
}

impl Held for Sse {
    fn run(self: Box<Self>, mut link: Link) -> LocalBoxFuture<'static, ()> {
        let Self { subscription, keep_alive_ms, metrics } = *self;
        let opening = sse::opening(RETRY_MS, &subscription.cursor().encode());
        link.push(&opening);
        metrics.session_opened(Transport::Sse);
        let now_ms = subscription.shard().now_ms();
        Box::pin(Session {
            one_channel: subscription.len() == 1,
            link,
            subscription,
            keep_alive_ms,
            last_sent_ms: now_ms,
            state: State::Open,
            metrics,
        })
    }
}

/// A message's frame for sessions of its channel alone.
fn chunk_of(entry: &Entry) -> &Chunk {
    let id = || Cursor::one(&entry.message.channel, entry.position).encode();
    entry.sse.get_or_init(|| sse::frame(&entry.message, &id()))
}

/// The running session.
struct Session {
    /// Stands before the link, so that it is dropped first: who sees the connection end is no longer counted.
    subscription: Subscription,
    link: Link,
    keep_alive_ms: u64,
    /// When something last went out, or began to wait to.
    last_sent_ms: u64,
    one_channel: bool,
    state: State,
    metrics: Rc<WorkerMetrics>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ending(CloseReason),
    Closed,
}

impl Future for Session {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.last_sent_ms = this.last_sent_ms.max(this.subscription.rise());
        this.link.take_back();
        if this.subscription.is_cut() {
            let reason = if let State::Ending(reason) = this.state { reason } else { CloseReason::Drain };
            this.close(reason);
            return Poll::Ready(());
        }
        let polled = match this.state {
            State::Open => this.poll_open(cx),
            State::Ending(reason) => this.poll_ending(reason, cx),
            State::Closed => Poll::Ready(CloseReason::Done),
        };
        polled.map(|reason| this.close(reason))
    }
}

impl Session {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut sent = 0;
        loop {
            if let Some(reason) = self.queue(&mut sent) {
                self.state = State::Ending(reason);
                return self.poll_ending(reason, cx);
            }
            match self.link.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::ClientGone),
                Poll::Pending => return self.poll_stalled(cx),
            }
            if sent >= TURN_MESSAGES_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // A session that has just sent something hears of a lost client later: it is still registered for that.
            if sent == 0 && self.link.poll_gone(cx).is_ready() {
                return Poll::Ready(CloseReason::ClientGone);
            }
            self.keep_alive();
            if self.link.is_flushed() && self.subscription.poll_wait(cx).is_pending() {
                return self.rest(sent == 0, cx);
            }
        }
    }

    /// Leaves what comes to the worker's pump, where that can write it to the client.
    fn rest(&mut self, listens: bool, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if !self.one_channel || !self.link.is_chunked() || !self.link.can_lend() {
            return Poll::Pending;
        }
        // Who rests is not polled at the next message: it has to be woken when the client goes.
        if !listens && self.link.poll_gone(cx).is_ready() {
            return Poll::Ready(CloseReason::ClientGone);
        }
        let link = &mut self.link;
        self.subscription.rest(Some(self.keep_alive_ms), |key| link.lend(key, &FORM));
        Poll::Pending
    }

    /// Queues what there is, as far as the link has room; the reason when the session is to end.
    fn queue(&mut self, sent: &mut usize) -> Option<CloseReason> {
        while self.link.has_room() && *sent < TURN_MESSAGES_MAX {
            match self.subscription.next()? {
                // A GRIP item without a form for event streams.
                Delivery::Message(entry) if entry.message.data_for(Transport::Sse).is_none() => continue,
                Delivery::Message(entry) => {
                    self.push(&entry);
                    *sent += 1;
                }
                Delivery::Gap(gap) => {
                    self.metrics.gap(gap.reason);
                    self.link.push(&sse::gap(&gap, &self.subscription.cursor().encode()));
                }
                Delivery::Conflated(messages) => self.metrics.conflated(messages),
                Delivery::End(reason) => {
                    if reason.is_moved() {
                        let retry_ms = self.subscription.chance(MOVED_RETRY_MS);
                        self.link.push(&sse::retry(retry_ms));
                    }
                    self.last_sent_ms = self.subscription.shard().now_ms();
                    return Some(reason);
                }
            }
            self.last_sent_ms = self.subscription.shard().now_ms();
        }
        None
    }

    fn push(&mut self, entry: &Entry) {
        let bytes = if self.one_channel {
            let chunk = chunk_of(entry);
            self.link.push(chunk);
            chunk.content_len()
        } else {
            let chunk = sse::frame(&entry.message, &self.subscription.cursor().encode());
            self.link.push(&chunk);
            chunk.content_len()
        };
        let latency_us = self.subscription.shard().now_us().saturating_sub(entry.published_us);
        self.metrics.delivered(Transport::Sse, bytes, latency_us);
    }

    /// Sends a comment if it is time, and files the time for the next.
    fn keep_alive(&mut self) {
        let now_ms = self.subscription.shard().now_ms();
        if now_ms.saturating_sub(self.last_sent_ms) >= self.keep_alive_ms {
            self.link.push(&KEEP_ALIVE);
            self.last_sent_ms = now_ms;
        }
        self.subscription.set_deadline(self.last_sent_ms + self.keep_alive_ms);
    }

    /// The client takes nothing: wait for it, but not for ever.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let now_ms = self.subscription.shard().now_ms();
        if self.subscription.is_too_slow() {
            return Poll::Ready(CloseReason::Slow);
        }
        if now_ms.saturating_sub(self.last_sent_ms) >= STALL_MS_MAX {
            return Poll::Ready(CloseReason::Idle);
        }
        self.subscription.set_deadline(now_ms + 1000);
        self.subscription.stall(cx);
        Poll::Pending
    }

    fn poll_ending(&mut self, reason: CloseReason, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if self.link.poll_finish(cx).is_ready() {
            return Poll::Ready(reason);
        }
        let now_ms = self.subscription.shard().now_ms();
        // Who was too slow for the channel is not waited for.
        if reason == CloseReason::Slow || now_ms.saturating_sub(self.last_sent_ms) >= FINISH_MS_MAX {
            return Poll::Ready(reason);
        }
        self.subscription.set_deadline(self.last_sent_ms + FINISH_MS_MAX);
        self.subscription.stall(cx);
        Poll::Pending
    }

    fn close(&mut self, reason: CloseReason) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.metrics.session_closed(Transport::Sse, reason);
        }
    }
}

impl Drop for Session {
    /// The connection broke under the session.
    fn drop(&mut self) {
        self.close(CloseReason::ClientGone);
    }
}
