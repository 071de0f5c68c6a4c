//! A held stream, whichever HTTP version carries it.

use crate::hub::shard::Outlet;
use crate::proto::chunk::Chunk;
use crate::server::fan_out::Form;
use crate::server::h2::stream::{Reader, Sender};
use crate::server::io::Io;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may be queued before [`Link::has_room`] says no.
pub const LINK_QUEUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a client may send ahead while it waits for an answer; the rest waits in the kernel.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// Pieces that go out in one system call.
const SLICES_MAX: usize = 32;

/// A client's end of a held response or WebSocket.
#[derive(Debug)]
pub struct Link {
    queue: Queue,
    carrier: Carrier,
}

#[derive(Debug)]
enum Carrier {
    H1 { io: Io, unread: Unread, framing: Framing },
    H2 { sender: Sender, reader: Option<Reader>, unread: Unread },
}

/// How pieces are framed on HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As chunks (RFC 9112 §7.1).
    Chunked,
    /// Not at all: an upgraded connection, or a body that ends with the connection (HTTP/1.0).
    Raw,
    /// Not at all, and the end was sent.
    Ended,
}

/// What was read from the client and is read again: rarely anything, so that it has no more room than to say so.
#[derive(Debug, Default)]
struct Unread(Option<Box<Bytes>>);

impl From<Bytes> for Unread {
    fn from(bytes: Bytes) -> Self {
        Self((!bytes.is_empty()).then(|| Box::new(bytes)))
    }
}

impl Unread {
    fn as_slice(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| bytes)
    }

    /// Moves as much as fits into `buffer`.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let Some(bytes) = &mut self.0 else { return 0 };
        let len = bytes.len().min(buffer.len());
        bytes.copy_to_slice(&mut buffer[..len]);
        if bytes.is_empty() {
            // Frees the buffer that it was a part of.
            self.0 = None;
        }
        len
    }

    fn into_bytes(self) -> Bytes {
        self.0.map_or_else(Bytes::new, |bytes| *bytes)
    }
}

/// What waits to be sent. The usual one piece takes no allocation, and more than one is rare.
#[derive(Debug, Default)]
struct Queue {
    front: Bytes,
    #[expect(
        clippy::box_collection,
        reason = "a waiting session has none, and room for no more than that it has none"
    )]
    rest: Option<Box<VecDeque<Bytes>>>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        if self.front.is_empty() {
            self.front = bytes;
        } else {
            self.rest.get_or_insert_default().push_back(bytes);
        }
    }

    fn push_front(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            let second = std::mem::replace(&mut self.front, bytes);
            if !second.is_empty() {
                self.rest.get_or_insert_default().push_front(second);
            }
        }
    }

    /// Takes note that `sent` bytes are gone.
    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while sent > 0 {
            let of_front = sent.min(self.front.len());
            self.front.advance(of_front);
            sent -= of_front;
            self.next_front();
        }
    }

    /// Moves the first `len` bytes to the end of `out`.
    fn move_into(&mut self, out: &mut Vec<u8>, mut len: usize) {
        while len > 0 {
            let of_front = len.min(self.front.len());
            out.extend_from_slice(&self.front[..of_front]);
            self.advance(of_front);
            len -= of_front;
        }
    }

    fn next_front(&mut self) {
        if self.front.is_empty() {
            self.front = self.rest.as_mut().and_then(|rest| rest.pop_front()).unwrap_or_default();
            self.rest.take_if(|rest| rest.is_empty());
        }
    }
}

impl Link {
    /// A link over an HTTP/1.1 connection, after `head` (the response head's bytes). `unread` was read already.
    pub fn h1(io: Io, unread: Bytes, head: Bytes, framing: Framing) -> Self {
        let mut queue = Queue::default();
        queue.push(head);
        Self { queue, carrier: Carrier::H1 { io, unread: unread.into(), framing } }
    }

    /// A link over an HTTP/1.1 connection whose response heads are pushed like all else.
    pub(in crate::server) fn bare(io: Io, unread: Bytes) -> Self {
        Self::h1(io, unread, Bytes::new(), Framing::Raw)
    }

