//! What a client's frames do (RFC 9113 §6).

use super::{ANY_STREAM, Connection, Incoming, LEAVING, Leaving, Reason, Receiving};
use crate::proto::http2::frame::{self, ACK, END_HEADERS, END_STREAM, HEAD_BYTES, Head, Kind, PADDED, PRIORITY};
use crate::proto::http2::request::{Fields, Unfit};
use crate::proto::http2::stream::{Ended, Sending, Stream, WaitsFor};
use crate::proto::http2::{ConnectionError, PREFACE, StreamError, window};

/// Frames of one header block, beside one for each KiB that it may take: small ones are an attack (CVE-2024-27316).
const BLOCK_FRAMES_MAX: usize = 16;
/// A header block may take as many times what its fields may, so that a head that is too large is answered.
const BLOCK_FACTOR: usize = 4;

/// Where reading stands.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Bytes of the preface that have come.
    preface: usize,
    /// Whether the client's first SETTINGS have come.
    settled: bool,
    /// The beginning of a frame.
    partial: Vec<u8>,
    block: Option<Block>,
    /// How many header blocks have come.
    blocks: u64,
}

/// A header block that goes on in CONTINUATION frames.
#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    depends_on_itself: bool,
    bytes: Vec<u8>,
    frames: usize,
}

impl Reading {
    pub(super) fn has_begun(&self) -> bool {
        self.settled
    }

    pub(super) fn awaits_head(&self) -> bool {
        let kind = Head::read(&self.partial).map(|head| head.kind);
        self.block.is_some() || kind == Some(Kind::Headers)
    }

    pub(super) fn heads(&self) -> u64 {
        self.blocks
    }
}

impl Connection {
    /// Takes what was read, at `now_ms` of any clock.
    ///
    /// # Errors
    /// What the client did that ends the connection: to be told by [`Connection::give_up`].
    pub fn receive(&mut self, mut bytes: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        let preface = &PREFACE[self.reading.preface..];
        let expected = preface.len().min(bytes.len());
        if bytes[..expected] != preface[..expected] {
            return Err(ConnectionError::protocol("the connection does not begin with the preface of HTTP/2"));
        }
        self.reading.preface += expected;
        bytes = &bytes[expected..];
        let mut partial = std::mem::take(&mut self.reading.partial);
        if !partial.is_empty() {
            bytes = self.complete(&mut partial, bytes, now_ms)?;
            if !partial.is_empty() {
                self.reading.partial = partial;
                return Ok(());
            }
        }
        while let Some(head) = Head::read(bytes) {
            check_size(&head)?;
            let Some((payload, rest)) = bytes[HEAD_BYTES..].split_at_checked(head.len) else { break };
            self.frame(&head, payload, now_ms)?;
            bytes = rest;
        }
        self.reading.partial = bytes.to_vec();
        Ok(())
    }

