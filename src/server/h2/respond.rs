//! One request on a stream: its answer, and what comes of it.

use crate::proto::http2::connection::{Follows, Incoming};
use crate::proto::http2::{Reason, StreamError};
use crate::proto::problem::Problem;
use crate::server::body::{Body, BodyError};
use crate::server::connection::Server;
use crate::server::date::http_date;
use crate::server::h2::stream::{Reader, Sender, Shared};
use crate::server::limits::InFlight;
use crate::server::link::Link;
use crate::server::request_id::RequestId;
use crate::server::{Answer, Hold, Peer, Response, Waiting, problem};
use crate::telemetry::metrics::Refusal;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::StatusCode;
use http_body::Body as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long a client may take nothing of a response.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What a stream's future leaves to be done.
pub(super) enum Next {
    Nothing,
    /// The request is answered by a session, which goes on as a (small) future of its own.
    Session(LocalBoxFuture<'static, ()>),
    /// Its answer is waited for, by a (small) future of its own.
    Wait(LocalBoxFuture<'static, Next>),
}

/// Answers one request; dropped with the connection.
pub(super) fn answer(
    server: Rc<Server>,
    peer: Rc<Peer>,
    shared: &Rc<Shared>,
    incoming: Incoming,
) -> LocalBoxFuture<'static, Next> {
    let sender = Sender::new(Rc::clone(shared), incoming.key);
    let reader = incoming.has_body.then(|| Reader::new(Rc::clone(shared), incoming.key));
    let Some(head) = incoming.head else { return Box::pin(refuse_head(server, sender, reader)) };
    Box::pin(async move {
        let counted = server.count.begin();
        let (parts, ()) = head.into_parts();
        let is_head = parts.method == http::Method::HEAD;
        // An extended CONNECT's stream is the session's, in both directions: it may not be read as a body.
        let (body, reader) = match parts.method == http::Method::CONNECT {
            true => (Body::empty(), reader),
            false => (reader.map_or_else(Body::empty, Body::from), None),
        };
        let mut handling = server.handler.handle(http::Request::from_parts(parts, body), peer);
        let answer = unless_reset(&mut handling, &sender).await;
        drop(handling);
        match answer {
            Some(answer) => Asked { sender, reader, is_head, _counted: counted }.conclude(answer).await,
            None => Next::Nothing,
        }
    })
}

/// Answers a head that is too large (RFC 6585 §5).
async fn refuse_head(server: Rc<Server>, sender: Sender, reader: Option<Reader>) -> Next {
    server.metrics.refused(Refusal::BadRequest);
    let detail = "the fields of the request are over limits.request_header_bytes; send fewer or shorter ones";
    let problem = Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail);
    if let Err(error) = send(problem::response(&problem, RequestId::next()), &sender, false).await {
        tracing::debug!(%error, "stream failed");
    }
    drop(reader);
    Next::Nothing
}

/// A request that has its answer, or waits for it.
struct Asked {
    sender: Sender,
    reader: Option<Reader>,
    is_head: bool,
    _counted: InFlight,
}

impl Asked {
    async fn conclude(self, answer: Answer) -> Next {
        let response = match answer {
            Answer::Hold(hold) => return hold_stream(hold, self.sender, self.reader),
            Answer::Waiting(waiting) => return Next::Wait(Box::pin(self.wait(waiting))),
            Answer::Response(response) => response,
            Answer::Later(later) => match unless_reset(&mut later.respond(), &self.sender).await {
                None => return Next::Nothing,
                Some(response) => response,
            },
        };
        if let Err(error) = send(response, &self.sender, self.is_head).await {
            tracing::debug!(%error, "stream failed");
        }
        // A rejected CONNECT's stream ends with its response.
        Next::Nothing
    }

    /// Boxed: what waits is not to have room for what answers.
    async fn wait(self, mut waiting: Waiting) -> Next {
        match unless_reset(&mut waiting, &self.sender).await {
            Some(answer) => {
                let concluding: LocalBoxFuture<'static, Next> = Box::pin(self.conclude(answer));
                concluding.await
            }
            None => Next::Nothing,
        }
    }
}

/// What a future makes, or `None`: a reset while the request is being answered cancels it.
async fn unless_reset<T>(answering: &mut LocalBoxFuture<'static, T>, sender: &Sender) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        sender.poll_reset(cx).map(|_| None)
    })
    .await
}

