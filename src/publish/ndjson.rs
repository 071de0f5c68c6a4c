//! A stream of events, one a line, answered line by line while it still comes in.
//!
//! ```text
//! body → Lines → decode → Flight ⇄ bus → answer line → channel of ANSWERS_MAX → response body
//! ```
//! A task of the request's own reads and publishes, so that it can give up on a client that takes no answers. It ends
//! with the body, with a wait that is too long, or when the response is dropped.

use crate::model::channel::ChannelName;
use crate::proto::events::{self, Channels, Event};
use crate::publish::body::{self, Waits};
use crate::publish::respond::{self, PublishError};
use crate::publish::{Room, send};
use crate::server::Response;
use crate::server::body::{Body, BodyError};
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use std::collections::{HashSet, VecDeque};
use std::future::ready;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// The most answer lines that wait for the client; then its lines wait, too.
const ANSWERS_MAX: usize = 256;

/// The most lines that the bus is given before it has answered the first of them.
const LINES_AT_ONCE: usize = 64;

/// Starts to read `body`; the response's body has the answers.
pub(super) fn answer(room: &Rc<Room>, line_bytes_max: usize, body: Body) -> Response {
    let (answers, waiting) = mpsc::channel(ANSWERS_MAX);
    let room = Rc::clone(room);
    let lines = Lines::new(body, line_bytes_max, room.waits);
    tokio::task::spawn_local(async move { run(&room, lines, answers).await });
    let mut response = Response::new(Body::boxed(Answers { waiting, lines: Vec::new() }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

async fn run(room: &Room, mut lines: Lines, answers: mpsc::Sender<String>) {
    let mut flight = Flight::default();
    let mut is_ended = false;
    while !(is_ended && flight.is_empty()) {
        let reads = !is_ended && flight.has_room();
        let answered = tokio::select! {
            biased;
            () = answers.closed() => return,
            Some(answered) = flight.next(room), if !flight.is_empty() => Some(answered),
            line = lines.next(), if reads => match line {
                Ok(None) => { is_ended = true; None }
                Ok(Some(Line::Text(line))) => flight.publish(room, lines.number, &line),
                Ok(Some(Line::TooLong)) => flight.refuse(lines.number, PublishError::LineTooLarge(lines.bytes_max)),
                Err(error) => { is_ended = true; flight.refuse(lines.number, error) }
            },
        };
        let Some(Answered { number, result }) = answered else { continue };
        if let Err(error) = &result {
            error.count(&room.metrics);
        }
        let mut answer = String::with_capacity(128);
        respond::push_line(&mut answer, number, &result);
        let sent = tokio::time::timeout(room.waits.progress, answers.send(answer)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

type Outcomes = Result<Vec<send::Outcome>, PublishError>;

/// What became of a line.
struct Answered {
    number: u64,
    result: Outcomes,
}

/// The lines that the bus has not answered yet. A bus elsewhere takes several at a time, each of other channels, so that
/// its way there and back is not that of every line; within a channel one waits for the other. Answers come in the order
/// of the lines.
#[derive(Default)]
struct Flight<'r> {
    under_way: FuturesOrdered<LocalBoxFuture<'r, Outcomes>>,
    /// The line of each, and the channels it goes to.
    lines: VecDeque<(u64, Option<Channels>)>,
    busy: HashSet<ChannelName>,
    /// The line that waits for its channels, behind all these.
    held: Option<(u64, Event)>,
}

impl<'r> Flight<'r> {
    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn has_room(&self) -> bool {
        self.held.is_none() && self.lines.len() < LINES_AT_ONCE
    }

    /// Begins with a line; what became of it, if that is known at once and nothing is before it.
    fn publish(&mut self, room: &'r Room, number: u64, line: &[u8]) -> Option<Answered> {
        let event = match events::decode_line(line) {
            Ok(event) => event,
            Err(error) => return self.refuse(number, error.into()),
        };
        if is_busy(&self.busy, &event) {
            self.held = Some((number, event));
            return None;
        }
        let channels = event.channels.clone();
        let mut publish: LocalBoxFuture<'r, _> = Box::pin(send::next(room, event));
        if self.is_empty()
            && let Some(result) = publish.as_mut().now_or_never()
        {
            return Some(Answered { number, result });
        }
        self.push(number, channels, publish);
        None
    }

    /// A line that no bus gets has its answer in the order of the lines, too.
    fn refuse(&mut self, number: u64, error: PublishError) -> Option<Answered> {
        if self.is_empty() {
            return Some(Answered { number, result: Err(error) });
        }
        self.under_way.push_back(Box::pin(ready(Err(error))));
        self.lines.push_back((number, None));
        None
    }

    /// What became of the first line. Cancel-safe.
    async fn next(&mut self, room: &'r Room) -> Option<Answered> {
        let result = self.under_way.next().await?;
        let (number, channels) = self.lines.pop_front()?;
        for channel in channels.iter().flat_map(Channels::iter) {
            self.busy.remove(channel);
        }
        if let Some((number, event)) = self.held.take_if(|(_, event)| !is_busy(&self.busy, event)) {
            self.push(number, event.channels.clone(), Box::pin(send::next(room, event)));
        }
        Some(Answered { number, result })
    }

    fn push(&mut self, number: u64, channels: Channels, publish: LocalBoxFuture<'r, Outcomes>) {
        self.busy.extend(channels.iter().cloned());
        self.under_way.push_back(publish);
        self.lines.push_back((number, Some(channels)));
    }
}

fn is_busy(busy: &HashSet<ChannelName>, event: &Event) -> bool {
    event.channels.iter().any(|channel| busy.contains(channel))
}

/// The lines of a body. Cancel-safe: what was read stays in the buffer.
struct Lines {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to have no line feed.
    searched: usize,
    /// The number of the last line, from 1.
    number: u64,
    bytes_max: usize,
    waits: Waits,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// To the end of a line that was too long, and said to be so.
    Skipping,
    Ended,
}

enum Line {
    Text(Bytes),
    TooLong,
}

impl Lines {
    fn new(body: Body, bytes_max: usize, waits: Waits) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0, number: 0, bytes_max, waits, state: State::Reading }
    }

    /// The next line that is not empty; `None` at the end.
    async fn next(&mut self) -> Result<Option<Line>, PublishError> {
        loop {
            while let Some(line) = self.take() {
                let skipped = self.state == State::Skipping;
                if skipped {
                    self.state = State::Reading;
                    continue;
                }
                self.number += 1;
                if line.len() > self.bytes_max {
                    return Ok(Some(Line::TooLong));
                }
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(Line::Text(line)));
                }
            }
            if self.state == State::Ended {
                return Ok(None);
            }
            if self.state == State::Skipping {
                self.clear();
            } else if self.buffer.len() > self.bytes_max {
                self.clear();
                self.state = State::Skipping;
                self.number += 1;
                return Ok(Some(Line::TooLong));
            }
            self.read().await?;
        }
    }

    /// Reads more; at the body's end, what is left becomes a line.
    async fn read(&mut self) -> Result<(), PublishError> {
        let between = self.buffer.is_empty() && self.state == State::Reading;
        let wait = if between { self.waits.line } else { self.waits.progress };
        match body::next(&mut self.body, wait).await {
            Ok(Some(data)) => self.buffer.extend_from_slice(&data),
            Ok(None) => {
                if !self.buffer.is_empty() {
                    self.buffer.extend_from_slice(b"\n");
                }
                // The rest of a line that is being skipped is dropped with the buffer.
                if self.state == State::Skipping {
                    self.clear();
                }
                self.state = State::Ended;
            }
            Err(error) => {
                // The line that was to come; one that is being skipped is counted already.
                self.number += u64::from(self.state == State::Reading);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes a whole line out of the buffer, without its line feed.
    fn take(&mut self) -> Option<Bytes> {
        match memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            Some(at) => {
                let mut line = self.buffer.split_to(self.searched + at + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                Some(line.freeze())
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.searched = 0;
    }
}

/// The response's body: all answers that wait, as one piece.
struct Answers {
    waiting: mpsc::Receiver<String>,
    lines: Vec<String>,
}

impl http_body::Body for Answers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if ready!(this.waiting.poll_recv_many(cx, &mut this.lines, ANSWERS_MAX)) == 0 {
            return Poll::Ready(None);
        }
        let piece = this.lines.concat();
        this.lines.clear();
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }
}
