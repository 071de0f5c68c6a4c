//! HTTP/2 on the `h2` crate: one task a connection, in which all its requests and sessions run.
//!
//! A fan-out wakes each session of a connection; they all run in this one task and hand their frames to h2, and the
//! connection then writes what has gathered in few large writes. A task for each stream would cost a write each.

use crate::server::body::Body;
use crate::server::connection::Server;
use crate::server::date::http_date;
use crate::server::limits::{InFlight, Leave};
use crate::server::link::Link;
use crate::server::resets::Resets;
use crate::server::{Answer, Hold, Peer, Response, Waiting};
use crate::telemetry::metrics::Refusal;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http_body::Body as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Bytes that one stream may have in h2's send buffer.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams that a client may reset before they are accepted (CVE-2023-44487).
const PENDING_RESET_STREAMS_MAX: usize = 20;
/// Streams that this end may reset for a client's errors before the connection is closed.
const LOCAL_ERROR_RESETS_MAX: usize = 1024;
/// Request bodies: what a client may send ahead of the backend on one stream, and on the connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How long an idle client has to answer that it heard of the close.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a stream's future leaves to be done.
enum Next {
    Nothing,
    /// The request is answered by a session, which goes on as a (small) future of its own.
    Session(LocalBoxFuture<'static, ()>),
    /// Its answer is waited for, by a (small) future of its own.
    Wait(LocalBoxFuture<'static, Next>),
}

type Streams = FuturesUnordered<Stream>;

/// What runs for one stream.
enum Stream {
    /// The answer to its request.
    Answer(LocalBoxFuture<'static, Next>),
    Session(LocalBoxFuture<'static, ()>),
}

impl Future for Stream {
    type Output = Next;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        match self.get_mut() {
            Stream::Answer(answer) => answer.as_mut().poll(cx),
            Stream::Session(session) => session.as_mut().poll(cx).map(|()| Next::Nothing),
        }
    }
}

/// Serves a connection to its end. `io` starts with the client's preface.
pub(in crate::server) async fn serve<T>(server: Rc<Server>, io: T, peer: Rc<Peer>, resets: Rc<Resets>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let limits = server.limits.load_full();
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams_per_connection_max)
        .max_header_list_size(limits.request_header_bytes_max as u32)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESET_STREAMS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS_MAX))
        .enable_connect_protocol();
    let handshake = tokio::time::timeout(limits.request_header_timeout, builder.handshake::<T, Bytes>(io));
    let mut connection = match handshake.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            server.metrics.refused(Refusal::BadRequest);
            tracing::debug!(%error, "connection failed");
            return;
        }
        Err(_) => return server.metrics.refused(Refusal::HeaderTimeout),
    };
    let mut streams = Streams::new();
    let mut idle = pin!(tokio::time::sleep(limits.idle_timeout));
    let mut leave = server.leave.clone();
    // A connection that comes while clients are asked to go is asked after its first request.
    let mut leaving = pin!(leave.wait_for({
        let before = server.leave();
        move |leave| *leave > before
    }));
    let mut asked = false;
    let mut said_goodbye = false;
    poll_fn(|cx| {
        if !asked && leaving.as_mut().poll(cx).is_ready() {
            asked = true;
            connection.graceful_shutdown();
        }
        if poll_connection(&server, &peer, &resets, &mut connection, &mut streams, cx).is_ready() {
            return Poll::Ready(());
        }
        if !streams.is_empty() {
            idle.as_mut().reset(tokio::time::Instant::now() + limits.idle_timeout);
        } else if idle.as_mut().poll(cx).is_ready() {
            if said_goodbye {
                // It does not answer the last ping.
                return Poll::Ready(());
            }
            said_goodbye = true;
            connection.graceful_shutdown();
            idle.as_mut().reset(tokio::time::Instant::now() + GOODBYE_TIMEOUT);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

/// Runs the streams, then lets the connection read and write; ready when the connection has ended.
fn poll_connection<T>(
    server: &Rc<Server>,
    peer: &Rc<Peer>,
    resets: &Rc<Resets>,
    connection: &mut Connection<T, Bytes>,
    streams: &mut Streams,
    cx: &mut Context<'_>,
) -> Poll<()>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        while let Poll::Ready(Some(next)) = streams.poll_next_unpin(cx) {
            match next {
                Next::Nothing => {}
                Next::Session(session) => streams.push(Stream::Session(session)),
                Next::Wait(waiting) => streams.push(Stream::Answer(waiting)),
            }
        }
        let before = resets.count();
        let accepted = connection.poll_accept(cx);
        if resets.count() != before {
            resets.wake_all();
        }
        match ready!(accepted) {
            Some(Ok((request, respond))) => {
                let answer = answer(Rc::clone(server), Rc::clone(peer), Rc::clone(resets), request, respond);
                streams.push(Stream::Answer(Box::pin(answer)));
                if server.leave() != Leave::Stay {
                    connection.graceful_shutdown();
                }
            }
            Some(Err(error)) => {
                // What the client did wrong, not what it complains of.
                if !error.is_io() && !error.is_remote() {
                    server.metrics.refused(Refusal::BadRequest);
                }
                tracing::debug!(%error, "connection failed");
                return Poll::Ready(());
            }
            None => return Poll::Ready(()),
        }
    }
}

/// Answers one request; dropped with the connection.
async fn answer(
    server: Rc<Server>,
    peer: Rc<Peer>,
    resets: Rc<Resets>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Next {
    let counted = server.count.begin();
    let (parts, receive) = request.into_parts();
    let is_head = parts.method == http::Method::HEAD;
    // An extended CONNECT's stream is the session's, in both directions: it may not be read as a body.
    let (body, receive) = match parts.method == http::Method::CONNECT {
        true => (Body::empty(), Some(receive)),
        false => (Body::from(receive), None),
    };
    let mut handling = server.handler.handle(http::Request::from_parts(parts, body), peer);
    let answer = unless_reset(&mut handling, &mut respond).await;
    drop(handling);
    match answer {
        Some(answer) => Asked { respond, receive, resets, is_head, _counted: counted }.conclude(answer).await,
        None => Next::Nothing,
    }
}

/// A request that has its answer, or waits for it.
struct Asked {
    respond: SendResponse<Bytes>,
    receive: Option<RecvStream>,
    resets: Rc<Resets>,
    is_head: bool,
    _counted: InFlight,
}

impl Asked {
    async fn conclude(mut self, answer: Answer) -> Next {
        let response = match answer {
            Answer::Hold(hold) => return hold_stream(hold, self.respond, self.receive, self.resets),
            Answer::Waiting(waiting) => return Next::Wait(Box::pin(self.wait(waiting))),
            Answer::Response(response) => response,
            Answer::Later(later) => match unless_reset(&mut later.respond(), &mut self.respond).await {
                None => return Next::Nothing,
                Some(response) => response,
            },
        };
        if let Err(error) = send(response, self.respond, self.is_head).await {
            tracing::debug!(%error, "stream failed");
        }
        // A rejected CONNECT's stream ends with its response.
        drop(self.receive);
        Next::Nothing
    }

    /// Boxed: what waits is not to have room for what answers.
    async fn wait(mut self, mut waiting: Waiting) -> Next {
        match unless_reset(&mut waiting, &mut self.respond).await {
            Some(answer) => {
                let concluding: LocalBoxFuture<'static, Next> = Box::pin(self.conclude(answer));
                concluding.await
            }
            None => Next::Nothing,
        }
    }
}

/// What a future makes, or `None`: a reset while the request is being answered cancels it.
async fn unless_reset<T>(answering: &mut LocalBoxFuture<'static, T>, respond: &mut SendResponse<Bytes>) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        respond.poll_reset(cx).map(|_| None)
    })
    .await
}

