//! An HTTP/1.1 connection to a server. It has no task of its own: it moves when the one who has it asks.
//!
//! ```text
//! idle ─▶ exchange: the request goes out, the head comes in ─▶ body ─▶ idle
//!                                                            └▶ the rest of the request, in a task (`part`)
//! ```

use crate::proto::http1::{BodyReader, HEAD_BYTES_MAX, HeadFault, HeadReader, Piece, ResponseHead, SendError};
use crate::server::body::BodyError;
use crate::upstream::connect::Driver;
use crate::upstream::sending::Sending;
use crate::upstream::upload::{Late, Progress, Upload};
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Sleep;

/// What is read at once, and what an idle connection keeps of it.
const READ_BYTES: usize = 8 * 1024;
/// What is read at once of a large body.
const READ_BYTES_MAX: usize = HEAD_BYTES_MAX;
/// What is kept to write heads in.
const OUTPUT_BYTES_MAX: usize = 4 * 1024;

/// One connection; dropping it closes it.
pub(super) struct Http1 {
    socket: Socket,
    input: BytesMut,
    read_bytes: usize,
    output: Vec<u8>,
    /// Runs on from exchange to exchange, and is set only when it must be sooner, or has run out.
    timer: Option<Pin<Box<Sleep>>>,
}

enum Socket {
    Whole(TcpStream),
    /// A task has the other half, for the rest of a request.
    Reading(OwnedReadHalf),
}

/// A response head, and how far its request is.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) upload: Rest,
}

/// What of a request is left when its response comes.
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// This.
    Some(Box<Sending>),
    /// The server takes no more.
    Unwanted,
}

