//! The one future of a session: moves bytes between link and machine, messages from the feed, publishes to the bus.
//!
//! Hand-written, so that an idle session is this struct and nothing else: no read buffer (a worker has one, lent for the
//! time of a read), no timer while the feed's deadline serves. Each poll does a bounded part of the work and then wakes
//! itself, so that a busy client does not hold up the worker.

mod keeping;

use crate::bus::{Attached, Bus, BusError, Published};
use crate::hub::shard::Delivery;
use crate::model::channel::ChannelName;
use crate::model::session::{CloseReason, Transport};
use crate::proto::v1::Reference;
use crate::proto::websocket::Input;
use crate::session::keep::Keeper;
use crate::session::websocket::machine::{Machine, Publish, Turn};
use crate::session::websocket::seam::{Feed, Wire};
use crate::session::websocket::socket::{Ending, Phase};
use crate::telemetry::metrics::{PublishResult, WorkerMetrics};
use futures_util::future::{BoxFuture, LocalBoxFuture};
use keeping::Keeping;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

const SCRATCH_BYTES: usize = 16 * 1024;
const READS_PER_POLL_MAX: usize = 4;
const DELIVERIES_PER_POLL_MAX: usize = 64;
/// How long the bus may take for one message.
const PUBLISH_MS_MAX: u64 = 10_000;
/// How long leaving may take: what the client still has to take, and its last publishes.
const LEAVE_MS: u64 = 5_000;
/// How often a session whose client takes nothing looks whether it has fallen too far behind.
const LOOK_BEHIND_MS: u64 = 1_000;
/// The hub's clock is coarse: a timer of ours is never set for less.
const TIMER_MS_MIN: u64 = 50;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// A running session.
pub(super) struct Driver<W: Wire, F: Feed> {
    /// Stands before the link, so that it is dropped first: who sees the connection end is no longer counted.
    feed: F,
    link: W,
    machine: Machine,
    bus: Arc<dyn Bus>,
    keeping: Option<Box<Keeping>>,
    metrics: Rc<WorkerMetrics>,
    /// What was read, but can't be worked on yet; a scratch buffer's worth at most.
    unread: Vec<u8>,
    publishing: Option<Box<Publishing>>,
    /// Channels that the bus begins to follow for this session.
    joining: Option<Box<Joining>>,
    /// There only while the link is full or the session ends.
    timer: Option<Box<Timer>>,
    /// Whether the link had no room when it was last looked at.
    crowded: bool,
    leaving: Leaving,
}

/// What a session needs beside its client and its channels.
pub(super) struct Around {
    /// Where its client's messages go.
    pub(super) bus: Arc<dyn Bus>,
    /// Keeps it, if it can be kept.
    pub(super) keeper: Option<Keeper>,
    /// The worker's.
    pub(super) metrics: Rc<WorkerMetrics>,
}

/// A message on its way to the bus.
struct Publishing {
    reference: Option<Reference>,
    bytes: usize,
    result: BoxFuture<'static, Result<Published, BusError>>,
    timeout: LocalBoxFuture<'static, ()>,
}

/// Channels that the bus begins to follow.
struct Joining {
    attached: BoxFuture<'static, Result<Attached, BusError>>,
}

/// Wakes the session at a time.
struct Timer {
    at_ms: u64,
    sleep: LocalBoxFuture<'static, ()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    Finishing { until_ms: u64 },
    Lingering { until_ms: u64 },
    Left { until_ms: u64 },
}

/// How a part of a poll ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// Nothing more is there; whoever brings more wakes the task.
    Empty,
    /// The link has no room, or publishes wait.
    Blocked,
    /// The session is being kept, and will end then.
    Ending,
    /// Its share of this poll is used up.
    Share,
}

