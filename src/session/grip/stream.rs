//! A held stream: the backend's body, then what is published and the pages that the backend adds.

mod beat;
mod opening;
mod turning;

use crate::hub::HubError;
use crate::hub::log::Entry;
use crate::hub::shard::{Delivery, Subscription};
use crate::model::session::{CloseReason, Gap, Transport};
use crate::proto::chunk::Chunk;
use crate::proto::grip::holding::{Holding, StreamKind, StreamPart};
use crate::proto::grip::pages::{Over, Pages, Why};
use crate::proto::grip::recovery::Verdict;
use crate::proto::sse;
use crate::server::body::Body;
use crate::server::{Held, Link};
use crate::session::grip::{Gone, Joined, Page, Source, SourceError, join};
use crate::session::sse::{MOVED_RETRY_MS, STALL_MS_MAX};
use crate::telemetry::metrics::WorkerMetrics;
use beat::Beat;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use opening::{Opening, Progress};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// How long the clean end may take, in milliseconds.
const FINISH_MS_MAX: u64 = 5_000;
/// Messages that one session sends before the others of its worker have their turn.
const TURN_MESSAGES_MAX: usize = 256;
/// How often the loop turns before others get their turn.
const TURNS_MAX: usize = 32;

/// What a held stream starts with.
pub struct Start {
    /// A place in no channel yet, with its label.
    pub subscription: Subscription,
    /// The first page; its body is in `body`.
    pub page: Page,
    /// The start of the stream.
    pub body: Body,
    /// What the stream is made of.
    pub kind: StreamKind,
    /// Where its next pages come from; without it there are none.
    pub source: Option<Rc<dyn Source>>,
    /// Who is told when the client is gone.
    pub gone: Gone,
    /// The worker's metrics.
    pub metrics: Rc<WorkerMetrics>,
}

/// A held stream that has joined its channels.
pub struct Stream(Box<Session>);

type Fetch = LocalBoxFuture<'static, Result<Rc<Page>, SourceError>>;

/// The running session, once it has a link.
struct Session {
    link: Option<Link>,
    subscription: Subscription,
    holding: Holding,
    pages: Pages,
    kind: StreamKind,
    beat: Option<Box<Beat>>,
    /// The start of the stream, while it comes.
    opening: Option<Box<Opening>>,
    fetch: Option<(Why, Fetch)>,
    source: Option<Rc<dyn Source>>,
    gone: Gone,
    /// When something last went out, or began to wait to.
    last_sent_ms: u64,
    /// As of the last look.
    recoveries: u32,
    state: State,
    metrics: Rc<WorkerMetrics>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ending(CloseReason),
    Closed,
}

/// What a look for more to send came to.
enum Produced {
    /// There is nothing more for now.
    Nothing,
    /// The link is full.
    Full,
    End(CloseReason),
}

impl Stream {
    /// Joins the channels of the hold: from now on nothing is missed.
    ///
    /// # Errors
    /// When the hub takes no more channels, or the stream is over before it began.
    pub fn join(start: Start) -> Result<Self, StartError> {
        let Start { mut subscription, page, body, kind, source, gone, metrics } = start;
        let now_ms = subscription.shard().now_ms();
        let mut pages = Pages::new(page.arrived.clone(), now_ms)?;
        if page.arrived.holds && join(&mut subscription, &page.holding)? == Joined::Behind {
            pages.recover(now_ms)?;
        }
        let opening = if page.holding.makes_body() { Opening::made(body) } else { Opening::plain(body) };
        let beat = page.keep_alive.as_ref().and_then(|keep_alive| Beat::new(keep_alive, now_ms));
        Ok(Self(Box::new(Session {
            link: None,
            opening: Some(Box::new(opening)),
            recoveries: subscription.shard().recoveries(),
            subscription,
            holding: page.holding,
            pages,
            kind,
            beat,
            fetch: None,
            source,
            gone,
            last_sent_ms: now_ms,
            state: State::Closed,
            metrics,
        })))
    }
}

/// Why a stream can't begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The hub takes no more.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// It is over.
    #[error(transparent)]
    Over(#[from] Over),
}

impl Held for Stream {
    fn run(self: Box<Self>, link: Link) -> LocalBoxFuture<'static, ()> {
        let mut session = self.0;
        session.link = Some(link);
        session.state = State::Open;
        session.metrics.session_opened(Transport::Sse);
        session.last_sent_ms = session.subscription.shard().now_ms();
        Box::pin(*session)
    }
}

