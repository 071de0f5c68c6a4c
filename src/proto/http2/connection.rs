//! A connection: its streams, and what is to be sent.

mod receive;
mod send;

use crate::proto::http2::budget::Budget;
use crate::proto::http2::hpack::Decoder;
use crate::proto::http2::settings::{self, ClientSettings};
use crate::proto::http2::stream::{Ended, Receiving, Recent, Row, Sending, Stream, WaitsFor, keep};
use crate::proto::http2::window::{self, ReceiveWindow, SendWindow};
use crate::proto::http2::{ConnectionError, Reason, StreamError, frame};
use bytes::Bytes;
use http::{HeaderMap, Request};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

pub use send::Follows;

/// A stream's place in its connection, until [`Connection::release_sender`] and [`Connection::release_reader`].
pub type Key = usize;

/// Bytes of data that wait to be written, at most: what goes out with one write. Heads and control frames come on top.
pub const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// What the table of header fields may take (RFC 7541 §4.2): what it is unless something else is said.
const TABLE_BYTES_MAX: usize = 4096;
/// The PING that follows the first GOAWAY.
const LEAVING: [u8; 8] = *b"leaving\0";
/// More than any stream's number: the client may go on until it has read the GOAWAY (RFC 9113 §6.8).
const ANY_STREAM: u32 = 0x7fff_ffff;

/// A connection's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Streams at once.
    pub streams_max: u32,
    /// What the fields of a head take, by RFC 9113 §10.5.1.
    pub header_list_bytes_max: usize,
    /// What a client may send ahead of its reader on one stream.
    pub stream_window_bytes: u32,
    /// The same on all streams together.
    pub connection_window_bytes: u32,
}

/// A request whose head has come.
#[derive(Debug)]
pub struct Incoming {
    /// Its stream.
    pub key: Key,
    /// Its head; `None` if that is over [`Bounds::header_list_bytes_max`].
    pub head: Option<Request<()>>,
    /// Whether a body follows, for which [`Connection::release_reader`] is to be called.
    pub has_body: bool,
}

/// What was refused on a connection without ending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusals {
    /// Malformed requests.
    pub malformed: u32,
    /// Requests over [`Bounds::streams_max`].
    pub streams: u32,
}

/// How a connection comes to its end by this end's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client is asked to begin no more streams.
    Asked,
    /// It has heard so: what it begins from now on is not looked at.
    Heard,
}

/// The server's end of a connection.
#[derive(Debug)]
pub struct Connection {
    bounds: Bounds,
    reading: receive::Reading,
    decoder: Decoder,
    receive_window: ReceiveWindow,
    budget: Budget,
    refusals: Refusals,
    requests: VecDeque<Incoming>,
    streams: Slab<Stream>,
    /// The streams that are open, by their numbers.
    open: HashMap<u32, Key>,
    /// The latest stream that the client began.
    last: u32,
    recent: Recent,
    client: ClientSettings,
    window: SendWindow,
    unsent: Vec<u8>,
    /// How much of `unsent` is written.
    written: usize,
    row: Row,
    leaving: Leaving,
}

impl Connection {
    /// A connection whose client has not said anything. Its own settings are the first that is to be sent.
    pub fn new(bounds: Bounds) -> Self {
        let mut unsent = Vec::with_capacity(64);
        let ours = settings::of_server(bounds.streams_max, bounds.stream_window_bytes, bounds.header_list_bytes_max);
        frame::settings(&mut unsent, &ours);
        Self {
            bounds,
            reading: receive::Reading::default(),
            decoder: Decoder::new(TABLE_BYTES_MAX),
            receive_window: ReceiveWindow::new(bounds.connection_window_bytes.max(window::DEFAULT_BYTES)),
            budget: Budget::new(bounds.streams_max),
            refusals: Refusals::default(),
            requests: VecDeque::new(),
            streams: Slab::new(),
            open: HashMap::new(),
            last: 0,
            recent: Recent::new(bounds.streams_max),
            client: ClientSettings::default(),
            window: SendWindow::new(window::DEFAULT_BYTES),
            unsent,
            written: 0,
            row: Row::default(),
            leaving: Leaving::No,
        }
    }

    /// The next request. Its sender, and its reader if it has a body, are to be released.
    pub fn next_request(&mut self) -> Option<Incoming> {
        loop {
            let Some(incoming) = self.requests.pop_front() else {
                self.requests = VecDeque::new();
                return None;
            };
            if self.streams[incoming.key].error.is_none() {
                self.streams[incoming.key].holders = 1 + u8::from(incoming.has_body);
                return Some(incoming);
            }
            // It was reset before anybody looked at it.
            self.streams.remove(incoming.key);
        }
    }

