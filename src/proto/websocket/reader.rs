//! Reads a client's frames as they come (RFC 6455 §5, §8.1).
//!
//! ```text
//!  bytes ─▶ head (2–14 bytes) ─▶ payload ─┬─ whole in the input: unmasked there and lent out, nothing is kept
//!             ▲                           └─ in pieces, or a fragment: gathered, until FIN, then lent out and freed
//!             └───────────────────────────────┘
//! ```
//!
//! Between messages a reader owns no memory but itself. Texts are checked piece by piece, so that bad UTF-8 fails at the
//! first bad byte. After a violation or a close frame the reader swallows all that follows.

use crate::model::session::CloseReason;
use crate::proto::websocket::close::{self, Close};
use crate::proto::websocket::frame::{CONTROL_BYTES_MAX, Opcode, unmask};
use std::ops::Range;

/// The most fragments of one message: bounds the work that a message can cost beyond its bytes.
pub const FRAGMENTS_MAX: u32 = 65_536;

const CLIENT_HEAD_BYTES_MAX: usize = 14;

/// Bytes of a client, with a mark of how far they were read. Reading unmasks them in place.
#[derive(Debug)]
pub struct Input<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

/// What a client said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with the same bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The client's end, with a code if it gave one.
    Close(Option<Close<'a>>),
}

/// How a client broke the protocol or a limit. The session can only be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455 §5.1.
    #[error("a client's frame is not masked")]
    Unmasked,
    /// RFC 6455 §5.2: no extension was agreed on.
    #[error("a reserved bit is set, but no extension was agreed on")]
    ReservedBits,
    /// RFC 6455 §5.2.
    #[error("opcode {0} is not defined")]
    Opcode(u8),
    /// RFC 6455 §5.5.
    #[error("a control frame has more than 125 bytes")]
    ControlLength,
    /// RFC 6455 §5.5.
    #[error("a control frame is fragmented")]
    ControlFragment,
    /// RFC 6455 §5.4.
    #[error("a continuation comes without a message to continue")]
    NothingToContinue,
    /// RFC 6455 §5.4.
    #[error("a message begins inside of another")]
    Interleaved,
    /// RFC 6455 §5.2: the most significant bit must be 0.
    #[error("a payload length has its highest bit set")]
    Length,
    /// RFC 6455 §5.5.1.
    #[error("a close frame has one byte")]
    CloseLength,
    /// RFC 6455 §7.4.
    #[error("close code {0} may not be sent")]
    CloseCode(u16),
    /// RFC 6455 §8.1.
    #[error("a text is no UTF-8")]
    Utf8,
    /// Our limit.
    #[error("a message has more than {0} bytes")]
    TooBig(usize),
    /// [`FRAGMENTS_MAX`].
    #[error("a message has more than {FRAGMENTS_MAX} fragments")]
    Fragments,
}

impl Violation {
    /// The reason to close with.
    pub fn reason(&self) -> CloseReason {
        match self {
            Self::Utf8 => CloseReason::BadUtf8,
            Self::TooBig(_) => CloseReason::TooBig,
            Self::Fragments => CloseReason::Policy,
            _ => CloseReason::Protocol,
        }
    }
}

/// Turns a client's bytes into [`Event`]s; one for each WebSocket.
#[derive(Debug)]
pub struct Reader {
    head: [u8; CLIENT_HEAD_BYTES_MAX],
    head_len: u8,
    state: State,
    kind: Option<Kind>,
    frame: Option<Frame>,
    fragments: u32,
    /// How much of a text is known to be UTF-8.
    checked: usize,
    message: Vec<u8>,
    control: Vec<u8>,
    message_bytes_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// `message` was lent out by the last event.
    MessageLent,
    /// `control` was.
    ControlLent,
    /// A close or a violation came: nothing more is read.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// A frame whose head is read and whose payload is on its way.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    last: bool,
    key: [u8; 4],
    len: usize,
    read: usize,
}

/// Where the next event's bytes are.
enum Step {
    NeedMore,
    InInput(Opcode, Range<usize>),
    Message(Kind),
    Control(Opcode),
}

impl<'b> Input<'b> {
    /// Bytes that just came.
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// What was not read yet. It is as the client sent it, so it may be kept and given to a later [`Input`].
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.at;
        self.at = self.bytes.len().min(start + len);
        start..self.at
    }
}

