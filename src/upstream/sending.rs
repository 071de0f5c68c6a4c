//! A request on its way into a connection: its head, and its body as it comes.
//!
//! ```text
//! before (head, a chunk's size) ─▶ data (one piece of the body) ─▶ after (a chunk's end) ─▶ before …
//! ```
//!
//! What there is goes out in one gathered write. The next piece of the body is asked for only when the one before it is in
//! the socket, so that nothing piles up here.

use crate::proto::http1::{encode_request_head, push_chunk_size, push_last_chunk};
use crate::server::body::BodyError;
use crate::upstream::upload::Upload;
use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, request};
use http_body::{Body, Frame};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A request that is being sent.
pub(super) struct Sending {
    /// What goes out before `data`, and how much of it has gone.
    before: Vec<u8>,
    written: usize,
    data: Bytes,
    after: &'static [u8],
    upload: Upload,
    framing: Framing,
    /// Whether the body gives no more.
    is_over: bool,
    has_begun: bool,
}

/// How the end of the body is told.
enum Framing {
    /// There is none.
    Empty,
    /// After so many more bytes.
    Length(u64),
    /// By the last chunk, which carries the trailers that were announced.
    Chunked(Vec<HeaderName>),
}

/// Why a request can't be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Its body broke off.
    #[error("the request's body broke off")]
    Body(#[source] BodyError),
    /// Its body ended before its length.
    #[error("the request's body is shorter than its Content-Length")]
    Short,
    /// The connection takes no more.
    #[error("the connection takes no more")]
    Io(#[source] io::Error),
}

impl Sending {
    /// Begins with a head that is prepared; `buffer` is empty memory to write it in.
    pub(super) fn new(buffer: Vec<u8>, head: &request::Parts, upload: Upload) -> Self {
        let fields = &head.headers;
        let length = || fields.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let framing = if upload.is_end_stream() {
            Framing::Empty
        } else if fields.contains_key(TRANSFER_ENCODING) {
            Framing::Chunked(announced(fields))
        } else {
            length().map_or(Framing::Empty, Framing::Length)
        };
        let mut before = buffer;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        encode_request_head(&mut before, &head.method, target, fields);
        let is_over = matches!(framing, Framing::Empty);
        Self { before, written: 0, data: Bytes::new(), after: b"", upload, framing, is_over, has_begun: false }
    }

    /// Whether there is no body.
    pub(super) fn is_bodiless(&self) -> bool {
        matches!(self.framing, Framing::Empty)
    }

    /// Whether some of it is in the socket.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Gives the memory back, and what is left of the body.
    pub(super) fn into_parts(self) -> (Vec<u8>, Upload) {
        let mut buffer = self.before;
        buffer.clear();
        (buffer, self.upload)
    }

    /// Sends as much as there is and the socket takes; ready when all of it is in the socket.
    pub(super) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let mut waits = false;
            while !self.is_over && !waits && self.data.is_empty() && self.after.is_empty() {
                waits = self.next(cx)?.is_pending();
            }
            if !self.has_bytes() {
                return if waits { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            let len = ready!(self.write(socket, cx)).map_err(SendError::Io)?;
            if len == 0 {
                return Poll::Ready(Err(SendError::Io(io::ErrorKind::WriteZero.into())));
            }
            self.has_begun = true;
            self.advance(len);
            if self.has_bytes() {
                self.upload.touch();
            }
        }
    }

    fn has_bytes(&self) -> bool {
        self.written < self.before.len() || !self.data.is_empty() || !self.after.is_empty()
    }

    /// Takes the next piece of the body.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let frame = ready!(Pin::new(&mut self.upload).poll_frame(cx)).transpose().map_err(SendError::Body)?;
        let frame = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                self.take(data);
                return Poll::Ready(Ok(()));
            }
            Some(Err(other)) => Some(other),
            None => None,
        };
        match &self.framing {
            Framing::Empty | Framing::Length(0) => {}
            Framing::Length(_) => return Poll::Ready(Err(SendError::Short)),
            Framing::Chunked(announced) => {
                let trailers = frame.and_then(|frame| frame.into_trailers().ok());
                push_last_chunk(&mut self.before, trailers, announced);
            }
        }
        self.is_over = true;
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, mut data: Bytes) {
        match &mut self.framing {
            Framing::Empty => self.is_over = true,
            Framing::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                self.is_over = *left == 0;
                self.data = data;
            }
            // An empty chunk would be the last one.
            Framing::Chunked(_) if data.is_empty() => {}
            Framing::Chunked(_) => {
                push_chunk_size(&mut self.before, data.len());
                self.is_over = self.upload.is_end_stream();
                self.after = if self.is_over { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                self.data = data;
            }
        }
    }

    fn write<W: AsyncWrite + Unpin>(&self, socket: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = &self.before[self.written..];
        let socket = Pin::new(socket);
        if self.data.is_empty() && self.after.is_empty() {
            return socket.poll_write(cx, before);
        }
        let slices = [IoSlice::new(before), IoSlice::new(&self.data), IoSlice::new(self.after)];
        let from = if before.is_empty() { 1 } else { 0 };
        socket.poll_write_vectored(cx, &slices[from..])
    }

    fn advance(&mut self, len: usize) {
        let of_before = len.min(self.before.len() - self.written);
        self.written += of_before;
        if self.written == self.before.len() {
            self.before.clear();
            self.written = 0;
        }
        let of_data = (len - of_before).min(self.data.len());
        self.data.advance(of_data);
        self.after = &self.after[len - of_before - of_data..];
    }
}

