//! A response's body on its way from a server.

use crate::proto::http1::BodyReader;
use crate::server::Response;
use crate::server::body::{Body, BodyError};
use crate::upstream::exchange::{Answered, Source};
use crate::upstream::lease::Lease;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A response body that holds its connection.
struct Download {
    reading: Reading,
    lease: Option<Lease>,
    /// Why it broke off, until that is told.
    fault: Option<BodyError>,
}

enum Reading {
    Http1(BodyReader),
    H2(Incoming),
}

/// The response of an exchange. If its body is there already, or it has none, the connection is given back at once.
pub(super) fn response(answered: Answered) -> Response {
    let Answered { head, source, mut lease } = answered;
    let reading = match source {
        Source::H2(incoming) if incoming.is_end_stream() => {
            lease.finish();
            return Response::from_parts(head, Body::empty());
        }
        Source::H2(incoming) => Reading::H2(incoming),
        Source::Http1 { framing, rest } => {
            let mut body = BodyReader::new(framing);
            if let Some(bytes) = lease.whole(&mut body) {
                lease.finish();
                return Response::from_parts(head, Body::full(bytes));
            }
            if let Some((rest, limit)) = rest {
                lease.send_rest(rest, limit);
            }
            Reading::Http1(body)
        }
    };
    Response::from_parts(head, Body::boxed(Download { reading, lease: Some(lease), fault: None }))
}

impl Reading {
    fn poll_frame(&mut self, lease: &mut Lease, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Http1(body) => match lease.http1() {
                Some(connection) => connection.poll_body(body, cx),
                None => Poll::Ready(None),
            },
            Self::H2(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_done(),
            Self::H2(incoming) => incoming.is_end_stream(),
        }
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(fault) = this.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        let Some(lease) = &mut this.lease else { return Poll::Ready(None) };
        let frame = ready!(this.reading.poll_frame(lease, cx));
        match frame {
            Some(Err(fault)) => {
                // Told at the next turn: the head and what came before the fault may not have been sent on yet.
                (this.lease, this.fault) = (None, Some(fault));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Ok(_)) if !this.reading.is_over() => {}
            _ => {
                if let Some(lease) = this.lease.take() {
                    lease.finish();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.reading {
            Reading::Http1(body) => body.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Reading::H2(incoming) => incoming.size_hint(),
        }
    }
}
