//! HTTP/1.1: hyper until a session starts, then the bare connection.
//!
//! hyper pins two buffers of 8 KiB for each connection, which a held response would keep for hours. So when the
//! handler answers with a hold, the connection is taken back from hyper (`into_parts`), the response head is written
//! here, and hyper's memory is freed: some 0.6 KB a session are left.
//!
//! Invariant: the take-over waits until the request's body is read and every earlier response is flushed
//! ([`Watched::is_flushed`]); bytes that the client sent ahead go along as the link's unread bytes.

use crate::proto::head_watch::HeadWatch;
use crate::proto::http1::encode_head;
use crate::server::body::Body;
use crate::server::connection::{Open, Server};
use crate::server::date::http_date;
use crate::server::io::Io;
use crate::server::limits::Leave;
use crate::server::link::{Framing, Link};
use crate::server::{Answer, Hold, Peer, problem};
use crate::telemetry::metrics::Refusal;
use bytes::{Buf, Bytes};
use futures_util::future::LocalBoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A session that is to take the connection over.
struct TakeOver {
    hold: Hold,
    version: http::Version,
}

/// What the service and the I/O of a connection tell its driver.
#[derive(Default)]
struct Shared {
    take_over: RefCell<Option<TakeOver>>,
    /// Whether every byte that hyper wrote has gone out.
    unflushed: Cell<bool>,
    watch: RefCell<HeadWatch>,
}

/// Serves requests until the connection ends or a session takes it over; that runs in a (small) task of its own, so
/// that what hyper needed is freed. `open` is held until the connection has ended.
pub(in crate::server) async fn serve(server: Rc<Server>, io: Io, unread: Bytes, peer: Rc<Peer>, open: Open) {
    let Some((take_over, io, unread)) = drive(&server, io, unread, peer).await else { return };
    let (link, session) = start(take_over, io, unread);
    tokio::task::spawn_local(async move {
        session.run(link).await;
        drop(open);
    });
}

/// Lets hyper work until the connection ends (`None`) or a session takes over.
async fn drive(server: &Rc<Server>, io: Io, unread: Bytes, peer: Rc<Peer>) -> Option<(TakeOver, Io, Bytes)> {
    let shared = Rc::new(Shared::default());
    let io = Watched { io, unread, shared: Rc::clone(&shared) };
    let limits = server.limits.load();
    let service = Service { server: Rc::clone(server), peer, shared: Rc::clone(&shared) };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_header_timeout)
        .max_buf_size(limits.request_header_bytes_max.max(8192))
        .max_header_size(limits.request_header_bytes_max)
        .half_close(false)
        .serve_connection(TokioIo::new(io), service);
    drop(limits);
    let mut leave = server.leave.clone();
    let mut leaving = pin!(leave.wait_for(|leave| *leave == Leave::Now));
    let mut asked = false;
    let ended = poll_fn(|cx| {
        if !asked && leaving.as_mut().poll(cx).is_ready() {
            asked = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match connection.poll_without_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if shared.take_over.borrow().is_some() && !shared.unflushed.get() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    match ended {
        None => {
            let unread = [parts.read_buf.as_ref(), io.unread.as_ref()].concat();
            shared.take_over.take().map(|take_over| (take_over, io.io, unread.into()))
        }
        Some(result) => {
            if let Err(error) = result {
                note_failure(server, &error);
            }
            let _ = poll_fn(|cx| Pin::new(&mut io.io).poll_shutdown(cx)).await;
            None
        }
    }
}

fn note_failure(server: &Server, error: &hyper::Error) {
    if error.is_timeout() {
        server.metrics.refused(Refusal::HeaderTimeout);
    } else if error.is_parse() {
        server.metrics.refused(Refusal::BadRequest);
    }
    tracing::debug!(%error, "connection failed");
}

/// The response head of a hold, with the framing that the request's version allows.
fn start(take_over: TakeOver, io: Io, unread: Bytes) -> (Link, Box<dyn crate::server::Held>) {
    let TakeOver { hold, version } = take_over;
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
}

impl hyper::service::Service<http::Request<Incoming>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        if self.shared.watch.borrow_mut().take_conflict() {
            self.server.metrics.refused(Refusal::BadRequest);
            return Box::pin(std::future::ready(Ok(problem::ambiguous_framing())));
        }
        let version = request.version();
        let shared = Rc::clone(&self.shared);
        let server = Rc::clone(&self.server);
        let request_counted = server.count.begin();
        let answer = server.handler.handle(request.map(Body::from), Rc::clone(&self.peer));
        Box::pin(async move {
            match answer.await {
                Answer::Response(mut response) => {
                    if server.leave() != Leave::Stay && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                        let close = http::HeaderValue::from_static("close");
                        response.headers_mut().insert(http::header::CONNECTION, close);
                    }
                    Ok(response.map(|body| body.counted(request_counted)))
                }
                Answer::Hold(hold) => {
                    *shared.take_over.borrow_mut() = Some(TakeOver { hold, version });
                    std::future::pending().await
                }
            }
        })
    }
}

/// The connection as hyper sees it: notes whether what hyper wrote has gone out, and shows what it reads to the
/// [`HeadWatch`].
struct Watched {
    io: Io,
    unread: Bytes,
    shared: Rc<Shared>,
}

impl Watched {
    fn note(&self, asked: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        // hyper writes until all is gone, so that a write in full is the last one.
        self.shared.unflushed.set(!matches!(&written, Poll::Ready(Ok(sent)) if *sent == asked));
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.unread.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        } else {
            let len = this.unread.len().min(buf.remaining());
            buf.put_slice(&this.unread[..len]);
            this.unread.advance(len);
        }
        this.shared.watch.borrow_mut().see(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.note(buf.len(), written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.note(bufs.iter().map(|buf| buf.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if flushed.is_pending() {
            this.shared.unflushed.set(true);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