impl Future for Session {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(mut link) = this.link.take() else { return Poll::Ready(()) };
        if this.subscription.is_cut() {
            let reason = if let State::Ending(reason) = this.state { reason } else { CloseReason::Drain };
            this.close(reason);
            return Poll::Ready(());
        }
        let polled = match this.state {
            State::Open => this.poll_open(&mut link, cx),
            State::Ending(reason) => this.poll_ending(&mut link, reason, cx),
            State::Closed => Poll::Ready(CloseReason::Done),
        };
        this.link = Some(link);
        polled.map(|reason| this.close(reason))
    }
}

impl Session {
    fn poll_open(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut sent = 0;
        for _ in 0..TURNS_MAX {
            let produced = self.produce(link, &mut sent, cx);
            if let Produced::End(reason) = produced {
                self.fetch = None;
                self.state = State::Ending(reason);
                return self.poll_ending(link, reason, cx);
            }
            match link.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::ClientGone),
                Poll::Pending => return self.poll_stalled(cx),
            }
            if sent >= TURN_MESSAGES_MAX {
                break;
            }
            // A session that has just sent something hears of a lost client later: it is still registered for that.
            if sent == 0 && link.poll_gone(cx).is_ready() {
                return Poll::Ready(CloseReason::ClientGone);
            }
            self.keep_alive(link);
            if link.is_flushed() && !matches!(produced, Produced::Full) && self.poll_wait(cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Queues what there is, as far as the link has room: of the opening, of pages, or of what is published.
    fn produce(&mut self, link: &mut Link, sent: &mut usize, cx: &mut Context<'_>) -> Produced {
        loop {
            let now_ms = self.now_ms();
            if let Some(reason) = self.subscription.is_asked_to_end().filter(|_| !self.delivers()) {
                return self.end(link, reason);
            }
            if let Some(opening) = &mut self.opening {
                match opening.poll(link, &self.holding, cx) {
                    Progress::Pending => return Produced::Nothing,
                    Progress::Full => return Produced::Full,
                    Progress::Sent => self.last_sent_ms = now_ms,
                    Progress::Done => self.opening = None,
                    Progress::Broken(error) => {
                        tracing::warn!(%error, "a held stream's body broke off");
                        return Produced::End(CloseReason::Upstream);
                    }
                }
                continue;
            }
            if let Some((why, fetch)) = &mut self.fetch {
                let why = *why;
                let Poll::Ready(page) = fetch.as_mut().poll(cx) else { return Produced::Nothing };
                self.fetch = None;
                if let Err(reason) = self.take_page(link, why, page) {
                    return Produced::End(reason);
                }
                continue;
            }
            if let Err(reason) = self.look_for_recovery(now_ms) {
                return Produced::End(reason);
            }
            if self.ask(now_ms) {
                continue;
            }
            return if self.pages.may_deliver() { self.queue(link, sent) } else { Produced::Nothing };
        }
    }

    /// Whether what is published is delivered at this moment.
    fn delivers(&self) -> bool {
        self.opening.is_none() && self.fetch.is_none() && self.pages.may_deliver()
    }

    /// Queues what is published; tells when the session is to end.
    fn queue(&mut self, link: &mut Link, sent: &mut usize) -> Produced {
        while *sent < TURN_MESSAGES_MAX {
            if !link.has_room() {
                return Produced::Full;
            }
            let Some(delivery) = self.subscription.next() else { return Produced::Nothing };
            *sent += 1;
            let going_on = match delivery {
                Delivery::Message(entry) => self.deliver(link, &entry),
                Delivery::Gap(gap) => self.announce(link, &gap),
                Delivery::Conflated(messages) => {
                    self.metrics.conflated(messages);
                    Ok(())
                }
                Delivery::End(reason) => return self.end(link, reason),
            };
            if let Err(reason) = going_on {
                return Produced::End(reason);
            }
            if !self.pages.may_deliver() {
                return Produced::Full;
            }
        }
        Produced::Full
    }

    fn deliver(&mut self, link: &mut Link, entry: &Entry) -> Result<(), CloseReason> {
        match self.holding.take_in(&entry.message) {
            Verdict::Known => return Ok(()),
            Verdict::Missing => return self.recover(self.now_ms()),
            Verdict::Next => self.pages.progressed(),
        }
        let part = match self.holding.stream(&entry.message, self.kind) {
            Ok(part) => part,
            Err(dropped) => {
                self.metrics.grip_dropped(dropped);
                return Ok(());
            }
        };
        let chunk = match part {
            StreamPart::Hint => {
                self.pages.hint(self.now_ms());
                return Ok(());
            }
            StreamPart::Close => return Err(CloseReason::Backend),
            StreamPart::Shared(content) | StreamPart::Own(content) if content.is_empty() => return Ok(()),
            StreamPart::Shared(content) => {
                let shared = match self.kind {
                    StreamKind::Events => &entry.grip_events,
                    StreamKind::Bytes => &entry.grip_bytes,
                };
                shared.get_or_init(|| Chunk::framed_from(&content)).clone()
            }
            StreamPart::Own(content) => Chunk::framed_from(&content),
        };
        link.push(&chunk);
        self.last_sent_ms = self.now_ms();
        let latency_us = self.subscription.shard().now_us().saturating_sub(entry.published_us);
        self.metrics.delivered(Transport::Sse, chunk.content_len(), latency_us);
        Ok(())
    }

    /// A stretch is missing: where it matters to the backend's ids, the backend is asked; a stream of events is told;
    /// any other has no place for it, and ends.
    fn announce(&mut self, link: &mut Link, gap: &Gap) -> Result<(), CloseReason> {
        self.metrics.gap(gap.reason);
        if gap.channels.iter().any(|channel| self.holding.seen(channel).is_some()) {
            return self.recover(self.now_ms());
        }
        if self.kind == StreamKind::Bytes {
            return Err(CloseReason::Gap);
        }
        link.push(&sse::gap_event(gap));
        self.last_sent_ms = self.now_ms();
        Ok(())
    }

    fn end(&mut self, link: &mut Link, reason: CloseReason) -> Produced {
        if reason.is_moved() && self.kind == StreamKind::Events && self.opening.is_none() {
            link.push(&sse::retry(self.subscription.chance(MOVED_RETRY_MS)));
        }
        self.last_sent_ms = self.now_ms();
        Produced::End(reason)
    }

    fn push(&mut self, link: &mut Link, content: Bytes) {
        if !content.is_empty() {
            link.push(&Chunk::framed_from(&content));
            self.last_sent_ms = self.now_ms();
        }
    }

    fn now_ms(&self) -> u64 {
        self.subscription.shard().now_ms()
    }

    /// Sends the keep-alive if it is time.
    fn keep_alive(&mut self, link: &mut Link) {
        let now_ms = self.now_ms();
        let Some(beat) = self.beat.as_mut().filter(|_| self.opening.is_none()) else { return };
        if beat.due_ms(self.last_sent_ms) <= now_ms {
            link.push(&beat.chunk);
            (beat.since_ms, self.last_sent_ms) = (now_ms, now_ms);
        }
    }

    /// Ready when there may be something to do.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let beat = self.beat.as_ref().filter(|_| self.opening.is_none());
        let beat_ms = beat.map_or(u64::MAX, |beat| beat.due_ms(self.last_sent_ms));
        let has_source = self.source.is_some() && self.fetch.is_none() && self.opening.is_none();
        let pages_ms = if has_source { self.pages.deadline_ms() } else { u64::MAX };
        let deadline_ms = beat_ms.min(pages_ms);
        self.subscription.set_deadline(deadline_ms);
        if self.delivers() {
            return self.subscription.poll_wait(cx);
        }
        if deadline_ms <= self.now_ms() || self.subscription.is_asked_to_end().is_some() {
            return Poll::Ready(());
        }
        self.subscription.stall(cx);
        Poll::Pending
    }

