//! A connection while one exchange uses it: given back when the exchange ended well, closed or reset otherwise.

use crate::server::body::BodyError;
use crate::upstream::pool::{Http1, InFlight, Server, Stream};
use crate::upstream::upload::{Progress, Upload};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A connection or a place on one.
pub(super) enum Connection {
    /// Ours alone.
    Http1(Http1),
    /// One of its streams.
    H2(Stream),
}

/// A connection in use. Dropping it cancels the exchange: HTTP/1.1 is closed, an HTTP/2 stream reset.
pub(super) struct Lease {
    connection: Option<Connection>,
    server: Rc<Server>,
    keep_alive: Option<Duration>,
    progress: Rc<Progress>,
    _in_flight: InFlight,
}

impl Lease {
    pub(super) fn new(connection: Connection, server: Rc<Server>, in_flight: InFlight, progress: Rc<Progress>) -> Self {
        Self { connection: Some(connection), server, keep_alive: None, progress, _in_flight: in_flight }
    }

    /// Sends the request and waits for the response's head.
    pub(super) async fn send(
        &mut self,
        request: http::Request<Upload>,
    ) -> Result<http::Response<Incoming>, TrySendError<http::Request<Upload>>> {
        match &mut self.connection {
            Some(Connection::Http1(connection)) => connection.sender.try_send_request(request).await,
            Some(Connection::H2(stream)) => stream.sender().try_send_request(request).await,
            None => std::future::pending().await,
        }
    }

    /// Notes how long the server keeps an idle connection (`Keep-Alive: timeout=5`).
    pub(super) fn note_keep_alive(&mut self, headers: &HeaderMap) {
        self.keep_alive = headers
            .get("keep-alive")
            .and_then(|value| value.to_str().ok())
            .into_iter()
            .flat_map(|value| value.split(','))
            .find_map(|parameter| parameter.trim().strip_prefix("timeout=")?.parse().ok())
            .map(Duration::from_secs);
    }

    /// Lets go of the HTTP machine once the connection was taken from it; the server stays busy.
    pub(super) fn leave_http(&mut self) {
        self.connection = None;
    }

    /// Who is at the other end.
    pub(super) fn address(&self) -> &crate::upstream::settings::ServerAddress {
        &self.server.address
    }

    /// The response is complete. A request body that is still on its way ends the connection all the same.
    fn finish(mut self) {
        if let Some(Connection::Http1(connection)) = self.connection.take()
            && self.progress.is_done()
        {
            self.server.give_back(connection, self.keep_alive);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.progress.cancel();
    }
}

/// A response body that holds its connection.
pub(super) struct Download {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl Download {
    /// A body, or `None` if it has none: then the connection is given back at once.
    pub(super) fn new(incoming: Incoming, lease: Lease) -> Option<Self> {
        if incoming.is_end_stream() {
            lease.finish();
            return None;
        }
        Some(Self { incoming, lease: Some(lease) })
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !this.incoming.is_end_stream() => {}
            Some(Ok(_)) | None => {
                if let Some(lease) = this.lease.take() {
                    lease.finish();
                }
            }
            Some(Err(_)) => this.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
