//! A client's TLS connection that keeps no buffer while nothing is under way.
//!
//! rustls' own buffered connection keeps a receive buffer of 4 KiB from the first read to the end: on a held stream, half
//! of all its memory. Here rustls works on buffers that all connections of a worker share (`Scratch`). A connection
//! has a buffer of its own only for what is left over when its turn ends: a record that has not arrived whole, plaintext
//! that its reader had no room for, records that the kernel did not take.
//!
//! ```text
//! read:  kernel ─▶ scratch.records ─▶ rustls ─▶ the reader │ rest: `unread`     begun record: `begun`
//! write: the writer ─▶ rustls ─▶ scratch.sealed ─▶ kernel  │ rest: `unsent`     nothing more is taken before it is gone
//! ```
//!
//! Knows nothing of HTTP, and nothing of certificates.

mod engine;

use bytes::{Buf, BytesMut};
use engine::{Engine, Sealed};
use rustls::ServerConfig;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is read at once, with what was begun: the longest handshake message that rustls takes, with its records' heads.
const RECORDS_BYTES: usize = 66 * 1024;
/// Plaintext that is sealed at once: four records (RFC 8446 §5.1).
const PLAIN_BYTES_MAX: usize = 64 * 1024;
/// What sealing adds to it; more is made room for when the library asks.
const SEALED_BYTES: usize = PLAIN_BYTES_MAX + 1024;

thread_local! {
    /// Used within one poll, never across two.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// What all connections of a worker read into and seal into. Pages that no record was long enough for are never touched.
struct Scratch {
    records: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Scratch {
    fn new() -> Self {
        Self { records: vec![0; RECORDS_BYTES], plain: Vec::new(), sealed: vec![0; SEALED_BYTES] }
    }
}

/// A TLS connection, as its server sees it.
#[derive(Debug)]
pub struct TlsStream {
    tcp: TcpStream,
    engine: Engine,
    /// The beginning of a record, or of a handshake message.
    begun: Vec<u8>,
    /// Plaintext that nobody has read yet.
    unread: BytesMut,
    /// Records that the kernel has not taken yet.
    unsent: BytesMut,
}

impl TlsStream {
    /// Shakes hands with a client. Dropping the future closes the connection.
    ///
    /// # Errors
    /// When the client is gone, or breaks the protocol; it has been told then, if its socket had room for that.
    pub async fn accept(config: Arc<ServerConfig>, tcp: TcpStream) -> io::Result<Self> {
        let engine = Engine::new(config).map_err(io::Error::other)?;
        let mut stream = Self { tcp, engine, begun: Vec::new(), unread: BytesMut::new(), unsent: BytesMut::new() };
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The protocol that was agreed on by ALPN.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.engine.alpn_protocol()
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// How many bytes of records the kernel has not taken yet.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.engine.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once; plaintext goes to `reader`, and what it has no room for is kept. Says how many bytes came off the
    /// wire: none are its end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, reader: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|Scratch { records, .. }| {
            let begun = self.begun.len();
            if begun == records.len() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long")));
            }
            let mut wire = ReadBuf::new(&mut records[begun..]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut wire))?;
            let read = wire.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            records[..begun].copy_from_slice(&self.begun);
            let records = &mut records[..begun + read];
            let unread = &mut self.unread;
            let opened = self.engine.open(records, &mut self.unsent, |plain| {
                let fits = if unread.is_empty() { plain.len().min(reader.remaining()) } else { 0 };
                reader.put_slice(&plain[..fits]);
                unread.extend_from_slice(&plain[fits..]);
            });
            let used = *opened.as_ref().unwrap_or(&records.len());
            // A Vec of nothing has no memory.
            self.begun = records[used..].to_vec();
            // Alerts and the like go now if they can; else with what is written next.
            self.try_send();
            Poll::Ready(opened.map(|_| read).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
        })
    }

    /// Seals up to [`PLAIN_BYTES_MAX`] of `plain` and sends it, as far as the kernel takes it. Nothing may be unsent.
    fn seal(&mut self, plain: Sealed<'_>, sealed: &mut Vec<u8>, cx: &mut Context<'_>) -> io::Result<()> {
        let len = self.engine.seal(plain, &mut self.begun, sealed)?;
        let mut rest = &sealed[..len];
        while !rest.is_empty() {
            match Pin::new(&mut self.tcp).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => rest = &rest[sent..],
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.unsent.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sends what is unsent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends of the unsent what can go at once. A failure shows at the next write.
    fn try_send(&mut self) {
        while !self.unsent.is_empty() {
            match self.tcp.try_write(&self.unsent) {
                Ok(sent) if sent > 0 => self.sent(sent),
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn sent(&mut self, bytes: usize) {
        self.unsent.advance(bytes);
        if self.unsent.is_empty() {
            self.unsent = BytesMut::new();
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        loop {
            if !this.unread.is_empty() {
                let len = this.unread.len().min(buf.remaining());
                buf.put_slice(&this.unread[..len]);
                this.unread.advance(len);
                if this.unread.is_empty() {
                    this.unread = BytesMut::new();
                }
            }
            if buf.filled().len() > before || this.engine.client_has_ended() {
                return Poll::Ready(Ok(()));
            }
            this.engine.check()?;
            // A record may bring no plaintext: then on to the next, which may be there.
            if ready!(this.poll_receive(cx, buf))? == 0 {
                // Without a goodbye it may be somebody else who ended it (RFC 8446 §6.1).
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let plain = &buf[..buf.len().min(PLAIN_BYTES_MAX)];
        SCRATCH.with_borrow_mut(|scratch| this.seal(Sealed::Plain(plain), &mut scratch.sealed, cx))?;
        Poll::Ready(Ok(plain.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        SCRATCH.with_borrow_mut(|Scratch { plain, sealed, .. }| {
            // One record for small pieces costs less than one for each, also the client.
            plain.clear();
            for buf in bufs {
                plain.extend_from_slice(&buf[..buf.len().min(PLAIN_BYTES_MAX - plain.len())]);
            }
            this.seal(Sealed::Plain(plain), sealed, cx)?;
            Poll::Ready(Ok(plain.len()))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if this.engine.may_say_goodbye() {
            SCRATCH.with_borrow_mut(|scratch| this.seal(Sealed::Goodbye, &mut scratch.sealed, cx))?;
            ready!(this.poll_send(cx))?;
        }
        match ready!(Pin::new(&mut this.tcp).poll_shutdown(cx)) {
            // The client has closed it, too.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

#[cfg(test)]
mod tests;
