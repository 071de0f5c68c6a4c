//! An HTTP/2 client of bare frames: it writes whatever bytes a test wants, reads strictly, and keeps to the server's
//! windows only where it is asked to.

use crate::support::client::dial;
use crate::support::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame,
};
use crate::support::hpack::{self, Fields, Reader};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The client's preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A window that no setting has changed.
pub const WINDOW: i64 = 65_535;
/// The largest frame that no setting has changed.
pub const FRAME_BYTES: usize = 16_384;

/// Error codes (RFC 9113 §7).
pub const NO_ERROR: u32 = 0;
/// PROTOCOL_ERROR.
pub const PROTOCOL_ERROR: u32 = 1;
/// FLOW_CONTROL_ERROR.
pub const FLOW_CONTROL_ERROR: u32 = 3;
/// STREAM_CLOSED.
pub const STREAM_CLOSED: u32 = 5;
/// FRAME_SIZE_ERROR.
pub const FRAME_SIZE_ERROR: u32 = 6;
/// REFUSED_STREAM.
pub const REFUSED_STREAM: u32 = 7;
/// CANCEL.
pub const CANCEL: u32 = 8;
/// COMPRESSION_ERROR.
pub const COMPRESSION_ERROR: u32 = 9;
/// ENHANCE_YOUR_CALM.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Settings (RFC 9113 §6.5.2, RFC 8441 §3).
pub const HEADER_TABLE_SIZE: u16 = 1;
/// ENABLE_PUSH.
pub const ENABLE_PUSH: u16 = 2;
/// MAX_CONCURRENT_STREAMS.
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
/// INITIAL_WINDOW_SIZE.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// MAX_FRAME_SIZE.
pub const MAX_FRAME_SIZE: u16 = 5;
/// ENABLE_CONNECT_PROTOCOL.
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole list of fields.
    Head { stream: u32, fields: Fields, is_last: bool },
    /// Content, without its padding.
    Data { stream: u32, content: Vec<u8>, is_last: bool },
    /// RST_STREAM.
    Reset { stream: u32, code: u32 },
    /// SETTINGS; the acknowledgement has been sent.
    Settings(Vec<(u16, u32)>),
    /// The acknowledgement of this end's SETTINGS.
    SettingsAck,
    /// A PING of the server.
    Ping(Vec<u8>),
    /// The answer to a PING.
    Pong(Vec<u8>),
    /// GOAWAY.
    Goaway { last: u32, code: u32 },
    /// WINDOW_UPDATE.
    Window { stream: u32, by: u32 },
    /// What a client is to ignore.
    Ignored,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer.
    Answered { status: u16, fields: Fields, body: Vec<u8> },
    /// Its stream was reset.
    Reset(u32),
    /// The connection was closed, with this code of the last GOAWAY.
    Closed(Option<u32>),
}

