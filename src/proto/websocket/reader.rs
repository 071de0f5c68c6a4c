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
mod tests {
    use super::*;
    use crate::proto::websocket::frame;
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as PeerFrame};
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
    use tokio_tungstenite::tungstenite::{self, WebSocket};

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A client's frame: the first byte as given, the payload masked.
    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let (head, head_len) = frame::head(Opcode::Text, payload.len());
        let mut out = vec![first, head[1] | 0x80];
        out.extend_from_slice(&head[2..head_len]);
        out.extend_from_slice(&KEY);
        let start = out.len();
        out.extend_from_slice(payload);
        unmask(&mut out[start..], KEY, 0);
        out
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Owned {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<(u16, String)>),
        Violation(Violation),
    }

    fn owned(event: Event<'_>) -> Owned {
        match event {
            Event::Text(text) => Owned::Text(text.to_owned()),
            Event::Binary(bytes) => Owned::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Owned::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Owned::Pong(bytes.to_vec()),
            Event::Close(close) => Owned::Close(close.map(|close| (close.code, close.reason.to_owned()))),
        }
    }

    /// Feeds `bytes` in pieces, whose lengths `pieces` gives over and over.
    fn read_in_pieces(reader: &mut Reader, bytes: &[u8], pieces: &[usize]) -> Vec<Owned> {
        let mut events = Vec::new();
        let mut pieces = pieces.iter().copied().cycle();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(pieces.next().unwrap_or(rest.len()).clamp(1, rest.len()));
            rest = later;
            let mut now = now.to_vec();
            let mut input = Input::new(&mut now);
            loop {
                match reader.next(&mut input) {
                    Ok(Some(event)) => events.push(owned(event)),
                    Ok(None) => break,
                    Err(violation) => events.push(Owned::Violation(violation)),
                }
            }
            assert!(input.rest().is_empty(), "all is read when there is nothing more");
        }
        events
    }

    /// What `bytes` mean must not depend on how they are cut.
    #[track_caller]
    fn check(bytes: &[u8], expected: &[Owned]) {
        for piece in [usize::MAX, 1, 2, 3, 7] {
            assert_eq!(read_in_pieces(&mut Reader::new(1000), bytes, &[piece]), expected, "in pieces of {piece}");
        }
    }

    #[track_caller]
    fn violates(bytes: &[u8], violation: Violation, reason: CloseReason) {
        check(bytes, &[Owned::Violation(violation)]);
        assert_eq!(violation.reason(), reason);
        let swallowed = [bytes, &client(0x81, b"more")].concat();
        check(&swallowed, &[Owned::Violation(violation)]);
    }

    #[test]
    fn messages_of_one_frame_are_read() {
        check(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], &[Owned::Text("Hello".into())]);
        check(&client(0x81, b""), &[Owned::Text(String::new())]);
        check(&client(0x82, &[255; 300]), &[Owned::Binary(vec![255; 300])]);
    }

    #[test]
    fn fragments_are_joined_and_controls_come_between() {
        let bytes = [
            client(0x01, "gr\u{fc}".as_bytes().split_last().expect("bytes").1),
            client(0x89, b"a"),
            client(0x00, b""),
            client(0x8a, b"b"),
            client(0x80, &[0xbc, b'n']),
            client(0x82, b"x"),
        ]
        .concat();
        let ping = Owned::Ping(b"a".to_vec());
        let pong = Owned::Pong(b"b".to_vec());
        check(&bytes, &[ping, pong, Owned::Text("gr\u{fc}n".into()), Owned::Binary(b"x".to_vec())]);
    }

    #[test]
    fn a_long_length_for_a_short_payload_is_read() {
        check(&[0x82, 0xfe, 0, 1, 0, 0, 0, 0, 9], &[Owned::Binary(vec![9])]);
        check(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9], &[Owned::Binary(vec![9])]);
    }

    #[test]
    fn nothing_is_read_after_a_close() {
        let close = |payload: &[u8]| [client(0x88, payload), client(0x81, b"late")].concat();
        check(&close(b""), &[Owned::Close(None)]);
        check(&close(b"\x03\xe8bye"), &[Owned::Close(Some((1000, "bye".into())))]);
        check(&close(b"\x0b\xb8"), &[Owned::Close(Some((3000, String::new())))]);
    }

    #[test]
    fn broken_frames_are_violations() {
        violates(&frame::text("x"), Violation::Unmasked, CloseReason::Protocol);
        for bit in [0x40, 0x20, 0x10] {
            violates(&client(0x81 | bit, b"x"), Violation::ReservedBits, CloseReason::Protocol);
        }
        for opcode in [3, 7, 11, 15] {
            violates(&client(0x80 | opcode, b"x"), Violation::Opcode(opcode), CloseReason::Protocol);
        }
        violates(&client(0x09, b""), Violation::ControlFragment, CloseReason::Protocol);
        violates(&client(0x89, &[0; 126]), Violation::ControlLength, CloseReason::Protocol);
        violates(&client(0x80, b"x"), Violation::NothingToContinue, CloseReason::Protocol);
        violates(&client(0x00, b"x"), Violation::NothingToContinue, CloseReason::Protocol);
        violates(&[client(0x01, b"x"), client(0x81, b"y")].concat(), Violation::Interleaved, CloseReason::Protocol);
        violates(&[client(0x02, b""), client(0x02, b"")].concat(), Violation::Interleaved, CloseReason::Protocol);
        let high_bit = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9];
        violates(&high_bit, Violation::Length, CloseReason::Protocol);
        violates(&client(0x88, b"\x03"), Violation::CloseLength, CloseReason::Protocol);
        violates(&client(0x88, b"\x03\xed"), Violation::CloseCode(1005), CloseReason::Protocol);
        violates(&client(0x88, b"\x03\xe8\xff"), Violation::Utf8, CloseReason::BadUtf8);
    }

    #[test]
    fn bad_utf8_fails_at_the_first_bad_byte() {
        violates(&client(0x81, b"a\xff"), Violation::Utf8, CloseReason::BadUtf8);
        violates(&client(0x81, b"a\xc3"), Violation::Utf8, CloseReason::BadUtf8);
        violates(&[client(0x01, b"\xc3"), client(0x80, b"")].concat(), Violation::Utf8, CloseReason::BadUtf8);
        // The rest of the frame never comes.
        let cut = &client(0x01, b"\xf4\x90\x80\x80 and so on")[..8];
        assert_eq!(read_in_pieces(&mut Reader::new(99), cut, &[1]), [Owned::Violation(Violation::Utf8)]);
    }

    #[test]
    fn a_message_over_the_limit_fails_at_its_head() {
        let reader = &mut Reader::new(10);
        let bytes =
            [client(0x82, &[0; 10]), client(0x02, &[0; 6]), client(0x00, &[0; 4]), client(0x00, &[0; 1])].concat();
        let events = read_in_pieces(reader, &bytes[..bytes.len() - 1], &[usize::MAX]);
        assert_eq!(events, [Owned::Binary(vec![0; 10]), Owned::Violation(Violation::TooBig(10))]);
        violates(&client(0x81, &[b'x'; 1001]), Violation::TooBig(1000), CloseReason::TooBig);
        let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        violates(&huge, Violation::TooBig(1000), CloseReason::TooBig);
    }

    #[test]
    fn endless_empty_fragments_are_a_violation() {
        let reader = &mut Reader::new(10);
        let mut bytes = client(0x01, b"");
        for _ in 1..FRAGMENTS_MAX {
            bytes.extend_from_slice(&client(0x00, b""));
        }
        assert_eq!(read_in_pieces(reader, &bytes, &[usize::MAX]), []);
        let events = read_in_pieces(reader, &client(0x80, b""), &[usize::MAX]);
        assert_eq!(events, [Owned::Violation(Violation::Fragments)]);
        assert_eq!(Violation::Fragments.reason(), CloseReason::Policy);
    }

    #[test]
    fn fragments_are_counted_for_each_message() {
        let bytes = [client(0x81, b"x"), client(0x01, b""), client(0x80, b"")].concat();
        let reader = &mut Reader::new(10);
        for _ in 0..FRAGMENTS_MAX {
            assert_eq!(read_in_pieces(reader, &bytes, &[usize::MAX]).len(), 2);
        }
    }

    #[test]
    fn a_reader_owns_nothing_between_messages() {
        let reader = &mut Reader::new(1000);
        let bytes = [client(0x01, &[b'x'; 500]), client(0x89, b"ping"), client(0x80, &[b'y'; 500])].concat();
        assert_eq!(read_in_pieces(reader, &bytes[..40], &[1]), []);
        assert!(reader.buffered_bytes() > 0);
        assert_eq!(read_in_pieces(reader, &bytes[40..], &[1]).len(), 2);
        assert_eq!(reader.buffered_bytes(), 0);
        assert!(size_of::<Reader>() <= 152, "{}", size_of::<Reader>());
    }

    #[test]
    fn whole_frames_are_lent_from_the_input() {
        let reader = &mut Reader::new(1000);
        let mut bytes = [client(0x81, b"one"), client(0x89, b"two")].concat();
        let mut input = Input::new(&mut bytes);
        assert_eq!(reader.next(&mut input), Ok(Some(Event::Text("one"))));
        assert_eq!(reader.buffered_bytes(), 0);
        assert_eq!(input.rest(), client(0x89, b"two"), "the rest is as it came");
        assert_eq!(reader.next(&mut input), Ok(Some(Event::Ping(b"two"))));
        assert_eq!(reader.buffered_bytes(), 0);
        assert_eq!(reader.next(&mut input), Ok(None));
    }

    /// A stream in memory for the peer.
    #[derive(Debug, Default)]
    struct Pipe {
        incoming: std::io::Cursor<Vec<u8>>,
        outgoing: Vec<u8>,
    }

    impl std::io::Read for Pipe {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            match self.incoming.read(out)? {
                0 => Err(std::io::ErrorKind::WouldBlock.into()),
                len => Ok(len),
            }
        }
    }

    impl std::io::Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.outgoing.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn peer(incoming: Vec<u8>) -> WebSocket<Pipe> {
        let pipe = Pipe { incoming: std::io::Cursor::new(incoming), outgoing: Vec::new() };
        WebSocket::from_raw_socket(pipe, Role::Client, None::<WebSocketConfig>)
    }

    fn said() -> impl Strategy<Value = Owned> {
        prop_oneof![
            4 => ".{0,200}".prop_map(Owned::Text),
            1 => "x{65500,65600}".prop_map(Owned::Text),
            4 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(Owned::Binary),
            1 => proptest::collection::vec(any::<u8>(), 0..126).prop_map(Owned::Ping),
            1 => proptest::collection::vec(any::<u8>(), 0..126).prop_map(Owned::Pong),
        ]
    }

    /// A data message as the peer's frames, cut at `cuts`; controls as one.
    fn peer_frames(said: &Owned, cuts: &[prop::sample::Index]) -> Vec<PeerFrame> {
        let (data, bytes) = match said {
            Owned::Text(text) => (Data::Text, text.as_bytes()),
            Owned::Binary(bytes) => (Data::Binary, bytes.as_slice()),
            Owned::Ping(bytes) => return vec![PeerFrame::ping(bytes.clone())],
            Owned::Pong(bytes) => return vec![PeerFrame::pong(bytes.clone())],
            _ => return Vec::new(),
        };
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut start = 0;
        let mut frames = Vec::new();
        for (at, end) in ends.iter().copied().enumerate() {
            let opcode = OpCode::Data(if at == 0 { data } else { Data::Continue });
            frames.push(PeerFrame::message(bytes[start..end].to_vec(), opcode, at + 1 == ends.len()));
            start = end;
        }
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_a_peer_says_is_heard(
            conversation in proptest::collection::vec((said(), proptest::collection::vec(any::<prop::sample::Index>(), 0..4)), 0..12),
            close in proptest::option::of((3000u16..5000, ".{0,20}")),
            pieces in proptest::collection::vec(1usize..2000, 1..6),
        ) {
            let mut peer = peer(Vec::new());
            let mut expected = Vec::new();
            for (said, cuts) in &conversation {
                for frame in peer_frames(said, cuts) {
                    peer.send(tungstenite::Message::Frame(frame)).expect("sent");
                }
                expected.push(said.clone());
            }
            if let Some((code, reason)) = close {
                let frame = CloseFrame { code: code.into(), reason: reason.as_str().into() };
                peer.close(Some(frame)).expect("closed");
                expected.push(Owned::Close(Some((code, reason))));
            }
            let mut reader = Reader::new(1 << 20);
            let heard = read_in_pieces(&mut reader, &peer.get_ref().outgoing, &pieces);
            prop_assert_eq!(heard, expected);
            prop_assert_eq!(reader.buffered_bytes(), 0);
        }

        #[test]
        fn a_peer_hears_what_is_said(conversation in proptest::collection::vec(said(), 0..12)) {
            let mut bytes = Vec::new();
            for said in &conversation {
                bytes.extend_from_slice(&match said {
                    Owned::Text(text) => frame::text(text),
                    Owned::Binary(bytes) => frame::binary(bytes),
                    Owned::Ping(bytes) => frame::frame(Opcode::Ping, bytes),
                    _ => frame::pong(b"p"),
                });
            }
            bytes.extend_from_slice(&close::encode(4001, "gap"));
            let mut peer = peer(bytes);
            for said in &conversation {
                let expected = match said {
                    Owned::Text(text) => tungstenite::Message::text(text.clone()),
                    Owned::Binary(bytes) => tungstenite::Message::binary(bytes.clone()),
                    Owned::Ping(bytes) => tungstenite::Message::Ping(bytes.clone().into()),
                    _ => tungstenite::Message::Pong(b"p"[..].into()),
                };
                prop_assert_eq!(peer.read().expect("a message"), expected);
            }
            let tungstenite::Message::Close(Some(close)) = peer.read().expect("a close") else {
                return Err(TestCaseError::fail("no close"));
            };
            prop_assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "gap"));
        }

        #[test]
        fn any_bytes_end_in_events_or_a_violation(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(vec![0x01u8, 0x80, 0x81, 0x82, 0x83, 0x89])], 0..2000),
            pieces in proptest::collection::vec(1usize..100, 1..4),
        ) {
            let mut reader = Reader::new(64);
            let events = read_in_pieces(&mut reader, &bytes, &pieces);
            let ends = |event: &Owned| matches!(event, Owned::Close(_) | Owned::Violation(_));
            prop_assert!(events.iter().rev().skip(1).all(|event| !ends(event)), "an end is the last");
            prop_assert!(reader.buffered_bytes() <= 64 + 256);
        }

        #[test]
        fn the_peer_and_the_reader_agree_on_any_frames(
            frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..130)), 1..6),
        ) {
            // As a server the peer has the same rules to keep: it must refuse what the reader refuses.
            let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| client(*first, payload)).collect();
            let mut server = WebSocket::from_raw_socket(
                Pipe { incoming: std::io::Cursor::new(bytes.clone()), outgoing: Vec::new() },
                Role::Server,
                None,
            );
            let mut theirs = 0;
            let refused = loop {
                match server.read() {
                    Ok(tungstenite::Message::Close(_)) => break false,
                    Ok(_) => theirs += 1,
                    Err(tungstenite::Error::Io(_)) => break false,
                    Err(_) => break true,
                }
            };
            let ours = read_in_pieces(&mut Reader::new(1 << 20), &bytes, &[usize::MAX]);
            let heard = ours.iter().filter(|e| !matches!(e, Owned::Close(_) | Owned::Violation(_))).count();
            prop_assert_eq!(heard, theirs);
            // A bad close code alone is answered by the peer with a close, which `read` does not tell as an error.
            let violation = ours.iter().find_map(|event| match event {
                Owned::Violation(violation) => Some(violation),
                _ => None,
            });
            if !matches!(violation, Some(Violation::CloseCode(_))) {
                prop_assert_eq!(violation.is_some(), refused, "{:?}", ours);
            }
        }
    }

    #[test]
    fn the_peers_opcodes_are_ours() {
        for (ours, theirs) in [
            (Opcode::Text, OpCode::Data(Data::Text)),
            (Opcode::Close, OpCode::Control(Control::Close)),
            (Opcode::Pong, OpCode::Control(Control::Pong)),
        ] {
            assert_eq!(ours as u8, u8::from(theirs));
        }
    }
}
