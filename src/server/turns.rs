//! A connection of HTTP/1.1 on which somebody answers request after request without the HTTP machinery.
//!
//! ```text
//! hyper ─ first poll ─▶ Turns ─ answer ─▶ next head ─┬─ like the first ─▶ answer ─▶ …
//!   ▲                                                └─ any other ──┐
//!   └───────────────────────────────────────────────────────────────┘
//! ```
//! What hyper holds to while a connection is idle or waits holds here too: the idle timeout, `Connection: close` and the
//! end of idle connections in a drain, the count of requests under way.

use crate::proto::repeated_head::RepeatedHead;
use crate::server::Link;
use crate::server::connection::Server;
use crate::server::io::{ANY_BYTES, Io};
use crate::server::limits::{InFlight, Leave};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Heads that are longer are not compared.
const HEAD_BYTES_MAX: usize = 4096;
/// How often in a row a connection may go back without one repeated head, before it is left to hyper for good.
const VAIN_MAX: u8 = 2;

/// Whether taking turns is still tried on a connection: not where the client's heads differ each time.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::server) struct Patience {
    /// How often in a row it was of no use.
    vain: u8,
}

impl Patience {
    pub(in crate::server) fn lasts(self) -> bool {
        self.vain <= VAIN_MAX
    }
}

/// What a client sent after an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The same head, with this in its hole.
    Alike(Vec<u8>),
    /// Something else, which was put back.
    Other,
    /// Nothing: the connection has ended, or is to end.
    Ended,
}

/// The connection.
pub struct Turns {
    link: Link,
    server: Rc<Server>,
    head: Option<Bytes>,
    patience: Patience,
    repeated: bool,
    idle: Idle,
    /// Ready when idle connections are to end.
    leaving: LocalBoxFuture<'static, ()>,
}

/// The idle timeout. Its end moves with each request; the timer, which is dear to set, only when it goes off.
struct Idle {
    timeout: Duration,
    until: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(timeout: Duration) -> Self {
        let until = Instant::now() + timeout;
        Self { timeout, until, timer: Box::pin(tokio::time::sleep_until(until)) }
    }

    /// The time begins anew.
    fn begin(&mut self) {
        self.until = Instant::now() + self.timeout;
    }

    /// Ready when the time is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.timer.deadline() >= self.until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.until);
        }
    }
}

impl Turns {
    /// `head` is the whole head of the request that is being answered, if it is known.
    pub(in crate::server) fn new(server: Rc<Server>, link: Link, head: Option<Bytes>, patience: Patience) -> Self {
        let idle = Idle::new(server.limits.load().idle_timeout);
        let mut leave = server.leave.clone();
        Self {
            link,
            head,
            patience,
            repeated: false,
            idle,
            leaving: Box::pin(async move {
                // Without a sender the worker is about to end.
                let _ = leave.wait_for(|leave| *leave == Leave::Now).await;
            }),
            server,
        }
    }

    /// Takes the head of the first request out, byte by byte, if it is known.
    pub fn take_head(&mut self) -> Option<Bytes> {
        self.head.take()
    }

    /// Where answers are pushed, with their heads.
    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Counts a request as under way until the guard is dropped.
    pub fn request(&self) -> InFlight {
        self.server.count.begin()
    }

    /// Whether the answer is the last one: it must say `Connection: close`.
    pub fn is_last(&self) -> bool {
        self.server.leave() != Leave::Stay
    }

    /// Hands over what was pushed; false when the client is gone, or took nothing for as long as it may be idle.
    pub async fn flush(&mut self) -> bool {
        let Self { link, idle, .. } = self;
        let mut waited = false;
        poll_fn(|cx| {
            if let Poll::Ready(flushed) = link.poll_flush(cx) {
                return Poll::Ready(flushed.is_ok());
            }
            if !std::mem::replace(&mut waited, true) {
                idle.begin();
            }
            idle.poll(cx).map(|()| false)
        })
        .await
    }

    /// Waits for the next request, and compares it.
    pub async fn next(&mut self, known: Option<&RepeatedHead>) -> Next {
        let Self { link, idle, leaving, .. } = self;
        idle.begin();
        let next = poll_fn(|cx| {
            let mut buffer = [0; HEAD_BYTES_MAX];
            match link.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Ended),
                Poll::Ready(Ok(len)) => {
                    let read = &buffer[..len];
                    let part = known.and_then(|known| known.part(read));
                    return Poll::Ready(part.map_or_else(
                        || {
                            link.put_back(read);
                            Next::Other
                        },
                        |part| Next::Alike(part.to_vec()),
                    ));
                }
                Poll::Pending => {}
            }
            match leaving.as_mut().poll(cx).is_ready() || idle.poll(cx).is_ready() {
                true => Poll::Ready(Next::Ended),
                false => Poll::Pending,
            }
        })
        .await;
        self.repeated |= matches!(next, Next::Alike(_));
        next
    }

    /// Ends the connection after what was pushed; what the client still sends is read for a moment.
    pub async fn close(self) {
        if let Some((io, _)) = self.link.into_h1() {
            io.close(ANY_BYTES).await;
        }
    }

    pub(in crate::server) fn into_parts(self) -> Option<(Io, Bytes, Patience)> {
        let vain = if self.repeated { 0 } else { self.patience.vain.saturating_add(1) };
        let (io, unread) = self.link.into_h1()?;
        Some((io, unread, Patience { vain }))
    }
}