fn hold_stream(hold: Hold, mut respond: SendResponse<Bytes>, receive: Option<RecvStream>, resets: Rc<Resets>) -> Next {
    let mut head = hold.head;
    stamp(head.headers_mut());
    match respond.send_response(head, false) {
        Ok(send) => Next::Session(hold.session.run(Link::h2(send, receive, resets))),
        Err(error) => {
            tracing::debug!(%error, "stream failed");
            Next::Nothing
        }
    }
}

fn stamp(fields: &mut http::HeaderMap) {
    if let Ok(date) = http::HeaderValue::from_str(&http_date()) {
        fields.entry(http::header::DATE).or_insert(date);
    }
}

/// Sends a response and its body, at the pace at which the client opens its window.
async fn send(
    response: Response,
    mut respond: SendResponse<Bytes>,
    is_head: bool,
) -> Result<(), crate::server::body::BodyError> {
    let (mut parts, body) = response.into_parts();
    parts.version = http::Version::HTTP_2;
    stamp(&mut parts.headers);
    strip_connection_fields(&mut parts.headers);
    if let Some(len) = body.size_hint().exact()
        && !is_head
        && !matches!(parts.status.as_u16(), 204 | 304)
    {
        parts.headers.entry(http::header::CONTENT_LENGTH).or_insert(len.into());
    }
    let over = is_head || body.is_end_stream();
    let mut stream = respond.send_response(http::Response::from_parts(parts, ()), over)?;
    if over {
        return Ok(());
    }
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| poll_frame(body.as_mut(), &mut stream, cx)).await? {
        // A body that breaks off must not look like one that ended.
        let frame = frame.inspect_err(|_| stream.send_reset(Reason::INTERNAL_ERROR))?;
        match frame.into_data() {
            Ok(data) => {
                // Asked once: the end may become known while the data waits for room.
                let last = body.is_end_stream();
                send_data(&mut stream, data, last).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    stream.send_trailers(trailers)?;
                }
                return Ok(());
            }
        }
    }
    stream.send_data(Bytes::new(), true)?;
    Ok(())
}

type FrameResult = Result<http_body::Frame<Bytes>, crate::server::body::BodyError>;

/// The body's next frame, or an error when the client resets the stream meanwhile.
fn poll_frame(
    body: Pin<&mut Body>,
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<FrameResult>, h2::Error>> {
    if let Poll::Ready(frame) = body.poll_frame(cx) {
        return Poll::Ready(Ok(frame));
    }
    let reason = ready!(stream.poll_reset(cx))?;
    Poll::Ready(Err(reason.into()))
}

async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let mut capacity = stream.capacity();
        if capacity == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(more) => capacity = more?,
                None => return Err(Reason::CANCEL.into()),
            }
        }
        let part = data.split_to(capacity.min(data.len()));
        let end = last && data.is_empty();
        stream.send_data(part, end)?;
        if end {
            return Ok(());
        }
    }
    // The end came in an empty piece.
    if last { stream.send_data(Bytes::new(), true) } else { Ok(()) }
}

/// Fields that HTTP/2 forbids (RFC 9113 §8.2.2).
fn strip_connection_fields(fields: &mut http::HeaderMap) {
    for name in [http::header::CONNECTION, http::header::TRANSFER_ENCODING, http::header::UPGRADE] {
        fields.remove(name);
    }
    fields.remove("keep-alive");
    fields.remove("proxy-connection");
}
