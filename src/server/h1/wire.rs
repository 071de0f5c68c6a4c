//! A connection as its driver and the body of the request under way share it.
//!
//! What is read goes through a buffer that all connections of a worker share, and a head is copied out of it: a connection that
//! waits has no buffer. Only the body of a request is read into memory of its own, because it is handed on as it is.
//!
//! A socket remembers one task that waits to read it and one that waits to write. The driver and the body's reader may be in two tasks: so
//! only the reader waits to read while there is one, and tells the driver when it is done; and who ends a 100 tells the other.

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

/// What is read at once of what a client sends ahead of its answer, and how much of it is kept; the rest waits in the kernel.
const AHEAD_READ_BYTES: usize = 1024;
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// What is read at once of a head.
const HEAD_READ_BYTES: usize = 16 * 1024;
/// What is read at once of a body, at first, and of a large one.
const BODY_READ_BYTES: usize = 8 * 1024;
const BODY_READ_BYTES_MAX: usize = 64 * 1024;
/// What is read and dropped of a body that nobody wants, so that its connection lasts.
const UNWANTED_BYTES_MAX: u64 = 64 * 1024;
/// What is read and dropped, during the last answer of a connection, of what comes behind: as much as sockets may hold, so that the
/// client's end is heard.
const BEHIND_BYTES_MAX: usize = 8 * 1024 * 1024;

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
    /// How many requests there were: a reader knows whose body it reads.
    requests: u64,
    /// The body of the latest request.
    body: BodyReader,
    reading: Reading,
    interim: Interim,
    body_read_bytes: usize,
    /// How much of a body that nobody wants is still read and dropped.
    unwanted_bytes_left: u64,
    behind_bytes_left: usize,
    /// Whether the client closed, or the connection broke.
    is_gone: bool,
    /// Who waits until nobody reads the body any more.
    driver: Option<Waker>,
    /// Who waits for room for a 100, or for its end to write something else.
    asking: Vec<Waker>,
}

/// Who reads the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Its reader, as far as there is a body.
    Reader,
    /// Nobody: its reader was dropped.
    Nobody,
    /// Nobody, and where the next request begins is unknown: it broke off, is malformed, or its client was not asked for it.
    Broken,
}

/// How far the 100 is that a client waits for before it sends its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interim {
    /// Not begun: it may be left out.
    Due,
    /// This is still to be written.
    Unsent(&'static [u8]),
    /// Written, as far as it has not left this process.
    Unflushed,
    /// Sent, or not wanted.
    Done,
}

