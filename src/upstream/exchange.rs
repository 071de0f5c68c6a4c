//! One request to one upstream: pick a server, send, wait for the head; again elsewhere if it surely was not processed.

use crate::proto::http1::{Framing, ResponseHead};
use crate::server::Request;
use crate::server::body::{Body, BodyError};
use crate::upstream::balance::{Candidate, Fitness, pick};
use crate::upstream::connect::ConnectError;
use crate::upstream::error::UpstreamError;
use crate::upstream::http1::{Answer, Failure, Http1, Http1Error, Rest};
use crate::upstream::lease::{Connection, Lease};
use crate::upstream::outgoing;
use crate::upstream::pool::{InFlight, Server, Stream};
use crate::upstream::sending::Sending;
use crate::upstream::settings::{Balance, UpstreamProtocol, UpstreamSettings};
use crate::upstream::upload::{Late, Progress, Upload};
use http::StatusCode;
use hyper::body::Incoming;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A response head with what its body still needs.
pub(super) struct Answered {
    pub(super) head: http::response::Parts,
    pub(super) source: Source,
    pub(super) lease: Lease,
}

/// A request that is to be sent. It is boxed: it goes through many hands, and may come back from each.
pub(super) struct Outgoing {
    request: Box<http::Request<Upload>>,
    progress: Rc<Progress>,
}

impl Outgoing {
    pub(super) fn new(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let (upload, progress) = Upload::new(body, Instant::now());
        Self { request: Box::new(http::Request::from_parts(parts, upload)), progress }
    }
}

/// Where a response's body comes from.
pub(super) enum Source {
    /// Its connection; the request may have a rest to send meanwhile.
    /// With what of the request is still to be sent, and for how long the server may take none of it.
    Http1 { framing: Framing, rest: Option<(Box<Sending>, Duration)> },
    /// Its stream.
    H2(Incoming),
}

/// What one try came to, when not to a response.
enum Failed {
    /// The request may have been processed, or trying again is no use.
    Finally(UpstreamError),
    /// No connection: another server may take it.
    Elsewhere(UpstreamError, Box<http::Request<Upload>>),
    /// An idle connection had been closed by the server: a new one will take it.
    Stale(Box<http::Request<Upload>>),
    /// The server said that it did not look at it (RFC 9113 §8.7).
    Unprocessed(UpstreamError),
}

/// Sends `request` until a server took it, and waits for the response's head.
///
/// `turn` is the request's number, for the balance. A dropped future takes the request back.
pub(super) async fn exchange(
    settings: &Arc<UpstreamSettings>,
    servers: &[Rc<Server>],
    turn: usize,
    Outgoing { mut request, progress }: Outgoing,
) -> Result<Answered, UpstreamError> {
    let mut now = Instant::now();
    // Only a request without a body can be said twice after it was said once.
    let is_repeatable = settings.protocol == UpstreamProtocol::H2 && progress.is_done();
    let replay = is_repeatable.then(|| Box::new(head_of(&request)));
    let mut tried = Tried::default();
    let mut reuse = Reuse::Allowed;
    let mut retries_left = settings.retry_attempts_max;
    let mut failed = UpstreamError::NoServer { upstream: Arc::clone(&settings.name) };
    let mut same = None;
    loop {
        let Some(at) = same.take().or_else(|| choose(settings.balance, servers, &tried, turn)) else {
            return Err(failed);
        };
        match attempt(settings, &servers[at], request, &progress, reuse, now).await {
            Ok(answered) => return Ok(answered),
            Err(Failed::Finally(error)) => return Err(error),
            // Nobody saw the request, so this is no retry yet; a new connection can't be stale.
            Err(Failed::Stale(back)) => {
                (request, reuse, same, now) = (back, Reuse::Never, Some(at), Instant::now());
                continue;
            }
            Err(Failed::Elsewhere(error, back)) => {
                tried.0.push(at);
                (request, failed) = (back, error);
            }
            Err(Failed::Unprocessed(error)) => {
                let Some(head) = &replay else { return Err(error) };
                let (upload, _) = Upload::new(Body::empty(), now);
                request = Box::new(head_of(head).map(|()| upload));
                failed = error;
            }
        }
        tracing::debug!(upstream = &*settings.name, error = %failed, "upstream attempt failed");
        if retries_left == 0 {
            return Err(failed);
        }
        retries_left -= 1;
        now = Instant::now();
    }
}

