//! How the held streams of one HTTP/2 connection hear of resets.

use crate::proto::reset_watch::ResetWatch;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// The resets that came over one connection.
#[derive(Debug, Default)]
pub(in crate::server) struct Resets {
    watch: RefCell<ResetWatch>,
    count: Cell<u64>,
    wakers: RefCell<Slab<Waker>>,
}

impl Resets {
    /// Takes what was read from the client.
    pub(in crate::server) fn see(&self, bytes: &[u8]) {
        if self.watch.borrow_mut().see(bytes) {
            self.count.set(self.count.get() + 1);
        }
    }

    /// How many reads had resets.
    pub(in crate::server) fn count(&self) -> u64 {
        self.count.get()
    }

    /// Has every held stream look whether it was reset; called once the machine has taken the frames in.
    pub(in crate::server) fn wake_all(&self) {
        for (_, waker) in &*self.wakers.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// One held stream's ear for resets.
#[derive(Debug)]
pub(in crate::server) struct Ear {
    resets: Rc<Resets>,
    heard: u64,
    key: Option<usize>,
}

impl Ear {
    pub(in crate::server) fn new(resets: Rc<Resets>) -> Self {
        Self { resets, heard: 0, key: None }
    }

    /// Whether something was reset since the last time, or this is the first; the task is woken at the next reset.
    pub(in crate::server) fn listen(&mut self, cx: &mut Context<'_>) -> bool {
        let first = self.key.is_none();
        if first {
            self.key = Some(self.resets.wakers.borrow_mut().insert(cx.waker().clone()));
        }
        first | (std::mem::replace(&mut self.heard, self.resets.count()) != self.heard)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.resets.wakers.borrow_mut().remove(key);
        }
    }
}
