//! HTTP/1.1: hyper until a session starts, then the bare connection.
//!
//! hyper pins two buffers of 8 KiB for each connection, which a held response would keep for hours. So when the
//! handler answers with a hold, the connection is taken back from hyper (`into_parts`), the response head is written
//! here, and hyper's memory is freed: some 0.5 KB a session are left.
//!
//! A long poll's connection is taken back too, while it waits and for as long as polls of the same kind follow
//! ([`Turns`]): parsing, routing and answering the same head anew would cost more than what differs. Any other request on
//! it goes back to hyper.
//!
//! An answer that is waited for ([`Waiting`]) leaves no more than the connection and what waits. When it is there, hyper
//! begins anew with a stand-in for the request's head, and sends the answer as if it had never been gone.
//!
//! Invariant: the take-over waits until the request's body is read and every earlier response is flushed
//! (`Wire` notes it); bytes that the client sent ahead go along as the link's unread bytes.

mod wire;

use crate::proto::http1::encode_head;
use crate::server::body::Body;
use crate::server::connection::{Open, Server};
use crate::server::date::http_date;
use crate::server::io::{ANY_BYTES, Io};
use crate::server::limits::{InFlight, Leave};
use crate::server::link::{Framing, Link};
use crate::server::turns::Patience;
use crate::server::{Answer, Hold, Later, Peer, Request, Response, Turns, Waiting, problem};
use crate::telemetry::metrics::Refusal;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;
use wire::Wire;

/// Who is to take the connection over.
enum TakeOver {
    Session { hold: Hold, version: http::Version },
    Turns(Box<dyn Later>),
    Wait { waiting: Waiting, stand_in: StandIn, counted: InFlight },
}

/// An answer that was waited for without hyper.
struct Waited {
    answer: Answer,
    counted: InFlight,
}

/// What the service and the I/O of a connection tell its driver.
struct Shared {
    wire: Rc<Wire>,
    take_over: RefCell<Option<TakeOver>>,
    /// The version of the latest request; none yet.
    version: Cell<Option<http::Version>>,
    /// How many requests there were.
    requests: Cell<usize>,
    /// What the first request is answered with, if it has been waited for.
    waited: RefCell<Option<Waited>>,
}

impl Shared {
    fn new(wire: Rc<Wire>, waited: Option<Waited>) -> Rc<Self> {
        Rc::new(Self {
            wire,
            take_over: RefCell::default(),
            version: Cell::default(),
            requests: Cell::default(),
            waited: RefCell::new(waited),
        })
    }

    /// Whether a head is to come now: the first one, or one that has begun.
    fn awaits_head(&self) -> bool {
        self.version.get().is_none() || self.wire.watch.borrow().is_in_head()
    }

    /// Whether a client that was answered has not asked for more.
    fn is_idle(&self) -> bool {
        self.version.get().is_some() && self.wire.watch.borrow().is_between_requests()
    }
}

/// Serves requests until the connection ends or a session takes it over; that runs in a (small) task of its own, so
/// that what hyper needed is freed. `open` is held until the connection has ended.
pub(in crate::server) async fn serve(server: Rc<Server>, io: Io, unread: Bytes, peer: Rc<Peer>, open: Open) {
    serve_on(server, Connection { io, unread, peer, open, patience: Patience::default(), waited: None }).await;
}

/// A connection, and what goes with it from hands to hands.
struct Connection {
    io: Io,
    unread: Bytes,
    peer: Rc<Peer>,
    open: Open,
    patience: Patience,
    waited: Option<Waited>,
}

async fn serve_on(server: Rc<Server>, connection: Connection) {
    let Connection { io, unread, peer, open, patience, waited } = connection;
    let head = unread.clone();
    let service = Service {
        server: Rc::clone(&server),
        peer: Rc::clone(&peer),
        shared: Shared::new(Wire::new(io, unread), waited),
        patience,
    };
    let Some(Taken { by, io, unread, requests }) = drive(&server, service).await else { return };
    match by {
        TakeOver::Session { hold, version } => {
            let (link, session) = start(hold, version, io, unread);
            // Made here, so that the task has no room for the link beside it.
            let running = session.run(link);
            tokio::task::spawn_local(async move {
                running.await;
                drop(open);
            });
        }
        TakeOver::Turns(later) => {
            // Whether what this run of hyper began with is the head of the one request, and all of it.
            // It is copied: its buffer is larger.
            let end = memchr::memmem::find(&head, b"\r\n\r\n").map(|at| at + 4);
            let alone = requests == 1 && unread.is_empty() && end == Some(head.len());
            let turns = Turns::new(
                Rc::clone(&server),
                Link::bare(io, unread),
                alone.then(|| Bytes::copy_from_slice(&head)),
                patience,
            );
            let taking_turns = later.take_turns(turns);
            tokio::task::spawn_local(async move {
                let Some(turns) = taking_turns.await else { return drop(open) };
                let Some((io, unread, patience)) = turns.into_parts() else { return drop(open) };
                go_on(server, Connection { io, unread, peer, open, patience, waited: None });
            });
        }
        TakeOver::Wait { waiting, stand_in, counted } => {
            let mut link = Link::bare(io, unread);
            tokio::task::spawn_local(async move {
                let Some(answer) = link.unless_gone(waiting).await else { return drop(open) };
                link.put_back(&stand_in.head());
                let Some((io, unread)) = link.into_h1() else { return drop(open) };
                let waited = Some(Waited { answer, counted });
                go_on(server, Connection { io, unread, peer, open, patience, waited });
            });
        }
    }
}