impl Wire {
    /// `unread` was read from `io` before.
    pub(super) fn new(io: Io, unread: &[u8]) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            io: Some(io),
            input: unread.into(),
            heads: RequestReader::default(),
            requests: 0,
            body: BodyReader::new(Framing::Empty),
            reading: Reading::Reader,
            interim: Interim::Done,
            body_read_bytes: BODY_READ_BYTES,
            unwanted_bytes_left: UNWANTED_BYTES_MAX,
            behind_bytes_left: BEHIND_BYTES_MAX,
            is_gone: false,
            driver: None,
            asking: Vec::new(),
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
        self.skip_blank_lines();
        if self.input.is_empty() {
            return Ok(None);
        }
        let Some((head, len)) = self.heads.read(&self.input, bytes_max)? else { return Ok(None) };
        self.use_up(len);
        Ok(Some(head))
    }

    fn skip_blank_lines(&mut self) {
        if !self.heads.has_begun() {
            self.use_up(blank_lines(&self.input));
        }
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
        this.requests += 1;
        this.body = BodyReader::new(head.framing);
        this.reading = Reading::Reader;
        this.interim = Interim::Done;
        this.unwanted_bytes_left = UNWANTED_BYTES_MAX;
        if this.body.is_done() {
            return Body::empty();
        }
        if let Some(whole) = this.body.whole(&mut this.input) {
            this.give_back();
            return Body::full(whole);
        }
        if head.expects_continue && this.input.is_empty() {
            this.interim = Interim::Due;
        }
        Reader { wire: Rc::clone(wire), request: this.requests }.into()
    }

    /// Whether the body was read to its end.
    pub(super) fn body_is_over(&self) -> bool {
        self.body.is_done()
    }

    /// Whether nobody reads the body any more.
    pub(super) fn is_unwanted(&self) -> bool {
        self.reading != Reading::Reader
    }

    /// The answer begins: whether it is the last one of the connection, because the end of the request's body is unknown or too
    /// far away.
    pub(super) fn answer_begins(&mut self) -> bool {
        self.ask_no_more();
        self.ends_here()
    }

    /// Leaves a 100 out that has not begun. A client that was not asked for its body may or may not send it.
    fn ask_no_more(&mut self) {
        let is_unasked = match self.interim {
            Interim::Due => true,
            Interim::Unsent(unsent) => unsent.len() == CONTINUE.len(),
            Interim::Unflushed | Interim::Done => false,
        };
        if is_unasked {
            self.interim = Interim::Done;
            self.reading = Reading::Broken;
        }
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
            if self.interim == Interim::Due {
                self.interim = Interim::Unsent(CONTINUE);
            }
            ready!(self.poll_interim(cx))?;
            if ready!(self.poll_fill(cx))? == 0 {
                self.body.close()?;
            }
        }
    }

    /// Sends what there is of a 100 that has begun. The socket remembers who asked last; who asked before is told when it is done.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.interim, Interim::Unsent(_) | Interim::Unflushed) {
            return Poll::Ready(Ok(()));
        }
        let sent = self.poll_continue(cx);
        match sent {
            Poll::Pending if self.asking.iter().any(|known| known.will_wake(cx.waker())) => {}
            Poll::Pending => self.asking.push(cx.waker().clone()),
            Poll::Ready(_) => self.asking.drain(..).for_each(Waker::wake),
        }
        sent
    }

    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Interim::Unsent(unsent) = self.interim {
            let sent = ready!(self.ask(|io| io.poll_write(cx, unsent)))?;
            self.interim = if sent < unsent.len() { Interim::Unsent(&unsent[sent..]) } else { Interim::Unflushed };
        }
        if self.interim == Interim::Unflushed {
            ready!(self.ask(|io| io.poll_flush(cx)))?;
            self.interim = Interim::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more of the body; none is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.body.left().map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let wanted = self.body_read_bytes.min(left);
        if self.input.capacity() - self.input.len() < wanted / 2 + 1 {
            self.input.reserve(wanted);
        }
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let read = ready!(pin!(io.read_buf(&mut self.input)).poll(cx));
        self.is_gone = !matches!(read, Ok(1..));
        let len = read?;
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

    /// Ready when nobody reads the request's body any more: whether another request may follow. What nobody wants of it is
    /// dropped, as far as that is worth it.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while !self.body.is_done() {
            if self.ends_here() {
                return Poll::Ready(false);
            }
            if self.reading == Reading::Reader {
                self.driver = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let Some(frame) = ready!(self.poll_body(cx)) else { continue };
            let len = frame.map_or(u64::MAX, |frame| frame.data_ref().map_or(0, |data| data.len() as u64));
            match self.unwanted_bytes_left.checked_sub(len) {
                Some(left) => self.unwanted_bytes_left = left,
                // So that nobody goes on in the middle of it.
                None => self.reading = Reading::Broken,
            }
        }
        self.body_read_bytes = BODY_READ_BYTES;
        Poll::Ready(true)
    }

    /// Ready when the client has gone whose request is being answered: it closed, or the connection broke. What it sends ahead is
    /// kept.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // While somebody reads the body, that one hears of the end.
        let may_listen = self.poll_settled(cx).is_ready();
        if self.is_gone {
            return Poll::Ready(());
        }
        if !may_listen {
            return Poll::Pending;
        }
        if self.ends_here() {
            return self.poll_end(cx);
        }
        while self.input.len() < AHEAD_BYTES_MAX {
            let mut space = [const { MaybeUninit::uninit() }; AHEAD_READ_BYTES];
            let mut ahead = ReadBuf::uninit(&mut space);
            let read = ready!(self.ask(|io| io.poll_read(cx, &mut ahead)));
            if read.is_err() || ahead.filled().is_empty() {
                self.is_gone = true;
                return Poll::Ready(());
            }
            self.input.extend_from_slice(ahead.filled());
            if self.body.is_done() {
                self.skip_blank_lines();
            }
        }
        Poll::Pending
    }

    /// Ready at the client's end; what comes before it is dropped.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.input = BytesMut::new();
        SCRATCH.with_borrow_mut(|scratch| {
            while self.behind_bytes_left > 0 {
                let mut behind = ReadBuf::new(scratch);
                let read = ready!(self.ask(|io| io.poll_read(cx, &mut behind)));
                let len = behind.filled().len();
                if read.is_err() || len == 0 {
                    self.is_gone = true;
                    return Poll::Ready(());
                }
                self.behind_bytes_left = self.behind_bytes_left.saturating_sub(len);
            }
            Poll::Pending
        })
    }

    /// Writes what the kernel takes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.ask(|io| match slices {
            [one] => io.poll_write(cx, one),
            several => io.poll_write_vectored(cx, several),
        })
    }

    /// Ready when all that was written has left this process.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        self.ask(|io| io.poll_flush(cx))
    }

    /// How many bytes that were written have not left this process.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.io.as_ref().map_or(0, Io::unsent_bytes)
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
pub(in crate::server) struct Reader {
    wire: Rc<RefCell<Wire>>,
    /// Whose body it is: a reader may be dropped when the connection has gone on.
    request: u64,
}

