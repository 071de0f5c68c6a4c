//! A request body on its way to a server, and how far it is.
//!
//! The HTTP machine owns the body; the exchange keeps [`Progress`], by which it tells a slow server from a slow client
//! and takes the body back when nobody wants the rest of it.

use crate::server::body::{Body, BodyError};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// A request body that notes how far it is.
pub(super) struct Upload {
    body: Body,
    left: Option<u64>,
    progress: Rc<Progress>,
}

/// How far a request body is.
pub(super) struct Progress {
    phase: Cell<Phase>,
    moved: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server is to take what there is.
    ServersTurn,
    /// The client is to send more.
    ClientsTurn,
    /// All is handed over.
    Done,
    /// The client broke it off.
    Broken,
    /// Nobody wants the rest.
    Cancelled,
}

/// Who kept the exchange waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The server answers nothing, or takes no more of the request.
    Server,
    /// The client sends no more of the request.
    Client,
}

/// The rest of the request body is not wanted.
#[derive(Debug, thiserror::Error)]
#[error("the exchange is over before its request body")]
struct Cancelled;

impl Upload {
    /// Wraps a request body; its clock starts at `now`.
    pub(super) fn new(body: Body, now: Instant) -> (Self, Rc<Progress>) {
        let phase = if body.is_end_stream() { Phase::Done } else { Phase::ServersTurn };
        let progress = Rc::new(Progress { phase: Cell::new(phase), moved: Cell::new(now), waker: RefCell::new(None) });
        (Self { body, left: None, progress: Rc::clone(&progress) }, progress)
    }

    /// Says that the body is over after `len` bytes: the HTTP machine asks for no more than `Content-Length` tells.
    pub(super) fn expect_len(&mut self, len: u64) {
        self.left = Some(len);
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }

    /// Starts the clock again: the server took some of a piece.
    pub(super) fn touch(&self) {
        self.progress.touch();
    }
}

impl Progress {
    /// Whether all is handed over.
    pub(super) fn is_done(&self) -> bool {
        self.phase.get() == Phase::Done
    }

    /// Whether the client broke it off.
    pub(super) fn is_broken(&self) -> bool {
        self.phase.get() == Phase::Broken
    }

    /// Starts the clock again.
    pub(super) fn touch(&self) {
        self.start(Instant::now());
    }

    /// Starts the clock: a connection stands.
    pub(super) fn start(&self, now: Instant) {
        self.moved.set(now);
    }

    /// Takes the body away from the HTTP machine, which resets the stream or closes the connection.
    pub(super) fn cancel(&self) {
        if matches!(self.phase.get(), Phase::ServersTurn | Phase::ClientsTurn) {
            self.phase.set(Phase::Cancelled);
            let waker = self.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Waits until nothing moved for `limit`; the end of the body counts as a move.
    pub(super) async fn stalled(&self, limit: Duration) -> Late {
        loop {
            let due = self.moved.get() + limit;
            if Instant::now() >= due {
                return self.late();
            }
            tokio::time::sleep_until(due).await;
        }
    }

    /// The same with a timer that may have been used before: it is set only if it would be late, or has run out.
    pub(super) fn poll_stalled(
        &self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Late> {
        let due = self.moved.get() + limit;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(self.late());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn late(&self) -> Late {
        if self.phase.get() == Phase::ClientsTurn { Late::Client } else { Late::Server }
    }

    fn step(&self, phase: Phase) {
        self.phase.set(phase);
        self.touch();
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let progress = &*this.progress;
        if progress.phase.get() == Phase::Cancelled {
            return Poll::Ready(Some(Err(Box::new(Cancelled))));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => {
                // The wait of the client begins with the first fruitless ask, not with the frame before.
                if progress.phase.get() != Phase::ClientsTurn {
                    progress.step(Phase::ClientsTurn);
                }
                let mut waker = progress.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Poll::Ready(frame) => {
                if let (Some(left), Some(Ok(frame))) = (&mut this.left, &frame) {
                    *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                progress.step(match &frame {
                    Some(Ok(_)) if this.left != Some(0) && !this.body.is_end_stream() => Phase::ServersTurn,
                    Some(Ok(_)) | None => Phase::Done,
                    Some(Err(_)) => Phase::Broken,
                });
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
