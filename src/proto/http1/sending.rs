//! A message on its way into a connection: its head, and its body as it comes.
//!
//! ```text
//! before (head, a chunk's size) ─▶ data (one piece of the body) ─▶ after (a chunk's end) ─▶ before …
//! ```
//!
//! What there is goes out in one gathered write. The next piece of the body is asked for only when the one before it is
//! handed over, so that nothing piles up here.

use crate::proto::http1::fields::Framing;
use crate::proto::http1::{push_chunk_size, push_last_chunk};
use bytes::{Buf, Bytes};
use http::header::TRAILER;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A message that is being sent.
pub struct Sending<B> {
    /// What goes out before `data`, and how much of it has gone.
    before: Vec<u8>,
    written: usize,
    data: Bytes,
    after: &'static [u8],
    body: B,
    framing: Framing,
    /// The trailers that may come behind the last chunk.
    announced: Vec<HeaderName>,
    /// Whether the body gives no more.
    is_over: bool,
    has_begun: bool,
}

/// Why a message can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Its body broke off.
    #[error("the body broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its body ended before its length.
    #[error("the body is shorter than its Content-Length")]
    Short,
    /// The connection takes no more.
    #[error("the connection takes no more")]
    Io(#[source] io::Error),
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    /// Begins with the bytes of a head, which says the same `framing`. Without `announced` a chunked body has no trailers.
    pub fn new(head: Vec<u8>, framing: Framing, announced: Vec<HeaderName>, body: B) -> Self {
        let is_over = matches!(framing, Framing::Empty);
        Self {
            before: head,
            written: 0,
            data: Bytes::new(),
            after: b"",
            body,
            framing,
            announced,
            is_over,
            has_begun: false,
        }
    }

    /// Whether there is no body.
    pub fn is_bodiless(&self) -> bool {
        matches!(self.framing, Framing::Empty)
    }

    /// Where the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The body, as far as it was not taken.
    pub fn body(&self) -> &B {
        &self.body
    }

    /// Whether some of it was handed over.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether something waits to be handed over, or else for its body.
    pub fn has_bytes(&self) -> bool {
        self.written < self.before.len() || !self.data.is_empty() || !self.after.is_empty()
    }

    /// Gives the memory of the head back, and what is left of the body.
    pub fn into_parts(self) -> (Vec<u8>, B) {
        let mut buffer = self.before;
        buffer.clear();
        (buffer, self.body)
    }

    /// Hands over as much as there is and `write` takes; ready when that was all. `write` is given the body, too, for whoever
    /// notes how far it is, and the bytes in up to three pieces, none of which is empty.
    ///
    /// # Errors
    /// When the body breaks off or is too short, or with those of `write`. Nothing may be handed over after that.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[IoSlice<'_>], &B) -> Poll<io::Result<usize>>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let mut waits = false;
            while !self.is_over && !waits && self.data.is_empty() && self.after.is_empty() {
                waits = self.next(cx)?.is_pending();
            }
            if !self.has_bytes() {
                return if waits { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            let (mut slices, mut count) = ([IoSlice::new(&[]); 3], 0);
            for piece in [&self.before[self.written..], &self.data, self.after] {
                if !piece.is_empty() {
                    slices[count] = IoSlice::new(piece);
                    count += 1;
                }
            }
            let len = ready!(write(cx, &slices[..count], &self.body)).map_err(SendError::Io)?;
            if len == 0 {
                return Poll::Ready(Err(SendError::Io(io::ErrorKind::WriteZero.into())));
            }
            self.has_begun = true;
            self.advance(len);
        }
    }

    /// Takes the next piece of the body.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx))
            .transpose()
            .map_err(|error| SendError::Body(error.into()))?;
        let frame = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                self.take(data);
                return Poll::Ready(Ok(()));
            }
            Some(Err(other)) => Some(other),
            None => None,
        };
        match &self.framing {
            Framing::Empty | Framing::Length(0) | Framing::UntilClose => {}
            Framing::Length(_) => return Poll::Ready(Err(SendError::Short)),
            Framing::Chunked => {
                let trailers = frame.and_then(|frame| frame.into_trailers().ok());
                push_last_chunk(&mut self.before, trailers, &self.announced);
            }
        }
        self.is_over = true;
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, mut data: Bytes) {
        match &mut self.framing {
            Framing::Empty => self.is_over = true,
            Framing::UntilClose => self.data = data,
            Framing::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                self.is_over = *left == 0;
                self.data = data;
            }
            // An empty chunk would be the last one.
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                push_chunk_size(&mut self.before, data.len());
                self.is_over = self.body.is_end_stream();
                self.after = if self.is_over { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                self.data = data;
            }
        }
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

