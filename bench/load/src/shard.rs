//! A process of subscribers: one thread, one edge-triggered poll.
//!
//! It gets its [`Spec`] in the first line of its input, tells in lines when subscribers are ready and messages complete,
//! and answers a line of how many messages each channel had with its report.

use crate::account::{Ledger, Order};
use crate::http1::{Body, Head};
use crate::machine::now_ns;
use crate::url::Url;
use crate::wire::{Scratch, Wire, tls_config};
use crate::{http2, websocket};
use mio::{Events, Interest, Poll, Token, Waker};
use rustls::ClientConfig;
use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Connections whose subscription is under way at once.
const OPENING_MAX: usize = 128;
const POLL_RETRY_NS: u64 = 200_000_000;
const STALLED_RECEIVE_BYTES: usize = 4096;
const WAKE: Token = Token(usize::MAX);

/// How subscribers are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Sse,
    SseH2,
    WebSocket,
    LongPoll,
}

impl Mode {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "sse" => Ok(Self::Sse),
            "sse-h2" => Ok(Self::SseH2),
            "websocket" => Ok(Self::WebSocket),
            "long-poll" => Ok(Self::LongPoll),
            _ => Err(format!("--mode {text}: not sse, sse-h2, websocket or long-poll")),
        }
    }
}

/// What a shard has to do.
#[derive(Debug, Clone)]
pub struct Spec {
    pub mode: Mode,
    /// One for each server: they differ in their addresses alone. The subscribers of a channel take turns.
    pub urls: Vec<Url>,
    /// The request's `Accept`, for long polls.
    pub accept: Option<String>,
    pub channel_prefix: String,
    pub order: Order,
    /// Subscribers in all; subscriber i reads channel i modulo `order.channels`.
    pub subscribers: usize,
    /// More subscribers, each with a channel of its own to which nothing is published.
    pub bystanders: usize,
    /// How many of the first ones stop reading once they are subscribed.
    pub stalled: usize,
    pub per_connection: usize,
    pub connect_per_s: f64,
    pub shards: usize,
}

impl Spec {
    /// All channels, those of bystanders included.
    pub fn channels_all(&self) -> usize {
        self.order.channels + self.bystanders
    }

    /// The connections of a shard, each as a range of subscribers.
    fn connections(&self, shard: usize) -> Vec<std::ops::Range<usize>> {
        let all = self.subscribers + self.bystanders;
        let starts = (0..all).step_by(self.per_connection).skip(shard).step_by(self.shards);
        starts.map(|first| first..all.min(first + self.per_connection)).collect()
    }

    fn channel(&self, subscriber: usize) -> usize {
        match subscriber.checked_sub(self.subscribers) {
            None => subscriber % self.order.channels,
            Some(bystander) => self.order.channels + bystander,
        }
    }

    fn url(&self, subscriber: usize) -> &Url {
        &self.urls[subscriber / self.per_connection / self.order.channels % self.urls.len()]
    }

    /// In how many shards a channel has subscribers that read.
    pub fn shards_of(&self) -> Vec<u32> {
        let mut counts = vec![0; self.channels_all()];
        for shard in 0..self.shards {
            let mut here = vec![false; counts.len()];
            for subscriber in self.connections(shard).into_iter().flatten() {
                here[self.channel(subscriber)] |= subscriber >= self.stalled;
            }
            counts.iter_mut().zip(here).for_each(|(count, here)| *count += u32::from(here));
        }
        counts
    }
}

struct Connection {
    wire: Wire,
    /// The accounts of its subscribers.
    first: usize,
    count: usize,
    stage: Stage,
    is_opening: bool,
}

enum Stage {
    /// Waits for the response's head.
    Head(Vec<u8>),
    EventStream,
    WebSocket(websocket::Reader),
    Poll {
        buffer: Vec<u8>,
        body: Option<(Head, Body)>,
    },
    H2(http2::Reader),
    Stalled,
}

struct Shard {
    spec: Spec,
    poll: Poll,
    tls: Option<Arc<ClientConfig>>,
    ledger: Ledger,
    connections: Vec<Option<Connection>>,
    opening: usize,
    retries: VecDeque<(u64, usize)>,
}