impl Reader {
    /// A reader of a new WebSocket's bytes; messages may have `message_bytes_max` bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            head: [0; CLIENT_HEAD_BYTES_MAX],
            head_len: 0,
            state: State::Reading,
            kind: None,
            frame: None,
            fragments: 0,
            checked: 0,
            message: Vec::new(),
            control: Vec::new(),
            message_bytes_max,
        }
    }

    /// The next event in `input`, or `None` when all of it is read.
    ///
    /// An event's bytes lie in `input` or in the reader, until the next call.
    ///
    /// # Errors
    /// When the client breaks the protocol or a limit; from then on there are no events.
    pub fn next<'a>(&'a mut self, input: &'a mut Input<'_>) -> Result<Option<Event<'a>>, Violation> {
        self.take_back();
        let event = match self.advance(input) {
            Ok(Step::NeedMore) => return Ok(None),
            Ok(Step::InInput(opcode, range)) => event(opcode, &input.bytes[range]),
            Ok(Step::Message(Kind::Text)) => event(Opcode::Text, &self.message),
            Ok(Step::Message(Kind::Binary)) => event(Opcode::Binary, &self.message),
            Ok(Step::Control(opcode)) => event(opcode, &self.control),
            Err(violation) => Err(violation),
        };
        if matches!(event, Err(_) | Ok(Event::Close(_))) {
            self.state = State::Ended;
        }
        event.map(Some)
    }

    /// The bytes of memory that the reader owns beside itself; 0 between messages.
    pub fn buffered_bytes(&self) -> usize {
        self.message.capacity() + self.control.capacity()
    }

    /// Frees what the last event was lent from.
    fn take_back(&mut self) {
        match self.state {
            State::Reading => return,
            State::MessageLent => self.message = Vec::new(),
            State::ControlLent => self.control = Vec::new(),
            State::Ended => {
                self.message = Vec::new();
                self.control = Vec::new();
                return;
            }
        }
        self.state = State::Reading;
    }

    fn advance(&mut self, input: &mut Input<'_>) -> Result<Step, Violation> {
        if self.state == State::Ended {
            input.at = input.bytes.len();
            return Ok(Step::NeedMore);
        }
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_head(input)? {
                    Some(frame) => frame,
                    None => return Ok(Step::NeedMore),
                },
            };
            let available = input.rest().len();
            let alone = frame.opcode.is_control() || frame.last && frame.opcode != Opcode::Continuation;
            if alone && frame.read == 0 && available >= frame.len {
                let range = input.take(frame.len);
                unmask(&mut input.bytes[range.clone()], frame.key, 0);
                if !frame.opcode.is_control() {
                    self.kind = None;
                    self.fragments = 0;
                }
                return Ok(Step::InInput(frame.opcode, range));
            }
            let range = input.take(frame.len - frame.read);
            let part = &mut input.bytes[range];
            unmask(part, frame.key, frame.read % 4);
            frame.read += part.len();
            if frame.opcode.is_control() {
                self.control.extend_from_slice(part);
            } else {
                self.append(part)?;
            }
            if frame.read < frame.len {
                self.frame = Some(frame);
                return Ok(Step::NeedMore);
            }
            if frame.opcode.is_control() {
                self.state = State::ControlLent;
                return Ok(Step::Control(frame.opcode));
            }
            if frame.last {
                return self.finish();
            }
        }
    }

    /// Adds a piece to the message, and checks it if that is a text. Never reserves beyond the limit.
    fn append(&mut self, part: &[u8]) -> Result<(), Violation> {
        let len = self.message.len() + part.len();
        if len > self.message.capacity() {
            let target = (self.message.capacity() * 2).clamp(len, self.message_bytes_max.max(len));
            self.message.reserve_exact(target - self.message.len());
        }
        self.message.extend_from_slice(part);
        if self.kind == Some(Kind::Text) {
            match std::str::from_utf8(&self.message[self.checked..]) {
                Ok(_) => self.checked = self.message.len(),
                // A character whose end has not come yet is no error, and is looked at again.
                Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
                Err(_) => return Err(Violation::Utf8),
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Step, Violation> {
        let kind = self.kind.take().unwrap_or(Kind::Binary);
        if kind == Kind::Text && self.checked != self.message.len() {
            return Err(Violation::Utf8);
        }
        self.checked = 0;
        self.fragments = 0;
        self.state = State::MessageLent;
        Ok(Step::Message(kind))
    }

    /// Gathers a head, which may come byte by byte. What its first two bytes tell is checked as soon as they are there.
    fn read_head(&mut self, input: &mut Input<'_>) -> Result<Option<Frame>, Violation> {
        if !self.gather(input, 2) {
            return Ok(None);
        }
        let opcode = self.check_start()?;
        let short_len = self.head[1] & 0x7f;
        let len_bytes = match short_len {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if !self.gather(input, 2 + len_bytes + 4) {
            return Ok(None);
        }
        self.head_len = 0;
        let len = match len_bytes {
            0 => u64::from(short_len),
            _ => self.head[2..2 + len_bytes].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        if len >> 63 != 0 {
            return Err(Violation::Length);
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.head[2 + len_bytes..2 + len_bytes + 4]);
        if !opcode.is_control() {
            let room = self.message_bytes_max.saturating_sub(self.message.len());
            if len > room as u64 {
                return Err(Violation::TooBig(self.message_bytes_max));
            }
            self.begin(opcode)?;
        }
        Ok(Some(Frame { opcode, last: self.head[0] & 0x80 != 0, key, len: len as usize, read: 0 }))
    }

    /// Whether the head now has `len` bytes.
    fn gather(&mut self, input: &mut Input<'_>, len: usize) -> bool {
        let have = usize::from(self.head_len);
        if have < len {
            let range = input.take(len - have);
            let part = &input.bytes[range];
            self.head[have..have + part.len()].copy_from_slice(part);
            self.head_len += part.len() as u8;
        }
        usize::from(self.head_len) >= len
    }

    fn check_start(&self) -> Result<Opcode, Violation> {
        let [first, second, ..] = self.head;
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::Opcode(first & 0x0f))?;
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        if opcode.is_control() {
            if first & 0x80 == 0 {
                return Err(Violation::ControlFragment);
            }
            if usize::from(second & 0x7f) > CONTROL_BYTES_MAX {
                return Err(Violation::ControlLength);
            }
            return Ok(opcode);
        }
        match (opcode, self.kind) {
            (Opcode::Continuation, None) => Err(Violation::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(Violation::Interleaved),
            _ => Ok(opcode),
        }
    }

    fn begin(&mut self, opcode: Opcode) -> Result<(), Violation> {
        match opcode {
            Opcode::Text => self.kind = Some(Kind::Text),
            Opcode::Binary => self.kind = Some(Kind::Binary),
            _ => {}
        }
        if self.fragments == FRAGMENTS_MAX {
            return Err(Violation::Fragments);
        }
        self.fragments += 1;
        Ok(())
    }
}

fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Event::Text(std::str::from_utf8(payload).map_err(|_| Violation::Utf8)?),
        Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => Event::Close(close::decode(payload)?),
    })
}

#[cfg(test)]
mod tests;
