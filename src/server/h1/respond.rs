//! A response as it goes out over HTTP/1.1 (RFC 9112 §4, §6, §9).

use crate::proto::http1::{Asked, Framing, ReasonPhrase, SendError, Sending, announced, encode_response_head};
use crate::server::Response;
use crate::server::body::Body;
use crate::server::date::push_http_date;
use crate::server::deadline::Deadline;
use crate::server::h1::wire::Wire;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

/// How long a client may take nothing of its response.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Room for the fields that are added here.
const HEAD_BYTES: usize = 512;

/// A response that begins.
pub(super) struct Outgoing {
    sending: Sending<Body>,
    /// Whether it is the last one of its connection.
    pub(super) is_last: bool,
}

/// Why a response did not reach its client whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum RespondError {
    #[error("the client closed the connection before the end of its response")]
    Gone,
    #[error("the client takes nothing of its response")]
    Stalled,
    #[error(transparent)]
    Send(#[from] SendError),
}

/// What the fields of a response say of its framing: they are looked through once.
#[derive(Default)]
struct Named {
    date: bool,
    length: bool,
    coding: bool,
    connection: bool,
}

impl Named {
    fn of(fields: &HeaderMap) -> Self {
        fields.keys().fold(Self::default(), |named, name| Self {
            date: named.date || *name == DATE,
            length: named.length || *name == CONTENT_LENGTH,
            coding: named.coding || *name == TRANSFER_ENCODING,
            connection: named.connection || *name == CONNECTION,
        })
    }
}

