//! Writes messages to the clients of resting sessions, straight from the worker's pump.
//!
//! A session that has nothing left to do lends its socket ([`Link::lend`](crate::server::Link::lend)) and rests
//! ([`Subscription::rest`](crate::hub::shard::Subscription::rest)). From then on a message costs one `send` and the look into
//! two dense tables; the session's task is polled again when its client says something, takes too little, or a time has come.
//! Awake, a delivery touched its task, its future, its place in the hub and its socket's place in the runtime, and that took a
//! tenth to a quarter of all.
//!
//! Invariant: a socket is either here or with its session. Who has the number of an outlet has not got its socket: a session
//! gets it back with what the client has not taken, and nothing can be written in between.

use crate::hub::log::Entry;
use crate::hub::shard::{Carried, Carrier, Outlet, Shard};
use crate::model::session::Transport;
use crate::telemetry::metrics::WorkerMetrics;
use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use slab::Slab;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;

thread_local! {
    /// The sockets of this worker's resting sessions.
    static LENT: RefCell<Slab<Socket>> = const { RefCell::new(Slab::new()) };
}

/// What a session sends of a message to a client that has a connection of its own in cleartext.
#[derive(Debug)]
pub struct Form {
    /// What the deliveries are counted as.
    pub transport: Transport,
    /// The shared bytes of a message, with all framing, and how many of them are content; `None` where the message has none for
    /// such clients.
    pub frame: for<'a> fn(&'a Entry) -> Option<(&'a Bytes, usize)>,
}

#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    /// The session that lent it.
    owner: u32,
    form: &'static Form,
    /// What the client has not taken yet, of what was handed to it.
    rest: Option<Box<Bytes>>,
}

/// A socket that is lent, or none: with its drop, it closes.
#[derive(Debug)]
pub struct Lent(Outlet);

impl Default for Lent {
    fn default() -> Self {
        Self(Outlet::MAX)
    }
}

impl Lent {
    /// Lends a socket, to which all has been written so far.
    pub(in crate::server) fn new(tcp: TcpStream, owner: u32, form: &'static Form) -> Self {
        let socket = Socket { tcp, owner, form, rest: None };
        Self(LENT.with_borrow_mut(|lent| lent.insert(socket)) as Outlet)
    }

    pub(in crate::server) fn outlet(&self) -> Outlet {
        self.0
    }

    /// The socket, and what is to be written to it before all else.
    pub(in crate::server) fn take_back(&mut self) -> Option<(TcpStream, Bytes)> {
        let number = std::mem::replace(&mut self.0, Outlet::MAX);
        let socket = LENT.with_borrow_mut(|lent| lent.try_remove(number as usize))?;
        Some((socket.tcp, socket.rest.map_or_else(Bytes::new, |rest| *rest)))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A thread that ends has closed them all.
        let _ = LENT.try_with(|lent| lent.borrow_mut().try_remove(self.0 as usize));
    }
}

/// A worker's carrier.
pub struct FanOut {
    shard: Rc<Shard>,
    metrics: Rc<WorkerMetrics>,
    batch: Option<Batch>,
}

/// Several messages, one after the other in each form that somebody gets them in: one `send` for each session.
struct Batch {
    /// Held, so that no others can be taken for them.
    first: Arc<Entry>,
    last: Arc<Entry>,
    count: usize,
    joined: Vec<(&'static Form, Option<Joined>)>,
}

struct Joined {
    bytes: Bytes,
    content_bytes: usize,
}

impl Batch {
    fn new(entries: &[Arc<Entry>]) -> Option<Self> {
        let (first, last) = (Arc::clone(entries.first()?), Arc::clone(entries.last()?));
        Some(Self { first, last, count: entries.len(), joined: Vec::new() })
    }

    fn is_of(&self, entries: &[Arc<Entry>]) -> bool {
        let is = |entry: Option<&Arc<Entry>>, known| entry.is_some_and(|entry| Arc::ptr_eq(entry, known));
        self.count == entries.len() && is(entries.first(), &self.first) && is(entries.last(), &self.last)
    }

