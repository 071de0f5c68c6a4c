//! A connection of HTTP/1.1 on which somebody answers request after request without the HTTP machinery.
//!
//! ```text
//! h1 ─ first poll ─▶ Turns ─ answer ─▶ next head ─┬─ like the first ─▶ answer ─▶ …
//!  ▲                                              └─ any other ──┐
//!  └─────────────────────────────────────────────────────────────┘
//! ```
//! What `h1` holds to while a connection is idle or waits holds here too: the idle timeout, `Connection: close` and the
//! end of idle connections in a drain, the count of requests under way.

use crate::proto::repeated_head::RepeatedHead;
use crate::server::Link;
use crate::server::connection::Server;
use crate::server::deadline::Deadline;
use crate::server::io::{ANY_BYTES, Io};
use crate::server::leaving::Leaving;
use crate::server::limits::{InFlight, Leave};
use bytes::Bytes;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Heads that are longer are not compared.
const HEAD_BYTES_MAX: usize = 4096;
/// How often in a row a connection may go back without one repeated head, before it is left to `h1` for good.
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
    idle_timeout: Duration,
    deadline: Deadline,
    leaving: Leaving,
}

impl Turns {
    /// `head` is the whole head of the request that is being answered, if it is known.
    pub(in crate::server) fn new(server: Rc<Server>, link: Link, head: Option<Bytes>, patience: Patience) -> Self {
        Self {
            link,
            head,
            patience,
            repeated: false,
            idle_timeout: server.limits.load().idle_timeout,
            deadline: Deadline::default(),
            leaving: Leaving::new(&server.leave),
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
        let Self { link, deadline, idle_timeout, .. } = self;
        let mut waited = false;
        poll_fn(|cx| {
            if let Poll::Ready(flushed) = link.poll_flush(cx) {
                return Poll::Ready(flushed.is_ok());
            }
            if !std::mem::replace(&mut waited, true) {
                deadline.set(*idle_timeout);
            }
            deadline.poll(cx).map(|()| false)
        })
        .await
    }

    /// Waits for the next request, and compares it.
    pub async fn next(&mut self, known: Option<&RepeatedHead>) -> Next {
        let Self { link, deadline, idle_timeout, leaving, .. } = self;
        deadline.set(*idle_timeout);
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
            match leaving.poll(cx).is_ready() || deadline.poll(cx).is_ready() {
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
