//! HTTP/2: one task a connection, in which all its requests and sessions run.
//!
//! A fan-out wakes each session of a connection; they all run in this one task and put their frames into the connection's one
//! buffer ([`crate::proto::http2`]), which then goes out with one write. A task for each stream would cost a write each.

mod respond;
pub(super) mod stream;

use crate::proto::http2::ConnectionError;
use crate::proto::http2::Reason;
use crate::proto::http2::connection::{Bounds, Connection};
use crate::server::Peer;
use crate::server::connection::{Open, Server};
use crate::server::io::Io;
use crate::server::limits::{Leave, ServerLimits};
use crate::telemetry::metrics::Refusal;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use respond::{Next, answer};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use stream::Shared;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Request bodies: what a client may send ahead of the backend on one stream, and on the connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What is read at once.
const READ_BYTES: usize = 32 * 1024;
/// How often a connection reads and writes before others have their turn.
const TURNS_MAX: usize = 16;
/// How long an idle client has to answer that it heard of the close.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client may still send once it is told that the connection ends.
const LINGER_BYTES_MAX: u64 = 256 * 1024;
/// How long a client has to take the last that is sent.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// What all connections of a worker read into; used within one poll, never across two.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

type Streams = FuturesUnordered<Stream>;

/// What runs for one stream.
enum Stream {
    /// The answer to its request.
    Answer(LocalBoxFuture<'static, Next>),
    Session(LocalBoxFuture<'static, ()>),
}

impl Future for Stream {
    type Output = Next;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        match self.get_mut() {
            Stream::Answer(answer) => answer.as_mut().poll(cx),
            Stream::Session(session) => session.as_mut().poll(cx).map(|()| Next::Nothing),
        }
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client is gone, or does not answer.
    Gone,
    /// What is left to be said is said first.
    Close,
}

/// What a connection waits for that may not take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deadline {
    /// The client's preface and settings.
    Beginning,
    /// The rest of the header block that comes after so many.
    Head(u64),
    /// A request, after so many.
    Request(u64),
    /// The client's answer that it has heard of the close.
    Goodbye,
}

/// Serves a connection to its end. `unread` was read already; `open` is held until the connection has ended.
pub(in crate::server) async fn serve(server: Rc<Server>, io: Io, unread: Bytes, peer: Rc<Peer>, open: Open) {
    let limits = server.limits.load_full();
    let bounds = Bounds {
        streams_max: limits.streams_per_connection_max,
        header_list_bytes_max: limits.request_header_bytes_max,
        stream_window_bytes: STREAM_WINDOW_BYTES,
        connection_window_bytes: CONNECTION_WINDOW_BYTES,
    };
    let mut leave = server.leave.clone();
    // A connection that comes while clients are asked to go is asked after its first request.
    let mut leaving = pin!(leave.wait_for({
        let before = server.leave();
        move |leave| *leave > before
    }));
    let mut asked = false;
    let mut timer = pin!(tokio::time::sleep(limits.request_header_timeout));
    let shared = Rc::new(Shared::new(Connection::new(bounds)));
    let ending = Ending(Rc::clone(&shared));
    let mut driver = Driver {
        server,
        peer,
        limits,
        io,
        shared: Rc::clone(&shared),
        streams: Streams::new(),
        start: Instant::now(),
        unflushed: false,
        deadline: Some(Deadline::Beginning),
    };
    let mut unread = Some(unread);
    let end = poll_fn(|cx| {
        shared.run(cx, |cx| {
            if let Some(unread) = unread.take()
                && let Err(end) = driver.receive(&unread)
            {
                return Poll::Ready(end);
            }
            if !asked && leaving.as_mut().poll(cx).is_ready() {
                asked = true;
                shared.act(Connection::leave);
            }
            if let Err(end) = driver.turns(cx) {
                return Poll::Ready(end);
            }
            driver.poll_deadline(timer.as_mut(), cx)
        })
    })
    .await;
    // Boxed: a waiting connection is not to have room for its end.
    Box::pin(driver.end(end, ending)).await;
    drop(open);
}

/// Tells whoever still speaks of a stream that its connection has ended, however it did.
struct Ending(Rc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.act(Connection::end);
    }
}

/// A connection, and what runs on it.
struct Driver {
    server: Rc<Server>,
    peer: Rc<Peer>,
    limits: Arc<ServerLimits>,
    io: Io,
    shared: Rc<Shared>,
    streams: Streams,
    start: Instant,
    /// Whether something written may not have left this process.
    unflushed: bool,
    deadline: Option<Deadline>,
}

