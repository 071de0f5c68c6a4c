//! A connection as its driver and the body of the request under way share it.
//!
//! What is read goes through a buffer that all connections of a worker share, and a head is copied out of it: a connection that
//! waits has no buffer. Only the body of a request is read into memory of its own, because it is handed on as it is.

use crate::proto::http1::{BodyReader, Framing, Piece, RequestFault, RequestHead, RequestReader};
use crate::server::body::{Body, BodyError};
use crate::server::io::Io;
use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The most that is read of what a client sends ahead of its answer.
const AHEAD_BYTES: usize = 1024;
/// What is read at once of a head.
const HEAD_READ_BYTES: usize = 16 * 1024;
/// What is read at once of a body, at first, and of a large one.
const BODY_READ_BYTES: usize = 8 * 1024;
const BODY_READ_BYTES_MAX: usize = 64 * 1024;
/// What is read and dropped of a body that nobody wants, so that its connection lasts.
const UNWANTED_BYTES_MAX: u64 = 64 * 1024;

/// What a client hears that waits for it (RFC 9110 §15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

thread_local! {
    /// What all connections of a worker read heads into; used within one poll, never across two.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; HEAD_READ_BYTES]);
}

/// Why there is no further request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// The client closed, or the connection broke.
    Gone,
    Fault(RequestFault),
}

impl From<RequestFault> for NoHead {
    fn from(fault: RequestFault) -> Self {
        Self::Fault(fault)
    }
}

/// A connection with what was read of it.
pub(super) struct Wire {
    /// Until somebody takes it over.
    io: Option<Io>,
    /// What was read and not used.
    input: BytesMut,
    heads: RequestReader,
    /// The body of the latest request.
    body: BodyReader,
    reading: Reading,
    /// What of the 100 is still to be sent before the body comes.
    unsent_continue: &'static [u8],
    body_read_bytes: usize,
    /// How much of a body that nobody wants is still read and dropped.
    unwanted_bytes_left: u64,
    /// Who waits for the body to be settled.
    driver: Option<Waker>,
}

/// Who reads the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Its reader, as far as there is a body.
    Reader,
    /// Nobody: its reader was dropped.
    Nobody,
    /// It broke off or is malformed: where the next request begins is unknown.
    Broken,
}