/// Runs shard number `number` until its input says how many messages there were.
pub fn run(spec: Spec, number: usize) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    let poll = Poll::new().map_err(told)?;
    // Closed with its last holder, and then the poll would never tell of it.
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(told)?);
    let wakes = Arc::clone(&waker);
    let (sender, ending) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = std::io::stdin().lock().read_line(&mut line);
        let _ = sender.send(line);
        let _ = wakes.wake();
    });
    let tls = spec.urls[0].is_tls.then(|| tls_config(if spec.mode == Mode::SseH2 { "h2" } else { "http/1.1" }));
    let ledger = Ledger::new(spec.order, spec.channels_all());
    let waiting: VecDeque<_> = spec.connections(number).into();
    let mut shard = Shard { spec, poll, tls, ledger, connections: Vec::new(), opening: 0, retries: VecDeque::new() };
    let line = shard.work(waiting, &ending)?;
    let sent: Vec<u32> = line.split_whitespace().filter_map(|text| text.parse().ok()).collect();
    println!("= {}", shard.ledger.report(&sent));
    drop(waker);
    Ok(())
}

impl Shard {
    fn work(
        &mut self,
        mut waiting: VecDeque<std::ops::Range<usize>>,
        ending: &mpsc::Receiver<String>,
    ) -> Result<String, String> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = Scratch::default();
        let begun = now_ns();
        let mut opened = 0;
        loop {
            while self.opening < OPENING_MAX
                && let Some(subscribers) = waiting.front()
                && opened as f64 <= (now_ns() - begun) as f64 / 1e9 * self.spec.connect_per_s / self.spec.shards as f64
            {
                opened += subscribers.len();
                self.open(subscribers.clone());
                waiting.pop_front();
            }
            self.retry();
            self.tell()?;
            let wait = (!waiting.is_empty() || !self.retries.is_empty()).then_some(Duration::from_millis(1));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.to_string()),
                _ => {}
            }
            for event in &events {
                if event.token() == WAKE {
                    if let Ok(line) = ending.try_recv() {
                        return Ok(line);
                    }
                } else {
                    self.readable(event.token().0, &mut scratch);
                }
            }
        }
    }

    fn tell(&mut self) -> Result<(), String> {
        if self.ledger.told.is_empty() {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        out.write_all(self.ledger.told.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())?;
        self.ledger.told.clear();
        Ok(())
    }

    fn open(&mut self, subscribers: std::ops::Range<usize>) {
        let first = self.ledger.accounts.len();
        let (from, count) = (subscribers.start, subscribers.len());
        for subscriber in subscribers {
            self.ledger.open(self.spec.channel(subscriber) as u32, subscriber < self.spec.stalled);
        }
        let at = self.connections.len();
        let stalls = (from < self.spec.stalled).then_some(STALLED_RECEIVE_BYTES);
        let begun = Wire::connect(self.spec.url(from), self.tls.as_ref(), stalls).and_then(|mut wire| {
            wire.send(&self.first_bytes(first, count))?;
            let registry = self.poll.registry();
            registry.register(&mut wire.socket, Token(at), Interest::READABLE).map_err(|error| error.to_string())?;
            Ok(wire)
        });
        let connection = match begun {
            Ok(wire) => {
                let stage = match self.spec.mode {
                    Mode::SseH2 => Stage::H2(http2::Reader::default()),
                    Mode::LongPoll => Stage::Poll { buffer: Vec::new(), body: None },
                    Mode::Sse | Mode::WebSocket => Stage::Head(Vec::new()),
                };
                // A long poll has no sign of being subscribed.
                let is_opening = self.spec.mode != Mode::LongPoll;
                self.opening += usize::from(is_opening);
                if !is_opening {
                    self.ledger.ready(first);
                }
                Some(Connection { wire, first, count, stage, is_opening })
            }
            Err(why) => {
                (first..first + count).for_each(|who| self.ledger.gone(who, &why));
                None
            }
        };
        self.connections.push(connection);
    }

    fn first_bytes(&self, first: usize, count: usize) -> Vec<u8> {
        if self.spec.mode != Mode::SseH2 {
            return request(&self.spec, self.ledger.accounts[first].channel, "").into_bytes();
        }
        let mut bytes = http2::preface();
        let authority = self.spec.urls[0].address.to_string();
        for number in 0..count {
            let path = path(&self.spec, self.ledger.accounts[first + number].channel);
            http2::get(&mut bytes, number, self.spec.urls[0].is_tls, &authority, &path);
        }
        bytes
    }

    fn readable(&mut self, at: usize, scratch: &mut Scratch) {
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else { return };
        let Connection { wire, first, count, stage, is_opening } = connection;
        let (ledger, spec, retries) = (&mut self.ledger, &self.spec, &mut self.retries);
        if matches!(stage, Stage::Stalled) {
            return;
        }
        let mut reply = Vec::new();
        let outcome = wire.receive(scratch, &mut |bytes| {
            stage.take(bytes, Place { at, first: *first, spec }, ledger, retries, &mut reply)
        });
        let outcome = outcome.and_then(|()| if reply.is_empty() { Ok(()) } else { wire.send(&reply) });
        if *is_opening && ledger.accounts[*first].is_ready {
            *is_opening = false;
            self.opening -= 1;
        }
        if ledger.accounts[*first].is_stalled && ledger.accounts[*first].is_ready {
            *stage = Stage::Stalled;
        }
        if let Err(why) = outcome {
            self.opening -= usize::from(*is_opening);
            (*first..*first + *count).for_each(|who| ledger.gone(who, &why));
            self.connections[at] = None;
        }
    }

    /// Polls anew where a server could not take it before.
    fn retry(&mut self) {
        while let Some((due_ns, at)) = self.retries.front().copied()
            && due_ns <= now_ns()
        {
            self.retries.pop_front();
            let Some(connection) = self.connections[at].as_mut() else { continue };
            let text = request(&self.spec, self.ledger.accounts[connection.first].channel, "");
            if let Err(why) = connection.wire.send(text.as_bytes()) {
                self.ledger.gone(connection.first, &why);
                self.connections[at] = None;
            }
        }
    }
}

