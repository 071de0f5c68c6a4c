//! What is sent on a connection.
//!
//! Data goes into the connection's one buffer as soon as the windows and the buffer have room for it: until then it stays with
//! whoever sends it. So there is no queue for each stream. Senders that found no room stand in a row: nobody gets room before them, and
//! while somebody waits, nobody gets more than a frame's worth at once.

use super::{Connection, Key, Sending, StreamError, UNSENT_BYTES_MAX, WaitsFor, keep};
use crate::proto::http2::{frame, hpack};
use http::{HeaderMap, Response};
use std::task::{Context, Poll};

/// What comes after on the same stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// More of it.
    More,
    /// Nothing: it ends with this.
    Nothing,
}

impl Follows {
    fn flag(self) -> u8 {
        match self {
            Self::More => 0,
            Self::Nothing => frame::END_STREAM,
        }
    }
}

impl Connection {
    /// What is to be written.
    pub fn unsent(&self) -> &[u8] {
        &self.unsent[self.written..]
    }

    /// Takes note of what was written. An empty buffer is given back, and one of which half is written is moved up.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.unsent.len() {
            self.written = 0;
            self.unsent = Vec::new();
        } else if self.written >= self.unsent.len() / 2 {
            self.unsent.drain(..self.written);
            self.written = 0;
        }
    }

    /// Whether so much waits to be written that no more is to be read: who does not read its answers is not heard.
    pub fn is_full(&self) -> bool {
        self.unsent().len() >= UNSENT_BYTES_MAX
    }

    /// Bytes of data that fit, by the connection's window and its buffer.
    fn room(&self) -> usize {
        self.window.bytes().min(UNSENT_BYTES_MAX.saturating_sub(self.unsent().len()))
    }

    /// Has the next sender that waits for room go on, if there is some; to be called until it says false.
    pub fn let_go_on(&mut self) -> bool {
        if self.room() == 0 {
            return false;
        }
        let Some(key) = self.row.pop() else { return false };
        self.streams[key].wake_sender();
        self.streams[key].waits = WaitsFor::ItsTurn;
        true
    }

    /// Nobody waits for room on this stream any more.
    pub(super) fn leave_row(&mut self, key: Key) {
        if std::mem::replace(&mut self.streams[key].waits, WaitsFor::Nothing) == WaitsFor::Room {
            self.row.remove(key);
        }
    }

    /// Sends a response's head.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn send_head(&mut self, key: Key, head: &Response<()>, follows: Follows) -> Result<(), StreamError> {
        self.send_block(key, follows, |block| {
            hpack::status(head.status(), block);
            head.headers().iter().for_each(|(name, value)| hpack::field(name, value, block));
        })
    }

    /// Sends trailers, which end the stream.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn send_trailers(&mut self, key: Key, trailers: &HeaderMap) -> Result<(), StreamError> {
        self.send_block(key, Follows::Nothing, |block| {
            trailers.iter().for_each(|(name, value)| hpack::field(name, value, block));
        })
    }

    fn send_block(&mut self, key: Key, follows: Follows, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), StreamError> {
        let id = self.sendable(key)?;
        let mut block = Vec::with_capacity(256);
        if std::mem::take(&mut self.client.table_size_said) {
            hpack::table_size_zero(&mut block);
        }
        write(&mut block);
        frame::headers(&mut self.unsent, id, &block, follows.flag(), self.client.payload_bytes_max);
        self.streams[key].sending = Sending::Body;
        self.sent(key, follows);
        Ok(())
    }

    /// How many bytes of data may be sent now: at least one. Pending: none; the task is woken when there may be.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn poll_capacity(&mut self, key: Key, cx: &Context<'_>) -> Poll<Result<usize, StreamError>> {
        if let Err(error) = self.sendable(key) {
            return Poll::Ready(Err(error));
        }
        let (room, is_wanted) = (self.room(), !self.row.is_empty());
        let stream = &mut self.streams[key];
        let is_called = stream.waits == WaitsFor::ItsTurn;
        let capacity = match (is_wanted, is_called) {
            (false, _) => room,
            (true, true) => room.min(frame::PAYLOAD_BYTES_MAX),
            (true, false) => 0,
        };
        let capacity = capacity.min(stream.window.bytes());
        if capacity > 0 {
            if is_called {
                stream.waits = WaitsFor::Nothing;
            }
            return Poll::Ready(Ok(capacity));
        }
        keep(&mut stream.waker, cx);
        // Who stands in the row stays there: it looks at its window when it is called.
        if stream.waits != WaitsFor::Room {
            stream.waits = if stream.window.bytes() == 0 { WaitsFor::Window } else { WaitsFor::Room };
            if stream.waits == WaitsFor::Room {
                self.row.push(key);
            }
        }
        Poll::Pending
    }

    /// The longest DATA frame's payload.
    pub fn payload_bytes_max(&self) -> usize {
        self.client.payload_bytes_max.min(frame::PAYLOAD_BYTES_MAX)
    }

    /// Sends one DATA frame of `len` bytes, which `write` appends: at most [`Connection::payload_bytes_max`], and what
    /// [`Connection::poll_capacity`] said.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn send_frame(
        &mut self,
        key: Key,
        len: usize,
        follows: Follows,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StreamError> {
        let id = self.sendable(key)?;
        if self.unsent.capacity() == 0 {
            self.unsent.reserve(frame::PAYLOAD_BYTES_MAX);
        }
        frame::data_head(&mut self.unsent, id, len, follows.flag());
        write(&mut self.unsent);
        self.window.sent(len);
        self.streams[key].window.sent(len);
        self.sent(key, follows);
        Ok(())
    }

    /// Sends data, as much as [`Connection::poll_capacity`] said at most.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn send_data(&mut self, key: Key, mut data: &[u8], follows: Follows) -> Result<(), StreamError> {
        while data.len() > self.payload_bytes_max() {
            let (piece, rest) = data.split_at(self.payload_bytes_max());
            self.send_frame(key, piece.len(), Follows::More, |out| out.extend_from_slice(piece))?;
            data = rest;
        }
        self.send_frame(key, data.len(), follows, |out| out.extend_from_slice(data))
    }

    /// Ends the stream by an empty DATA frame, which needs no window.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn finish(&mut self, key: Key) -> Result<(), StreamError> {
        self.send_frame(key, 0, Follows::Nothing, |_| {})
    }

    /// Ready when the stream has ended by the client's wish or fault, or with its connection.
    pub fn poll_reset(&mut self, key: Key, cx: &Context<'_>) -> Poll<StreamError> {
        let stream = &mut self.streams[key];
        match stream.error {
            Some(error) => Poll::Ready(error),
            None => {
                keep(&mut stream.waker, cx);
                Poll::Pending
            }
        }
    }

    /// The stream's number, if something may be sent on it.
    fn sendable(&self, key: Key) -> Result<u32, StreamError> {
        let stream = &self.streams[key];
        match (stream.error, stream.sending) {
            (Some(error), _) => Err(error),
            (None, Sending::Done) => Err(StreamError::Ended),
            (None, _) => Ok(stream.id),
        }
    }

    fn sent(&mut self, key: Key, follows: Follows) {
        if follows == Follows::Nothing {
            self.leave_row(key);
            self.streams[key].sending = Sending::Done;
            self.half_closed(key);
        }
    }
}