    /// What was refused since the last time.
    pub fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.refusals)
    }

    /// Whether the client's settings have come, with which a connection begins.
    pub fn has_begun(&self) -> bool {
        self.reading.has_begun()
    }

    /// Whether a header block waits for its rest.
    pub fn awaits_head(&self) -> bool {
        self.reading.awaits_head()
    }

    /// How many header blocks have come.
    pub fn heads(&self) -> u64 {
        self.reading.heads()
    }

    /// Whether there is no stream.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Asks the client to begin no more streams; those that it began are finished (RFC 9113 §6.8).
    pub fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Asked;
            frame::go_away(&mut self.unsent, ANY_STREAM, Reason::NO_ERROR, "");
            frame::ping(&mut self.unsent, LEAVING, 0);
        }
    }

    /// Whether the client is asked to go.
    pub fn is_leaving(&self) -> bool {
        self.leaving != Leaving::No
    }

    fn left(&mut self) {
        if self.leaving == Leaving::Asked {
            self.leaving = Leaving::Heard;
            frame::go_away(&mut self.unsent, self.last, Reason::NO_ERROR, "");
        }
    }

    /// Whether the client has heard that it is to go, and all its streams have ended.
    pub fn is_over(&self) -> bool {
        self.leaving == Leaving::Heard && self.streams.is_empty()
    }

    /// Says why the connection ends: the last that is to be sent.
    pub fn give_up(&mut self, error: ConnectionError) {
        frame::go_away(&mut self.unsent, self.last, error.reason, error.what);
    }

    /// The connection has ended: whoever still speaks of a stream hears of it.
    pub fn end(&mut self) {
        for (_, stream) in &mut self.streams {
            stream.error.get_or_insert(StreamError::ConnectionEnded);
            stream.sending = Sending::Done;
            stream.may_receive = false;
            stream.wake_sender();
            stream.wake_reader();
        }
        self.open.clear();
    }

    /// The next piece of a request's body. The client may send more as it is taken: the reader is the pace.
    pub fn poll_data(&mut self, key: Key, cx: &Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        let stream = &mut self.streams[key];
        if let Some(error) = stream.error {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(receiving) = &mut stream.receiving else { return Poll::Ready(None) };
        let Some(piece) = receiving.pop() else {
            if !stream.may_receive {
                return Poll::Ready(None);
            }
            keep(&mut receiving.waker, cx);
            return Poll::Pending;
        };
        if stream.may_receive
            && let Some(by) = receiving.window.taken(piece.len())
        {
            frame::window_update(&mut self.unsent, stream.id, by);
        }
        self.take_back(piece.len());
        Poll::Ready(Some(Ok(piece)))
    }

    /// The trailers, once the body is at its end.
    pub fn take_trailers(&mut self, key: Key) -> Option<HeaderMap> {
        self.streams[key].receiving.as_mut()?.trailers.take()
    }

    /// Whether all of a request's body is read.
    pub fn is_read(&self, key: Key) -> bool {
        let stream = &self.streams[key];
        !stream.may_receive
            && stream.error.is_none()
            && stream.receiving.as_ref().is_none_or(|receiving| receiving.is_empty())
    }

    /// Nobody reads the body any more.
    pub fn release_reader(&mut self, key: Key) {
        self.drop_body(key);
        self.release(key);
    }

    /// Nobody sends on the stream any more: it is reset if it has not ended.
    pub fn release_sender(&mut self, key: Key) {
        if self.streams[key].sending != Sending::Done {
            self.reset(key, Reason::CANCEL);
        }
        self.release(key);
    }

    fn release(&mut self, key: Key) {
        let stream = &mut self.streams[key];
        stream.holders -= 1;
        if stream.holders > 0 {
            return;
        }
        if stream.may_receive {
            // All is said, and the rest of the request is of no use (RFC 9113 §8.1).
            self.reset(key, Reason::NO_ERROR);
        }
        self.streams.remove(key);
    }

    /// Ends a stream by this end's wish.
    pub fn reset(&mut self, key: Key, reason: Reason) {
        if let Some(id) = self.fail(key, StreamError::Reset(reason), Ended::Reset) {
            frame::rst_stream(&mut self.unsent, id, reason);
        }
    }

    /// Ends a stream; its number if it had not ended before.
    fn fail(&mut self, key: Key, error: StreamError, how: Ended) -> Option<u32> {
        let stream = &mut self.streams[key];
        if stream.is_closed() {
            return None;
        }
        let id = stream.id;
        let how = if stream.may_receive { how } else { Ended::Closed };
        stream.error = Some(error);
        stream.sending = Sending::Done;
        stream.may_receive = false;
        self.leave_row(key);
        self.streams[key].wake_sender();
        self.streams[key].wake_reader();
        self.open.remove(&id);
        self.recent.add(id, how);
        self.drop_body(key);
        Some(id)
    }

    /// Takes note that one side of a stream has ended.
    fn half_closed(&mut self, key: Key) {
        let stream = &self.streams[key];
        if stream.is_closed() {
            self.open.remove(&stream.id);
            self.recent.add(stream.id, Ended::Closed);
        }
    }

    fn drop_body(&mut self, key: Key) {
        if let Some(receiving) = self.streams[key].receiving.take() {
            self.take_back(receiving.unread());
        }
    }

    /// Opens the connection's window for what has been read, or is not going to be.
    fn take_back(&mut self, bytes: usize) {
        if let Some(by) = self.receive_window.taken(bytes) {
            frame::window_update(&mut self.unsent, 0, by);
        }
    }
}

#[cfg(test)]
mod tests;
