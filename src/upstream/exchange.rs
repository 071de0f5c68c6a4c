//! One request to one upstream: pick a server, send, wait for the head; again elsewhere if it surely was not processed.

use crate::server::Request;
use crate::upstream::balance::{Candidate, Fitness, pick};
use crate::upstream::connect::ConnectError;
use crate::upstream::error::UpstreamError;
use crate::upstream::lease::{Connection, Lease};
use crate::upstream::outgoing;
use crate::upstream::pool::Server;
use crate::upstream::settings::{UpstreamProtocol, UpstreamSettings};
use crate::upstream::upload::{Late, Progress, Upload};
use http::StatusCode;
use hyper::body::Incoming;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// A response head with what its body still needs.
pub(super) struct Answered {
    pub(super) response: http::Response<Incoming>,
    pub(super) lease: Lease,
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
    request: Request,
) -> Result<Answered, UpstreamError> {
    let (parts, body) = request.into_parts();
    let (upload, progress) = Upload::new(body);
    // Only a request without a body can be said twice after it was said once.
    let replay = (settings.protocol == UpstreamProtocol::H2 && progress.is_done()).then(|| parts.clone());
    let mut request = http::Request::from_parts(parts, upload);
    let mut tried = vec![false; servers.len()];
    let mut reuse = Reuse::Allowed;
    let mut retries_left = settings.retry_attempts_max;
    let mut failed = UpstreamError::NoServer { upstream: Arc::clone(&settings.name) };
    let mut same = None;
    loop {
        let Some(at) = same.take().or_else(|| pick(settings.balance, &candidates(servers, &tried), turn)) else {
            return Err(failed);
        };
        match attempt(settings, &servers[at], request, &progress, reuse).await {
            Ok(answered) => return Ok(answered),
            Err(Failed::Finally(error)) => return Err(error),
            // Nobody saw the request, so this is no retry yet; a new connection can't be stale.
            Err(Failed::Stale(back)) => {
                (request, reuse, same) = (*back, Reuse::Never, Some(at));
                continue;
            }
            Err(Failed::Elsewhere(error, back)) => {
                tried[at] = true;
                (request, failed) = (*back, error);
            }
            Err(Failed::Unprocessed(error)) => {
                let Some(parts) = &replay else { return Err(error) };
                let (upload, _) = Upload::new(crate::server::body::Body::empty());
                request = http::Request::from_parts(parts.clone(), upload);
                failed = error;
            }
        }
        tracing::debug!(upstream = &*settings.name, error = %failed, "upstream attempt failed");
        if retries_left == 0 {
            return Err(failed);
        }
        retries_left -= 1;
    }
}

/// Whether a connection that stands may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Allowed,
    Never,
}

fn candidates(servers: &[Rc<Server>], tried: &[bool]) -> Vec<Candidate> {
    let fitness = |server: &Server, tried: bool| match tried {
        true => Fitness::Tried,
        false if server.is_avoided() => Fitness::Avoided,
        false => Fitness::Good,
    };
    servers
        .iter()
        .zip(tried)
        .map(|(server, tried)| Candidate { in_flight: server.in_flight(), fitness: fitness(server, *tried) })
        .collect()
}

/// Sends `request` to one server over one connection.
async fn attempt(
    settings: &Arc<UpstreamSettings>,
    server: &Rc<Server>,
    mut request: http::Request<Upload>,
    progress: &Rc<Progress>,
    reuse: Reuse,
) -> Result<Answered, Failed> {
    let in_flight = server.enter();
    let deadline = Instant::now() + settings.connect_timeout;
    let opened = match settings.protocol {
        UpstreamProtocol::Http1 => match Some(server).filter(|_| reuse == Reuse::Allowed).and_then(|s| s.take_idle()) {
            Some(connection) => Ok((Connection::Http1(connection), Age::Used)),
            None => server.open_http1(deadline).await.map(|connection| (Connection::Http1(connection), Age::New)),
        },
        UpstreamProtocol::H2 if reuse == Reuse::Never => {
            server.open_h2(deadline).await.map(|stream| (Connection::H2(stream), Age::New))
        }
        UpstreamProtocol::H2 => server.stream(deadline).await.map(|stream| (Connection::H2(stream), Age::Used)),
    };
    let (connection, age) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            server.avoid();
            return Err(Failed::Elsewhere(connect_failed(settings, server, error), Box::new(request)));
        }
    };
    if outgoing::prepare(&mut request, settings.protocol, &server.address).is_err() {
        return Err(Failed::Finally(UpstreamError::BadHost { upstream: Arc::clone(&settings.name) }));
    }
    progress.touch();
    let mut lease = Lease::new(connection, Rc::clone(server), in_flight, Rc::clone(progress));
    let sent = tokio::select! {
        biased;
        sent = lease.send(request) => sent,
        late = progress.stalled(settings.response_timeout) => return Err(Failed::Finally(timed_out(settings, server, late))),
    };
    match sent {
        Ok(response) => accept(settings, server, response, lease),
        Err(mut error) => Err(match error.take_message() {
            Some(back) if age == Age::Used => Failed::Stale(Box::new(back)),
            Some(back) => Failed::Elsewhere(closed_at_once(settings, server), Box::new(back)),
            None => send_failed(settings, server, progress, error.into_error()),
        }),
    }
}

/// Whether a connection may have been closed by the server while it lay idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

/// Refuses what no client may get: a protocol switch without the wish, and a coding that only a peer can undo.
fn accept(
    settings: &Arc<UpstreamSettings>,
    server: &Rc<Server>,
    mut response: http::Response<Incoming>,
    mut lease: Lease,
) -> Result<Answered, Failed> {
    let wrong = |what| {
        let (upstream, server) = (Arc::clone(&settings.name), server.address.clone());
        Failed::Finally(UpstreamError::BadResponse { upstream, server, what })
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && settings.protocol == UpstreamProtocol::H2 {
        return Err(wrong("101 does not exist in HTTP/2"));
    }
    lease.note_keep_alive(response.headers());
    outgoing::tidy_response(response.headers_mut()).map_err(wrong)?;
    Ok(Answered { response, lease })
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

fn send_failed(settings: &UpstreamSettings, server: &Server, progress: &Progress, source: hyper::Error) -> Failed {
    let upstream = Arc::clone(&settings.name);
    if progress.is_broken() {
        return Failed::Finally(UpstreamError::RequestBroken { upstream });
    }
    let refused = std::error::Error::source(&source)
        .and_then(|cause| cause.downcast_ref::<h2::Error>())
        .is_some_and(|cause| cause.is_remote() && cause.reason() == Some(h2::Reason::REFUSED_STREAM));
    let error = UpstreamError::Broken { upstream, server: server.address.clone(), source };
    if refused { Failed::Unprocessed(error) } else { Failed::Finally(error) }
}