impl Outgoing {
    /// A response to what was `asked`. `is_last`: whether the connection is to end after it, whatever it says.
    pub(super) fn new(response: Response, asked: Asked, is_last: bool) -> Self {
        let (mut parts, body) = response.into_parts();
        let named = Named::of(&parts.headers);
        if named.coding {
            // Where the body ends is said here alone.
            parts.headers.remove(TRANSFER_ENCODING);
        }
        let is_bodiless = parts.status.is_informational() || parts.status == StatusCode::NO_CONTENT;
        if named.length && is_bodiless {
            parts.headers.remove(CONTENT_LENGTH);
        }
        let length = || parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let told = if named.length { length() } else { None };
        let has_no_body = asked.is_head || is_bodiless || parts.status == StatusCode::NOT_MODIFIED;
        let (framing, added) = match (told, body.size_hint().exact()) {
            _ if has_no_body => (Framing::Empty, None),
            (Some(0), _) => (Framing::Empty, None),
            (Some(length), _) => (Framing::Length(length), None),
            (None, Some(0)) => (Framing::Empty, Some(0)),
            (None, Some(length)) => (Framing::Length(length), Some(length)),
            (None, None) if asked.is_http11 => (Framing::Chunked, None),
            (None, None) => (Framing::UntilClose, None),
        };
        let closes = named.connection && says_close(&parts.headers);
        let is_last = is_last || closes || !asked.keeps_alive || framing == Framing::UntilClose;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let reason = parts.extensions.get::<ReasonPhrase>().map(|reason| &*reason.0);
        encode_response_head(&mut head, parts.status, reason, &parts.headers);
        // The rest goes before the empty line.
        head.truncate(head.len() - 2);
        if let Some(length) = added {
            head.extend_from_slice(b"content-length: ");
            head.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        if framing == Framing::Chunked {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if is_last && !closes {
            head.extend_from_slice(b"connection: close\r\n");
        } else if !is_last && !asked.is_http11 {
            head.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if !named.date {
            head.extend_from_slice(b"date: ");
            push_http_date(&mut head);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let trailers =
            if framing == Framing::Chunked && asked.takes_trailers { announced(&parts.headers) } else { Vec::new() };
        Self { sending: Sending::new(head, framing, trailers, body), is_last }
    }

    /// Where its body ends.
    pub(super) fn framing(&self) -> Framing {
        self.sending.framing()
    }

    /// Sends all of it, at the client's pace and the body's.
    ///
    /// # Errors
    /// When the body breaks off, or the client does not take it. The connection is of no use then.
    pub(super) async fn send(&mut self, wire: &RefCell<Wire>) -> Result<(), RespondError> {
        let Self { sending, .. } = self;
        let mut stall = Deadline::default();
        poll_fn(|cx| {
            let mut moved = false;
            // The wire is lent for each write alone: the body may be made of what its request's body brings.
            let sent = sending.poll(cx, |cx, slices, _| {
                let written = wire.borrow_mut().poll_write(cx, slices);
                moved |= written.is_ready();
                written
            })?;
            let mut wire = wire.borrow_mut();
            let unsent = wire.unsent_bytes();
            let flushed = wire.poll_flush(cx).map_err(SendError::Io)?;
            if sent.is_ready() && flushed.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if wire.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(RespondError::Gone));
            }
            if !sending.has_bytes() && flushed.is_ready() {
                // The body's turn.
                stall.clear();
                return Poll::Pending;
            }
            moved |= wire.unsent_bytes() < unsent;
            if moved || !stall.is_set() {
                stall.set(STALL_TIMEOUT);
            }
            stall.poll(cx).map(|()| Err(RespondError::Stalled))
        })
        .await
    }
}

fn says_close(fields: &HeaderMap) -> bool {
    let mut options = fields.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::io::Io;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    const ASKED: Asked = Asked { is_head: false, is_http11: true, keeps_alive: true, takes_trailers: false };

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        (client, listener.accept().await.expect("a connection").0)
    }

    /// What a client gets, and whether it is the last.
    async fn sent(response: http::response::Builder, body: Body, asked: Asked) -> (String, bool) {
        let (mut client, server) = connection().await;
        let wire = Wire::new(Io::Tcp(server), b"");
        let mut outgoing = Outgoing::new(response.header("date", "now").body(body).expect("a response"), asked, false);
        outgoing.send(&wire).await.expect("sent");
        let is_last = outgoing.is_last;
        drop(wire);
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("text");
        (text, is_last)
    }

    fn status(status: u16) -> http::response::Builder {
        http::Response::builder().status(status)
    }

    /// A body whose length nobody knows.
    fn endless(text: &'static str) -> Body {
        use http_body_util::BodyExt as _;
        let frames = futures_util::stream::iter([Ok(http_body::Frame::data(text.into()))]);
        Body::boxed(http_body_util::StreamBody::new(frames).boxed_unsync())
    }

    #[tokio::test]
    async fn a_response_says_where_its_body_ends() {
        let check = async |response, body, asked, expected: &str, is_last| {
            assert_eq!(sent(response, body, asked).await, (expected.to_owned(), is_last));
        };
        let ok = "HTTP/1.1 200 OK\r\ndate: now\r\n";
        check(status(200), Body::full("ab"), ASKED, &format!("{ok}content-length: 2\r\n\r\nab"), false).await;
        check(status(200), Body::empty(), ASKED, &format!("{ok}content-length: 0\r\n\r\n"), false).await;
        let chunks = format!("{ok}transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
        check(status(200), endless("ab"), ASKED, &chunks, false).await;
        check(status(200).header("transfer-encoding", "x"), endless("ab"), ASKED, &chunks, false).await;
        let old = Asked { is_http11: false, ..ASKED };
        check(status(200), endless("ab"), old, &format!("{ok}connection: close\r\n\r\nab"), true).await;
        let kept = format!("{ok}content-length: 2\r\nconnection: keep-alive\r\n\r\nab");
        check(status(200), Body::full("ab"), old, &kept, false).await;
        let head = Asked { is_head: true, ..ASKED };
        let told = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ndate: now\r\n\r\n";
        check(status(200).header("content-length", "7"), Body::empty(), head, told, false).await;
        let empty = "HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n";
        check(status(204).header("content-length", "0"), Body::empty(), ASKED, empty, false).await;
        check(status(304), Body::empty(), ASKED, "HTTP/1.1 304 Not Modified\r\ndate: now\r\n\r\n", false).await;
        let closing = Asked { keeps_alive: false, ..ASKED };
        let closes = format!("{ok}content-length: 0\r\nconnection: close\r\n\r\n");
        check(status(200), Body::empty(), closing, &closes, true).await;
        let said = "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ndate: now\r\ncontent-length: 0\r\n\r\n";
        check(status(200).header("connection", "x, Close"), Body::empty(), ASKED, said, true).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_nobody_takes_ends_in_time() {
        let (_client, server) = connection().await;
        let wire = Wire::new(Io::Tcp(server), b"");
        let large = http::Response::new(Body::full(vec![b'x'; 64 * 1024 * 1024]));
        let mut outgoing = Outgoing::new(large, ASKED, false);
        let before = tokio::time::Instant::now();
        let error = outgoing.send(&wire).await.expect_err("nobody reads");
        assert!(matches!(error, RespondError::Stalled), "{error}");
        assert!(before.elapsed() >= STALL_TIMEOUT);
    }
}
