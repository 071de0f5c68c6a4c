//! What a push session says and does, without I/O or a clock: bytes, messages and time in, frames and publishes out.
//!
//! Nothing is queued here but publishes, in their order and bounded: frames go straight to the output. While it has no
//! room, channels are being joined, or the publishes pile up, [`Machine::on_bytes`] stops reading, so a client that sends and does not read can't
//! make the session grow.

use crate::bus::{BusError, Published};
use crate::hub::policy::ChannelPolicies;
use crate::hub::shard::Delivery;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use crate::model::session::CloseReason;
use crate::proto::allowance::Allowance;
use crate::proto::v1::{ErrorCode, Reference, Rejected, Reply};
use crate::proto::websocket::{Event, Input};
use crate::server::fan_out::Form;
use crate::session::settings::PushSettings;
use crate::session::websocket::commands::Join;
use crate::session::websocket::seam::{Output, Place};
use crate::session::websocket::socket::{Ending, Phase, Socket};
use crate::session::websocket::subprotocol::{Breadth, Subprotocol};
use std::collections::VecDeque;
use std::sync::Arc;

/// The largest message of a client that can't publish, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The largest message of a client that can: 64 KiB of data fit in, as base64 or with escapes.
pub const PUBLISH_BYTES_MAX: usize = 192 * 1024;
/// Publishes of one session that wait for the bus; no more is read then.
pub const PUBLISHES_WAITING_MAX: usize = 16;
/// The data of them together; no more is read then.
pub const PUBLISHES_WAITING_BYTES_MAX: usize = 64 * 1024;

const RECONNECT_AFTER_MS_MIN: u64 = 250;
const RECONNECT_AFTER_MS_MAX: u64 = 5_000;

/// A push session's state.
#[derive(Debug)]
pub struct Machine {
    pub(super) socket: Socket,
    pub(super) core: Core,
}

/// All of it that is no [`Socket`].
#[derive(Debug)]
pub(super) struct Core {
    pub(super) subprotocol: Subprotocol,
    pub(super) malformed_in_row: u8,
    /// What the client may still send.
    allowance: Allowance,
    /// Messages over it, since the last that was allowed.
    pub(super) over_in_row: u8,
    /// Seeds the jitter.
    seed: u32,
    /// How many channels the session is on.
    pub(super) channels: usize,
    /// Whether it was on others when somebody last asked.
    pub(super) changed: bool,
    /// The route's own, for clients that may leave and rejoin them.
    pub(super) own: Box<[ChannelName]>,
    pub(super) settings: Arc<PushSettings>,
    pub(super) policies: Arc<ChannelPolicies>,
    pub(super) join: Option<Box<Join>>,
    pub(super) publishes: VecDeque<Publish>,
    pub(super) publishes_bytes: usize,
}

/// A message of the client, on its way to the bus.
#[derive(Debug)]
pub struct Publish {
    /// The command's.
    pub reference: Option<Reference>,
    /// What is published.
    pub message: Message,
}

/// The world as it is while the machine does something.
pub struct Turn<'a> {
    /// The time.
    pub now_ms: u64,
    /// The session's place in its channels.
    pub place: &'a mut dyn Place,
    /// Where frames go.
    pub out: &'a mut dyn Output,
}