impl<W: Wire, F: Feed> Driver<W, F> {
    /// A session at its start.
    pub(super) fn start(
        mut link: W,
        mut feed: F,
        mut machine: Machine,
        around: Around,
        session: &str,
        own: &[ChannelName],
    ) -> Self {
        let Around { bus, keeper, metrics } = around;
        metrics.session_opened(Transport::WebSocket);
        let now_ms = feed.now_ms();
        machine.start(session, own, &mut Turn { now_ms, place: &mut feed, out: &mut link });
        Self {
            link,
            feed,
            machine,
            bus,
            keeping: keeper.map(|keeper| Box::new(Keeping::new(keeper))),
            metrics,
            unread: Vec::new(),
            publishing: None,
            joining: None,
            timer: None,
            crowded: false,
            leaving: Leaving::No,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) {
        let now_ms = self.feed.now_ms();
        self.flush(now_ms, cx);
        self.publish(now_ms, cx);
        let read = self.read(now_ms, cx);
        self.publish(now_ms, cx);
        self.join(now_ms, cx);
        self.machine.on_tick(&mut Turn { now_ms, place: &mut self.feed, out: &mut self.link });
        let delivered = self.deliver(now_ms, cx);
        self.keep(now_ms, cx);
        self.flush(now_ms, cx);
        if self.machine.finished().is_none() {
            self.wait(read, delivered, now_ms, cx);
        }
    }

    fn flush(&mut self, now_ms: u64, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(_)) = self.link.poll_flush(cx) {
            self.machine.on_end();
        }
        let crowded = !self.link.has_room();
        if self.crowded && !crowded {
            self.machine.on_progress(now_ms);
        }
        self.crowded = crowded;
    }

    fn read(&mut self, now_ms: u64, cx: &mut Context<'_>) -> Pause {
        for _ in 0..READS_PER_POLL_MAX {
            if !self.machine.takes_input(&self.link) {
                return Pause::Blocked;
            }
            if !self.unread.is_empty() {
                let mut unread = std::mem::take(&mut self.unread);
                self.unread = self.work_on(&mut unread, now_ms);
                continue;
            }
            let read = SCRATCH.with_borrow_mut(|scratch| match self.link.poll_read(cx, scratch) {
                Poll::Ready(Ok(len)) if len > 0 => {
                    self.unread = self.work_on(&mut scratch[..len], now_ms);
                    Poll::Ready(true)
                }
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            });
            match read {
                Poll::Ready(true) => {}
                Poll::Ready(false) => self.machine.on_end(),
                Poll::Pending => return Pause::Empty,
            }
        }
        Pause::Share
    }

    /// Gives bytes to the machine; what it does not take yet.
    fn work_on(&mut self, bytes: &mut [u8], now_ms: u64) -> Vec<u8> {
        let mut input = Input::new(bytes);
        self.machine.on_bytes(&mut input, &mut Turn { now_ms, place: &mut self.feed, out: &mut self.link });
        input.rest().to_vec()
    }

    fn deliver(&mut self, now_ms: u64, cx: &mut Context<'_>) -> Pause {
        for _ in 0..DELIVERIES_PER_POLL_MAX {
            if self.machine.phase() != Phase::Open {
                return Pause::Empty;
            }
            if let Some(keeping) = self.keeping.as_mut().filter(|keeping| keeping.ending.is_some()) {
                if keeping.keeper.poll_put(cx).is_pending() {
                    return Pause::Ending;
                }
                if let Some(ending) = keeping.ending.take() {
                    self.pass_on(ending, now_ms);
                }
                continue;
            }
            let has_room = self.link.has_room();
            // The client would hear of it from the feed only once it reads again, if ever.
            let delivery = match has_room {
                true => self.feed.next(),
                false => self.feed.is_too_slow().then_some(Delivery::End(CloseReason::Slow)),
            };
            match delivery {
                Some(delivery) => {
                    let first = match self.machine.ends_with(&delivery) {
                        true => self.keep_last(now_ms, keeping::reason_of(&delivery)),
                        false => None,
                    };
                    match first {
                        Some(keeping) => keeping.ending = Some(delivery),
                        None => self.pass_on(delivery, now_ms),
                    }
                }
                None => return if has_room { Pause::Empty } else { Pause::Blocked },
            }
        }
        Pause::Share
    }

    fn pass_on(&mut self, delivery: Delivery, now_ms: u64) {
        let published_us = match &delivery {
            // A GRIP item without a form for WebSockets.
            Delivery::Message(entry) if entry.message.data_for(Transport::WebSocket).is_none() => return,
            Delivery::Message(entry) => Some(entry.published_us),
            Delivery::Gap(gap) => {
                self.metrics.gap(gap.reason);
                None
            }
            Delivery::Conflated(messages) => return self.metrics.conflated(*messages),
            Delivery::End(_) => None,
        };
        let turn = &mut Turn { now_ms, place: &mut self.feed, out: &mut self.link };
        let bytes = self.machine.on_delivery(delivery, turn);
        if let Some(published_us) = published_us {
            let latency_us = self.feed.now_us().saturating_sub(published_us);
            self.metrics.delivered(Transport::WebSocket, bytes, latency_us);
        }
    }

