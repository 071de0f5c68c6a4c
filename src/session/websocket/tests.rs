//! The world in tests: a place in channels, somewhere for frames to go, a bus.

use crate::bus::{Bus, BusError, IfMatch, Published};
use crate::hub::HubError;
use crate::hub::log::Entry;
use crate::hub::shard::Delivery;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::message::{Data, Label, Message};
use crate::model::position::Position;
use crate::proto::websocket::{close, frame};
use crate::session::websocket::seam::{Output, Place};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Frames that went out. There is room for this many before a [`Sink::take`].
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) frames: Vec<Bytes>,
    pub(super) room: usize,
}

impl Default for Sink {
    fn default() -> Self {
        Self { frames: Vec::new(), room: 1000 }
    }
}

impl Sink {
    /// What went out since the last time, each frame in words.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.frames).iter().map(|frame| in_words(frame)).collect()
    }
}

impl Output for Sink {
    fn push(&mut self, frame: Bytes) {
        self.frames.push(frame);
    }

    fn has_room(&self) -> bool {
        self.frames.len() < self.room
    }
}

/// A server's frame in words: a text is itself.
pub(super) fn in_words(frame: &[u8]) -> String {
    let head_len = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let payload = &frame[head_len..];
    let text = String::from_utf8_lossy(payload);
    match frame[0] {
        0x81 => text.into_owned(),
        0x82 => format!("binary {payload:?}"),
        0x89 => "ping".to_owned(),
        0x8a => format!("pong {text}"),
        0x88 => match close::decode(payload).expect("a valid close") {
            Some(said) => format!("close {} {}", said.code, said.reason),
            None => "close".to_owned(),
        },
        other => panic!("no frame of a server: {other:#x}"),
    }
}

/// A client's frame: the first byte as given, the payload masked.
pub(super) fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let (head, head_len) = frame::head(frame::Opcode::Text, payload.len());
    let mut out = vec![first, head[1] | 0x80];
    out.extend_from_slice(&head[2..head_len]);
    out.extend_from_slice(&[1, 2, 3, 4]);
    let start = out.len();
    out.extend_from_slice(payload);
    frame::unmask(&mut out[start..], [1, 2, 3, 4], 0);
    out
}

pub(super) fn name(text: &str) -> ChannelName {
    ChannelName::new(text).expect("a name")
}

/// Offset `offset` of a channel.
pub(super) fn entry(channel: &str, offset: u64, data: Data) -> Arc<Entry> {
    let event = Some(Label::new("e").expect("a label"));
    Arc::new(Entry::new(
        Message { channel: name(channel), id: None, event, data, cloudevent: None, grip: None },
        Position { epoch: 1, offset },
        0,
    ))
}

pub(super) fn text(channel: &str, offset: u64, text: &str) -> Delivery {
    Delivery::Message(entry(channel, offset, Data::Text(text.into())))
}

/// A place in channels: epoch 1, and the offset of each.
#[derive(Debug, Default)]
pub(super) struct Spot {
    pub(super) places: Vec<(ChannelName, u64)>,
    pub(super) resumed: Option<bool>,
    /// The most channels that the hub takes.
    pub(super) channels_max: usize,
}

impl Spot {
    pub(super) fn on(channels: &[&str]) -> Self {
        let places = channels.iter().map(|channel| (name(channel), 0)).collect();
        Self { places, resumed: None, channels_max: 100 }
    }

    /// What a hub does as it delivers.
    pub(super) fn pass(&mut self, delivery: &Delivery) {
        if let Delivery::Message(entry) = delivery
            && let Some((_, offset)) = self.places.iter_mut().find(|(name, _)| *name == entry.message.channel)
        {
            *offset = entry.position.offset;
        }
    }
}

impl Place for Spot {
    fn resumed(&self) -> Option<bool> {
        self.resumed
    }

    fn cursor(&self) -> Cursor {
        Cursor::of(self.places.iter().map(|(name, offset)| (name, Position { epoch: 1, offset: *offset })))
    }

    fn channels(&self) -> Vec<ChannelName> {
        self.places.iter().map(|(name, _)| name.clone()).collect()
    }

    fn add(&mut self, channel: &ChannelName) -> Result<(), HubError> {
        if self.places.len() == self.channels_max {
            return Err(HubError::TooManyChannels(self.channels_max));
        }
        self.places.push((channel.clone(), 0));
        Ok(())
    }

    fn remove(&mut self, channel: &ChannelName) -> bool {
        let before = self.places.len();
        self.places.retain(|(name, _)| name != channel);
        self.places.len() < before
    }
}

/// A bus that gives offsets, holds everything while it is stuck, or is down.
#[derive(Debug, Default)]
pub(super) struct FakeBus {
    offset: AtomicU64,
    pub(super) published: Mutex<Vec<String>>,
    pub(super) state: Mutex<BusState>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum BusState {
    #[default]
    Up,
    Stuck,
    Down,
}

impl FakeBus {
    pub(super) fn set(&self, state: BusState) {
        *self.state.lock() = state;
    }
}

impl Bus for FakeBus {
    fn health(&self) -> Result<(), BusError> {
        if *self.state.lock() == BusState::Down { Err(BusError::Down("no route".to_owned())) } else { Ok(()) }
    }

    fn set_window(&self, _: std::time::Duration) {}

    fn shutdown(&self, _: std::time::Duration) {}

    fn describe<'a>(&'a self, _: &'a ChannelName) -> BoxFuture<'a, Result<crate::bus::ChannelInfo, BusError>> {
        Box::pin(std::future::ready(Ok(crate::bus::ChannelInfo::default())))
    }

    fn attach<'a>(
        &'a self,
        _channels: &'a [ChannelName],
        _cursor: Option<&'a crate::model::cursor::Cursor>,
    ) -> BoxFuture<'a, Result<crate::bus::Attached, BusError>> {
        Box::pin(std::future::ready(Ok(crate::bus::Attached::new(Vec::new()))))
    }

    fn publish(&self, message: Message, _: Option<IfMatch>) -> BoxFuture<'_, Result<Published, BusError>> {
        Box::pin(async move {
            let state = *self.state.lock();
            match state {
                BusState::Up => {}
                BusState::Stuck => std::future::pending().await,
                BusState::Down => return Err(BusError::Down("no route".to_owned())),
            }
            let text = String::from_utf8_lossy(message.data.as_bytes()).into_owned();
            self.published.lock().push(text);
            let offset = self.offset.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(Published { position: Position { epoch: 1, offset }, duplicate: false, local_sessions: 1 })
        })
    }

    fn paced<'a>(&'a self, _: &'a ChannelName) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}