fn hold_stream(hold: Hold, sender: Sender, reader: Option<Reader>) -> Next {
    let mut head = hold.head;
    stamp(head.headers_mut());
    match sender.send_head(&head, Follows::More) {
        Ok(()) => Next::Session(hold.session.run(Link::h2(sender, reader))),
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
async fn send(response: Response, sender: &Sender, is_head: bool) -> Result<(), BodyError> {
    let (mut parts, body) = response.into_parts();
    stamp(&mut parts.headers);
    strip_connection_fields(&mut parts.headers);
    if let Some(len) = body.size_hint().exact()
        && !is_head
        && !matches!(parts.status.as_u16(), 204 | 304)
    {
        parts.headers.entry(http::header::CONTENT_LENGTH).or_insert(len.into());
    }
    let follows = if is_head || body.is_end_stream() { Follows::Nothing } else { Follows::More };
    sender.send_head(&http::Response::from_parts(parts, ()), follows)?;
    if follows == Follows::Nothing {
        return Ok(());
    }
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| poll_frame(body.as_mut(), sender, cx)).await? {
        // A body that breaks off must not look like one that ended.
        let frame = frame.inspect_err(|_| sender.reset(Reason::INTERNAL_ERROR))?;
        match frame.into_data() {
            Ok(data) => {
                // Asked once: the end may become known while the data waits for room.
                let last = body.is_end_stream();
                send_data(sender, data, last).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                return match frame.into_trailers() {
                    Ok(trailers) => Ok(sender.send_trailers(&trailers)?),
                    Err(_) => Ok(sender.finish()?),
                };
            }
        }
    }
    Ok(sender.finish()?)
}

type FrameResult = Result<http_body::Frame<Bytes>, BodyError>;

/// The body's next frame, or an error when the client resets the stream meanwhile.
fn poll_frame(
    body: Pin<&mut Body>,
    sender: &Sender,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<FrameResult>, StreamError>> {
    if let Poll::Ready(frame) = body.poll_frame(cx) {
        return Poll::Ready(Ok(frame));
    }
    Poll::Ready(Err(ready!(sender.poll_reset(cx))))
}

async fn send_data(sender: &Sender, mut data: Bytes, last: bool) -> Result<(), StreamError> {
    let _outstanding = sender.outstanding(data.len())?;
    while !data.is_empty() {
        let capacity = tokio::time::timeout(STALL_TIMEOUT, poll_fn(|cx| sender.poll_capacity(cx))).await;
        let Ok(capacity) = capacity else {
            sender.reset(Reason::CANCEL);
            return Err(StreamError::Stalled);
        };
        let capacity = capacity?;
        let part = data.split_to(capacity.min(data.len()));
        let follows = if last && data.is_empty() { Follows::Nothing } else { Follows::More };
        sender.send_data(&part, follows)?;
        if follows == Follows::Nothing {
            return Ok(());
        }
    }
    // The end came in an empty piece.
    if last { sender.finish() } else { Ok(()) }
}

/// Fields that HTTP/2 forbids (RFC 9113 §8.2.2).
fn strip_connection_fields(fields: &mut http::HeaderMap) {
    for name in [http::header::CONNECTION, http::header::TRANSFER_ENCODING, http::header::UPGRADE] {
        fields.remove(name);
    }
    fields.remove("keep-alive");
    fields.remove("proxy-connection");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http2::connection::{Bounds, Connection};
    use crate::proto::http2::{PREFACE, frame};

    /// A connection whose client has asked for something on `streams` streams, and opens no window.
    fn closed_windows<const N: usize>() -> (Rc<Shared>, [Sender; N]) {
        let bounds = Bounds {
            streams_max: 1000,
            header_list_bytes_max: 1024,
            stream_window_bytes: 1024,
            connection_window_bytes: 65_535,
        };
        let mut bytes = PREFACE.to_vec();
        // INITIAL_WINDOW_SIZE.
        frame::settings(&mut bytes, &[(4, 0)]);
        for number in 0..N as u32 {
            // GET, https and / of the static table (RFC 7541 appendix A).
            let flags = frame::END_STREAM | frame::END_HEADERS;
            frame::headers(&mut bytes, 2 * number + 1, &[0x82, 0x87, 0x84], flags, 16_384);
        }
        let mut machine = Connection::new(bounds);
        machine.receive(&bytes, 0).expect("requests");
        let shared = Rc::new(Shared::new(machine));
        let senders = [(); N].map(|()| {
            let incoming = shared.look(Connection::next_request).expect("a request");
            Sender::new(Rc::clone(&shared), incoming.key)
        });
        (shared, senders)
    }

    fn response(len: usize) -> Response {
        http::Response::new(Body::full(vec![b'x'; len]))
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_nobody_takes_is_reset_in_time() {
        let (_shared, [sender]) = closed_windows();
        let before = tokio::time::Instant::now();
        let error = send(response(10), &sender, false).await.expect_err("no window was opened");
        assert_eq!(error.downcast_ref::<StreamError>(), Some(&StreamError::Stalled));
        assert_eq!(before.elapsed(), STALL_TIMEOUT);
        let reset = poll_fn(|cx| sender.poll_reset(cx)).await;
        assert_eq!(reset, StreamError::Reset(Reason::CANCEL));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_much_waits_on_a_connection() {
        let (shared, [first, second, third]) = closed_windows();
        let large = 40 * 1024 * 1024;
        let mut sending = pin!(send(response(large), &first, false));
        assert!(futures_util::poll!(sending.as_mut()).is_pending());
        let error = send(response(large), &second, false).await.expect_err("it is too much");
        assert_eq!(error.downcast_ref::<StreamError>(), Some(&StreamError::TooMuchWaits));
        assert_eq!(poll_fn(|cx| second.poll_reset(cx)).await, StreamError::Reset(Reason::ENHANCE_YOUR_CALM));
        // The first ends, and its share comes back.
        first.reset(Reason::CANCEL);
        sending.await.expect_err("it was reset");
        assert!(futures_util::poll!(pin!(send(response(large), &third, false))).is_pending());
        shared.look(Connection::end);
    }
}