/// Serves on in a task of its own: the present one holds no more than a session needs.
fn go_on(server: Rc<Server>, connection: Connection) {
    let serving: LocalBoxFuture<'static, ()> = Box::pin(serve_on(server, connection));
    tokio::task::spawn_local(serving);
}

/// What hyper had of a connection when somebody else takes it over.
struct Taken {
    by: TakeOver,
    io: Io,
    unread: Bytes,
    requests: usize,
}

/// Lets hyper work until the connection ends (`None`) or is taken over.
async fn drive(server: &Rc<Server>, service: Service) -> Option<Taken> {
    let shared = Rc::clone(&service.shared);
    let limits = server.limits.load();
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(limits.request_header_bytes_max.max(8192))
        .max_header_size(limits.request_header_bytes_max)
        // The wire listens for the client's end instead.
        .half_close(true)
        .serve_connection(TokioIo::new(shared.wire.watched()), service);
    let mut head_timer = pin!(HeadTimer { limit: limits.request_header_timeout, sleep: None });
    drop(limits);
    let mut leave = server.leave.clone();
    let mut leaving = pin!(leave.wait_for(|leave| *leave == Leave::Now));
    let (mut is_leaving, mut asked) = (false, false);
    let ended = poll_fn(|cx| {
        is_leaving = is_leaving || leaving.as_mut().poll(cx).is_ready();
        // hyper would not even read what stands for a request that has been waited for, and whose answer says the same.
        if is_leaving && !asked && shared.waited.borrow().is_none() {
            asked = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match connection.poll_without_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(Ended::ByHyper(result)),
            Poll::Pending if shared.take_over.borrow().is_some() && shared.wire.is_flushed() => {
                Poll::Ready(Ended::TakenOver)
            }
            Poll::Pending if shared.wire.poll_gone(cx).is_ready() => Poll::Ready(Ended::ByClient),
            Poll::Pending => head_timer.as_mut().poll(&shared, cx).map(|()| Ended::HeadTooSlow),
        }
    })
    .await;
    let read = connection.into_parts().read_buf;
    let (io, unread) = shared.wire.take()?;
    match ended {
        Ended::HeadTooSlow => {
            server.metrics.refused(Refusal::HeaderTimeout);
            io.close(ANY_BYTES).await;
            None
        }
        Ended::ByClient => {
            tracing::debug!("the client closed the connection before its answer");
            io.close(ANY_BYTES).await;
            None
        }
        Ended::TakenOver => {
            let unread = [read.as_ref(), unread.as_ref()].concat().into();
            let requests = shared.requests.get();
            shared.take_over.take().map(|by| Taken { by, io, unread, requests })
        }
        Ended::ByHyper(result) => {
            end(server, &shared, io, result).await;
            None
        }
    }
}

/// Closes a connection that hyper is done with.
async fn end(server: &Server, shared: &Shared, io: Io, result: hyper::Result<()>) {
    let Err(error) = result else { return io.close(ANY_BYTES).await };
    note_failure(server, shared, &error);
    // A body that broke off must not look whole to a client that knows its end by the close alone.
    let by_close = shared.version.get().is_some_and(|version| version < http::Version::HTTP_11);
    if error.is_user() && by_close { io.reset() } else { io.close(ANY_BYTES).await }
}

/// Why hyper has no more to do with a connection.
enum Ended {
    ByHyper(hyper::Result<()>),
    ByClient,
    TakenOver,
    HeadTooSlow,
}

/// Bounds the time of a request's head. hyper has one timer for a head and for the pause before it; a pause may be
/// long, a head may not.
struct HeadTimer {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl HeadTimer {
    /// Ready when a head that has begun took too long.
    fn poll(mut self: Pin<&mut Self>, shared: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        if !shared.awaits_head() {
            self.sleep = None;
            return Poll::Pending;
        }
        let limit = self.limit;
        self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx)
    }
}

fn note_failure(server: &Server, shared: &Shared, error: &hyper::Error) {
    if error.is_timeout() && shared.is_idle() {
        // That it kept the connection for more requests is no fault.
    } else if error.is_timeout() {
        server.metrics.refused(Refusal::HeaderTimeout);
    } else if error.is_parse() {
        server.metrics.refused(Refusal::BadRequest);
    }
    tracing::debug!(%error, "connection failed");
}