    /// Brings the client's messages to the bus, one after the other, so that they keep their order.
    fn publish(&mut self, now_ms: u64, cx: &mut Context<'_>) {
        loop {
            let Some(publishing) = &mut self.publishing else {
                let Some(publish) = self.machine.take_publish() else { return };
                let timeout = self.feed.sleep_ms(PUBLISH_MS_MAX);
                self.publishing = Some(Box::new(Publishing::start(Arc::clone(&self.bus), publish, timeout)));
                continue;
            };
            let Poll::Ready(result) = publishing.poll(cx) else { return };
            self.metrics.published(outcome(&result), publishing.bytes);
            let reference = publishing.reference.take();
            self.publishing = None;
            let turn = &mut Turn { now_ms, place: &mut self.feed, out: &mut self.link };
            self.machine.on_published(reference, result, turn);
        }
    }

    /// Lets the bus follow what the client wants to join, and joins it.
    fn join(&mut self, now_ms: u64, cx: &mut Context<'_>) {
        if self.joining.is_none() {
            let Some(channels) = self.machine.wants_to_join() else { return };
            let (bus, channels) = (Arc::clone(&self.bus), channels.to_vec());
            let attached = Box::pin(async move { bus.attach(&channels, None).await });
            self.joining = Some(Box::new(Joining { attached }));
        }
        let Some(Poll::Ready(attached)) = self.joining.as_mut().map(|joining| joining.attached.as_mut().poll(cx))
        else {
            return;
        };
        self.joining = None;
        let turn = &mut Turn { now_ms, place: &mut self.feed, out: &mut self.link };
        // What was attached is held until the session is on it.
        match attached {
            Ok(_attached) => self.machine.on_attached(Ok(()), turn),
            Err(error) => self.machine.on_attached(Err(error), turn),
        }
    }

    /// Sees to it that the task is woken when there is more to do.
    fn wait(&mut self, read: Pause, delivered: Pause, now_ms: u64, cx: &mut Context<'_>) {
        let read_more = match read {
            Pause::Empty => false,
            // Input is taken again once the link has room (it wakes the task), or a publish is done (so does it).
            Pause::Blocked | Pause::Ending => self.machine.takes_input(&self.link),
            Pause::Share => true,
        };
        let deliver_more = match delivered {
            // The put wakes the task.
            Pause::Empty | Pause::Ending => false,
            Pause::Blocked => self.link.has_room(),
            Pause::Share => true,
        };
        if read_more || deliver_more {
            cx.waker().wake_by_ref();
        }
        let Some(deadline_ms) = self.machine.deadline() else { return };
        let keeping = self.keeping.as_ref().filter(|keeping| self.machine.phase() == Phase::Open && !keeping.last);
        let deadline_ms = keeping.map_or(deadline_ms, |keeping| deadline_ms.min(keeping.keeper.due_ms()));
        if self.machine.phase() == Phase::Open && delivered == Pause::Empty {
            self.timer = None;
            self.feed.set_deadline(deadline_ms);
            if self.feed.poll_wait(cx).is_ready() {
                cx.waker().wake_by_ref();
            } else if read == Pause::Empty {
                let (link, form) = (&mut self.link, self.machine.form());
                self.feed.rest(&mut |key| link.lend(key, form));
            }
        } else {
            // The feed would be ready at once, with messages that can't be sent on.
            let look_ms = (now_ms / LOOK_BEHIND_MS + 1) * LOOK_BEHIND_MS;
            self.set_timer(deadline_ms.min(look_ms), now_ms, cx);
        }
    }

    fn set_timer(&mut self, at_ms: u64, now_ms: u64, cx: &mut Context<'_>) {
        if self.timer.as_ref().is_none_or(|timer| timer.at_ms != at_ms) {
            let sleep = self.feed.sleep_ms(at_ms.saturating_sub(now_ms).max(TIMER_MS_MIN));
            self.timer = Some(Box::new(Timer { at_ms, sleep }));
        }
        if let Some(timer) = &mut self.timer
            && timer.sleep.as_mut().poll(cx).is_ready()
        {
            // If the hub's clock is not there yet, the next turn sets another.
            self.timer = None;
            cx.waker().wake_by_ref();
        }
    }

