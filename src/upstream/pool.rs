//! One server of an upstream as a worker sees it: its idle and shared connections, and how busy it is.

use crate::upstream::connect::{self, ConnectError, Driver, STREAMS_MAX};
use crate::upstream::http1::Http1;
use crate::upstream::settings::ServerAddress;
use crate::upstream::upload::Upload;
use hyper::client::conn::http2;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Idle HTTP/1.1 connections to one server, for each worker.
const IDLE_MAX: usize = 64;
/// An idle connection is closed after this long; a server's `Keep-Alive: timeout` shortens it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections are looked at this often, for those that the server has closed.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How much sooner than the server says: a request must not meet its close.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);
/// A server that took no connection is avoided for this long, if there are others.
const AVOID_FOR: Duration = Duration::from_secs(1);

/// One server.
pub(super) struct Server {
    pub(super) address: ServerAddress,
    /// What its name was resolved to, its own address first; empty while nobody has looked.
    sockets: RefCell<Rc<[SocketAddr]>>,
    idle: RefCell<Vec<Idle>>,
    /// Whether a task looks after the idle connections.
    is_swept: Cell<bool>,
    shared: RefCell<Vec<Rc<H2>>>,
    /// One HTTP/2 connection is opened at a time, so that those who wait share it.
    opening: Semaphore,
    in_flight: Cell<usize>,
    avoided_until: Cell<Option<Instant>>,
}

/// An HTTP/1.1 connection that nobody uses.
struct Idle {
    connection: Http1,
    until: Instant,
}

/// An HTTP/2 connection, shared by its streams.
pub(super) struct H2 {
    sender: http2::SendRequest<Upload>,
    streams: Cell<usize>,
    streams_max: Rc<Cell<usize>>,
    idle: Rc<IdleClock>,
    _driver: Driver,
}

/// A place for one stream on an HTTP/2 connection; dropping it gives the place back.
pub(super) struct Stream(Rc<H2>);

/// Counts a request as under way at a server until dropped.
pub(super) struct InFlight(Rc<Server>);

/// Until when a connection may lie idle.
pub(super) struct IdleClock(Cell<Option<Instant>>);

impl Server {
    pub(super) fn new(address: ServerAddress) -> Rc<Self> {
        Rc::new(Self {
            address,
            sockets: RefCell::new(Rc::from([])),
            idle: RefCell::default(),
            is_swept: Cell::new(false),
            shared: RefCell::default(),
            opening: Semaphore::new(1),
            in_flight: Cell::new(0),
            avoided_until: Cell::new(None),
        })
    }

    /// The address that is its own, if its name was resolved.
    pub(super) fn socket(&self) -> Option<SocketAddr> {
        self.sockets.borrow().first().copied()
    }

    /// Notes what its name was resolved to, its own address first.
    pub(super) fn set_sockets(&self, sockets: Vec<SocketAddr>) {
        *self.sockets.borrow_mut() = sockets.into();
    }

    fn sockets(&self) -> Rc<[SocketAddr]> {
        Rc::clone(&self.sockets.borrow())
    }

    /// How many requests are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Counts one more.
    pub(super) fn enter(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(Rc::clone(self))
    }