impl Machine {
    /// A session that was just accepted.
    pub fn new(
        subprotocol: Subprotocol,
        settings: Arc<PushSettings>,
        policies: Arc<ChannelPolicies>,
        session: &str,
        now_ms: u64,
    ) -> Self {
        let publishes = subprotocol == Subprotocol::V1 && !settings.client_publish.is_empty();
        let message_bytes_max = if publishes { PUBLISH_BYTES_MAX } else { MESSAGE_BYTES_MAX };
        Self {
            socket: Socket::new(message_bytes_max, settings.keep_alive, now_ms),
            core: Core {
                subprotocol,
                malformed_in_row: 0,
                allowance: Allowance::default(),
                over_in_row: 0,
                seed: session.bytes().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193)),
                channels: 0,
                changed: false,
                own: Box::default(),
                settings,
                policies,
                join: None,
                publishes: VecDeque::new(),
                publishes_bytes: 0,
            },
        }
    }

    /// Says what comes first. Called once, before all else. `own` are the route's own channels: a session that came back
    /// may be on others.
    pub fn start(&mut self, session: &str, own: &[ChannelName], turn: &mut Turn<'_>) {
        let channels = turn.place.channels();
        self.core.channels = channels.len();
        if self.core.subprotocol != Subprotocol::V1 {
            return;
        }
        let cursor = turn.place.cursor().encode();
        let resumed = turn.place.resumed() == Some(true);
        turn.out.push(Reply::Welcome { session, cursor: &cursor, resumed }.frame());
        for channel in &channels {
            turn.out.push(Reply::Subscribed { reference: None, channel }.frame());
        }
        self.core.own = own.into();
    }

    /// Reads what the client sent, until all is read or [`Machine::takes_input`] is false.
    pub fn on_bytes(&mut self, input: &mut Input<'_>, turn: &mut Turn<'_>) {
        while self.takes_input(turn.out) {
            let open = self.socket.is_open();
            let close = match self.socket.next(input, turn.now_ms, turn.out) {
                Some(event) if open => self.core.on_event(event, turn),
                Some(_) => None,
                None => break,
            };
            if let Some(reason) = close {
                self.socket.close(reason, turn.now_ms, turn.out);
            }
        }
    }

    /// Whether more of the client's bytes can be worked on now.
    pub fn takes_input(&self, out: &dyn Output) -> bool {
        match self.socket.phase() {
            Phase::Open => {
                out.has_room()
                    && self.core.join.is_none()
                    && self.core.publishes.len() < PUBLISHES_WAITING_MAX
                    && self.core.publishes_bytes < PUBLISHES_WAITING_BYTES_MAX
            }
            Phase::Closing { .. } => true,
            Phase::Finished { .. } => false,
        }
    }

    /// Channels that the bus has to follow before the session can join them, to be answered by [`Machine::on_attached`].
    pub fn wants_to_join(&self) -> Option<&[ChannelName]> {
        self.core.join.as_ref().map(|join| &*join.fresh)
    }

    /// Joins the channels that were wanted, or tells the client why not.
    pub fn on_attached(&mut self, attached: Result<(), BusError>, turn: &mut Turn<'_>) {
        if let Some(join) = self.core.join.take()
            && self.socket.is_open()
        {
            self.core.joined(*join, attached, turn);
            self.socket.sent(turn.now_ms);
        }
    }

    /// Whether the session has joined or left channels since the last time.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.core.changed)
    }

    /// Whether this delivery ends the session: its client may come back as soon as it hears of it.
    pub fn ends_with(&self, delivery: &Delivery) -> bool {
        match delivery {
            Delivery::End(_) => true,
            Delivery::Gap(_) => self.core.subprotocol != Subprotocol::V1,
            Delivery::Message(_) | Delivery::Conflated(_) => false,
        }
    }

    /// Passes on what the hub delivers; the bytes of the frame if it was a message.
    pub fn on_delivery(&mut self, delivery: Delivery, turn: &mut Turn<'_>) -> usize {
        if !self.socket.is_open() {
            return 0;
        }
        let core = &self.core;
        match delivery {
            Delivery::Message(entry) => {
                let breadth = if core.channels == 1 { Breadth::OneChannel } else { Breadth::Several };
                let frame = core.subprotocol.frame(&entry, breadth, turn.place);
                let bytes = frame.len();
                turn.out.push(frame);
                self.socket.sent(turn.now_ms);
                bytes
            }
            Delivery::Gap(gap) => {
                if core.subprotocol == Subprotocol::V1 {
                    turn.out.push(Reply::Gap { gap: &gap, id: &turn.place.cursor().encode() }.frame());
                    self.socket.sent(turn.now_ms);
                } else {
                    self.socket.close(CloseReason::Gap, turn.now_ms, turn.out);
                }
                0
            }
            // Newer messages of the same keys follow: nothing to tell.
            Delivery::Conflated(_) => 0,
            Delivery::End(reason) => {
                if core.subprotocol == Subprotocol::V1 && reason.is_moved() {
                    let after_ms = core.reconnect_after_ms();
                    turn.out.push(Reply::Reconnect { after_ms, cursor: &turn.place.cursor().encode() }.frame());
                }
                self.socket.close(reason, turn.now_ms, turn.out);
                0
            }
        }
    }

    /// What goes to the client of a message while somebody else passes it on, if the session is on one channel.
    pub fn form(&self) -> &'static Form {
        self.core.subprotocol.form()
    }

    /// Somebody else passed a message on, at this time last.
    pub fn on_sent(&mut self, at_ms: u64) {
        self.socket.sent(at_ms);
    }

    /// The next message to publish, to be answered by [`Machine::on_published`] before another is taken.
    pub fn take_publish(&mut self) -> Option<Publish> {
        let publish = self.core.publishes.pop_front()?;
        self.core.publishes_bytes -= publish.message.size_bytes();
        if self.core.publishes.is_empty() {
            self.core.publishes = VecDeque::new();
        }
        Some(publish)
    }

    /// Tells the client what became of its message.
    pub fn on_published(
        &mut self,
        reference: Option<Reference>,
        result: Result<Published, BusError>,
        turn: &mut Turn<'_>,
    ) {
        if !self.socket.is_open() {
            return;
        }
        let frame = match result {
            Ok(Published { position, .. }) => Reply::Published { reference: reference.as_ref(), position }.frame(),
            Err(error) => {
                let message = format!("not published, try again later: {error}");
                Reply::Error(&Rejected { reference, code: ErrorCode::BusDown, message }).frame()
            }
        };
        turn.out.push(frame);
        self.socket.sent(turn.now_ms);
    }

    /// Does what is due at a time. Call it after what came in was read.
    pub fn on_tick(&mut self, turn: &mut Turn<'_>) {
        self.socket.tick(turn.now_ms, turn.out);
    }

    /// The client took what it did not take before: it lives.
    pub fn on_progress(&mut self, now_ms: u64) {
        self.socket.heard(now_ms);
    }

    /// The client's end came, or the link broke.
    pub fn on_end(&mut self) {
        self.socket.ended();
    }

    /// The session's time is over: it ends for the drain's sake, unless it was ending anyway.
    pub fn on_cut(&mut self) {
        self.socket.cut(CloseReason::Drain);
    }

    /// When [`Machine::on_tick`] has something to do; `None` once finished.
    pub fn deadline(&self) -> Option<u64> {
        self.socket.deadline()
    }

    /// How far the session is.
    pub fn phase(&self) -> Phase {
        self.socket.phase()
    }

    /// Why it ended, and how to leave the link, once it has.
    pub fn finished(&self) -> Option<(CloseReason, Ending)> {
        match self.socket.phase() {
            Phase::Finished { reason, ending } => Some((reason, ending)),
            _ => None,
        }
    }
}