    /// The messages in a form; `None` where one of them has none.
    fn in_form(&mut self, entries: &[Arc<Entry>], form: &'static Form) -> Option<&Joined> {
        let known = self.joined.iter().position(|(known, _)| std::ptr::eq(*known, form));
        let at = known.unwrap_or_else(|| {
            self.joined.push((form, Joined::new(entries, form)));
            self.joined.len() - 1
        });
        self.joined[at].1.as_ref()
    }
}

impl Joined {
    fn new(entries: &[Arc<Entry>], form: &'static Form) -> Option<Self> {
        let frames: Vec<_> = entries.iter().map(|entry| (form.frame)(entry)).collect::<Option<_>>()?;
        let mut bytes = Vec::with_capacity(frames.iter().map(|(frame, _)| frame.len()).sum());
        frames.iter().for_each(|(frame, _)| bytes.extend_from_slice(frame));
        Some(Self { bytes: bytes.into(), content_bytes: frames.iter().map(|(_, content)| content).sum() })
    }
}

impl FanOut {
    /// The carrier of the worker that has `shard`, on its thread.
    pub fn new(shard: Rc<Shard>, metrics: Rc<WorkerMetrics>) -> Self {
        Self { shard, metrics, batch: None }
    }

    /// Forgets what was joined, once nobody is to get it any more.
    pub fn forget(&mut self) {
        self.batch = None;
    }
}

/// What is to be sent, and how much of it is content.
fn frame<'a>(
    batch: &'a mut Option<Batch>,
    entries: &'a [Arc<Entry>],
    form: &'static Form,
) -> Option<(&'a Bytes, usize)> {
    if let [entry] = entries {
        return (form.frame)(entry);
    }
    if !batch.as_ref().is_some_and(|batch| batch.is_of(entries)) {
        *batch = Batch::new(entries);
    }
    batch.as_mut()?.in_form(entries, form).map(|joined| (&joined.bytes, joined.content_bytes))
}

/// What a client has not taken. A small part is copied: it is not to keep alive what was joined for all.
fn rest_of(bytes: &Bytes, sent: usize, is_shared: bool) -> Bytes {
    let rest = bytes.slice(sent..);
    if is_shared || rest.len() > bytes.len() / 2 { rest } else { Bytes::copy_from_slice(&rest) }
}

impl Carrier for FanOut {
    fn carry(&mut self, outlet: Outlet, owner: u32, entries: &[Arc<Entry>]) -> Carried {
        LENT.with_borrow_mut(|lent| {
            // A session that took its socket back without having risen: it is awake.
            let Some(socket) = lent.get_mut(outlet as usize).filter(|socket| socket.owner == owner) else {
                return Carried::Refused;
            };
            let transport = socket.form.transport;
            let Some((bytes, content_bytes)) = frame(&mut self.batch, entries, socket.form) else {
                return Carried::Refused;
            };
            let carried = match send_now(&socket.tcp, bytes) {
                // The session finds out what is wrong when it writes itself.
                0 => return Carried::Refused,
                sent if sent == bytes.len() => Carried::All,
                sent => {
                    socket.rest = Some(Box::new(rest_of(bytes, sent, entries.len() == 1)));
                    Carried::Stuck
                }
            };
            let now_us = self.shard.now_us();
            for (index, entry) in entries.iter().enumerate() {
                let content_bytes = if index == 0 { content_bytes } else { 0 };
                self.metrics.delivered(transport, content_bytes, now_us.saturating_sub(entry.published_us));
            }
            carried
        })
    }
}

/// Sends what the kernel takes at once: so many bytes.
fn send_now(tcp: &TcpStream, bytes: &[u8]) -> usize {
    loop {
        match send(tcp, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => return sent,
            Err(Errno::INTR) => {}
            Err(_) => return 0,
        }
    }
}

#[cfg(test)]
mod tests;