/// Whose bytes they are.
struct Place<'s> {
    at: usize,
    first: usize,
    spec: &'s Spec,
}

impl Stage {
    fn take(
        &mut self,
        bytes: &[u8],
        place: Place<'_>,
        ledger: &mut Ledger,
        retries: &mut VecDeque<(u64, usize)>,
        reply: &mut Vec<u8>,
    ) -> Result<(), String> {
        let first = place.first;
        match self {
            Stage::EventStream => ledger.read(first, bytes),
            Stage::WebSocket(reader) => reader.feed(bytes, reply, &mut |payload| ledger.read(first, payload))?,
            Stage::H2(reader) => reader.feed(bytes, reply, &mut |event| match event {
                http2::Event::Opened(number) => ledger.ready(first + number),
                http2::Event::Data(number, data) => ledger.read(first + number, data),
                http2::Event::Ended(number, why) => ledger.gone(first + number, why),
            })?,
            Stage::Head(buffer) => {
                buffer.extend_from_slice(bytes);
                let Some((head, used)) = Head::read(buffer) else { return Ok(()) };
                let rest = buffer.split_off(used);
                match head.status() {
                    101 if head.field("sec-websocket-accept") == Some(websocket::ACCEPT) => {
                        *self = Stage::WebSocket(websocket::Reader::default());
                    }
                    200 if place.spec.mode == Mode::Sse => *self = Stage::EventStream,
                    _ => return Err(format!("status: {}", head.start)),
                }
                ledger.ready(first);
                return if rest.is_empty() { Ok(()) } else { self.take(&rest, place, ledger, retries, reply) };
            }
            Stage::Poll { buffer, body } => {
                let mut bytes = bytes;
                while !bytes.is_empty() {
                    if body.is_none() {
                        buffer.extend_from_slice(bytes);
                        let Some((head, used)) = Head::read(buffer) else { return Ok(()) };
                        bytes = &bytes[bytes.len() - (buffer.len() - used)..];
                        buffer.clear();
                        let framing = head.body();
                        *body = Some((head, framing));
                    }
                    let Some((head, framing)) = body else { continue };
                    let used = framing.feed(bytes, &mut |part| ledger.read(first, part))?;
                    bytes = &bytes[used..];
                    if framing.is_done() {
                        ledger.polls += 1;
                        if head.status() >= 500 || head.status() == 429 {
                            ledger.polls_refused += 1;
                            retries.push_back((now_ns() + POLL_RETRY_NS, place.at));
                        } else {
                            let channel = ledger.accounts[first].channel;
                            reply.extend_from_slice(request(place.spec, channel, &cursor(head)).as_bytes());
                        }
                        *body = None;
                    }
                }
            }
            Stage::Stalled => {}
        }
        Ok(())
    }
}

/// The next poll's validators: what RFC 9110 §13 makes of the last answer's.
fn cursor(head: &Head) -> String {
    let field = |from: &str, to: &str| head.field(from).map_or(String::new(), |value| format!("{to}: {value}\r\n"));
    field("etag", "If-None-Match") + &field("last-modified", "If-Modified-Since")
}

fn path(spec: &Spec, channel: u32) -> String {
    spec.urls[0].path.replace("{ch}", &format!("{}{channel}", spec.channel_prefix))
}

fn request(spec: &Spec, channel: u32, more: &str) -> String {
    let fields = match spec.mode {
        Mode::WebSocket => websocket::upgrade_fields(),
        Mode::LongPoll => spec.accept.as_ref().map_or(String::new(), |accept| format!("Accept: {accept}\r\n")),
        Mode::Sse | Mode::SseH2 => "Accept: text/event-stream\r\n".into(),
    };
    format!("GET {} HTTP/1.1\r\nHost: {}\r\n{fields}{more}\r\n", path(spec, channel), spec.urls[0].address)
}