    /// Whether another server should be asked first.
    pub(super) fn is_avoided(&self) -> bool {
        self.avoided_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// Notes that it took no connection.
    pub(super) fn avoid(&self) {
        self.avoided_until.set(Some(Instant::now() + AVOID_FOR));
    }

    /// The most recently used idle connection that still stands.
    pub(super) fn take_idle(&self, now: Instant) -> Option<Http1> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, until }) = idle.pop() {
            if now < until && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over. `keep_alive` is the server's own limit, if it told one.
    pub(super) fn give_back(self: &Rc<Self>, mut connection: Http1, keep_alive: Option<Duration>) {
        let lasts = keep_alive.map_or(IDLE_TIMEOUT, |told| told.saturating_sub(KEEP_ALIVE_MARGIN).min(IDLE_TIMEOUT));
        if lasts.is_zero() {
            return;
        }
        connection.rest();
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle { connection, until: Instant::now() + lasts });
        drop(idle);
        if !self.is_swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes the idle connections that are over; when to look again, if any are left.
    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| now < idle.until && idle.connection.is_quiet());
        let next = idle.iter().map(|idle| idle.until).min().map(|next| next.min(now + SWEEP_EVERY));
        self.is_swept.set(next.is_some());
        next
    }

    /// A new HTTP/1.1 connection.
    pub(super) async fn open_http1(&self, deadline: Instant) -> Result<Http1, ConnectError> {
        let stream = connect::dial(&self.address, &self.sockets(), deadline).await?;
        self.avoided_until.set(None);
        Ok(Http1::new(stream))
    }

    /// A place on an HTTP/2 connection that stands, or on a new one.
    pub(super) async fn stream(&self, deadline: Instant) -> Result<Stream, ConnectError> {
        if let Some(stream) = self.free_stream() {
            return Ok(stream);
        }
        let _permit = timeout_at(deadline, self.opening.acquire()).await.map_err(|_| ConnectError::Timeout)?;
        if let Some(stream) = self.free_stream() {
            return Ok(stream);
        }
        self.open_h2(deadline).await
    }

    /// A place on a new HTTP/2 connection.
    pub(super) async fn open_h2(&self, deadline: Instant) -> Result<Stream, ConnectError> {
        let idle = Rc::new(IdleClock(Cell::new(None)));
        let streams_max = Rc::new(Cell::new(STREAMS_MAX));
        let streams = Rc::clone(&streams_max);
        let (sender, driver) = connect::h2(&self.address, &self.sockets(), deadline, Rc::clone(&idle), streams).await?;
        self.avoided_until.set(None);
        let connection = Rc::new(H2 { sender, streams: Cell::new(0), streams_max, idle, _driver: driver });
        self.shared.borrow_mut().push(Rc::clone(&connection));
        Ok(Stream::on(connection))
    }

    fn free_stream(&self) -> Option<Stream> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| !connection.sender.is_closed() && !connection.idle.is_over());
        // The oldest with room: the newer ones run empty and close when the load falls.
        shared
            .iter()
            .find(|connection| connection.streams.get() < connection.streams_max.get())
            .map(Rc::clone)
            .map(Stream::on)
    }

    /// How many connections lie idle.
    #[cfg(test)]
    pub(super) fn idle_len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// How many HTTP/2 connections there are.
    #[cfg(test)]
    pub(super) fn shared_len(&self) -> usize {
        self.shared.borrow().len()
    }
}

/// Looks after a server's idle connections for as long as it has any: they have no tasks of their own.
async fn sweep(server: Weak<Server>) {
    while let Some(next) = server.upgrade().and_then(|server| server.sweep()) {
        sleep_until(next).await;
    }
}

impl Stream {
    fn on(connection: Rc<H2>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        connection.idle.stop();
        Self(connection)
    }

    /// What sends a request on it.
    pub(super) fn sender(&self) -> http2::SendRequest<Upload> {
        self.0.sender.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let left = self.0.streams.get().saturating_sub(1);
        self.0.streams.set(left);
        if left == 0 {
            self.0.idle.start(IDLE_TIMEOUT);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

impl IdleClock {
    fn start(&self, lasts: Duration) {
        self.0.set(Some(Instant::now() + lasts));
    }

    fn stop(&self) {
        self.0.set(None);
    }

    /// Whether the connection lay idle for too long.
    pub(super) fn is_over(&self) -> bool {
        self.0.get().is_some_and(|until| Instant::now() >= until)
    }

    /// When to ask again.
    pub(super) fn next_look(&self) -> Instant {
        self.0.get().unwrap_or_else(|| Instant::now() + IDLE_TIMEOUT)
    }
}