/// The fields that may come behind the body.
fn announced(fields: &HeaderMap) -> Vec<HeaderName> {
    let values = fields.get_all(TRAILER).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::body::Body as AnyBody;
    use std::collections::VecDeque;
    use std::task::Waker;

    /// A socket that takes `step` bytes at a time, and only every second time it is asked.
    struct Narrow {
        taken: Vec<u8>,
        step: usize,
        is_full: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            this.is_full = !this.is_full;
            if this.is_full {
                return Poll::Pending;
            }
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(this.step).collect();
            this.taken.extend_from_slice(&all);
            Poll::Ready(Ok(all.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A body whose pieces come at every second ask.
    struct Slow(VecDeque<Frame<Bytes>>, bool);

    impl Body for Slow {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let this = self.get_mut();
            this.1 = !this.1;
            if this.1 { Poll::Pending } else { Poll::Ready(this.0.pop_front().map(Ok)) }
        }
    }

    fn slow(pieces: &[&'static str], trailer: Option<&'static str>) -> AnyBody {
        let mut frames: VecDeque<_> = pieces.iter().map(|piece| Frame::data(Bytes::from(*piece))).collect();
        if let Some(value) = trailer {
            let field = (HeaderName::from_static("x-sum"), http::HeaderValue::from_static(value));
            frames.push_back(Frame::trailers([field].into_iter().collect()));
        }
        AnyBody::boxed(Slow(frames, false))
    }

    /// What goes out for a POST with these fields and this body, whatever the socket takes at a time.
    #[track_caller]
    fn check(fields: &[(&str, &str)], body: impl Fn() -> AnyBody, expected: Result<&str, ()>) {
        for step in [1, 2, 3, 7, 1000] {
            let mut request = http::Request::builder().method("POST").uri("/a");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            let upload = Upload::new(body(), tokio::time::Instant::now()).0;
            let mut sending = Sending::new(Vec::new(), &parts, upload);
            let mut socket = Narrow { taken: Vec::new(), step, is_full: false };
            let mut cx = Context::from_waker(Waker::noop());
            let sent = loop {
                if let Poll::Ready(sent) = sending.poll(&mut socket, &mut cx) {
                    break sent;
                }
            };
            let text = String::from_utf8(socket.taken).expect("text");
            assert_eq!(sent.map(|()| text.as_str()).map_err(|_| ()), expected, "{step} bytes at a time");
        }
    }

    #[test]
    fn a_request_goes_out_whole_and_in_order_however_little_the_socket_takes() {
        check(&[], AnyBody::empty, Ok("POST /a HTTP/1.1\r\n\r\n"));
        let length = [("content-length", "5")];
        let with_length = "POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\nabcde";
        check(&length, || AnyBody::full("abcde"), Ok(with_length));
        check(&length, || slow(&["ab", "", "cde"], None), Ok(with_length));
        check(&length, || slow(&["ab", "cdefgh", "i"], None), Ok(with_length));
        check(&length, || slow(&["ab"], None), Err(()));
        let chunked = [("transfer-encoding", "chunked"), ("trailer", "x-a, X-Sum")];
        let head = "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\ntrailer: x-a, X-Sum\r\n\r\n";
        check(
            &chunked,
            || slow(&["ab", "", "0123456789abcdef"], None),
            Ok(&format!("{head}2\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n")),
        );
        check(&chunked, || slow(&["ab"], Some("7")), Ok(&format!("{head}2\r\nab\r\n0\r\nx-sum: 7\r\n\r\n")));
        check(&chunked, || AnyBody::full("ab"), Ok(&format!("{head}2\r\nab\r\n0\r\n\r\n")));
        check(&chunked, || slow(&[], None), Ok(&format!("{head}0\r\n\r\n")));
    }
}