impl Wire {
    /// `unread` was read from `io` before.
    pub(super) fn new(io: Io, unread: &[u8]) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            io: Some(io),
            input: unread.into(),
            heads: RequestReader::default(),
            body: BodyReader::new(Framing::Empty),
            reading: Reading::Reader,
            unsent_continue: b"",
            body_read_bytes: BODY_READ_BYTES,
            unwanted_bytes_left: UNWANTED_BYTES_MAX,
            driver: None,
        }))
    }

    /// Takes the connection, with what was read ahead; whoever still reads a body finds it broken off.
    pub(super) fn take(&mut self) -> Option<(Io, Bytes)> {
        Some((self.io.take()?, std::mem::take(&mut self.input).freeze()))
    }

    /// Whether something came that is not used.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// The next request's head, of `bytes_max` bytes at most.
    pub(super) fn poll_head(&mut self, bytes_max: usize, cx: &mut Context<'_>) -> Poll<Result<RequestHead, NoHead>> {
        if let Some(head) = self.head_of_input(bytes_max)? {
            return Poll::Ready(Ok(head));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buf = ReadBuf::new(scratch);
                let read = ready!(self.ask(|io| io.poll_read(cx, &mut buf)));
                let mut bytes = buf.filled();
                if read.is_err() || bytes.is_empty() {
                    return Poll::Ready(Err(NoHead::Gone));
                }
                let mut found = None;
                if self.input.is_empty() {
                    bytes = &bytes[blank_lines(bytes)..];
                    found = self.heads.read(bytes, bytes_max)?;
                }
                if let Some((head, len)) = found {
                    self.input.extend_from_slice(&bytes[len..]);
                    return Poll::Ready(Ok(head));
                }
                self.input.extend_from_slice(bytes);
                if let Some(head) = self.head_of_input(bytes_max)? {
                    return Poll::Ready(Ok(head));
                }
            }
        })
    }

    fn head_of_input(&mut self, bytes_max: usize) -> Result<Option<RequestHead>, RequestFault> {
        if !self.heads.has_begun() {
            self.use_up(blank_lines(&self.input));
        }
        if self.input.is_empty() {
            return Ok(None);
        }
        let Some((head, len)) = self.heads.read(&self.input, bytes_max)? else { return Ok(None) };
        self.use_up(len);
        Ok(Some(head))
    }

    fn use_up(&mut self, len: usize) {
        self.input.advance(len);
        self.give_back();
    }

    /// Gives memory back that holds nothing.
    fn give_back(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Begins with the body of a request whose head was read.
    pub(super) fn begin_body(wire: &Rc<RefCell<Self>>, head: &RequestHead) -> Body {
        let this = &mut *wire.borrow_mut();
        this.body = BodyReader::new(head.framing);
        this.reading = Reading::Reader;
        this.unsent_continue = b"";
        this.unwanted_bytes_left = UNWANTED_BYTES_MAX;
        if this.body.is_done() {
            return Body::empty();
        }
        if let Some(whole) = this.body.whole(&mut this.input) {
            this.give_back();
            return Body::full(whole);
        }
        if head.expects_continue && this.input.is_empty() {
            this.unsent_continue = CONTINUE;
        }
        Reader(Rc::clone(wire)).into()
    }

    /// Whether the body was read to its end.
    pub(super) fn body_is_over(&self) -> bool {
        self.body.is_done()
    }

    /// The answer begins: whether it is the last one of the connection, because the end of the request's body is unknown or too
    /// far away.
    pub(super) fn answer_begins(&mut self) -> bool {
        if self.unsent_continue.len() == CONTINUE.len() {
            // A client that was not asked for its body may or may not send it.
            self.unsent_continue = b"";
            self.reading = Reading::Broken;
        }
        self.ends_here()
    }

    fn ends_here(&self) -> bool {
        let is_far = || self.body.left().is_some_and(|left| left > UNWANTED_BYTES_MAX);
        self.reading == Reading::Broken || self.reading == Reading::Nobody && is_far()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll_piece(cx).map_err(|error| {
            self.reading = Reading::Broken;
            error
        });
        if self.body.is_done() || self.reading == Reading::Broken {
            self.settled();
        }
        polled
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.reading == Reading::Broken {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::BrokenPipe).into())));
        }
        loop {
            let piece = self.body.next(&mut self.input)?;
            self.give_back();
            match piece {
                Piece::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Piece::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Piece::End => return Poll::Ready(None),
                Piece::More => {}
            }
            ready!(self.poll_continue(cx))?;
            if ready!(self.poll_fill(cx))? == 0 {
                self.body.close()?;
            }
        }
    }

    /// Asks a client that waits for it for its body.
    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent_continue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.unsent_continue.is_empty() {
            let unsent = self.unsent_continue;
            let sent = ready!(self.ask(|io| io.poll_write(cx, unsent)))?;
            self.unsent_continue = &unsent[sent..];
        }
        // What TLS keeps of it goes with what is written next.
        self.ask(|io| io.poll_flush(cx))
    }

    /// Reads more of the body; none is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.body.left().map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let wanted = self.body_read_bytes.min(left);
        if self.input.capacity() - self.input.len() < wanted / 2 + 1 {
            self.input.reserve(wanted);
        }
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let len = ready!(pin!(io.read_buf(&mut self.input)).poll(cx))?;
        if len >= self.body_read_bytes {
            self.body_read_bytes = (self.body_read_bytes * 2).min(BODY_READ_BYTES_MAX);
        }
        Poll::Ready(Ok(len))
    }

    /// Tells the driver that nobody reads the body any more.
    fn settled(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Ready when nobody reads the request's body any more: whether another request may follow. What nobody wanted of it is
    /// dropped, as far as that is worth it.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            match self.reading {
                _ if self.body.is_done() => break,
                Reading::Broken => return Poll::Ready(false),
                Reading::Reader => {
                    self.driver = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Reading::Nobody if self.ends_here() => return Poll::Ready(false),
                Reading::Nobody => {}
            }
            let Some(frame) = ready!(self.poll_body(cx)) else { continue };
            let len = frame.map_or(u64::MAX, |frame| frame.data_ref().map_or(0, |data| data.len() as u64));
            match self.unwanted_bytes_left.checked_sub(len) {
                Some(left) => self.unwanted_bytes_left = left,
                None => return Poll::Ready(false),
            }
        }
        self.body_read_bytes = BODY_READ_BYTES;
        Poll::Ready(true)
    }

    /// Ready when the client has gone whose request is being answered: it closed, or the connection broke. What it sends ahead is
    /// kept.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.body.is_done() || !self.input.is_empty() {
            return Poll::Pending;
        }
        let mut space = [const { MaybeUninit::uninit() }; AHEAD_BYTES];
        let mut ahead = ReadBuf::uninit(&mut space);
        let read = ready!(self.ask(|io| io.poll_read(cx, &mut ahead)));
        if read.is_err() || ahead.filled().is_empty() {
            return Poll::Ready(());
        }
        self.input.extend_from_slice(ahead.filled());
        Poll::Pending
    }

    /// Writes what the kernel takes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // Of a 100 that has begun.
        ready!(self.poll_continue(cx))?;
        self.ask(|io| match slices {
            [one] => io.poll_write(cx, one),
            several => io.poll_write_vectored(cx, several),
        })
    }

    /// Ready when all that was written has left this process.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ask(|io| io.poll_flush(cx))
    }

    fn ask<T>(&mut self, ask: impl FnOnce(Pin<&mut Io>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.io {
            Some(io) => ask(Pin::new(io)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// How many bytes at the front are blank lines: some clients send one behind a body (RFC 9112 §2.2). They begin no head.
fn blank_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(after) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
        rest = after;
    }
    bytes.len() - rest.len()
}

/// Reads the body of a request that was not there with its head.
pub(in crate::server) struct Reader(Rc<RefCell<Wire>>);

impl Reader {
    pub(in crate::server) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.borrow_mut().poll_body(cx)
    }

    pub(in crate::server) fn is_at_end(&self) -> bool {
        self.0.borrow().body.is_done()
    }

    pub(in crate::server) fn size_hint(&self) -> SizeHint {
        self.0.borrow().body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let wire = &mut *self.0.borrow_mut();
        if wire.reading == Reading::Reader {
            wire.reading = Reading::Nobody;
        }
        wire.settled();
    }
}
