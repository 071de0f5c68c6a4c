//! A held stream, whichever HTTP version carries it.

use crate::proto::chunk::Chunk;
use std::io;
use std::task::{Context, Poll};

/// A client's end of a held response or WebSocket.
pub struct Link {}

impl Link {
    /// Whether more should be queued: false while the client takes less than it is sent.
    pub fn has_room(&self) -> bool {
        true
    }

    /// Queues a piece; nothing is copied.
    pub fn push(&mut self, _chunk: &Chunk) {}

    /// Hands the queue to the kernel (h1) or to the connection (h2). Ready: all is handed over. Pending: the client is
    /// slow; the task is woken when more can go.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Reads what the client sends; 0 is its end.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn poll_read(&mut self, _cx: &mut Context<'_>, _buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    /// Flushes, then ends the stream cleanly: last chunk, END_STREAM, or a TCP (TLS) shutdown of a raw link.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
