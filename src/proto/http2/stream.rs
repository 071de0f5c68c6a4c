//! One stream's state (RFC 9113 §5.1), and what its client sent that nobody has read yet.

use crate::proto::http2::window::{ReceiveWindow, SendWindow};
use crate::proto::http2::{StreamError, connection::Key};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use std::collections::VecDeque;
use std::task::{Context, Waker};

/// Pieces up to this size are gathered: many tiny frames are not to cost more memory than what is in them.
const GATHERED_BYTES_MAX: usize = 4 * 1024;

/// A stream that has a request, until all that speak of it are gone.
#[derive(Debug)]
pub struct Stream {
    pub(super) id: u32,
    pub(super) window: SendWindow,
    /// Who sends, or waits for the end.
    pub(super) waker: Option<Waker>,
    /// The body, as long as somebody reads it. Most requests have none.
    pub(super) receiving: Option<Box<Receiving>>,
    pub(super) error: Option<StreamError>,
    pub(super) sending: Sending,
    /// Whether the client may still send.
    pub(super) may_receive: bool,
    pub(super) waits: WaitsFor,
    /// How many speak of it: who sends, who reads.
    pub(super) holders: u8,
}

/// How far this end's part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Head,
    Body,
    Done,
}

/// What a sender waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitsFor {
    Nothing,
    /// The client takes more on this stream.
    Window,
    /// The connection has room. Exactly those stand in its row.
    Room,
    /// Nothing more: it was called.
    ItsTurn,
}

impl Stream {
    pub(super) fn new(id: u32, window_bytes: u32, receiving: Option<Box<Receiving>>) -> Self {
        Self {
            id,
            window: SendWindow::new(window_bytes),
            waker: None,
            may_receive: receiving.is_some(),
            receiving,
            error: None,
            sending: Sending::Head,
            waits: WaitsFor::Nothing,
            holders: 0,
        }
    }

    /// Whether both sides have ended it.
    pub(super) fn is_closed(&self) -> bool {
        self.sending == Sending::Done && !self.may_receive
    }

    pub(super) fn wake_sender(&mut self) {
        self.waits = WaitsFor::Nothing;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    pub(super) fn wake_reader(&self) {
        if let Some(waker) = self.receiving.as_ref().and_then(|receiving| receiving.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }
}

/// Keeps a task's waker.
pub(super) fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// A request's body.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) window: ReceiveWindow,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) waker: Option<Waker>,
    /// What `Content-Length` says is still to come (RFC 9113 §8.1.1).
    left: Option<u64>,
    pieces: VecDeque<BytesMut>,
}

/// The body is not as long as its `Content-Length`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrongLength;

impl Receiving {
    pub(super) fn new(window_bytes: u32, length: Option<u64>) -> Self {
        Self {
            window: ReceiveWindow::new(window_bytes),
            trailers: None,
            waker: None,
            left: length,
            pieces: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), WrongLength> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
        }
        match self.pieces.back_mut() {
            Some(last) if last.len() + data.len() <= GATHERED_BYTES_MAX => last.extend_from_slice(data),
            _ if data.is_empty() => {}
            _ => self.pieces.push_back(data.into()),
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Result<(), WrongLength> {
        match self.left {
            None | Some(0) => Ok(()),
            Some(_) => Err(WrongLength),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.pieces.pop_front().map(BytesMut::freeze)
    }

    /// Bytes that nobody has read.
    pub(super) fn unread(&self) -> usize {
        self.pieces.iter().map(BytesMut::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }
}

/// Streams that ended lately: what still comes for them is judged by how they did.
#[derive(Debug)]
pub(super) struct Recent {
    closed: [u32; 32],
    next: usize,
    reset: VecDeque<u32>,
    resets_max: usize,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By both sides' END_STREAM, or by the client's reset.
    Closed,
    /// By this end's reset, before the client had sent all: what comes for it was sent before the client knew.
    Reset,
}

impl Recent {
    /// All of `streams_max` streams may be reset at once, with something under way on each.
    pub(super) fn new(streams_max: u32) -> Self {
        Self { closed: [0; 32], next: 0, reset: VecDeque::new(), resets_max: streams_max as usize }
    }

    pub(super) fn add(&mut self, id: u32, how: Ended) {
        match how {
            Ended::Closed => {
                self.closed[self.next] = id;
                self.next = (self.next + 1) % self.closed.len();
            }
            Ended::Reset => {
                if self.reset.len() >= self.resets_max {
                    self.reset.pop_front();
                }
                self.reset.push_back(id);
            }
        }
    }

    pub(super) fn find(&self, id: u32) -> Option<Ended> {
        if self.reset.iter().rev().any(|entry| *entry == id) {
            return Some(Ended::Reset);
        }
        self.closed.contains(&id).then_some(Ended::Closed)
    }
}

/// Senders that wait until the connection has room, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Row(VecDeque<Key>);

impl Row {
    pub(super) fn push(&mut self, key: Key) {
        self.0.push_back(key);
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        let key = self.0.pop_front();
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
        key
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.0.retain(|waiting| *waiting != key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_pieces_are_gathered() {
        let mut receiving = Receiving::new(100_000, None);
        for _ in 0..10_000 {
            receiving.push(b"x").expect("no length");
        }
        assert_eq!(receiving.unread(), 10_000);
        let sizes: Vec<_> = std::iter::from_fn(|| receiving.pop()).map(|piece| piece.len()).collect();
        assert_eq!(sizes, [4096, 4096, 1808]);
        assert!(receiving.is_empty());
    }

    #[test]
    fn a_length_is_kept_to() {
        let mut receiving = Receiving::new(100, Some(3));
        assert_eq!(receiving.push(b"ab"), Ok(()));
        assert_eq!(receiving.end(), Err(WrongLength));
        assert_eq!(receiving.push(b"cd"), Err(WrongLength));
        let mut receiving = Receiving::new(100, Some(2));
        assert_eq!((receiving.push(b"ab"), receiving.end()), (Ok(()), Ok(())));
    }

    #[test]
    fn the_latest_ends_are_known() {
        let mut recent = Recent::new(2);
        recent.add(1, Ended::Reset);
        recent.add(3, Ended::Closed);
        assert_eq!([1, 3, 5].map(|id| recent.find(id)), [Some(Ended::Reset), Some(Ended::Closed), None]);
        for id in 0..32 {
            recent.add(7 + 2 * id, Ended::Closed);
        }
        assert_eq!([1, 3, 69].map(|id| recent.find(id)), [Some(Ended::Reset), None, Some(Ended::Closed)]);
        recent.add(71, Ended::Reset);
        recent.add(73, Ended::Reset);
        assert_eq!([1, 71, 73].map(|id| recent.find(id)), [None, Some(Ended::Reset), Some(Ended::Reset)]);
    }

    #[test]
    fn a_waiting_stream_is_small() {
        assert!(size_of::<Stream>() <= 56, "{}", size_of::<Stream>());
    }
}