/// An exchange without a response.
pub(super) struct Failure {
    pub(super) error: Http1Error,
    /// The request, if a server may get it again: nobody saw it, or to see it twice does no harm.
    pub(super) again: Option<Box<http::Request<Upload>>>,
    /// Whether the server can have seen none of it.
    pub(super) is_unseen: bool,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Http1Error {
    /// It ended before the head did.
    #[error("it closed the connection before its response")]
    Closed,
    /// The socket broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// What came is no response.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// The request can't be sent.
    #[error(transparent)]
    Send(SendError),
    /// Nothing moved for too long.
    #[error("nothing moved for too long")]
    Late(Late),
}

impl Http1 {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            socket: Socket::Whole(stream),
            input: BytesMut::new(),
            read_bytes: READ_BYTES,
            output: Vec::new(),
            timer: None,
        }
    }

    /// Whether an idle connection is as it was left: a server that closes it, or speaks without being asked, gets no
    /// request more. Costs no system call where nothing came.
    pub(super) fn is_quiet(&self) -> bool {
        let Socket::Whole(stream) = &self.socket else { return false };
        let read = stream.try_read(&mut [0]);
        self.input.is_empty() && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Lets go of memory that only large bodies need.
    pub(super) fn rest(&mut self) {
        if self.read_bytes > READ_BYTES {
            (self.input, self.read_bytes) = (BytesMut::new(), READ_BYTES);
        }
        if self.output.capacity() > OUTPUT_BYTES_MAX {
            self.output = Vec::new();
        }
    }

    /// Sends a request and waits for the head of its response, until nothing moved for `limit`.
    ///
    /// The response may overtake the request. After an error the connection is of no use.
    pub(super) async fn exchange(
        &mut self,
        request: Box<http::Request<Upload>>,
        progress: &Progress,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let (mut parts, upload) = request.into_parts();
        let mut sending = Sending::new(std::mem::take(&mut self.output), &parts, upload);
        let mut reader = HeadReader::default();
        let (mut is_sent, mut broken) = (false, None);
        let answered = poll_fn(|cx| {
            if let Socket::Whole(stream) = &mut self.socket
                && !is_sent
                && let Poll::Ready(sent) = sending.poll(stream, cx)
            {
                is_sent = true;
                match sent {
                    Ok(()) => {}
                    // It may have answered before it closed.
                    Err(SendError::Io(error)) => broken = Some(error),
                    Err(error) => return Poll::Ready(Err(Http1Error::Send(error))),
                }
            }
            if let Poll::Ready(head) = self.poll_head(&mut reader, &mut parts, cx) {
                return Poll::Ready(head);
            }
            progress.poll_stalled(&mut self.timer, limit, cx).map(|late| Err(Http1Error::Late(late)))
        })
        .await;
        match answered {
            Ok(head) if is_sent && broken.is_none() => {
                self.output = sending.into_parts().0;
                Ok(Answer { head, upload: Rest::Nothing })
            }
            Ok(head) if broken.is_some() => Ok(Answer { head, upload: Rest::Unwanted }),
            Ok(head) => Ok(Answer { head, upload: Rest::Some(Box::new(sending)) }),
            Err(error) => {
                let is_unanswered = self.input.is_empty() && !reader.has_interim();
                let is_unseen = !sending.has_begun();
                let is_closed = matches!(error, Http1Error::Closed | Http1Error::Io(_)) && is_unanswered;
                let may_repeat = sending.is_bodiless() && (is_unseen || parts.method.is_idempotent());
                let again = (is_closed && may_repeat)
                    .then(|| Box::new(http::Request::from_parts(parts, sending.into_parts().1)));
                Err(Failure { error, again, is_unseen })
            }
        }
    }

    fn poll_head(
        &mut self,
        reader: &mut HeadReader,
        request: &mut http::request::Parts,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Http1Error>> {
        loop {
            let len = ready!(self.poll_read(cx)).map_err(Http1Error::Io)?;
            if len == 0 {
                return Poll::Ready(Err(Http1Error::Closed));
            }
            if let Some(head) = reader.take(&mut self.input, &request.method, &mut request.headers)? {
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// The next piece of a response's body; `None` at its end.
    pub(super) fn poll_body(
        &mut self,
        body: &mut BodyReader,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match body.next(&mut self.input) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault.into()))),
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => body.close()?,
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// The whole body, if it is there already.
    pub(super) fn whole(&mut self, body: &mut BodyReader) -> Option<Bytes> {
        body.whole(&mut self.input)
    }

    /// Whether nothing is left of what the server sent.
    pub(super) fn is_read(&self) -> bool {
        self.input.is_empty()
    }

    /// Reads on while a task sends the rest of the request: a client that reads nothing of the response does not keep
    /// its own upload waiting. A server that takes nothing for `limit` gets no more. The connection takes no further request.
    pub(super) fn part(self, mut sending: Box<Sending>, limit: Duration) -> Option<(Self, Driver)> {
        let Socket::Whole(stream) = self.socket else { return None };
        let (reading, mut writing) = stream.into_split();
        let driver = Driver::spawn(async move {
            let (progress, mut timer) = (sending.progress(), None);
            progress.touch();
            let sent = poll_fn(|cx| {
                loop {
                    if let Poll::Ready(sent) = sending.poll(&mut writing, cx) {
                        return Poll::Ready(sent.is_ok());
                    }
                    match ready!(progress.poll_stalled(&mut timer, limit, cx)) {
                        Late::Server => return Poll::Ready(false),
                        // A client may wait for what comes back before it sends more.
                        Late::Client => progress.touch(),
                    }
                }
            });
            // A request that ends here ends nothing else: a half that is dropped would tell the server of a close.
            if sent.await {
                writing.forget();
            }
        });
        Some((Self { socket: Socket::Reading(reading), ..self }, driver))
    }

    /// The socket, and what was read ahead.
    pub(super) fn into_parts(self) -> Option<(TcpStream, BytesMut)> {
        match self.socket {
            Socket::Whole(stream) => Some((stream, self.input)),
            Socket::Reading(_) => None,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < self.read_bytes / 2 {
            self.input.reserve(self.read_bytes);
        }
        let len = ready!(pin!(self.socket.read_buf(&mut self.input)).poll(cx))?;
        if len >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        Poll::Ready(Ok(len))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Whole(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Reading(half) => Pin::new(half).poll_read(cx, buffer),
        }
    }
}