    /// Completes a frame that has begun; it is taken then, and `partial` is empty. Gives back what follows.
    fn complete<'a>(
        &mut self,
        partial: &mut Vec<u8>,
        mut bytes: &'a [u8],
        now_ms: u64,
    ) -> Result<&'a [u8], ConnectionError> {
        loop {
            let head = Head::read(partial);
            if let Some(head) = &head {
                check_size(head)?;
            }
            let wanted = HEAD_BYTES + head.map_or(0, |head| head.len);
            let (more, rest) = bytes.split_at(bytes.len().min(wanted - partial.len()));
            partial.extend_from_slice(more);
            bytes = rest;
            if partial.len() < wanted {
                return Ok(bytes);
            }
            if let Some(head) = head {
                self.frame(&head, &partial[HEAD_BYTES..], now_ms)?;
                *partial = Vec::new();
                return Ok(bytes);
            }
        }
    }

    fn frame(&mut self, head: &Head, payload: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        if !self.reading.settled && (head.kind != Kind::Settings || head.has(ACK)) {
            return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
        }
        if let Some(block) = &self.reading.block
            && (head.kind != Kind::Continuation || head.stream != block.stream)
        {
            return Err(ConnectionError::protocol("a header block is interrupted by another frame"));
        }
        let is_of_stream = matches!(
            head.kind,
            Kind::Data | Kind::Headers | Kind::Priority | Kind::RstStream | Kind::Continuation | Kind::PushPromise
        );
        let is_of_connection = matches!(head.kind, Kind::Settings | Kind::Ping | Kind::GoAway);
        if is_of_stream && head.stream == 0 {
            return Err(ConnectionError::protocol("a frame of a stream names none"));
        }
        if is_of_connection && head.stream != 0 {
            return Err(ConnectionError::protocol("a frame of the connection names a stream"));
        }
        match head.kind {
            Kind::Data => self.data(head, payload, now_ms),
            Kind::Headers => self.headers(head, payload, now_ms),
            Kind::Continuation => self.continuation(head, payload, now_ms),
            Kind::Priority => self.priority(head, payload),
            Kind::RstStream => self.rst_stream(head, payload, now_ms),
            Kind::Settings => self.settings(head, payload, now_ms),
            Kind::PushPromise => Err(ConnectionError::protocol("a client can't push")),
            Kind::Ping => self.ping(head, payload),
            Kind::GoAway if payload.len() < 8 => Err(ConnectionError::size("GOAWAY is too short")),
            // Nothing is ever pushed, and what the client asked for it still wants.
            Kind::GoAway => Ok(()),
            Kind::WindowUpdate => self.window_update(head, payload, now_ms),
            Kind::Unknown => Ok(()),
        }
    }

    fn pay(&mut self, now_ms: u64) -> Result<(), ConnectionError> {
        self.budget.pay(now_ms).map_err(|_| {
            let what = "too many requests that were given up or malformed, or frames that say nothing";
            ConnectionError::new(Reason::ENHANCE_YOUR_CALM, what)
        })
    }

    /// Whether the client has not used this number yet.
    fn is_idle_number(&self, id: u32) -> bool {
        id > self.last || id.is_multiple_of(2)
    }

    /// Whether a stream of this number is not looked at, because the client was told to go.
    fn is_unwanted(&self, id: u32) -> bool {
        self.leaving == Leaving::Heard && id > self.last && !id.is_multiple_of(2)
    }

    /// Resets an open stream for what the client did, which it pays for.
    fn mistake(&mut self, key: super::Key, reason: Reason, now_ms: u64) -> Result<(), ConnectionError> {
        self.reset(key, reason);
        self.pay(now_ms)
    }

    /// Resets a stream that is not open.
    fn refuse(&mut self, id: u32, reason: Reason, now_ms: u64) -> Result<(), ConnectionError> {
        frame::rst_stream(&mut self.unsent, id, reason);
        self.recent.add(id, Ended::Reset);
        self.pay(now_ms)
    }

    fn data(&mut self, head: &Head, payload: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        if self.is_idle_number(head.stream) && !self.is_unwanted(head.stream) {
            return Err(ConnectionError::protocol("DATA on a stream that was not begun"));
        }
        let data = unpadded(head, payload)?;
        self.receive_window
            .received(payload.len())
            .map_err(|_| ConnectionError::new(Reason::FLOW_CONTROL_ERROR, "DATA is over the connection's window"))?;
        let Some(&key) = self.open.get(&head.stream) else {
            self.take_back(payload.len());
            return match self.recent.find(head.stream) {
                Some(Ended::Closed) => {
                    Err(ConnectionError::new(Reason::STREAM_CLOSED, "DATA on a stream that has ended"))
                }
                // It was sent before the client knew.
                Some(Ended::Reset) | None => Ok(()),
            };
        };
        // Padding is never read.
        self.take_back(payload.len() - data.len());
        let end = head.has(END_STREAM);
        let stream = &mut self.streams[key];
        if !stream.may_receive {
            self.take_back(data.len());
            return self.mistake(key, Reason::STREAM_CLOSED, now_ms);
        }
        let Some(receiving) = &mut stream.receiving else {
            stream.may_receive = !end;
            self.half_closed(key);
            self.take_back(data.len());
            return Ok(());
        };
        if receiving.window.received(payload.len()).is_err() {
            self.take_back(data.len());
            return self.mistake(key, Reason::FLOW_CONTROL_ERROR, now_ms);
        }
        if let Some(by) = receiving.window.taken(payload.len() - data.len())
            && !end
        {
            frame::window_update(&mut self.unsent, head.stream, by);
        }
        if receiving.push(data).is_err() {
            self.take_back(data.len());
            return self.mistake(key, Reason::PROTOCOL_ERROR, now_ms);
        }
        if end {
            return self.received_all(key, now_ms);
        }
        stream.wake_reader();
        if data.is_empty() { self.pay(now_ms) } else { Ok(()) }
    }

    /// The client has ended its side.
    fn received_all(&mut self, key: super::Key, now_ms: u64) -> Result<(), ConnectionError> {
        let stream = &mut self.streams[key];
        if stream.receiving.as_ref().is_some_and(|receiving| receiving.end().is_err()) {
            return self.mistake(key, Reason::PROTOCOL_ERROR, now_ms);
        }
        stream.may_receive = false;
        stream.wake_reader();
        self.half_closed(key);
        Ok(())
    }

    fn headers(&mut self, head: &Head, payload: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        if head.stream.is_multiple_of(2) {
            return Err(ConnectionError::protocol("a client's stream has an even number"));
        }
        let mut fragment = unpadded(head, payload)?;
        let mut depends_on_itself = false;
        if head.has(PRIORITY) {
            let (priority, rest) = fragment
                .split_first_chunk::<5>()
                .ok_or(ConnectionError::size("HEADERS are too short for their priority"))?;
            depends_on_itself = dependency(priority) == head.stream;
            fragment = rest;
        }
        let block = Block {
            stream: head.stream,
            end_stream: head.has(END_STREAM),
            depends_on_itself,
            bytes: Vec::new(),
            frames: 1,
        };
        if head.has(END_HEADERS) {
            return self.block(&block, fragment, now_ms);
        }
        self.reading.block = Some(Block { bytes: fragment.to_vec(), ..block });
        Ok(())
    }

    fn continuation(&mut self, head: &Head, payload: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        let Some(mut block) = self.reading.block.take() else {
            return Err(ConnectionError::protocol("CONTINUATION without a header block"));
        };
        let bytes_max = BLOCK_FACTOR * self.bounds.header_list_bytes_max;
        block.frames += 1;
        if block.bytes.len() + payload.len() > bytes_max || block.frames > BLOCK_FRAMES_MAX + bytes_max / 1024 {
            return Err(ConnectionError::new(Reason::ENHANCE_YOUR_CALM, "a header block is far too long"));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(END_HEADERS) {
            let bytes = std::mem::take(&mut block.bytes);
            return self.block(&block, &bytes, now_ms);
        }
        self.reading.block = Some(block);
        Ok(())
    }

    /// Takes a whole header block.
    fn block(&mut self, block: &Block, bytes: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        self.reading.blocks += 1;
        let mut fields = Fields::new(self.bounds.header_list_bytes_max);
        self.decoder
            .decode(bytes, |name, value| fields.take(name, value))
            .map_err(|_| ConnectionError::new(Reason::COMPRESSION_ERROR, "a header block can't be decoded"))?;
        if let Some(&key) = self.open.get(&block.stream) {
            return self.trailers(key, block, fields, now_ms);
        }
        if block.stream > self.last {
            if self.leaving == Leaving::Heard {
                return Ok(());
            }
            self.last = block.stream;
            return self.request(block, fields, now_ms);
        }
        match self.recent.find(block.stream) {
            // It was sent before the client knew.
            Some(Ended::Reset) => Ok(()),
            Some(Ended::Closed) => {
                Err(ConnectionError::new(Reason::STREAM_CLOSED, "HEADERS on a stream that has ended"))
            }
            None => Err(ConnectionError::protocol("a stream's number is lower than one before")),
        }
    }

    fn trailers(&mut self, key: super::Key, block: &Block, fields: Fields, now_ms: u64) -> Result<(), ConnectionError> {
        let stream = &mut self.streams[key];
        if !stream.may_receive {
            return self.mistake(key, Reason::STREAM_CLOSED, now_ms);
        }
        let Some(trailers) = fields.into_trailers().ok().filter(|_| block.end_stream) else {
            self.refusals.malformed += 1;
            return self.mistake(key, Reason::PROTOCOL_ERROR, now_ms);
        };
        if let Some(receiving) = &mut stream.receiving {
            receiving.trailers = Some(trailers);
        }
        self.received_all(key, now_ms)
    }

    fn request(&mut self, block: &Block, fields: Fields, now_ms: u64) -> Result<(), ConnectionError> {
        let streams_max = self.bounds.streams_max as usize;
        // Those that were reset are there until their handlers have run once more.
        if self.open.len() >= streams_max || self.streams.len() >= 2 * streams_max {
            self.refusals.streams += 1;
            return self.refuse(block.stream, Reason::REFUSED_STREAM, now_ms);
        }
        let (head, length) = match fields.into_request() {
            Ok(head) => {
                let length = head.headers().get(http::header::CONTENT_LENGTH);
                // One that is no number is refused with the other faults of a head.
                let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
                (Some(head), length)
            }
            Err(Unfit::TooLarge) => (None, None),
            Err(Unfit::Malformed(_)) => {
                self.refusals.malformed += 1;
                return self.refuse(block.stream, Reason::PROTOCOL_ERROR, now_ms);
            }
        };
        if block.depends_on_itself || (block.end_stream && length.is_some_and(|length| length > 0)) {
            self.refusals.malformed += 1;
            return self.refuse(block.stream, Reason::PROTOCOL_ERROR, now_ms);
        }
        let has_body = !block.end_stream;
        let receiving = has_body.then(|| Box::new(Receiving::new(self.bounds.stream_window_bytes, length)));
        let key = self.streams.insert(Stream::new(block.stream, self.client.window_bytes, receiving));
        self.open.insert(block.stream, key);
        self.requests.push_back(Incoming { key, head, has_body });
        Ok(())
    }

    fn priority(&mut self, head: &Head, payload: &[u8]) -> Result<(), ConnectionError> {
        let Ok(priority) = payload.try_into() else {
            return Err(ConnectionError::size("PRIORITY is not 5 bytes"));
        };
        match dependency(priority) == head.stream {
            true => Err(ConnectionError::protocol("a stream depends on itself")),
            false => Ok(()),
        }
    }

    fn rst_stream(&mut self, head: &Head, payload: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        let Ok(reason) = payload.try_into().map(u32::from_be_bytes) else {
            return Err(ConnectionError::size("RST_STREAM is not 4 bytes"));
        };
        if self.is_idle_number(head.stream) && !self.is_unwanted(head.stream) {
            return Err(ConnectionError::protocol("RST_STREAM on a stream that was not begun"));
        }
        let Some(&key) = self.open.get(&head.stream) else { return Ok(()) };
        let is_early = self.streams[key].sending == Sending::Head;
        self.fail(key, StreamError::Reset(Reason(reason)), Ended::Closed);
        if is_early { self.pay(now_ms) } else { Ok(()) }
    }

    fn settings(&mut self, head: &Head, payload: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        if head.has(ACK) {
            return match payload.is_empty() {
                true => Ok(()),
                false => Err(ConnectionError::size("an answer to SETTINGS is not empty")),
            };
        }
        if self.reading.settled {
            self.pay(now_ms)?;
        }
        let before = i64::from(self.client.window_bytes);
        self.client.take(payload)?;
        let change = i64::from(self.client.window_bytes) - before;
        if change != 0 {
            for (_, stream) in &mut self.streams {
                stream.window.change(change).map_err(|_| {
                    ConnectionError::new(Reason::FLOW_CONTROL_ERROR, "SETTINGS make a window larger than 2^31-1")
                })?;
                if stream.waits == WaitsFor::Window && stream.window.bytes() > 0 {
                    stream.wake_sender();
                }
            }
        }
        frame::settings_ack(&mut self.unsent);
        if !std::mem::replace(&mut self.reading.settled, true)
            && let Some(more @ 1..) = self.bounds.connection_window_bytes.checked_sub(window::DEFAULT_BYTES)
        {
            frame::window_update(&mut self.unsent, 0, more);
        }
        Ok(())
    }

    fn ping(&mut self, head: &Head, payload: &[u8]) -> Result<(), ConnectionError> {
        let Ok(payload) = payload.try_into() else { return Err(ConnectionError::size("PING is not 8 bytes")) };
        match head.has(ACK) {
            true if payload == LEAVING => self.left(),
            true => {}
            false => frame::ping(&mut self.unsent, payload, ACK),
        }
        Ok(())
    }

    fn window_update(&mut self, head: &Head, payload: &[u8], now_ms: u64) -> Result<(), ConnectionError> {
        let Ok(increment) = payload.try_into().map(u32::from_be_bytes) else {
            return Err(ConnectionError::size("WINDOW_UPDATE is not 4 bytes"));
        };
        let increment = i64::from(increment & ANY_STREAM);
        if head.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE by nothing"));
            }
            return self.window.change(increment).map_err(|_| {
                ConnectionError::new(Reason::FLOW_CONTROL_ERROR, "WINDOW_UPDATE makes a window larger than 2^31-1")
            });
        }
        if self.is_idle_number(head.stream) && !self.is_unwanted(head.stream) {
            return Err(ConnectionError::protocol("WINDOW_UPDATE on a stream that was not begun"));
        }
        let Some(&key) = self.open.get(&head.stream) else { return Ok(()) };
        if increment == 0 {
            return self.mistake(key, Reason::PROTOCOL_ERROR, now_ms);
        }
        let stream = &mut self.streams[key];
        if stream.window.change(increment).is_err() {
            return self.mistake(key, Reason::FLOW_CONTROL_ERROR, now_ms);
        }
        if stream.waits == WaitsFor::Window && stream.window.bytes() > 0 {
            stream.wake_sender();
        }
        Ok(())
    }
}

fn check_size(head: &Head) -> Result<(), ConnectionError> {
    match head.len > frame::PAYLOAD_BYTES_MAX {
        true => Err(ConnectionError::size("a frame is longer than 16384 bytes")),
        false => Ok(()),
    }
}

/// The stream that a priority names.
fn dependency(priority: &[u8; 5]) -> u32 {
    let [a, b, c, d, _] = *priority;
    u32::from_be_bytes([a, b, c, d]) & ANY_STREAM
}

/// A payload without its padding (RFC 9113 §6.1).
fn unpadded<'a>(head: &Head, payload: &'a [u8]) -> Result<&'a [u8], ConnectionError> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(ConnectionError::size("a padded frame is empty"))?;
    rest.len()
        .checked_sub(usize::from(padding))
        .map(|len| &rest[..len])
        .ok_or(ConnectionError::protocol("a frame's padding is longer than the frame"))
}