impl Core {
    /// Takes an event; the reason if the session is to be closed for it.
    fn on_event(&mut self, event: Event<'_>, turn: &mut Turn<'_>) -> Option<CloseReason> {
        if !self.allowance.take(self.settings.messages_per_second_max, turn.now_ms) {
            return self.on_too_fast(event, turn);
        }
        self.over_in_row = 0;
        if self.subprotocol != Subprotocol::V1 {
            // Data of raw and CloudEvents clients has no meaning: it only counts against the size limit.
            return None;
        }
        match event {
            Event::Text(text) => self.on_command(text, turn),
            Event::Binary(_) => {
                let message = "a binary frame is no command; send JSON in text frames".to_owned();
                self.on_malformed(Rejected { reference: None, code: ErrorCode::Malformed, message }, turn)
            }
            Event::Ping(_) | Event::Pong(_) | Event::Close(_) => None,
        }
    }

    /// One step of xorshift32 from the session's seed: sessions that are told at once come back at their own time.
    fn reconnect_after_ms(&self) -> u64 {
        let mut x = self.seed.max(1);
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        RECONNECT_AFTER_MS_MIN + u64::from(x) % (RECONNECT_AFTER_MS_MAX - RECONNECT_AFTER_MS_MIN + 1)
    }
}

#[cfg(test)]
mod tests;