/// A head once more.
fn head_of<B>(request: &http::Request<B>) -> http::Request<()> {
    let mut head = http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    *head.extensions_mut() = request.extensions().clone();
    head
}

/// Whether a connection that stands may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Allowed,
    Never,
}

/// The server whose turn it is, of those that were not tried; nothing is weighed where there is only one.
fn choose(balance: Balance, servers: &[Rc<Server>], tried: &Tried, turn: usize) -> Option<usize> {
    match servers {
        [_] if !tried.contains(0) => Some(0),
        _ => pick(balance, &candidates(servers, tried), turn),
    }
}

/// Servers that took no connection for this request.
#[derive(Default)]
struct Tried(Vec<usize>);

impl Tried {
    fn contains(&self, at: usize) -> bool {
        self.0.contains(&at)
    }
}

fn candidates(servers: &[Rc<Server>], tried: &Tried) -> Vec<Candidate> {
    let fitness = |server: &Server, tried: bool| match tried {
        true => Fitness::Tried,
        false if server.is_avoided() => Fitness::Avoided,
        false => Fitness::Good,
    };
    servers
        .iter()
        .enumerate()
        .map(|(at, server)| Candidate { in_flight: server.in_flight(), fitness: fitness(server, tried.contains(at)) })
        .collect()
}

/// Sends `request` to one server over one connection; the attempt begins `now`.
async fn attempt(
    settings: &Arc<UpstreamSettings>,
    server: &Rc<Server>,
    mut request: Box<http::Request<Upload>>,
    progress: &Rc<Progress>,
    reuse: Reuse,
    now: Instant,
) -> Result<Answered, Failed> {
    let in_flight = server.enter();
    let (connection, age) = match open(settings, server, reuse, now).await {
        Ok(opened) => opened,
        Err(error) => {
            server.avoid();
            return Err(Failed::Elsewhere(connect_failed(settings, server, error), request));
        }
    };
    if outgoing::prepare(&mut request, settings.protocol, &server.address).is_err() {
        return Err(Failed::Finally(UpstreamError::BadHost { upstream: Arc::clone(&settings.name) }));
    }
    progress.start(if age == Age::New { Instant::now() } else { now });
    let attempt = Attempt { settings, server, progress, in_flight, age };
    match connection {
        Connection::Http1(connection) => attempt.over_http1(connection, request).await,
        Connection::H2(stream) => Box::pin(attempt.over_h2(stream, request)).await,
    }
}

/// A request that has a connection to be sent on.
struct Attempt<'a> {
    settings: &'a Arc<UpstreamSettings>,
    server: &'a Rc<Server>,
    progress: &'a Rc<Progress>,
    in_flight: InFlight,
    age: Age,
}

/// Whether a connection may have been closed by the server while it lay idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

/// A connection that stands, or a new one.
async fn open(
    settings: &UpstreamSettings,
    server: &Rc<Server>,
    reuse: Reuse,
    now: Instant,
) -> Result<(Connection, Age), ConnectError> {
    let deadline = now + settings.connect_timeout;
    // What is opened is boxed: most requests open nothing, and would carry the room for it from place to place.
    Ok(match (settings.protocol, reuse) {
        (UpstreamProtocol::Http1, Reuse::Allowed) if let Some(connection) = server.take_idle(now) => {
            (Connection::Http1(connection), Age::Used)
        }
        (UpstreamProtocol::Http1, _) => (Connection::Http1(Box::pin(server.open_http1(deadline)).await?), Age::New),
        (UpstreamProtocol::H2, Reuse::Never) => (Connection::H2(Box::pin(server.open_h2(deadline)).await?), Age::New),
        (UpstreamProtocol::H2, Reuse::Allowed) => (Connection::H2(Box::pin(server.stream(deadline)).await?), Age::Used),
    })
}