impl Driver {
    /// Reads, runs and writes until there is nothing to do now.
    fn turns(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..TURNS_MAX {
            let was_full = self.shared.look(|machine| machine.is_full());
            let has_read = !was_full && self.read(cx)?;
            let has_begun = self.begin_requests();
            self.run_streams(cx);
            while self.shared.look(Connection::let_go_on) {
                self.run_streams(cx);
            }
            self.write(cx).map_err(|_| End::Gone)?;
            if self.shared.look(|machine| machine.is_over() && machine.unsent().is_empty()) {
                return Err(End::Close);
            }
            let may_read = was_full && !self.shared.look(|machine| machine.is_full());
            if !has_read && !has_begun && !may_read && !self.shared.look(Connection::let_go_on) {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Reads once; whether something came.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Pending => Ok(false),
                Poll::Ready(Err(_)) => Err(End::Gone),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => Err(End::Gone),
                Poll::Ready(Ok(())) => self.receive(buf.filled()).map(|()| true),
            }
        })
    }

    fn receive(&self, bytes: &[u8]) -> Result<(), End> {
        let now_ms = self.start.elapsed().as_millis() as u64;
        let (received, refusals) =
            self.shared.look(|machine| (machine.receive(bytes, now_ms), machine.take_refusals()));
        for _ in 0..refusals.malformed {
            self.server.metrics.refused(Refusal::BadRequest);
        }
        for _ in 0..refusals.streams {
            self.server.metrics.refused(Refusal::Streams);
        }
        received.map_err(|error| {
            self.server.metrics.refused(Refusal::BadRequest);
            self.give_up(error)
        })
    }

    fn give_up(&self, error: ConnectionError) -> End {
        tracing::debug!(%error, "connection failed");
        self.shared.look(|machine| machine.give_up(error));
        End::Close
    }

    /// Begins to answer what was asked; whether there was something.
    fn begin_requests(&mut self) -> bool {
        let mut any = false;
        while let Some(incoming) = self.shared.look(Connection::next_request) {
            let answer = answer(Rc::clone(&self.server), Rc::clone(&self.peer), &self.shared, incoming);
            self.streams.push(Stream::Answer(answer));
            if self.server.leave() != Leave::Stay {
                self.shared.look(Connection::leave);
            }
            any = true;
        }
        any
    }

    fn run_streams(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(next)) = self.streams.poll_next_unpin(cx) {
            match next {
                Next::Nothing => {}
                Next::Session(session) => self.streams.push(Stream::Session(session)),
                Next::Wait(waiting) => self.streams.push(Stream::Answer(waiting)),
            }
        }
    }

    /// Writes what there is, as far as the kernel takes it.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let io = Pin::new(&mut self.io);
            let written = self.shared.look(|machine| match machine.unsent() {
                [] => Poll::Ready(Ok(None)),
                unsent => io.poll_write(cx, unsent).map_ok(Some),
            });
            match written {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(None)) => break,
                Poll::Ready(Ok(Some(0))) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(Some(bytes))) => self.shared.look(|machine| machine.wrote(bytes)),
                Poll::Ready(Err(error)) => return Err(error),
            }
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(()),
            }
            self.unflushed = false;
        }
        Ok(())
    }

    /// What is waited for now that may not take long.
    fn wanted(&self) -> Option<Deadline> {
        self.shared.look(|machine| {
            if !machine.has_begun() {
                Some(Deadline::Beginning)
            } else if machine.awaits_head() && !machine.is_full() {
                Some(Deadline::Head(machine.heads()))
            } else if !machine.is_idle() {
                None
            } else if machine.is_leaving() {
                Some(Deadline::Goodbye)
            } else {
                Some(Deadline::Request(machine.heads()))
            }
        })
    }

    /// Ready when what is waited for did not come in time.
    fn poll_deadline(&mut self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let wanted = self.wanted();
            let Some(deadline) = wanted else {
                self.deadline = None;
                return Poll::Pending;
            };
            if self.deadline.replace(deadline) != wanted {
                let timeout = match deadline {
                    Deadline::Beginning | Deadline::Head(_) => self.limits.request_header_timeout,
                    Deadline::Request(_) => self.limits.idle_timeout,
                    Deadline::Goodbye => GOODBYE_TIMEOUT,
                };
                timer.as_mut().reset(Instant::now() + timeout);
            }
            std::task::ready!(timer.as_mut().poll(cx));
            match deadline {
                Deadline::Goodbye => return Poll::Ready(End::Gone),
                Deadline::Beginning | Deadline::Head(_) => {
                    self.server.metrics.refused(Refusal::HeaderTimeout);
                    let error = ConnectionError::new(Reason::ENHANCE_YOUR_CALM, "no whole head in time");
                    return Poll::Ready(self.give_up(error));
                }
                // The client has a last moment in which a request of its may be under way.
                Deadline::Request(_) => {
                    self.shared.look(Connection::leave);
                    if self.write(cx).is_err() {
                        return Poll::Ready(End::Gone);
                    }
                }
            }
        }
    }

    /// Ends the connection: what runs on it ends first.
    async fn end(mut self, end: End, ending: Ending) {
        drop(ending);
        self.streams.clear();
        if end == End::Gone {
            return;
        }
        let writing = poll_fn(|cx| match self.write(cx) {
            Ok(()) if self.unflushed || !self.shared.look(|machine| machine.unsent().is_empty()) => Poll::Pending,
            written => Poll::Ready(written),
        });
        if let Ok(Ok(())) = tokio::time::timeout(LAST_WORDS_TIMEOUT, writing).await {
            self.io.close(LINGER_BYTES_MAX).await;
        }
    }
}