/// The response head of a hold, with the framing that the request's version allows.
fn start(hold: Hold, version: http::Version, io: Io, unread: Bytes) -> (Link, Box<dyn crate::server::Held>) {
    let framing = match version {
        _ if hold.head.status() == http::StatusCode::SWITCHING_PROTOCOLS => Framing::Raw,
        http::Version::HTTP_11 => Framing::Chunked,
        _ => Framing::Raw,
    };
    let mut head = hold.head;
    let fields = head.headers_mut();
    if let Ok(date) = http::HeaderValue::from_str(&http_date()) {
        fields.entry(http::header::DATE).or_insert(date);
    }
    if framing == Framing::Chunked {
        fields.insert(http::header::TRANSFER_ENCODING, http::HeaderValue::from_static("chunked"));
    }
    if head.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        // What a client pipelines behind a stream is not answered: it can know.
        head.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    (Link::h1(io, unread, encode_head(&head).into(), framing), hold.session)
}

struct Service {
    server: Rc<Server>,
    peer: Rc<Peer>,
    shared: Rc<Shared>,
    patience: Patience,
}

impl hyper::service::Service<http::Request<Incoming>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        if self.shared.wire.watch.borrow_mut().next_is_ambiguous() {
            self.server.metrics.refused(Refusal::BadRequest);
            return Box::pin(std::future::ready(Ok(problem::ambiguous_framing())));
        }
        let version = request.version();
        self.shared.version.set(Some(version));
        self.shared.requests.update(|requests| requests + 1);
        let head = StandIn::of(&request);
        let may_repeat = self.patience.lasts() && version == http::Version::HTTP_11 && head.stays_open;
        let (parts, body) = request.into_parts();
        let body = self.shared.wire.note_body(body);
        // What is left of a body would be taken for the next request.
        let stand_in = body.is_none().then_some(head);
        let shared = Rc::clone(&self.shared);
        let server = Rc::clone(&self.server);
        let (answer, counted) = match shared.waited.take() {
            Some(Waited { answer, counted }) => (Box::pin(std::future::ready(answer)) as Waiting, counted),
            None => {
                let counted = server.count.begin();
                (
                    server.handler.handle(
                        Request::from_parts(parts, body.map_or_else(Body::empty, Body::boxed)),
                        Rc::clone(&self.peer),
                    ),
                    counted,
                )
            }
        };
        Box::pin(async move {
            let mut answer = answer.await;
            let take_over = loop {
                break match (answer, stand_in) {
                    (Answer::Response(response), _) => return Ok(whole(response, &server, counted)),
                    (Answer::Later(later), _) if !may_repeat => {
                        return Ok(whole(later.respond().await, &server, counted));
                    }
                    (Answer::Later(later), _) => TakeOver::Turns(later),
                    (Answer::Hold(hold), _) => TakeOver::Session { hold, version },
                    (Answer::Waiting(waiting), Some(stand_in)) => TakeOver::Wait { waiting, stand_in, counted },
                    (Answer::Waiting(waiting), None) => {
                        answer = waiting.await;
                        continue;
                    }
                };
            };
            *shared.take_over.borrow_mut() = Some(take_over);
            std::future::pending().await
        })
    }
}

/// What the answer to a request depends on, of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StandIn {
    is_head: bool,
    version: http::Version,
    stays_open: bool,
    takes_trailers: bool,
}

impl StandIn {
    fn of<B>(request: &http::Request<B>) -> Self {
        let (version, fields) = (request.version(), request.headers());
        let is_head = request.method() == http::Method::HEAD;
        // Few heads have either; one look at each name costs less than to search for both.
        if !fields.keys().any(|name| *name == http::header::CONNECTION || *name == http::header::TE) {
            return Self { is_head, version, stays_open: version != http::Version::HTTP_10, takes_trailers: false };
        }
        Self {
            is_head,
            version,
            stays_open: stays_open(fields)
                && (version != http::Version::HTTP_10 || has_option(fields, http::header::CONNECTION, "keep-alive")),
            takes_trailers: has_option(fields, http::header::TE, "trailers"),
        }
    }

    /// A head that is answered in the same way. It is never seen by a handler.
    fn head(self) -> Vec<u8> {
        let method = if self.is_head { "HEAD" } else { "GET" };
        let connection = if self.stays_open { "keep-alive" } else { "close" };
        let te = if self.takes_trailers { "te: trailers\r\n" } else { "" };
        format!("{method} / {:?}\r\nconnection: {connection}\r\n{te}\r\n", self.version).into_bytes()
    }
}

/// A response as hyper sends it.
fn whole(mut response: Response, server: &Server, counted: InFlight) -> http::Response<Body> {
    if server.leave() != Leave::Stay && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(http::header::CONNECTION, close);
    }
    response.map(|body| body.counted(counted))
}

/// Whether the client means to go on after this request (RFC 9112 §9.3).
fn stays_open(fields: &http::HeaderMap) -> bool {
    !has_option(fields, http::header::CONNECTION, "close")
}

/// Whether a list has this word in it.
fn has_option(fields: &http::HeaderMap, name: http::HeaderName, option: &str) -> bool {
    let values = fields.get_all(name).into_iter();
    let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|has| has.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}
