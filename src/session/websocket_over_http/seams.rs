//! What a session needs of its client's link and of the hub, so that tests can stand in for both.

use crate::bus::{Attached, Bus, BusError};
use crate::hub::HubError;
use crate::hub::shard::{Delivery, Shard, Subscription};
use crate::model::channel::ChannelName;
use crate::model::cursor::{CURSOR_CHANNELS_MAX, Cursor};
use crate::model::position::Position;
use crate::model::session::{SessionKind, Transport};
use crate::proto::chunk::Chunk;
use crate::server::Link;
use futures_util::future::BoxFuture;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A client's end: what [`Link`] does.
pub trait Wire {
    /// Whether more should be queued.
    fn has_room(&self) -> bool;
    /// Queues a piece.
    fn push(&mut self, chunk: &Chunk);
    /// Hands the queue over.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Reads what the client sends; 0 is its end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Flushes and ends.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Wire for Link {
    fn has_room(&self) -> bool {
        self.has_room()
    }

    fn push(&mut self, chunk: &Chunk) {
        self.push(chunk);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read(cx, buffer)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx)
    }
}

/// A place in channels: what [`Subscription`] does.
pub trait Feed {
    /// The next thing to send.
    fn next(&mut self) -> Option<Delivery>;
    /// Ready when there may be something.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Says whose session it is, as far as its backend said.
    fn name(&mut self, user: Option<&str>);
    /// Lets the bus follow a channel, which can be joined then while the answer is held.
    fn attach(&self, channel: &ChannelName) -> BoxFuture<'static, Result<Attached, BusError>>;
    /// Joins a channel from now on, or from where the session was on it before it moved here.
    ///
    /// # Errors
    /// When there are too many channels in the hub.
    fn add(&mut self, channel: &ChannelName) -> Result<(), HubError>;
    /// Leaves a channel; whether the session was on it.
    fn remove(&mut self, channel: &ChannelName) -> bool;
    /// The channels, and the place in each, as its client would have them back.
    fn kept(&self) -> (Vec<ChannelName>, Cursor);
    /// Whether the session is to be dropped as it is.
    fn is_cut(&self) -> bool;
    /// Microseconds of the clock that messages are stamped by.
    fn now_us(&self) -> u64;
}

/// A subscription and the clock of its shard.
pub struct HubFeed {
    subscription: Subscription,
    shard: Rc<Shard>,
    bus: Arc<dyn Bus>,
    /// Where the session was before it moved here, on channels that its backend has not named again.
    before: Vec<(ChannelName, Position)>,
}

impl HubFeed {
    /// A place in no channel yet, of a session of a route. `before` is where it was on an instance before.
    ///
    /// # Errors
    /// When the hub takes no more.
    pub fn new(
        shard: Rc<Shard>,
        bus: Arc<dyn Bus>,
        route: &str,
        before: Vec<(ChannelName, Position)>,
    ) -> Result<Self, HubError> {
        let mut subscription = shard.subscribe(&[], None, crate::hub::shard::Start::Now)?;
        subscription.label(SessionKind::Push(Transport::WebSocket), route);
        Ok(Self { subscription, shard, bus, before })
    }
}

impl Feed for HubFeed {
    fn next(&mut self) -> Option<Delivery> {
        self.subscription.next()
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.subscription.poll_wait(cx)
    }

    fn name(&mut self, user: Option<&str>) {
        self.subscription.name(user);
    }

    fn attach(&self, channel: &ChannelName) -> BoxFuture<'static, Result<Attached, BusError>> {
        let (bus, channels) = (Arc::clone(&self.bus), [channel.clone()]);
        let before = self.before.iter().find(|(known, _)| known == channel);
        let cursor = before.map(|(channel, position)| Cursor::one(channel, *position));
        Box::pin(async move { bus.attach(&channels, cursor.as_ref()).await })
    }

    fn add(&mut self, channel: &ChannelName) -> Result<(), HubError> {
        match self.before.iter().position(|(known, _)| known == channel) {
            Some(at) => {
                let (channel, position) = self.before.swap_remove(at);
                self.subscription.go_on(&channel, Some(position))
            }
            None => self.subscription.add(channel),
        }
    }

    fn remove(&mut self, channel: &ChannelName) -> bool {
        self.before.retain(|(known, _)| known != channel);
        self.subscription.remove(channel)
    }

    fn kept(&self) -> (Vec<ChannelName>, Cursor) {
        let (mut channels, cursor) = (self.subscription.channels(), self.subscription.cursor());
        let here = channels.iter().filter_map(|channel| Some((channel, cursor.position(channel)?)));
        let before = self.before.iter().map(|(channel, position)| (channel, *position));
        let cursor = Cursor::of(here.chain(before).take(CURSOR_CHANNELS_MAX));
        channels.extend(self.before.iter().map(|(channel, _)| channel.clone()));
        channels.truncate(CURSOR_CHANNELS_MAX);
        (channels, cursor)
    }

    fn is_cut(&self) -> bool {
        self.subscription.is_cut()
    }

    fn now_us(&self) -> u64 {
        self.shard.now_us()
    }
}
