//! The connection as hyper sees it.
//!
//! What hyper reads is shown to the [`HeadWatch`], and whether what it wrote has gone out is noted.
//!
//! While a request is answered, hyper does not read (`half_close(true)`): for each request it would take another 8 KiB, to
//! find nothing in it, because the request's head still lies in the first. `Wire::poll_gone` hears of the client's end
//! in its place: once the request's body is over, and while nothing was sent ahead.

use crate::proto::head_watch::HeadWatch;
use crate::server::body::{Body, BodyError};
use crate::server::io::Io;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is read of what a client sends ahead of its answer.
const AHEAD_BYTES: usize = 1024;

/// A connection, for as long as hyper works on it.
#[derive(Default)]
pub(super) struct Wire {
    io: RefCell<Option<Io>>,
    /// What was read, and seen, and has not been taken by hyper.
    unread: RefCell<Bytes>,
    pub(super) watch: RefCell<HeadWatch>,
    /// Whether hyper waits for something to read.
    hyper_waits: Cell<bool>,
    /// Whether the body of the latest request is over: read to its end, or not wanted any more.
    body_is_over: Cell<bool>,
    /// Whether some bytes that hyper wrote have not gone out yet.
    unflushed: Cell<bool>,
}

impl Wire {
    /// `unread` was read from `io` before.
    pub(super) fn new(io: Io, unread: Bytes) -> Rc<Self> {
        let wire = Self { io: RefCell::new(Some(io)), ..Self::default() };
        wire.watch.borrow_mut().see(&unread);
        wire.unread.replace(unread);
        Rc::new(wire)
    }

    /// What hyper reads from and writes to.
    pub(super) fn watched(self: &Rc<Self>) -> Watched {
        Watched(Rc::clone(self))
    }

    /// Whether all that hyper wrote has gone out.
    pub(super) fn is_flushed(&self) -> bool {
        !self.unflushed.get()
    }

    /// Takes the connection back from hyper, with what it has not read.
    pub(super) fn take(&self) -> Option<(Io, Bytes)> {
        Some((self.io.take()?, self.unread.take()))
    }

    /// A request begins: its body, if it has one, as one that tells when it is over.
    pub(super) fn note_body(self: &Rc<Self>, body: Incoming) -> Option<NotedBody> {
        let is_over = body.is_end_stream();
        self.body_is_over.set(is_over);
        (!is_over).then(|| NotedBody { body: body.into(), wire: Rc::clone(self) })
    }

    /// Ready when the client has gone whose request is being answered: it closed, or the connection broke.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let may_read = !self.hyper_waits.get() && self.body_is_over.get() && self.unread.borrow().is_empty();
        if !may_read || !self.watch.borrow().is_level() {
            return Poll::Pending;
        }
        let mut space = [const { MaybeUninit::uninit() }; AHEAD_BYTES];
        let mut ahead = ReadBuf::uninit(&mut space);
        let read = ready!(self.ask(|io| io.poll_read(cx, &mut ahead)));
        if read.is_err() || ahead.filled().is_empty() {
            return Poll::Ready(());
        }
        self.watch.borrow_mut().see(ahead.filled());
        self.unread.replace(Bytes::copy_from_slice(ahead.filled()));
        Poll::Pending
    }

    fn ask<T>(&self, ask: impl FnOnce(Pin<&mut Io>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *self.io.borrow_mut() {
            Some(io) => ask(Pin::new(io)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// What hyper has of a [`Wire`].
pub(super) struct Watched(Rc<Wire>);

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &*self.0;
        let mut unread = wire.unread.borrow_mut();
        if !unread.is_empty() {
            wire.hyper_waits.set(false);
            let len = unread.len().min(buf.remaining());
            buf.put_slice(&unread.split_to(len));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = wire.ask(|io| io.poll_read(cx, buf));
        wire.hyper_waits.set(read.is_pending());
        ready!(read)?;
        wire.watch.borrow_mut().see(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.unflushed.set(true);
        self.0.ask(|io| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.unflushed.set(true);
        self.0.ask(|io| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.io.borrow().as_ref().is_some_and(Io::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.ask(|io| io.poll_flush(cx)))?;
        // hyper flushes when it has written all that it has; TLS has its own buffer, which may take longer.
        self.0.unflushed.set(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.ask(|io| io.poll_shutdown(cx))
    }
}

/// The body of a request; its wire hears when it is over.
pub(super) struct NotedBody {
    body: Body,
    wire: Rc<Wire>,
}

impl HttpBody for NotedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if frame.is_none() || this.body.is_end_stream() {
            this.wire.body_is_over.set(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for NotedBody {
    /// What nobody wants the rest of is over as well; if more of it is still to come, there is nothing to hear yet
    /// ([`HeadWatch::is_level`]).
    fn drop(&mut self) {
        self.wire.body_is_over.set(true);
    }
}