    /// The connection, and what was read of it and not used; `None` for a stream of HTTP/2.
    pub(in crate::server) fn into_h1(self) -> Option<(Io, Bytes)> {
        match self.carrier {
            Carrier::H1 { io, unread, .. } => Some((io, unread.into_bytes())),
            Carrier::H2 { .. } => None,
        }
    }

    /// A link over an HTTP/2 stream whose response head has been sent. Without `reader` the client has sent all.
    pub(in crate::server) fn h2(sender: Sender, reader: Option<Reader>) -> Self {
        Self { queue: Queue::default(), carrier: Carrier::H2 { sender, reader, unread: Unread::default() } }
    }

    /// Whether pieces are framed as chunks.
    pub fn is_chunked(&self) -> bool {
        matches!(self.carrier, Carrier::H1 { framing: Framing::Chunked, .. })
    }

    /// Whether more should be queued: false while the client takes less than it is sent.
    pub fn has_room(&self) -> bool {
        self.queue.bytes < LINK_QUEUE_BYTES_MAX
    }

    /// Whether everything queued has been handed over.
    pub fn is_flushed(&self) -> bool {
        self.queue.bytes == 0
    }

    /// Queues a piece; nothing is copied.
    pub fn push(&mut self, chunk: &Chunk) {
        self.queue.push(match &self.carrier {
            Carrier::H1 { framing: Framing::Chunked, .. } => chunk.framed().clone(),
            Carrier::H1 { .. } | Carrier::H2 { .. } => chunk.content(),
        });
    }

    /// Queues bytes for a link that is not chunked (a WebSocket's, a tunnel's).
    pub fn push_raw(&mut self, bytes: Bytes) {
        debug_assert!(!matches!(self.carrier, Carrier::H1 { framing: Framing::Chunked, .. }));
        self.queue.push(bytes);
    }

    /// Whether it is a connection in cleartext, so that [`Link::lend`] may have something to lend.
    pub fn can_lend(&self) -> bool {
        matches!(self.carrier, Carrier::H1 { io: Io::Tcp(_), .. })
    }

    /// Lends the socket of a connection in cleartext to which all has been written, so that the worker's pump writes messages
    /// in `form` to it. Whoever uses the link next gets it back: [`Link::take_back`].
    pub fn lend(&mut self, owner: u32, form: &'static Form) -> Option<Outlet> {
        let is_flushed = self.is_flushed();
        let Carrier::H1 { io, unread, .. } = &mut self.carrier else { return None };
        if is_flushed && unread.0.is_none() { io.lend(owner, form) } else { None }
    }

    /// Takes a lent socket back; what its client has not taken yet of what was written is queued before all else.
    pub fn take_back(&mut self) {
        if let Carrier::H1 { io, .. } = &mut self.carrier {
            self.queue.push_front(io.take_back());
        }
    }

