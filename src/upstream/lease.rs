//! A connection while one exchange uses it: given back when the exchange ended well, closed or reset otherwise.

use crate::proto::http1::BodyReader;
use crate::upstream::connect::Driver;
use crate::upstream::http1::Http1;
use crate::upstream::pool::{InFlight, Server, Stream};
use crate::upstream::sending::Sending;
use crate::upstream::settings::ServerAddress;
use crate::upstream::upload::Progress;
use bytes::Bytes;
use std::rc::Rc;
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
    /// Whether an HTTP/1.1 connection takes another request after this one.
    lasts: bool,
    keeps_idle: Option<Duration>,
    /// Sends the rest of a request that its response has overtaken.
    upload: Option<Driver>,
    server: Rc<Server>,
    progress: Rc<Progress>,
    _in_flight: InFlight,
}

impl Lease {
    pub(super) fn new(connection: Connection, server: Rc<Server>, in_flight: InFlight, progress: Rc<Progress>) -> Self {
        let connection = Some(connection);
        Self { connection, lasts: false, keeps_idle: None, upload: None, server, progress, _in_flight: in_flight }
    }

    /// The HTTP/1.1 connection.
    pub(super) fn http1(&mut self) -> Option<&mut Http1> {
        match &mut self.connection {
            Some(Connection::Http1(connection)) => Some(connection),
            _ => None,
        }
    }

    /// Notes that the connection outlives the exchange, and how long the server keeps it when it is idle, if it says.
    pub(super) fn note_lasts(&mut self, keeps_idle: Option<Duration>) {
        (self.lasts, self.keeps_idle) = (true, keeps_idle);
    }

    /// Takes the connection out of the exchange; the server stays busy.
    pub(super) fn take_http1(&mut self) -> Option<Http1> {
        match self.connection.take()? {
            Connection::Http1(connection) => Some(connection),
            Connection::H2(_) => None,
        }
    }

    /// Who is at the other end.
    pub(super) fn address(&self) -> &ServerAddress {
        &self.server.address
    }

    /// The whole body, if it is there already.
    pub(super) fn whole(&mut self, body: &mut BodyReader) -> Option<Bytes> {
        self.http1()?.whole(body)
    }

    /// Has the rest of the request sent while the response is read, as long as the server takes some of it within each `limit`.
    pub(super) fn send_rest(&mut self, sending: Box<Sending>, limit: Duration) {
        let parted = self.take_http1().and_then(|connection| connection.part(sending, limit));
        if let Some((connection, driver)) = parted {
            (self.connection, self.upload) = (Some(Connection::Http1(connection)), Some(driver));
        }
    }

    /// The response is complete. A connection with more than it is closed: nobody asked for that.
    pub(super) fn finish(mut self) {
        if self.lasts
            && let Some(connection) = self.take_http1()
            && connection.is_read()
        {
            self.server.give_back(connection, self.keeps_idle);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.progress.cancel();
    }
}
