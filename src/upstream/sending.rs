//! A request on its way to a server, over HTTP/1.1.

use crate::proto::http1::{self, Framing, SendError, announced, encode_request_head};
use crate::upstream::upload::{Progress, Upload};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request;
use http_body::Body as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// A request that is being sent.
pub(super) struct Sending(http1::Sending<Upload>);

impl Sending {
    /// Begins with a head that is prepared; `buffer` is empty memory to write it in.
    pub(super) fn new(buffer: Vec<u8>, head: &request::Parts, upload: Upload) -> Self {
        let fields = &head.headers;
        let length = || fields.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let (framing, announced) = if upload.is_end_stream() {
            (Framing::Empty, Vec::new())
        } else if fields.contains_key(TRANSFER_ENCODING) {
            (Framing::Chunked, announced(fields))
        } else {
            (length().map_or(Framing::Empty, Framing::Length), Vec::new())
        };
        let mut bytes = buffer;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        encode_request_head(&mut bytes, &head.method, target, fields);
        Self(http1::Sending::new(bytes, framing, announced, upload))
    }

    /// Whether there is no body.
    pub(super) fn is_bodiless(&self) -> bool {
        self.0.is_bodiless()
    }

    /// How far its body is.
    pub(super) fn progress(&self) -> Rc<Progress> {
        self.0.body().progress()
    }

    /// Whether some of it is in the socket.
    pub(super) fn has_begun(&self) -> bool {
        self.0.has_begun()
    }

    /// Gives the memory back, and what is left of the body.
    pub(super) fn into_parts(self) -> (Vec<u8>, Upload) {
        self.0.into_parts()
    }

    /// Sends as much as there is and the socket takes; ready when all of it is in the socket.
    pub(super) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        self.0.poll(cx, |cx, slices, upload| {
            let written = match slices {
                [one] => Pin::new(&mut *socket).poll_write(cx, one),
                several => Pin::new(&mut *socket).poll_write_vectored(cx, several),
            };
            // That the server took a part of it only is worth a look at the clock.
            if let Poll::Ready(Ok(len)) = written
                && len < slices.iter().map(|slice| slice.len()).sum()
            {
                upload.touch();
            }
            written
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::body::Body;
    use std::task::Waker;

    #[track_caller]
    fn check(fields: &[(&str, &str)], body: &'static str, expected: &str) {
        let mut request = http::Request::builder().method("POST").uri("/a");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let upload = Upload::new(Body::full(body), tokio::time::Instant::now()).0;
        let mut sending = Sending::new(Vec::new(), &parts, upload);
        let mut socket = std::io::Cursor::new(Vec::new());
        let sent = sending.poll(&mut socket, &mut Context::from_waker(Waker::noop()));
        assert!(matches!(sent, Poll::Ready(Ok(()))));
        assert_eq!(String::from_utf8(socket.into_inner()).expect("text"), expected);
    }

    #[test]
    fn the_fields_of_a_request_frame_its_body() {
        check(&[], "", "POST /a HTTP/1.1\r\n\r\n");
        let length = ("content-length", "5");
        check(&[length], "abcde", "POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\nabcde");
        let chunked = ("transfer-encoding", "chunked");
        check(&[chunked], "ab", "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
    }
}
