//! Whoever sends on a stream, and whoever reads its request's body.

use crate::proto::http2::connection::{Connection, Follows, Key};
use crate::proto::http2::{Reason, StreamError};
use bytes::Bytes;
use http::HeaderMap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A connection's machine, and the task that reads and writes for it.
#[derive(Debug)]
pub(in crate::server) struct Shared {
    machine: RefCell<Connection>,
    task: RefCell<Option<Waker>>,
    is_running: Cell<bool>,
    /// Bytes of responses that wait for their clients to take them.
    outstanding: Cell<usize>,
}

/// What may wait for a client to take it on all streams of its connection together: a client that opens no window could ask for
/// any number of large answers.
const OUTSTANDING_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Shared {
    pub(in crate::server) fn new(machine: Connection) -> Self {
        Self {
            machine: RefCell::new(machine),
            task: RefCell::default(),
            is_running: Cell::new(false),
            outstanding: Cell::new(0),
        }
    }

    /// Runs the connection's task: what is done to the machine meanwhile does not wake it.
    pub(in crate::server) fn run<T>(&self, cx: &mut Context<'_>, task: impl FnOnce(&mut Context<'_>) -> T) -> T {
        match &mut *self.task.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.is_running.set(true);
        let result = task(cx);
        self.is_running.set(false);
        result
    }

    /// Does something that may give the connection's task something to write.
    pub(in crate::server) fn act<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        let result = act(&mut self.machine.borrow_mut());
        if !self.is_running.get()
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
        result
    }

    /// Does something that gives it nothing to write, or what its task does itself.
    pub(in crate::server) fn look<T>(&self, look: impl FnOnce(&mut Connection) -> T) -> T {
        look(&mut self.machine.borrow_mut())
    }
}

/// Sends a response. Dropped before its end, it resets the stream.
#[derive(Debug)]
pub(in crate::server) struct Sender {
    shared: Rc<Shared>,
    key: Key,
}

impl Sender {
    /// For a request that has just come: one for each.
    pub(in crate::server) fn new(shared: Rc<Shared>, key: Key) -> Self {
        Self { shared, key }
    }

    /// Sends the head.
    pub(in crate::server) fn send_head(&self, head: &http::Response<()>, follows: Follows) -> Result<(), StreamError> {
        self.shared.act(|machine| machine.send_head(self.key, head, follows))
    }

    /// Takes note that `bytes` of a response wait, until what it gives is dropped. If that is too much for the connection, the
    /// stream is reset.
    pub(in crate::server) fn outstanding(&self, bytes: usize) -> Result<Outstanding, StreamError> {
        let outstanding = self.shared.outstanding.get() + bytes;
        if outstanding > OUTSTANDING_BYTES_MAX {
            self.reset(Reason::ENHANCE_YOUR_CALM);
            return Err(StreamError::TooMuchWaits);
        }
        self.shared.outstanding.set(outstanding);
        Ok(Outstanding { shared: Rc::clone(&self.shared), bytes })
    }

    /// How much may be sent now, at least one byte.
    pub(in crate::server) fn poll_capacity(&self, cx: &Context<'_>) -> Poll<Result<usize, StreamError>> {
        self.shared.look(|machine| machine.poll_capacity(self.key, cx))
    }

    /// Sends data, as much as [`Sender::poll_capacity`] said at most.
    pub(in crate::server) fn send_data(&self, data: &[u8], follows: Follows) -> Result<(), StreamError> {
        self.shared.act(|machine| machine.send_data(self.key, data, follows))
    }

    /// Sends up to `len` bytes as one frame, no more than [`Sender::poll_capacity`] said. `write` is told how many.
    pub(in crate::server) fn send_frame(
        &self,
        len: usize,
        write: impl FnOnce(usize, &mut Vec<u8>),
    ) -> Result<(), StreamError> {
        self.shared.act(|machine| {
            let len = len.min(machine.payload_bytes_max());
            machine.send_frame(self.key, len, Follows::More, |out| write(len, out))
        })
    }

    /// Ends the body.
    pub(in crate::server) fn finish(&self) -> Result<(), StreamError> {
        self.shared.act(|machine| machine.finish(self.key))
    }

    /// Ends the body with trailers.
    pub(in crate::server) fn send_trailers(&self, trailers: &HeaderMap) -> Result<(), StreamError> {
        self.shared.act(|machine| machine.send_trailers(self.key, trailers))
    }

    /// Breaks the response off.
    pub(in crate::server) fn reset(&self, reason: Reason) {
        self.shared.act(|machine| machine.reset(self.key, reason));
    }

    /// Ready when nothing more can be sent, by the client's wish or fault.
    pub(in crate::server) fn poll_reset(&self, cx: &Context<'_>) -> Poll<StreamError> {
        self.shared.look(|machine| machine.poll_reset(self.key, cx))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.act(|machine| machine.release_sender(self.key));
    }
}

/// A part of a response that waits for its client to take it.
#[derive(Debug)]
pub(in crate::server) struct Outstanding {
    shared: Rc<Shared>,
    bytes: usize,
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.shared.outstanding.update(|outstanding| outstanding - self.bytes);
    }
}

/// Reads a request's body. What the client sends once it is dropped goes unread.
#[derive(Debug)]
pub(in crate::server) struct Reader {
    shared: Rc<Shared>,
    key: Key,
}

impl Reader {
    /// For a request that has just come with a body: one for each.
    pub(in crate::server) fn new(shared: Rc<Shared>, key: Key) -> Self {
        Self { shared, key }
    }

    /// The next piece; `None` at the end. The client's window opens as pieces are taken: the reader is the pace.
    pub(in crate::server) fn poll_data(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        self.shared.act(|machine| machine.poll_data(self.key, cx))
    }

    /// The trailers, after the last piece.
    pub(in crate::server) fn take_trailers(&self) -> Option<HeaderMap> {
        self.shared.look(|machine| machine.take_trailers(self.key))
    }

    /// Whether there is nothing more to read.
    pub(in crate::server) fn is_at_end(&self) -> bool {
        self.shared.look(|machine| machine.is_read(self.key))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.act(|machine| machine.release_reader(self.key));
    }
}