impl Attempt<'_> {
    async fn over_http1(self, mut connection: Http1, request: Box<http::Request<Upload>>) -> Result<Answered, Failed> {
        let Self { settings, server, progress, .. } = self;
        match connection.exchange(request, progress, settings.response_timeout).await {
            Ok(Answer { head, upload }) => {
                let ResponseHead { mut parts, reason, framing, is_plain, keeps_alive, keeps_idle } = head;
                if let Some(reason) = reason {
                    parts.extensions.insert(reason);
                }
                if !is_plain {
                    outgoing::tidy_response(&mut parts).map_err(|what| wrong(settings, server, what))?;
                }
                let mut lease = self.lease(Connection::Http1(connection));
                if keeps_alive && matches!(upload, Rest::Nothing) {
                    lease.note_lasts(keeps_idle);
                }
                let rest = if let Rest::Some(rest) = upload { Some((rest, settings.response_timeout)) } else { None };
                Ok(Answered { head: parts, source: Source::Http1 { framing, rest }, lease })
            }
            Err(Failure { again: Some(back), .. }) if self.age == Age::Used => Err(Failed::Stale(back)),
            Err(Failure { again: Some(back), is_unseen: true, .. }) => {
                Err(Failed::Elsewhere(closed_at_once(settings, server), back))
            }
            Err(Failure { error: Http1Error::Late(late), .. }) => {
                Err(Failed::Finally(timed_out(settings, server, late)))
            }
            Err(Failure { error: Http1Error::Head(fault), .. }) if let Some(what) = fault.framing() => {
                Err(wrong(settings, server, what))
            }
            Err(Failure { error, .. }) => Err(send_failed(settings, server, progress, error.into())),
        }
    }

    async fn over_h2(self, stream: Stream, request: Box<http::Request<Upload>>) -> Result<Answered, Failed> {
        let Self { settings, server, progress, age, .. } = self;
        let mut sender = stream.sender();
        let lease = self.lease(Connection::H2(stream));
        let sent = tokio::select! {
            biased;
            sent = sender.try_send_request(*request) => sent,
            late = progress.stalled(settings.response_timeout) => {
                return Err(Failed::Finally(timed_out(settings, server, late)));
            }
        };
        match sent {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(wrong(settings, server, "101 does not exist in HTTP/2"))
            }
            Ok(response) => {
                let (mut head, incoming) = response.into_parts();
                outgoing::tidy_response(&mut head).map_err(|what| wrong(settings, server, what))?;
                Ok(Answered { head, source: Source::H2(incoming), lease })
            }
            Err(mut error) => Err(match error.take_message() {
                Some(back) if age == Age::Used => Failed::Stale(Box::new(back)),
                Some(back) => Failed::Elsewhere(closed_at_once(settings, server), Box::new(back)),
                None => send_failed(settings, server, progress, error.into_error().into()),
            }),
        }
    }

    fn lease(self, connection: Connection) -> Lease {
        Lease::new(connection, Rc::clone(self.server), self.in_flight, Rc::clone(self.progress))
    }
}

/// A coding that only a peer can undo, or another answer that no client may get.
fn wrong(settings: &UpstreamSettings, server: &Server, what: &'static str) -> Failed {
    let (upstream, server) = (Arc::clone(&settings.name), server.address.clone());
    Failed::Finally(UpstreamError::BadResponse { upstream, server, what })
}

fn connect_failed(settings: &UpstreamSettings, server: &Server, error: ConnectError) -> UpstreamError {
    let (upstream, server) = (Arc::clone(&settings.name), server.address.clone());
    match error {
        ConnectError::Dns(source) => UpstreamError::Dns { upstream, server, source },
        ConnectError::Refused(source) => UpstreamError::Connect { upstream, server, source },
        ConnectError::Timeout => UpstreamError::ConnectTimeout { upstream, server, limit: settings.connect_timeout },
    }
}

fn closed_at_once(settings: &UpstreamSettings, server: &Server) -> UpstreamError {
    let source = std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "closed before it took a request");
    UpstreamError::Connect { upstream: Arc::clone(&settings.name), server: server.address.clone(), source }
}

fn timed_out(settings: &UpstreamSettings, server: &Server, late: Late) -> UpstreamError {
    let (upstream, limit) = (Arc::clone(&settings.name), settings.response_timeout);
    match late {
        Late::Server => UpstreamError::ResponseTimeout { upstream, server: server.address.clone(), limit },
        Late::Client => UpstreamError::RequestStalled { upstream, limit },
    }
}

fn send_failed(settings: &UpstreamSettings, server: &Server, progress: &Progress, source: BodyError) -> Failed {
    let upstream = Arc::clone(&settings.name);
    if progress.is_broken() {
        return Failed::Finally(UpstreamError::RequestBroken { upstream });
    }
    let refused = source
        .source()
        .and_then(|cause| cause.downcast_ref::<h2::Error>())
        .is_some_and(|cause| cause.is_remote() && cause.reason() == Some(h2::Reason::REFUSED_STREAM));
    let error = UpstreamError::Broken { upstream, server: server.address.clone(), source };
    if refused { Failed::Unprocessed(error) } else { Failed::Finally(error) }
}