    /// Hands the queue to the kernel (h1) or to the connection (h2). Ready: all is handed over. Pending: the client is
    /// slow; the task is woken when more can go.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.take_back();
        match &mut self.carrier {
            Carrier::H1 { io, .. } => flush_h1(io, &mut self.queue, cx),
            Carrier::H2 { sender, .. } => flush_h2(sender, &mut self.queue, cx),
        }
    }

    /// Reads what the client sends; 0 is its end.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.take_back();
        let (Carrier::H1 { unread, .. } | Carrier::H2 { unread, .. }) = &mut self.carrier;
        if unread.0.is_none() {
            match &mut self.carrier {
                Carrier::H1 { io, .. } => {
                    let mut buf = ReadBuf::new(buffer);
                    ready!(Pin::new(io).poll_read(cx, &mut buf))?;
                    return Poll::Ready(Ok(buf.filled().len()));
                }
                Carrier::H2 { reader, unread, .. } => {
                    let Some(reader) = reader else { return Poll::Ready(Ok(0)) };
                    match ready!(reader.poll_data(cx)) {
                        Some(Ok(data)) => *unread = data.into(),
                        Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                        None => return Poll::Ready(Ok(0)),
                    }
                }
            }
        }
        let (Carrier::H1 { unread, .. } | Carrier::H2 { unread, .. }) = &mut self.carrier;
        let len = unread.take(buffer);
        if len == 0 && !buffer.is_empty() {
            // An empty DATA frame is not the end.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(len))
    }

    /// Puts back what was read and is not for the reader: it is what is read next.
    pub fn put_back(&mut self, bytes: &[u8]) {
        let (Carrier::H1 { unread, .. } | Carrier::H2 { unread, .. }) = &mut self.carrier;
        *unread = Bytes::from([bytes, unread.as_slice()].concat()).into();
    }

    /// Ready when a client that waits for an answer is gone. What it sends ahead is kept for [`Link::poll_read`].
    pub fn poll_gone_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Carrier::H1 { io, unread, .. } = &mut self.carrier else { return self.poll_gone(cx) };
        let mut scratch = [0; 1024];
        while unread.as_slice().len() < AHEAD_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    *unread = Bytes::from([unread.as_slice(), buf.filled()].concat()).into()
                }
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// What a future makes while the client waits for it, or `None` when the client is gone.
    pub async fn unless_gone<T>(&mut self, waiting: impl Future<Output = T>) -> Option<T> {
        let mut waiting = pin!(waiting);
        poll_fn(|cx| match waiting.as_mut().poll(cx) {
            Poll::Ready(made) => Poll::Ready(Some(made)),
            Poll::Pending => self.poll_gone_ahead(cx).map(|()| None),
        })
        .await
    }

    /// Ready when the client of a one-way stream is gone: it closed the connection or reset the stream. What it still
    /// sends goes unheard.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.take_back();
        match &mut self.carrier {
            Carrier::H1 { io, unread, .. } => {
                *unread = Unread::default();
                let mut scratch = [0; 1024];
                // A client that goes on sending is heard for a moment only, then others have their turn.
                for _ in 0..16 {
                    let mut buf = ReadBuf::new(&mut scratch);
                    match ready!(Pin::new(&mut *io).poll_read(cx, &mut buf)) {
                        Ok(()) if !buf.filled().is_empty() => {}
                        Ok(()) | Err(_) => return Poll::Ready(()),
                    }
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Carrier::H2 { sender, .. } => sender.poll_reset(cx).map(|_| ()),
        }
    }

    /// Flushes, then ends the stream cleanly: last chunk, END_STREAM, and a TCP (TLS) shutdown on HTTP/1.1.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Carrier::H1 { framing: framing @ Framing::Chunked, .. } = &mut self.carrier {
            *framing = Framing::Ended;
            self.queue.push(Bytes::from_static(b"0\r\n\r\n"));
        }
        ready!(self.poll_flush(cx))?;
        match &mut self.carrier {
            Carrier::H1 { io, .. } => Pin::new(io).poll_shutdown(cx),
            Carrier::H2 { sender, .. } => Poll::Ready(sender.finish().map_err(io::Error::other)),
        }
    }
}

fn flush_h1(io: &mut Io, queue: &mut Queue, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !queue.front.is_empty() {
        let sent = if queue.rest.is_none() {
            ready!(Pin::new(&mut *io).poll_write(cx, &queue.front))?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let pieces = std::iter::once(&queue.front).chain(queue.rest.iter().flat_map(|rest| rest.iter()));
            let count = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        queue.advance(sent);
    }
    Pin::new(io).poll_flush(cx)
}

fn flush_h2(sender: &Sender, queue: &mut Queue, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !queue.front.is_empty() {
        let capacity = ready!(sender.poll_capacity(cx)).map_err(io::Error::other)?;
        // A burst of tiny frames looks like an attack: clients that guard against one close the whole connection.
        let len = capacity.min(queue.bytes);
        sender.send_frame(len, |len, out| queue.move_into(out, len)).map_err(io::Error::other)?;
    }
    // Whoever sends hears of a reset, also when nothing is queued or all found room.
    match sender.poll_reset(cx) {
        Poll::Ready(error) => Poll::Ready(Err(io::Error::other(error))),
        Poll::Pending => Poll::Ready(Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_gives_its_pieces_in_order() {
        let mut queue = Queue::default();
        for piece in ["ab", "", "cde", "f"] {
            queue.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(queue.bytes, 6);
        queue.advance(3);
        assert_eq!((queue.front.as_ref(), queue.bytes), (&b"de"[..], 3));
        let mut out = b"-".to_vec();
        queue.move_into(&mut out, 1);
        queue.move_into(&mut out, 2);
        assert_eq!(out, b"-def");
        assert!(queue.front.is_empty() && queue.bytes == 0);
    }
}