impl Reader {
    pub(in crate::server) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let wire = &mut *self.wire.borrow_mut();
        if wire.requests == self.request { wire.poll_body(cx) } else { Poll::Ready(None) }
    }

    pub(in crate::server) fn is_at_end(&self) -> bool {
        let wire = self.wire.borrow();
        wire.requests != self.request || wire.body.is_done()
    }

    pub(in crate::server) fn size_hint(&self) -> SizeHint {
        let wire = self.wire.borrow();
        if wire.requests != self.request {
            return SizeHint::with_exact(0);
        }
        wire.body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let wire = &mut *self.wire.borrow_mut();
        if wire.requests != self.request {
            return;
        }
        if wire.reading == Reading::Reader {
            wire.reading = Reading::Nobody;
            wire.ask_no_more();
        }
        wire.settled();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    async fn connection() -> (TcpStream, Rc<RefCell<Wire>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let server = listener.accept().await.expect("a connection").0;
        (client, Wire::new(Io::Tcp(server), b""))
    }

    async fn request(wire: &Rc<RefCell<Wire>>) -> Body {
        let head = poll_fn(|cx| wire.borrow_mut().poll_head(8192, cx)).await.expect("a head");
        Wire::begin_body(wire, &head)
    }

    async fn read(body: &mut Body) -> Vec<u8> {
        let mut data = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            data.extend_from_slice(&frame.expect("no error").into_data().expect("data"));
        }
        data
    }

    #[tokio::test]
    async fn a_reader_that_outlives_its_request_touches_no_other() {
        let (mut client, wire) = connection().await;
        client.write_all(b"POST /1 HTTP/1.1\r\nContent-Length: 2\r\n\r\n").await.expect("written");
        let mut first = request(&wire).await;
        client.write_all(b"abPOST /2 HTTP/1.1\r\nContent-Length: 90000\r\n\r\ncd").await.expect("written");
        assert_eq!(read(&mut first).await, b"ab");
        let mut second = request(&wire).await;
        assert!(poll_fn(|cx| Pin::new(&mut first).poll_frame(cx)).await.is_none());
        drop(first);
        assert!(!wire.borrow().is_unwanted() && !wire.borrow_mut().answer_begins());
        client.write_all(&[b'x'; 89_998]).await.expect("written");
        assert_eq!(read(&mut second).await.len(), 90_000);
    }

    #[tokio::test]
    async fn a_client_that_goes_is_noticed_whoever_reads() {
        for (sent, is_read) in [("", false), ("12345", false), ("12345", true), ("12345\r\n\r\nGET /", true)] {
            let (mut client, wire) = connection().await;
            let head = "POST /1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
            client.write_all(head.as_bytes()).await.expect("written");
            let mut body = request(&wire).await;
            let gone = async {
                // What the driver does while somebody else has the body.
                poll_fn(|cx| wire.borrow_mut().poll_gone(cx)).await;
            };
            let reading = async {
                client.write_all(sent.as_bytes()).await.expect("written");
                if is_read {
                    read(&mut body).await;
                }
                drop(client);
                if !is_read {
                    // To the end, or to where it broke off.
                    while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
                }
            };
            tokio::join!(gone, reading);
        }
    }

    #[tokio::test]
    async fn what_nobody_wants_is_dropped_up_to_a_bound() {
        for (len, lasts) in [(UNWANTED_BYTES_MAX, true), (UNWANTED_BYTES_MAX + 1, false)] {
            for chunked in [false, true] {
                let (mut client, wire) = connection().await;
                let framing =
                    if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {len}") };
                client.write_all(format!("POST / HTTP/1.1\r\n{framing}\r\n\r\n").as_bytes()).await.expect("written");
                drop(request(&wire).await);
                let data = vec![b'x'; len as usize];
                let sent =
                    if chunked { [format!("{len:x}\r\n").as_bytes(), &data, b"\r\n0\r\n\r\n"].concat() } else { data };
                let settled = poll_fn(|cx| wire.borrow_mut().poll_settled(cx));
                let (settled, _) = tokio::join!(settled, client.write_all(&sent));
                assert_eq!(settled, lasts, "{len} {chunked}");
            }
        }
    }
}
