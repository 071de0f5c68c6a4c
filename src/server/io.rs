//! The bytes of a connection, with or without TLS.

use crate::hub::shard::Outlet;
use crate::server::fan_out::{Form, Lent};
use crate::server::tls::stream::TlsStream;
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// A client's connection. TLS state is boxed: it is large, and most memory counts are for cleartext.
#[derive(Debug)]
pub enum Io {
    /// Cleartext.
    Tcp(TcpStream),
    /// TLS.
    Tls(Box<TlsStream>),
    /// Cleartext whose socket the worker's pump has; nothing can be read or written here then.
    Lent(Lent),
}

/// For [`Io::close`]: whatever still comes.
pub const ANY_BYTES: u64 = u64::MAX;
/// How long a client may go on sending what nobody wants before its connection is cut.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

impl Io {
    /// Ends the connection so that the client can read all it was sent: what it still sends is read and dropped, for
    /// a few seconds and up to `bytes_max`. Closing at once would answer that with a reset, which discards the answer
    /// (RFC 9112 §9.6).
    pub async fn close(mut self, bytes_max: u64) {
        // Boxed: what serves a connection is not to have room for its end all the time.
        let closing = Box::pin(async {
            self.shutdown().await?;
            tokio::io::copy(&mut (&mut self).take(bytes_max), &mut tokio::io::sink()).await
        });
        // Whatever goes wrong now, the connection is gone.
        let _ = tokio::time::timeout(LINGER_TIMEOUT, closing).await;
    }

    /// How many bytes that were written have not left this process: TLS keeps what the kernel does not take.
    pub fn unsent_bytes(&self) -> usize {
        match self {
            Io::Tcp(_) => 0,
            Io::Tls(tls) => tls.unsent_bytes(),
            Io::Lent(_) => 0,
        }
    }

    /// Lends a cleartext connection's socket to the worker's pump, for the messages of the session with this key.
    pub(in crate::server) fn lend(&mut self, owner: u32, form: &'static Form) -> Option<Outlet> {
        if !matches!(self, Io::Tcp(_)) {
            return None;
        }
        let Io::Tcp(tcp) = std::mem::replace(self, Io::Lent(Lent::default())) else { return None };
        let lent = Lent::new(tcp, owner, form);
        let outlet = lent.outlet();
        *self = Io::Lent(lent);
        Some(outlet)
    }

    /// Takes a lent socket back; what its client has not taken yet of what the pump wrote.
    #[inline]
    pub(in crate::server) fn take_back(&mut self) -> Bytes {
        let Io::Lent(lent) = self else { return Bytes::new() };
        let Some((tcp, rest)) = lent.take_back() else { return Bytes::new() };
        *self = Io::Tcp(tcp);
        rest
    }

    /// Breaks the connection off: the client sees a reset (on TLS also no goodbye), not an end.
    pub fn reset(mut self) {
        self.take_back();
        let tcp = match &self {
            Io::Tcp(tcp) => tcp,
            Io::Tls(tls) => tls.tcp(),
            Io::Lent(_) => return,
        };
        // Without it the close is an ordinary one.
        let _ = tcp.set_zero_linger();
    }
}

/// Whoever uses a lent connection takes it back before.
fn lent() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is lent")
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Io::Lent(_) => Poll::Ready(Err(lent())),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Io::Lent(_) => Poll::Ready(Err(lent())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Lent(_) => Poll::Ready(Err(lent())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Tcp(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
            Io::Lent(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
            Io::Lent(_) => Poll::Ready(Err(lent())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Io::Lent(_) => Poll::Ready(Err(lent())),
        }
    }
}
