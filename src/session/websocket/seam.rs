//! What a session's machine and driver need of the world, so that tests can be the world.

use crate::hub::HubError;
use crate::hub::shard::{Delivery, Outlet, Shard, Subscription};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::proto::chunk::Chunk;
use crate::server::Link;
use crate::server::fan_out::Form;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Where frames go.
pub trait Output {
    /// Queues a frame.
    fn push(&mut self, frame: Bytes);
    /// Whether more should be queued.
    fn has_room(&self) -> bool;
}

/// A client's end: [`Link`], whose methods these are.
pub trait Wire: Output {
    /// See [`Link::poll_flush`].
    ///
    /// # Errors
    /// When the client is gone.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// See [`Link::poll_read`].
    ///
    /// # Errors
    /// When the client is gone.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// See [`Link::poll_finish`].
    ///
    /// # Errors
    /// When the client is gone.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// See [`Link::lend`].
    fn lend(&mut self, owner: u32, form: &'static Form) -> Option<Outlet>;
    /// See [`Link::take_back`].
    fn take_back(&mut self);
}

/// The session's place in its channels: [`Subscription`], whose methods these are.
pub trait Place {
    /// See [`Subscription::resumed`].
    fn resumed(&self) -> Option<bool>;
    /// See [`Subscription::cursor`].
    fn cursor(&self) -> Cursor;
    /// See [`Subscription::channels`].
    fn channels(&self) -> Vec<ChannelName>;
    /// See [`Subscription::add`].
    ///
    /// # Errors
    /// When there are too many channels.
    fn add(&mut self, channel: &ChannelName) -> Result<(), HubError>;
    /// See [`Subscription::remove`].
    fn remove(&mut self, channel: &ChannelName) -> bool;
}

/// What a driver reads and waits for.
pub trait Feed: Place {
    /// See [`Subscription::next`].
    fn next(&mut self) -> Option<Delivery>;
    /// See [`Subscription::poll_wait`].
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// See [`Subscription::rest`].
    fn rest(&mut self, lend: &mut dyn FnMut(u32) -> Option<Outlet>);
    /// See [`Subscription::rise`].
    fn rise(&mut self) -> u64;
    /// See [`Subscription::is_too_slow`].
    fn is_too_slow(&self) -> bool;
    /// See [`Subscription::set_deadline`].
    fn set_deadline(&mut self, at_ms: u64);
    /// See [`Subscription::is_cut`].
    fn is_cut(&self) -> bool;
    /// Milliseconds of the shard's clock.
    fn now_ms(&self) -> u64;
    /// Microseconds of the same clock.
    fn now_us(&self) -> u64;
    /// Ready after a while: for waits in which the deadline can't serve.
    fn sleep_ms(&self, ms: u64) -> LocalBoxFuture<'static, ()>;
}

/// The real world.
pub struct Live {
    /// The clock.
    pub shard: Rc<Shard>,
    /// The place.
    pub subscription: Subscription,
}

impl Output for Link {
    fn push(&mut self, frame: Bytes) {
        Link::push(self, &Chunk::raw(frame));
    }

    fn has_room(&self) -> bool {
        Link::has_room(self)
    }
}

impl Wire for Link {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Link::poll_flush(self, cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Link::poll_read(self, cx, buffer)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Link::poll_finish(self, cx)
    }

    fn lend(&mut self, owner: u32, form: &'static Form) -> Option<Outlet> {
        Link::lend(self, owner, form)
    }

    fn take_back(&mut self) {
        Link::take_back(self);
    }
}

impl Place for Live {
    fn resumed(&self) -> Option<bool> {
        self.subscription.resumed()
    }

    fn cursor(&self) -> Cursor {
        self.subscription.cursor()
    }

    fn channels(&self) -> Vec<ChannelName> {
        self.subscription.channels()
    }

    fn add(&mut self, channel: &ChannelName) -> Result<(), HubError> {
        self.subscription.add(channel)
    }

    fn remove(&mut self, channel: &ChannelName) -> bool {
        self.subscription.remove(channel)
    }
}

impl Feed for Live {
    fn next(&mut self) -> Option<Delivery> {
        self.subscription.next()
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.subscription.poll_wait(cx)
    }

    fn rest(&mut self, lend: &mut dyn FnMut(u32) -> Option<Outlet>) {
        // Pings come whatever is sent.
        self.subscription.rest(None, lend);
    }

    fn rise(&mut self) -> u64 {
        self.subscription.rise()
    }

    fn is_too_slow(&self) -> bool {
        self.subscription.is_too_slow()
    }

    fn set_deadline(&mut self, at_ms: u64) {
        self.subscription.set_deadline(at_ms);
    }

    fn is_cut(&self) -> bool {
        self.subscription.is_cut()
    }

    fn now_ms(&self) -> u64 {
        self.shard.now_ms()
    }

    fn now_us(&self) -> u64 {
        self.shard.now_us()
    }

    fn sleep_ms(&self, ms: u64) -> LocalBoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_millis(ms)))
    }
}