    /// The client takes nothing: wait for it, but not for ever.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let now_ms = self.now_ms();
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

    fn poll_ending(&mut self, link: &mut Link, reason: CloseReason, cx: &mut Context<'_>) -> Poll<CloseReason> {
        // What broke off must not look whole, unless the client can tell: one of events drops what is not whole.
        if reason == CloseReason::Upstream && self.opening.is_some() && self.kind == StreamKind::Bytes {
            return Poll::Ready(reason);
        }
        if link.poll_finish(cx).is_ready() {
            return Poll::Ready(reason);
        }
        let now_ms = self.now_ms();
        // Who was too slow for the channel is not waited for.
        if reason == CloseReason::Slow || now_ms.saturating_sub(self.last_sent_ms) >= FINISH_MS_MAX {
            return Poll::Ready(reason);
        }
        self.subscription.set_deadline(self.last_sent_ms + FINISH_MS_MAX);
        self.subscription.stall(cx);
        Poll::Pending
    }

    fn close(&mut self, reason: CloseReason) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.metrics.session_closed(Transport::Sse, reason);
        if reason == CloseReason::Backend {
            self.gone.is_known();
        }
    }
}

impl Drop for Session {
    /// The connection broke under the session.
    fn drop(&mut self) {
        self.close(CloseReason::ClientGone);
    }
}
