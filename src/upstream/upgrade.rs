//! A connection that left HTTP: the upstream's end of a WebSocket or another protocol.

use crate::server::Response;
use crate::upstream::lease::Lease;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a server made of an upgrade request.
pub enum Upgraded {
    /// It switched protocols (101).
    Switched {
        /// Status 101 with all fields that came.
        head: http::Response<()>,
        /// Its end of the connection.
        io: UpstreamIo,
    },
    /// It answered with an ordinary response.
    Answered(Response),
}

/// The upstream's end of a connection that left HTTP. Dropping it closes the connection.
pub struct UpstreamIo {
    stream: TcpStream,
    /// What came right behind the response head.
    early: Bytes,
    /// The server stays busy as long as this lasts.
    _lease: Lease,
}

impl UpstreamIo {
    /// Takes the connection out of its exchange.
    pub(super) fn take(mut lease: Lease) -> Option<Self> {
        let (stream, input) = lease.take_http1()?.into_parts()?;
        // A copy, so that the whole read buffer is not kept for a few bytes.
        Some(Self { stream, early: Bytes::copy_from_slice(&input), _lease: lease })
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let take = this.early.len().min(buffer.remaining());
        buffer.put_slice(&this.early[..take]);
        this.early.advance(take);
        if this.early.is_empty() {
            this.early = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
