//! The bytes of a connection, with or without TLS.

use crate::server::tls::stream::TlsStream;
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
        }
    }

    /// Breaks the connection off: the client sees a reset (on TLS also no goodbye), not an end.
    pub fn reset(self) {
        let tcp = match &self {
            Io::Tcp(tcp) => tcp,
            Io::Tls(tls) => tls.tcp(),
        };
        // Without it the close is an ordinary one.
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
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
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Tcp(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