    /// Lets the client take what is queued, and the bus the last publishes; then all is done.
    fn leave(&mut self, reason: CloseReason, ending: Ending, cx: &mut Context<'_>) -> Poll<()> {
        let now_ms = self.feed.now_ms();
        if self.leaving == Leaving::No {
            self.unread = Vec::new();
            self.keep_last(now_ms, reason);
            let until_ms = now_ms + LEAVE_MS;
            self.leaving = match ending {
                Ending::Gone => Leaving::Left { until_ms },
                Ending::Clean | Ending::Linger => Leaving::Finishing { until_ms },
            };
        }
        self.publish(now_ms, cx);
        let kept = self.keeping.as_mut().is_none_or(|keeping| keeping.keeper.poll_put(cx).is_ready());
        if let Leaving::Finishing { until_ms } = self.leaving {
            match self.link.poll_finish(cx) {
                Poll::Ready(Ok(())) if ending == Ending::Linger => self.leaving = Leaving::Lingering { until_ms },
                Poll::Ready(_) => self.leaving = Leaving::Left { until_ms },
                Poll::Pending => {}
            }
        }
        if let Leaving::Lingering { until_ms } = self.leaving
            && self.discard(cx).is_ready()
        {
            self.leaving = Leaving::Left { until_ms };
        }
        let (until_ms, left) = match self.leaving {
            Leaving::Left { until_ms } => (until_ms, true),
            Leaving::Finishing { until_ms } | Leaving::Lingering { until_ms } => (until_ms, false),
            Leaving::No => return Poll::Ready(()),
        };
        if now_ms >= until_ms || left && kept && self.publishing.is_none() {
            return Poll::Ready(());
        }
        self.set_timer(until_ms, now_ms, cx);
        Poll::Pending
    }

    /// Reads and forgets; ready at the client's end.
    fn discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_POLL_MAX {
            match SCRATCH.with_borrow_mut(|scratch| self.link.poll_read(cx, scratch)) {
                Poll::Ready(Ok(len)) if len > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<W: Wire + Unpin, F: Feed + Unpin> Future for Driver<W, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let sent_ms = this.feed.rise();
        this.link.take_back();
        this.machine.on_sent(sent_ms);
        if this.feed.is_cut() {
            this.machine.on_cut();
            return Poll::Ready(());
        }
        if this.machine.finished().is_none() {
            this.turn(cx);
        }
        match this.machine.finished() {
            Some((reason, ending)) => this.leave(reason, ending, cx),
            None => Poll::Pending,
        }
    }
}

impl<W: Wire, F: Feed> Drop for Driver<W, F> {
    fn drop(&mut self) {
        let reason = match self.machine.phase() {
            Phase::Open => CloseReason::ClientGone,
            Phase::Closing { reason, .. } | Phase::Finished { reason, .. } => reason,
        };
        // Dropped with its connection, it is kept all the same, and closed then.
        self.keep_last(self.feed.now_ms(), reason);
        let metrics = Rc::clone(&self.metrics);
        let closed = move || metrics.session_closed(Transport::WebSocket, reason);
        match self.keeping.take().filter(|keeping| keeping.keeper.is_putting()) {
            // Outside of a runtime the process is ending.
            Some(mut keeping) if tokio::runtime::Handle::try_current().is_ok() => {
                tokio::task::spawn_local(async move {
                    std::future::poll_fn(|cx| keeping.keeper.poll_put(cx)).await;
                    closed();
                });
            }
            _ => closed(),
        }
    }
}

impl Publishing {
    fn start(bus: Arc<dyn Bus>, publish: Publish, timeout: LocalBoxFuture<'static, ()>) -> Self {
        let Publish { reference, message } = publish;
        let bytes = message.data.as_bytes().len();
        let result = async move {
            bus.paced(&message.channel).await;
            bus.publish(message, None).await
        };
        Self { reference, bytes, result: Box::pin(result), timeout }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Published, BusError>> {
        if let Poll::Ready(result) = self.result.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        self.timeout.as_mut().poll(cx).map(|()| {
            let seconds = PUBLISH_MS_MAX / 1000;
            Err(BusError::Down(format!("it did not answer within {seconds} s, so it may still be published")))
        })
    }
}

fn outcome(result: &Result<Published, BusError>) -> PublishResult {
    match result {
        Ok(Published { duplicate: true, .. }) => PublishResult::Duplicate,
        Ok(_) => PublishResult::Accepted,
        Err(BusError::Moved { .. }) => PublishResult::Moved,
        Err(_) => PublishResult::Unavailable,
    }
}

#[cfg(test)]
mod tests;
