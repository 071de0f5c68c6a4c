//! HTTP/1.1: one request after the other on a connection, until a session takes it over.
//!
//! ```text
//! head ─▶ handler ─┬─ response ─▶ sent ─▶ rest of the request's body ─▶ head …
//!                  ├─ Hold ─────▶ the session has the connection
//!                  ├─ Later ────▶ Turns, for as long as polls of the same kind follow ─▶ head …
//!                  └─ Waiting ──▶ the connection and what waits, alone ─▶ response …
//! ```
//!
//! What reads and writes is [`crate::proto::http1`], without I/O; `wire` has the connection, which keeps no buffer while it
//! waits. A session, a long poll and an answer that is waited for each go on in a small task of their own, so that what serving
//! a connection takes is freed.
//!
//! Invariant: a connection is handed on only between two messages: the request's body is read (or its reader finds it broken
//! off), every earlier response has been sent, and bytes that the client sent ahead go along.

mod respond;
pub(super) mod wire;

use crate::proto::http1::{self, Asked, RequestFault, RequestHead, encode_response_head};
use crate::proto::problem::Problem;
use crate::server::connection::{Open, Server};
use crate::server::date::http_date;
use crate::server::deadline::Deadline;
use crate::server::io::{ANY_BYTES, Io};
use crate::server::leaving::Leaving;
use crate::server::limits::{InFlight, Leave};
use crate::server::link::{Framing, Link};
use crate::server::request_id::RequestId;
use crate::server::turns::Patience;
use crate::server::{Answer, Hold, Later, Peer, Request, Response, Turns, Waiting, problem};
use crate::telemetry::metrics::Refusal;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::header::{CONNECTION, DATE, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode};
use respond::Outgoing;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use wire::{NoHead, Wire};

/// How long the rest of a request's body may take that nobody wants.
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves requests until the connection ends or a session takes it over. `unread` was read already; `open` is held until the
/// connection has ended.
pub(in crate::server) async fn serve(server: Rc<Server>, io: Io, unread: Bytes, peer: Rc<Peer>, open: Open) {
    Connection::new(server, io, &unread, peer, open, Patience::default()).run(None).await;
}

/// A connection that is served.
struct Connection {
    server: Rc<Server>,
    peer: Rc<Peer>,
    open: Open,
    wire: Rc<RefCell<Wire>>,
    bounds: Bounds,
    deadline: Deadline,
    leaving: Leaving,
    patience: Patience,
    /// Whether nothing was asked on it.
    is_new: bool,
}

/// The limits that were in force when it began.
#[derive(Clone, Copy)]
struct Bounds {
    head_bytes_max: usize,
    head_timeout: Duration,
    idle_timeout: Duration,
}

/// A request that is being answered.
struct Exchange {
    asked: Asked,
    /// The request's head, where it was all of the request.
    head: Option<Bytes>,
    counted: InFlight,
}

/// An answer that was waited for.
struct Waited {
    answer: Answer,
    exchange: Exchange,
}

/// Why a connection is not served on.
enum Stop {
    End(End),
    TakenOver(TakeOver),
}

/// How a connection ends.
enum End {
    /// With all that was sent.
    Close,
    /// So that what was sent does not look like all.
    Reset,
    /// With the answer that what came is no request.
    Refuse(RequestFault),
    /// A head did not come to its end.
    HeadTooSlow,
}

