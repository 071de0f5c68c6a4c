//! The loop of a session: the backend's answers, the hub's messages and the client's frames, until one of them ends it.

mod keeping;
mod parting;

use crate::bus::{Attached, BusError};
use crate::hub::log::Entry;
use crate::hub::shard::Delivery;
use crate::model::session::{CloseReason, Transport};
use crate::proto::chunk::Chunk;
use crate::proto::websocket_over_http::Ignored;
use crate::proto::websocket_over_http::bridge::{Action, FromClient};
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::control::Subscribe;
use crate::proto::websocket_over_http::scheduled::Frame;
use crate::session::websocket_over_http::Start;
use crate::session::websocket_over_http::dialect::Dialect;
use crate::session::websocket_over_http::frames::{self, FrameReader};
use crate::session::websocket_over_http::liveness::{Check, Liveness};
use crate::session::websocket_over_http::seams::{Feed, Wire};
use crate::session::websocket_over_http::subscriptions::{Part, Subscriptions};
use crate::telemetry::metrics::{Refusal, WorkerMetrics};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use keeping::{Ended, Keeping};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::time::Sleep;

/// How long a client may take for its part of the close, in milliseconds.
pub const LEAVE_MS: u64 = 5000;
/// How often the loop turns before others get their turn.
const TURNS_MAX: usize = 32;
const READ_BYTES: usize = 8 * 1024;

/// A session under way.
struct Run<W, F> {
    wire: W,
    subscriptions: Subscriptions<F>,
    exchange: Box<dyn Dialect>,
    early: VecDeque<Action>,
    /// A subscription whose channel the bus begins to follow; what the backend said after it waits.
    attaching: Option<Attaching>,
    reader: FrameReader,
    /// Bytes of the client that wait until the backend took the frames before them.
    unread: BytesMut,
    liveness: Liveness,
    /// Whose turn the close handshake will be when it begins here.
    client: ClientEnd,
    /// Whether the client's silence means something.
    listened: bool,
    leaving: Option<Leaving>,
    keeping: Option<Box<Keeping>>,
    timer: Pin<Box<Sleep>>,
    leave_ms: u64,
    metrics: Rc<WorkerMetrics>,
    told: Told,
}

/// A subscription that waits for the bus.
struct Attaching {
    subscribe: Subscribe,
    attached: BoxFuture<'static, Result<Attached, BusError>>,
}

/// The end of a session, as far as its client goes.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    reason: CloseReason,
    until_ms: u64,
    client: ClientEnd,
}

/// Whose turn it is in the close handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientEnd {
    /// The client's close frame is awaited.
    Awaited,
    /// It came: what is left is to flush.
    Closed,
    /// It can't come, since the client can't be understood: what is left is to flush.
    Broken,
    /// All is sent; what the client still sends is taken in, so that its close frame is not lost to a reset.
    Lingering,
    /// The connection is dropped as it is.
    Dropped,
}

/// Which kinds of [`Ignored`] were logged as warnings; each is once a session.
#[derive(Debug, Default)]
struct Told(Vec<Ignored>);

/// Runs a session to its end.
///
/// The future is little more than the session itself: an `async fn` would keep its arguments beside what is made of them,
/// and room for the session's parts at its end.
pub fn run<W: Wire, F: Feed>(start: Start<F>, wire: W) -> impl Future<Output = ()> {
    let counted = Counted { metrics: Rc::clone(&start.metrics), reason: CloseReason::ClientGone };
    start.metrics.session_opened(Transport::WebSocket);
    let timeline = start.exchange.timeline();
    let now_ms = timeline.now_ms();
    let keep_alive_ms = u64::try_from(start.settings.keep_alive.as_millis()).unwrap_or(u64::MAX);
    let run = Run {
        wire,
        subscriptions: start.subscriptions,
        timer: Box::pin(tokio::time::sleep_until(timeline.instant(now_ms))),
        exchange: start.exchange,
        early: start.early,
        attaching: None,
        reader: FrameReader::new(start.settings.message_bytes_max),
        unread: BytesMut::new(),
        liveness: Liveness::new(keep_alive_ms, now_ms),
        client: ClientEnd::Awaited,
        listened: true,
        leaving: None,
        keeping: start.keeper.map(|keeper| Box::new(Keeping::new(keeper))),
        leave_ms: start.leave_ms,
        metrics: start.metrics,
        told: Told::default(),
    };
    let mut ended = Ended::new(run, counted);
    async move {
        let reason = std::future::poll_fn(|cx| ended.poll(cx)).await;
        let parting = ended.take(reason).map(|(run, kept)| Box::pin(parting::part(run, kept, reason)));
        if let Some(parting) = parting {
            parting.await;
        }
    }
}