/// The fields that may come behind the body, by its head (RFC 9110 §6.6.2).
pub fn announced(fields: &HeaderMap) -> Vec<HeaderName> {
    let values = fields.get_all(TRAILER).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::Waker;

    /// A body whose pieces come at every second ask.
    struct Slow(VecDeque<Frame<Bytes>>, bool);

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let this = self.get_mut();
            this.1 = !this.1;
            if this.1 { Poll::Pending } else { Poll::Ready(this.0.pop_front().map(Ok)) }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn slow(pieces: &[&'static str], trailer: Option<&'static str>) -> Slow {
        let mut frames: VecDeque<_> = pieces.iter().map(|piece| Frame::data(Bytes::from(*piece))).collect();
        if let Some(value) = trailer {
            let field = (HeaderName::from_static("x-sum"), http::HeaderValue::from_static(value));
            frames.push_back(Frame::trailers([field].into_iter().collect()));
        }
        Slow(frames, false)
    }

    /// What goes out, whatever the connection takes at a time, and with a pause at every second ask.
    #[track_caller]
    fn check(framing: Framing, body: impl Fn() -> Slow, expected: Result<&str, ()>) {
        for step in [1, 2, 3, 7, 1000] {
            let announced = vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-sum")];
            let mut sending = Sending::new(b"head ".to_vec(), framing, announced, body());
            let (mut taken, mut is_full) = (Vec::new(), false);
            let mut cx = Context::from_waker(Waker::noop());
            let sent = loop {
                let sent = sending.poll(&mut cx, |_, slices, _| {
                    is_full = !is_full;
                    if is_full {
                        return Poll::Pending;
                    }
                    assert!(slices.iter().all(|slice| !slice.is_empty()));
                    let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
                    taken.extend_from_slice(&all);
                    Poll::Ready(Ok(all.len()))
                });
                if let Poll::Ready(sent) = sent {
                    break sent;
                }
            };
            let text = String::from_utf8(taken).expect("text");
            assert_eq!(sent.map(|()| text.as_str()).map_err(|_| ()), expected, "{step} bytes at a time");
        }
    }

    #[test]
    fn a_message_goes_out_whole_and_in_order_however_little_is_taken() {
        check(Framing::Empty, || slow(&["ab"], None), Ok("head "));
        check(Framing::Length(5), || slow(&["abcde"], None), Ok("head abcde"));
        check(Framing::Length(5), || slow(&["ab", "", "cde"], None), Ok("head abcde"));
        check(Framing::Length(5), || slow(&["ab", "cdefgh", "i"], None), Ok("head abcde"));
        check(Framing::Length(5), || slow(&["ab"], None), Err(()));
        check(Framing::UntilClose, || slow(&["ab", "", "cde"], None), Ok("head abcde"));
        check(Framing::UntilClose, || slow(&["ab"], Some("7")), Ok("head ab"));
        check(
            Framing::Chunked,
            || slow(&["ab", "", "0123456789abcdef"], None),
            Ok("head 2\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"),
        );
        check(Framing::Chunked, || slow(&["ab"], Some("7")), Ok("head 2\r\nab\r\n0\r\nx-sum: 7\r\n\r\n"));
        check(Framing::Chunked, || slow(&[], None), Ok("head 0\r\n\r\n"));
    }

    #[test]
    fn trailers_are_announced_by_name() {
        let mut fields = HeaderMap::new();
        fields.append(TRAILER, http::HeaderValue::from_static("x-a, X-Sum"));
        fields.append(TRAILER, http::HeaderValue::from_static("b c,x-b"));
        assert_eq!(announced(&fields), ["x-a", "x-sum", "x-b"]);
    }
}