/// Who takes a connection over.
enum TakeOver {
    Session { hold: Hold, is_http11: bool },
    Turns { later: Box<dyn Later>, head: Option<Bytes> },
    Wait { waiting: Waiting, exchange: Exchange },
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl Connection {
    fn new(server: Rc<Server>, io: Io, unread: &[u8], peer: Rc<Peer>, open: Open, patience: Patience) -> Self {
        let limits = server.limits.load();
        let bounds = Bounds {
            head_bytes_max: limits.request_header_bytes_max,
            head_timeout: limits.request_header_timeout,
            idle_timeout: limits.idle_timeout,
        };
        drop(limits);
        let leaving = Leaving::new(&server.leave);
        let (wire, deadline) = (Wire::new(io, unread), Deadline::default());
        Self { server, peer, open, wire, bounds, deadline, leaving, patience, is_new: true }
    }

    /// Serves it to its end, first with an answer that was waited for.
    async fn run(mut self, mut waited: Option<Waited>) {
        loop {
            let (exchange, answering) = match waited.take() {
                Some(Waited { answer, exchange }) => (exchange, Box::pin(std::future::ready(answer)) as Waiting),
                None => match self.next_head().await {
                    Ok(head) => self.begin(head),
                    Err(end) => return self.end(end).await,
                },
            };
            self.is_new = false;
            match self.answer(exchange, answering).await {
                Ok(()) => {}
                Err(Stop::End(end)) => return self.end(end).await,
                Err(Stop::TakenOver(by)) => return self.hand_over(by),
            }
        }
    }

    /// Waits for a request: a client that is idle may take long, one that has begun a head, or has just come, may not.
    async fn next_head(&mut self) -> Result<RequestHead, End> {
        let Self { wire, bounds, deadline, leaving, is_new, .. } = self;
        let mut waits_for_head = None;
        let head = poll_fn(|cx| {
            let mut wire = wire.borrow_mut();
            if let Poll::Ready(head) = wire.poll_head(bounds.head_bytes_max, cx) {
                return Poll::Ready(head.map_err(|none| match none {
                    NoHead::Gone => End::Close,
                    NoHead::Fault(fault) => End::Refuse(fault),
                }));
            }
            let has_begun = *is_new || wire.has_input();
            // The time runs from the wait's beginning, and anew from the head's.
            if waits_for_head != Some(has_begun) {
                waits_for_head = Some(has_begun);
                deadline.set(if has_begun { bounds.head_timeout } else { bounds.idle_timeout });
            }
            if !wire.has_input() && leaving.poll(cx).is_ready() {
                return Poll::Ready(Err(End::Close));
            }
            deadline.poll(cx).map(|()| Err(if has_begun { End::HeadTooSlow } else { End::Close }))
        })
        .await;
        deadline.clear();
        head
    }

    /// Gives a request to the handler.
    fn begin(&mut self, head: RequestHead) -> (Exchange, Waiting) {
        let body = Wire::begin_body(&self.wire, &head);
        let is_whole = head.framing == http1::Framing::Empty;
        let counted = self.server.count.begin();
        let exchange = Exchange { asked: head.asked, head: is_whole.then_some(head.bytes), counted };
        let request = Request::from_parts(head.parts, body);
        (exchange, self.server.handler.handle(request, Rc::clone(&self.peer)))
    }

    /// Brings an exchange to its end, up to the point where the next request may begin.
    async fn answer(&mut self, exchange: Exchange, mut answering: Waiting) -> Result<(), Stop> {
        loop {
            let answer = self.unless_gone(answering).await?;
            let response = match answer {
                Answer::Response(response) => response,
                Answer::Hold(hold) if hold.head.status() == StatusCode::SWITCHING_PROTOCOLS && !self.is_read() => {
                    tracing::debug!("another protocol can't begin within a request's body");
                    return Err(End::Close.into());
                }
                Answer::Hold(hold) => {
                    let is_http11 = exchange.asked.is_http11;
                    return Err(Stop::TakenOver(TakeOver::Session { hold, is_http11 }));
                }
                Answer::Later(later) if self.may_repeat(&exchange) => {
                    let head = exchange.head.filter(|_| !self.wire.borrow().has_input());
                    return Err(Stop::TakenOver(TakeOver::Turns { later, head }));
                }
                Answer::Later(later) => {
                    answering = Box::pin(async move { Answer::Response(later.respond().await) });
                    continue;
                }
                Answer::Waiting(waiting) if self.is_read() => {
                    // The head is of no use to what comes.
                    let exchange = Exchange { head: None, ..exchange };
                    return Err(Stop::TakenOver(TakeOver::Wait { waiting, exchange }));
                }
                Answer::Waiting(waiting) => {
                    answering = waiting;
                    continue;
                }
            };
            return self.respond(response, exchange).await;
        }
    }

    fn may_repeat(&self, exchange: &Exchange) -> bool {
        let Asked { is_http11, keeps_alive, .. } = exchange.asked;
        self.patience.lasts() && is_http11 && keeps_alive && self.is_read()
    }

    /// Whether the request was read to its end.
    fn is_read(&self) -> bool {
        self.wire.borrow().body_is_over()
    }

    /// Waits for an answer for as long as there is somebody to get it.
    async fn unless_gone(&self, mut answering: Waiting) -> Result<Answer, End> {
        poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending => self.wire.borrow_mut().poll_gone(cx).map(|()| {
                tracing::debug!("the client closed the connection before its answer");
                Err(End::Close)
            }),
        })
        .await
    }

    async fn respond(&mut self, response: Response, exchange: Exchange) -> Result<(), Stop> {
        let is_last = self.wire.borrow_mut().answer_begins() || self.server.leave() != Leave::Stay;
        let mut outgoing = Outgoing::new(response, exchange.asked, is_last);
        let sent = outgoing.send(&self.wire).await;
        let (is_last, framing) = (outgoing.is_last, outgoing.framing());
        // With it goes what of the request's body it reads.
        drop(outgoing);
        drop(exchange.counted);
        if let Err(error) = sent {
            tracing::debug!(error = &error as &dyn std::error::Error, "connection failed");
            // What ends with the connection must not look whole: the client may still read, though it sends no more.
            return Err(if framing == http1::Framing::UntilClose { End::Reset } else { End::Close }.into());
        }
        if is_last || !self.settle().await { Err(End::Close.into()) } else { Ok(()) }
    }

    /// Waits for the end of the request's body; whether another request may follow.
    async fn settle(&mut self) -> bool {
        if self.is_read() {
            return true;
        }
        let Self { wire, deadline, leaving, .. } = self;
        let settled = poll_fn(|cx| {
            let mut wire = wire.borrow_mut();
            if let Poll::Ready(settled) = wire.poll_settled(cx) {
                return Poll::Ready(settled);
            }
            // Who still reads it for a backend has limits of its own.
            if wire.is_unwanted() && !deadline.is_set() {
                deadline.set(UNWANTED_TIMEOUT);
            }
            let is_over = leaving.poll(cx).is_ready() || deadline.poll(cx).is_ready();
            if is_over { Poll::Ready(false) } else { Poll::Pending }
        })
        .await;
        deadline.clear();
        settled
    }

    /// Boxed: what serves a connection is not to have room for its end.
    fn end(self, end: End) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            let metrics = &self.server.metrics;
            match &end {
                End::Close | End::Reset => {}
                End::HeadTooSlow => metrics.refused(Refusal::HeaderTimeout),
                End::Refuse(fault) => {
                    metrics.refused(Refusal::BadRequest);
                    tracing::debug!(%fault, "what came is no request");
                    let problem = Problem::new(fault.status(), fault.to_string());
                    let response = problem::response(&problem, RequestId::next());
                    // Who does not take it is gone.
                    let _ = Outgoing::new(response, Asked::NOTHING, true).send(&self.wire).await;
                }
            }
            let taken = self.wire.borrow_mut().take();
            match (taken, end) {
                (Some((io, _)), End::Reset) => io.reset(),
                (Some((io, _)), _) => io.close(ANY_BYTES).await,
                (None, _) => {}
            }
            drop(self.open);
        })
    }

    /// Gives the connection to whoever goes on with it, in a task of its own.
    fn hand_over(self, by: TakeOver) {
        let Self { server, peer, open, wire, patience, .. } = self;
        let Some((io, unread)) = wire.borrow_mut().take() else { return };
        match by {
            TakeOver::Session { hold, is_http11 } => {
                let (link, session) = start(hold, is_http11, io, unread);
                // Made here, so that the task has no room for the link beside it.
                let running = session.run(link);
                tokio::task::spawn_local(async move {
                    running.await;
                    drop(open);
                });
            }
            TakeOver::Turns { later, head } => {
                let turns = Turns::new(Rc::clone(&server), Link::bare(io, unread), head, patience);
                let taking_turns = later.take_turns(turns);
                tokio::task::spawn_local(async move {
                    let Some(turns) = taking_turns.await else { return drop(open) };
                    let Some((io, unread, patience)) = turns.into_parts() else { return drop(open) };
                    go_on(Self::new(server, io, &unread, peer, open, patience), None);
                });
            }
            TakeOver::Wait { waiting, exchange } => {
                let mut link = Link::bare(io, unread);
                tokio::task::spawn_local(async move {
                    let Some(answer) = link.unless_gone(waiting).await else { return drop(open) };
                    let Some((io, unread)) = link.into_h1() else { return drop(open) };
                    let connection = Self::new(server, io, &unread, peer, open, patience);
                    go_on(connection, Some(Waited { answer, exchange }));
                });
            }
        }
    }
}

/// Serves on in a task of its own: the present one holds no more than what waited.
fn go_on(connection: Connection, waited: Option<Waited>) {
    tokio::task::spawn_local(connection.run(waited));
}

/// The response head of a hold, with the framing that the request's version allows.
fn start(hold: Hold, is_http11: bool, io: Io, unread: Bytes) -> (Link, Box<dyn crate::server::Held>) {
    let is_switch = hold.head.status() == StatusCode::SWITCHING_PROTOCOLS;
    let framing = if is_http11 && !is_switch { Framing::Chunked } else { Framing::Raw };
    let mut head = hold.head;
    let fields = head.headers_mut();
    if let Ok(date) = HeaderValue::from_str(&http_date()) {
        fields.entry(DATE).or_insert(date);
    }
    if framing == Framing::Chunked {
        fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if !is_switch {
        // What a client pipelines behind a stream is not answered: it can know.
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut bytes = Vec::with_capacity(256);
    encode_response_head(&mut bytes, head.status(), None, head.headers());
    (Link::h1(io, unread, bytes.into(), framing), hold.session)
}