impl Outcome {
    /// The status of a whole answer.
    #[track_caller]
    pub fn status(&self) -> u16 {
        match self {
            Self::Answered { status, .. } => *status,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// The body of a 200.
    #[track_caller]
    pub fn body(self) -> Vec<u8> {
        match self {
            Self::Answered { status: 200, body, .. } => body,
            other => panic!("no 200: {other:?}"),
        }
    }
}

/// A connection.
pub struct Http2<T = TcpStream> {
    io: T,
    hpack: Reader,
    block: Option<(u32, bool, Vec<u8>)>,
    kept: VecDeque<Event>,
    /// The largest frame that the server may send.
    frame_bytes_max: usize,
    /// The server's settings, once they came.
    settings: Option<HashMap<u16, u32>>,
    window: i64,
    windows: HashMap<u32, i64>,
    reset: HashSet<u32>,
}

impl Http2 {
    /// A connection after the preface and empty settings.
    pub async fn open(to: SocketAddr) -> Self {
        Self::with(to, &[]).await
    }

    /// A connection after the preface and these settings.
    pub async fn with(to: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::over(dial(to).await, settings).await
    }

    /// The bare connection.
    pub fn into_tcp(self) -> TcpStream {
        self.io
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Http2<T> {
    /// As [`Http2::with`], over a connection that is there.
    pub async fn over(io: T, settings: &[(u16, u32)]) -> Self {
        let mut http2 = Self::bare(io);
        http2.write([PREFACE.to_vec(), self::settings(settings)].concat()).await;
        http2
    }

    /// A connection on which nothing was written.
    pub fn bare(io: T) -> Self {
        Self {
            io,
            hpack: Reader::default(),
            block: None,
            kept: VecDeque::new(),
            frame_bytes_max: FRAME_BYTES,
            settings: None,
            window: WINDOW,
            windows: HashMap::new(),
            reset: HashSet::new(),
        }
    }

    /// Writes; what the server does not take any more is lost.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.io.write_all(bytes.as_ref()).await;
        let _ = self.io.flush().await;
    }

    /// Sends settings and waits until they are acknowledged; what comes before is kept.
    pub async fn set(&mut self, settings: &[(u16, u32)]) {
        let raised = settings.iter().find(|(id, _)| *id == MAX_FRAME_SIZE).map(|(_, value)| *value as usize);
        self.frame_bytes_max = self.frame_bytes_max.max(raised.unwrap_or(0));
        self.write(self::settings(settings)).await;
        self.keep_until(|event| *event == Event::SettingsAck).await;
        for (_, bytes) in settings.iter().filter(|(id, _)| *id == HEADER_TABLE_SIZE) {
            self.hpack.allow(*bytes as usize);
        }
    }

    /// Sends a GET; its block is literals.
    pub async fn get(&mut self, stream: u32, path: &str) {
        self.write(get(stream, path)).await;
    }

    /// Opens a window.
    pub async fn open_window(&mut self, stream: u32, by: u32) {
        self.write(window_update(stream, by)).await;
    }

    /// The value of a setting of the server.
    pub async fn setting(&mut self, id: u16) -> Option<u32> {
        if self.settings.is_none() {
            self.keep_until(|event| matches!(event, Event::Settings(_))).await;
        }
        self.settings.as_ref().and_then(|settings| settings.get(&id).copied())
    }

    /// The next event; `None` when the connection ended.
    pub async fn event(&mut self) -> Option<Event> {
        match self.kept.pop_front() {
            Some(event) => Some(event),
            None => self.read().await,
        }
    }

    /// Reads events until one gives something; panics at the end of the connection.
    #[track_caller]
    pub fn until<R>(&mut self, mut what: impl FnMut(&Event) -> Option<R>) -> impl Future<Output = R> {
        let caller = std::panic::Location::caller();
        async move {
            let mut last = None;
            while let Some(event) = self.event().await {
                if let Some(found) = what(&event) {
                    return found;
                }
                last = Some(event);
            }
            panic!("{caller}: the connection ended after {last:?}")
        }
    }

    /// All that comes before the answer to a PING that is sent now; that is, all that the server had to say.
    pub async fn round_trip(&mut self, payload: &[u8; 8]) -> Vec<Event> {
        self.write(frame(PING, 0, 0, payload)).await;
        let mut events = Vec::new();
        self.until(|event| {
            events.push(event.clone());
            (*event == Event::Pong(payload.to_vec())).then_some(())
        })
        .await;
        events
    }

    /// What becomes of the request on `stream`; the events of others are lost.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut head, mut body, mut goodbye) = (None, Vec::new(), None);
        while let Some(event) = self.event().await {
            let is_over = match event {
                Event::Head { stream: of, fields, is_last } if of == stream => {
                    head.get_or_insert(fields);
                    is_last
                }
                Event::Data { stream: of, content, is_last } if of == stream => {
                    body.extend(content);
                    is_last
                }
                Event::Reset { stream: of, code } if of == stream => return Outcome::Reset(code),
                Event::Goaway { code, .. } => {
                    goodbye = Some(code);
                    false
                }
                _ => false,
            };
            if is_over {
                let fields: Fields = head.expect("a head before the end");
                assert_eq!(fields[0].0, ":status", "{fields:?}");
                let status = fields[0].1.parse().expect("a status");
                return Outcome::Answered { status, fields, body };
            }
        }
        Outcome::Closed(goodbye)
    }

    /// The status, with which an answer begins that may go on.
    #[track_caller]
    pub fn status(&mut self, stream: u32) -> impl Future<Output = u16> {
        self.until(move |event| match event {
            Event::Head { stream: of, fields, .. } if *of == stream => Some(fields[0].1.parse().expect("a status")),
            Event::Reset { stream: of, code } if *of == stream => panic!("stream {of} was reset: {code}"),
            Event::Goaway { code, .. } if *code != NO_ERROR => panic!("GOAWAY {code}"),
            _ => None,
        })
    }

    /// Sends content with this much padding in each frame, as the server's windows allow; what comes meanwhile is kept.
    /// Stops where the stream is reset.
    pub async fn upload(&mut self, stream: u32, mut content: &[u8], padding: u8) {
        let initial = i64::from(self.setting(INITIAL_WINDOW_SIZE).await.unwrap_or(WINDOW as u32));
        self.windows.entry(stream).or_insert(initial);
        let overhead = if padding == 0 { 0 } else { i64::from(padding) + 1 };
        while !content.is_empty() && !self.reset.contains(&stream) {
            let room = self.window.min(self.windows[&stream]).min(FRAME_BYTES as i64) - overhead;
            if room <= 0 {
                let event = self.read().await.expect("room before the end of the connection");
                self.kept.push_back(event);
                continue;
            }
            let (part, rest) = content.split_at(content.len().min(room as usize));
            content = rest;
            let taken = part.len() as i64 + overhead;
            self.window -= taken;
            *self.windows.entry(stream).or_default() -= taken;
            let bytes = if padding == 0 { frame(DATA, 0, stream, part) } else { padded(stream, part, padding) };
            self.write(bytes).await;
        }
    }

    /// Ends a stream with an empty frame.
    pub async fn end(&mut self, stream: u32) {
        self.write(frame(DATA, END_STREAM, stream, &[])).await;
    }

    async fn keep_until(&mut self, is_it: impl Fn(&Event) -> bool) {
        loop {
            let event = self.read().await.expect("more before the end of the connection");
            let found = is_it(&event);
            self.kept.push_back(event);
            if found {
                return;
            }
        }
    }

    async fn read(&mut self) -> Option<Event> {
        let next = frames::next(&mut self.io).await?;
        assert!(next.payload.len() <= self.frame_bytes_max, "a frame of {} bytes", next.payload.len());
        if let Some((stream, ..)) = self.block {
            assert_eq!((next.kind, next.stream), (CONTINUATION, stream), "within a list of fields");
        }
        let event = match next.kind {
            HEADERS | DATA => self.of_a_request(next),
            CONTINUATION => {
                let (stream, is_last, mut block) = self.block.take().expect("a list of fields that goes on");
                block.extend(next.payload);
                self.fields(stream, is_last, block, next.flags)
            }
            SETTINGS if next.flags & ACK != 0 => Event::SettingsAck,
            SETTINGS => {
                let settings = next.payload.chunks(6).map(|six| (word(six) >> 16) as u16).zip(values(&next.payload));
                let settings: Vec<_> = settings.collect();
                self.apply(&settings);
                self.write(frame(SETTINGS, ACK, 0, &[])).await;
                Event::Settings(settings)
            }
            PING if next.flags & ACK != 0 => Event::Pong(next.payload),
            PING => Event::Ping(next.payload),
            RST_STREAM => {
                self.reset.insert(next.stream);
                Event::Reset { stream: next.stream, code: word(&next.payload) }
            }
            GOAWAY => Event::Goaway { last: word(&next.payload), code: word(&next.payload[4..]) },
            WINDOW_UPDATE => {
                let by = word(&next.payload);
                assert!(by > 0 && by <= u32::MAX >> 1, "a window opened by {by}");
                match next.stream {
                    0 => self.window += i64::from(by),
                    stream => *self.windows.entry(stream).or_default() += i64::from(by),
                }
                Event::Window { stream: next.stream, by }
            }
            PRIORITY | 10.. => Event::Ignored,
            _ => panic!("no server sends this: {next:?}"),
        };
        Some(event)
    }

    fn of_a_request(&mut self, mut next: Frame) -> Event {
        assert_eq!(next.stream % 2, 1, "a stream of a client: {next:?}");
        if next.flags & PADDED != 0 {
            let padding = usize::from(next.payload.remove(0));
            next.payload.truncate(next.payload.len() - padding);
        }
        let is_last = next.flags & END_STREAM != 0;
        if next.kind == DATA {
            return Event::Data { stream: next.stream, content: next.payload, is_last };
        }
        self.fields(next.stream, is_last, next.payload, next.flags)
    }

    fn fields(&mut self, stream: u32, is_last: bool, block: Vec<u8>, flags: u8) -> Event {
        if flags & END_HEADERS == 0 {
            self.block = Some((stream, is_last, block));
            return Event::Ignored;
        }
        let fields = self.hpack.read(&block);
        let is_lower = |name: &str| !name.bytes().any(|byte| byte.is_ascii_uppercase());
        assert!(fields.iter().all(|(name, _)| is_lower(name)), "{fields:?}");
        Event::Head { stream, fields, is_last }
    }

    fn apply(&mut self, settings: &[(u16, u32)]) {
        let known = self.settings.get_or_insert_default();
        for (id, value) in settings {
            let before = known.insert(*id, *value);
            if *id == INITIAL_WINDOW_SIZE {
                let more = i64::from(*value) - before.map_or(WINDOW, i64::from);
                self.windows.values_mut().for_each(|window| *window += more);
            }
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn values(settings: &[u8]) -> impl Iterator<Item = u32> {
    settings.chunks(6).map(|six| word(&six[2..]))
}

/// A GET's frame.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &hpack::request("GET", path, &[]))
}

/// The frame with which a POST begins whose content is to come.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &hpack::request("POST", path, &[]))
}

/// A SETTINGS frame.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// A WINDOW_UPDATE frame.
pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// An RST_STREAM frame.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A DATA frame with padding.
pub fn padded(stream: u32, content: &[u8], padding: u8) -> Vec<u8> {
    frame(DATA, PADDED, stream, &[&[padding], content, &vec![0; usize::from(padding)]].concat())
}