/// Counts a session as closed when it is dropped, however it ends.
struct Counted {
    metrics: Rc<WorkerMetrics>,
    reason: CloseReason,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.session_closed(Transport::WebSocket, self.reason);
    }
}

impl<W: Wire, F: Feed> Run<W, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if self.subscriptions.feed.is_cut() {
            self.lose(CloseReason::Drain);
            return Poll::Ready(self.leaving.map_or(CloseReason::Drain, |leaving| leaving.reason));
        }
        for _ in 0..TURNS_MAX {
            let now_ms = self.exchange.timeline().now_ms();
            let mut moved = self.poll_attach(cx, now_ms);
            moved |= self.act(now_ms);
            // After what may have asked: a request that time alone brought about has to be polled in this turn.
            moved |= self.exchange.poll_answer(cx).is_ready();
            moved |= self.deliver(cx, now_ms);
            moved |= self.read(cx, now_ms);
            self.check_liveness(now_ms);
            // After all that may close the session.
            moved |= self.keep(cx, now_ms);
            match self.wire.poll_flush(cx) {
                Poll::Ready(Err(_)) => self.lose(CloseReason::ClientGone),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if let Some(leaving) = self.leaving
                && self.poll_leave(cx, leaving, now_ms).is_ready()
            {
                return Poll::Ready(leaving.reason);
            }
            if !moved && self.poll_timer(cx, now_ms).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what the machine says, while the client takes what it is sent. Whether anything was done.
    fn act(&mut self, now_ms: u64) -> bool {
        let mut acted = false;
        let is_closing = self.is_closing();
        while self.leaving.is_some() || self.attaching.is_none() && !is_closing && self.wire.has_room() {
            let Some(action) = self.early.pop_front().or_else(|| self.exchange.next_action()) else { break };
            acted = true;
            if self.leaving.is_none() {
                self.perform(action, now_ms);
            }
        }
        if self.early.is_empty() {
            self.early = VecDeque::new();
        }
        // What was done may come from an answer that says whose session it is. A dialect without meta has said so.
        if acted && self.exchange.meta().is_some() {
            self.subscriptions.feed.name(self.exchange.user());
        }
        acted
    }

    fn perform(&mut self, action: Action, now_ms: u64) {
        match action {
            // The exchange posts by itself.
            Action::Post(_) => {}
            Action::Send(frame) => self.push(frames::encode(&frame)),
            Action::Subscribe(subscribe) => {
                let attached = self.subscriptions.feed.attach(&subscribe.channel);
                self.attaching = Some(Attaching { subscribe, attached });
            }
            Action::Unsubscribe(channel) => {
                self.subscriptions.unsubscribe(&channel);
                self.channels_changed(now_ms);
            }
            Action::Close(close, reason) => {
                self.push(frames::encode_close(&close));
                self.leave(reason, self.client, now_ms);
            }
            Action::Cut(reason) => self.leave(reason, ClientEnd::Dropped, now_ms),
            Action::Ignore(what, detail) => self.ignore(what, &detail),
        }
    }

    /// Joins the channel that waits for the bus, once that follows it. Whether anything was done.
    fn poll_attach(&mut self, cx: &mut Context<'_>, now_ms: u64) -> bool {
        let Some(attaching) = self.attaching.as_mut() else { return false };
        if self.leaving.is_none() {
            let Poll::Ready(attached) = attaching.attached.as_mut().poll(cx) else { return false };
            let subscribe = attaching.subscribe.clone();
            match attached {
                // What was attached is held until the session is on it.
                Ok(_attached) => {
                    self.join(subscribe);
                    self.channels_changed(now_ms);
                }
                // Without its channel the session would be silent, and nobody would know why.
                Err(error) => {
                    tracing::debug!(session.id = self.exchange.connection_id(), %error, "a bridged session ends");
                    self.close(CloseReason::Upstream, "the bus is down", now_ms);
                }
            }
        }
        self.attaching = None;
        true
    }

    fn channels_changed(&mut self, now_ms: u64) {
        if let Some(keeping) = &mut self.keeping {
            keeping.change(now_ms);
        }
    }

    fn join(&mut self, subscribe: Subscribe) {
        if let Err(error) = self.subscriptions.subscribe(subscribe) {
            self.metrics.refused(Refusal::Subscriptions);
            self.ignore(Ignored::TooManySubscriptions, &error.to_string());
        }
    }

    fn ignore(&mut self, what: Ignored, detail: &str) {
        self.metrics.bridge_ignored(what);
        let session = self.exchange.connection_id();
        if self.told.0.contains(&what) {
            tracing::debug!(session.id = session, what = what.as_str(), detail, "bridged backend was passed over");
        } else {
            tracing::warn!(session.id = session, what = what.as_str(), detail, "bridged backend was passed over");
            self.told.0.push(what);
        }
    }

    fn deliver(&mut self, cx: &mut Context<'_>, now_ms: u64) -> bool {
        let mut delivered = false;
        while !self.is_ending() && self.wire.has_room() {
            match self.subscriptions.feed.next() {
                Some(Delivery::Message(entry)) => self.deliver_message(&entry),
                Some(Delivery::Gap(gap)) => {
                    // A bare WebSocket has no place to announce it.
                    self.metrics.gap(gap.reason);
                    self.close(CloseReason::Gap, "gap", now_ms);
                }
                Some(Delivery::Conflated(messages)) => self.metrics.conflated(messages),
                Some(Delivery::End(reason)) => self.close(reason, reason.as_str(), now_ms),
                None => return self.subscriptions.feed.poll_wait(cx).is_ready() || delivered,
            }
            delivered = true;
        }
        delivered
    }

    fn deliver_message(&mut self, entry: &Entry) {
        let subscriber = self.subscriptions.subscriber(self.exchange.subscription_meta());
        let frame = match subscriber.part(&entry.message) {
            Ok(Part::Shared(data)) => entry.websocket.get_or_init(|| frames::encode_data(data)).clone(),
            Ok(Part::Own(frame)) => frames::encode(&frame),
            Ok(Part::Close(close)) => return self.exchange.close_by_publisher(close),
            Ok(Part::Refresh) => return self.exchange.refresh(),
            Err(dropped) => return self.metrics.grip_dropped(dropped),
        };
        let latency_us = self.subscriptions.feed.now_us().saturating_sub(entry.published_us);
        self.metrics.delivered(Transport::WebSocket, frame.len(), latency_us);
        self.push(frame);
        self.exchange.delivered();
    }

    /// Reads the client while the machine wants it and the client takes what it is sent. Whether anything came.
    fn read(&mut self, cx: &mut Context<'_>, now_ms: u64) -> bool {
        let wants = !self.is_ending() && self.exchange.wants_client();
        // Silence counts from when it is listened to; a client that takes nothing is silent too.
        let listens = wants || !self.wire.has_room();
        if listens && !self.listened {
            self.liveness.heard(now_ms);
        }
        self.listened = listens;
        if !wants || !self.wire.has_room() {
            return false;
        }
        if !self.unread.is_empty() && self.take_frames(now_ms) {
            return true;
        }
        let mut buffer = [0; READ_BYTES];
        match self.wire.poll_read(cx, &mut buffer) {
            Poll::Pending => false,
            Poll::Ready(Ok(0) | Err(_)) => {
                self.lose(CloseReason::ClientGone);
                true
            }
            Poll::Ready(Ok(len)) => {
                self.liveness.heard(now_ms);
                self.unread.extend_from_slice(&buffer[..len]);
                self.take_frames(now_ms);
                true
            }
        }
    }

    /// Gives the machine frames that came, until it wants no more. Whether there was any.
    fn take_frames(&mut self, now_ms: u64) -> bool {
        let mut any = false;
        while self.exchange.wants_client() {
            match self.reader.next(&mut self.unread) {
                Ok(Some(FromClient::Pong(content))) if content.is_empty() => {
                    if !self.liveness.take_answer() {
                        self.exchange.client_said(FromClient::Pong(content));
                    }
                }
                Ok(Some(frame)) => {
                    if matches!(frame, FromClient::Close(_)) {
                        self.client = ClientEnd::Closed;
                    }
                    self.exchange.client_said(frame);
                }
                Ok(None) => break,
                Err(reason) => {
                    self.client = ClientEnd::Broken;
                    self.close(reason, reason.as_str(), now_ms);
                    break;
                }
            }
            any = true;
            self.act(now_ms);
            if !self.wire.has_room() || self.is_ending() {
                break;
            }
        }
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        any
    }

    fn check_liveness(&mut self, now_ms: u64) {
        if self.is_ending() || !self.listened {
            return;
        }
        match self.liveness.check(now_ms) {
            Check::Fine => {}
            Check::Ask => self.push(frames::encode(&Frame::Ping(Bytes::new()))),
            Check::Dead => self.close(CloseReason::Idle, "no sign of life", now_ms),
        }
    }

    fn push(&mut self, frame: Bytes) {
        self.wire.push(&Chunk::raw(frame));
    }

    fn is_closing(&self) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| keeping.is_closing())
    }

    fn is_ending(&self) -> bool {
        self.leaving.is_some() || self.is_closing()
    }

    /// Closes from this end, once the session is kept; the backend gets DISCONNECT, since for it the connection is lost.
    fn close(&mut self, reason: CloseReason, text: &'static str, now_ms: u64) {
        if !self.is_ending() {
            self.close_kept(reason, text, now_ms);
        }
    }

    fn close_now(&mut self, reason: CloseReason, text: &str, now_ms: u64) {
        self.push(frames::encode_close(&Close::new(reason.close_code(), text).for_wire()));
        self.leave(reason, self.client, now_ms);
    }

    fn lose(&mut self, reason: CloseReason) {
        let reason = self.leaving.map_or(reason, |leaving| leaving.reason);
        self.leave(reason, ClientEnd::Dropped, 0);
    }

    fn leave(&mut self, reason: CloseReason, client: ClientEnd, now_ms: u64) {
        self.leaving = Some(Leaving { reason, until_ms: now_ms.saturating_add(self.leave_ms), client });
        self.exchange.client_gone(reason);
    }

    fn poll_leave(&mut self, cx: &mut Context<'_>, leaving: Leaving, now_ms: u64) -> Poll<()> {
        if leaving.client == ClientEnd::Dropped || leaving.until_ms <= now_ms {
            return Poll::Ready(());
        }
        let mut client = leaving.client;
        if client == ClientEnd::Awaited {
            client = self.poll_client_close(cx);
        }
        if client == ClientEnd::Broken && self.wire.poll_finish(cx).is_ready() {
            client = ClientEnd::Lingering;
        }
        self.leaving = Some(Leaving { client, ..leaving });
        match client {
            ClientEnd::Closed => self.wire.poll_finish(cx).map(|_| ()),
            ClientEnd::Lingering => self.poll_end(cx),
            ClientEnd::Awaited | ClientEnd::Broken | ClientEnd::Dropped => Poll::Pending,
        }
    }

    /// Whether the client's close frame came; frames before it are too late.
    fn poll_client_close(&mut self, cx: &mut Context<'_>) -> ClientEnd {
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.reader.next(&mut self.unread) {
                Ok(Some(FromClient::Close(_))) => return ClientEnd::Closed,
                Err(_) => return ClientEnd::Broken,
                Ok(Some(_)) => {}
                Ok(None) => match self.wire.poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(0) | Err(_)) => return ClientEnd::Closed,
                    Poll::Ready(Ok(len)) => self.unread.extend_from_slice(&buffer[..len]),
                    Poll::Pending => return ClientEnd::Awaited,
                },
            }
        }
    }

    /// Ready when the client has sent all.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..TURNS_MAX {
            match self.wire.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when time alone has something to do.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Poll<()> {
        let can_act = self.leaving.is_some() || self.wire.has_room();
        let at_ms = [
            self.leaving.map(|leaving| leaving.until_ms),
            (!self.is_ending() && self.listened).then(|| self.liveness.deadline_ms()),
            self.keeping.as_ref().and_then(|keeping| keeping.due_ms()),
            self.exchange.deadline_ms().filter(|_| can_act),
        ];
        let Some(at_ms) = at_ms.into_iter().flatten().min() else { return Poll::Pending };
        if at_ms <= now_ms {
            return Poll::Ready(());
        }
        let at = self.exchange.timeline().instant(at_ms);
        // A timer that fires too early costs one turn; moving it with every frame would cost more.
        if self.timer.is_elapsed() || self.timer.deadline() > at {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx)
    }
}
