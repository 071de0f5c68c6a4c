//! From a socket to a request: accept → TLS → HTTP/1.1 or HTTP/2 → [`Handler`].
//!
//! Each worker thread runs its own accept loops (SO_REUSEPORT) and one connection is one task. A handler answers with
//! a response, or with a [`Hold`]: then the connection (h1) or stream (h2) is handed to a session as a [`Link`], and
//! the HTTP machinery's memory is given back. This floor does not know what sessions or routes are.

pub mod body;
pub mod connection;
pub mod date;
mod deadline;
pub mod fan_out;
pub mod h1;
pub mod h2;
pub mod io;
pub mod lanes;
mod leaving;
pub mod limits;
pub mod link;
pub mod listener;
pub mod problem;
pub mod request_id;
pub mod tls;
pub mod turns;

use body::Body;
use futures_util::future::LocalBoxFuture;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use link::Link;
pub use turns::Turns;

/// A request with its body not yet read.
pub type Request = http::Request<Body>;
/// A response whose body may still be on its way.
pub type Response = http::Response<Body>;

/// Answers requests; one value a worker.
pub trait Handler: 'static {
    /// Answers one request. Dropping the future cancels it: the client is gone.
    fn handle(&self, request: Request, peer: Rc<Peer>) -> LocalBoxFuture<'static, Answer>;
}

/// What a handler makes of a request.
pub enum Answer {
    /// An ordinary response.
    Response(Response),
    /// The exchange is taken over by a session.
    Hold(Hold),
    /// A response that is waited for, and after which the like is asked again.
    Later(Box<dyn Later>),
    /// An answer that is waited for, whatever it is going to be.
    Waiting(Waiting),
}

/// An answer that there may not be for a long time. Until then its connection has no HTTP machinery, which takes the
/// answer when it is there. Dropping the future cancels it: the client is gone.
pub type Waiting = LocalBoxFuture<'static, Answer>;

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Answer::Response(response)
    }
}

/// A session's start: the response head goes out, then the session owns the stream.
///
/// For HTTP/1.1, a head with status 101 makes the link raw; otherwise the body is chunked (RFC 9112 §7.1). For HTTP/2
/// the link is the stream's DATA frames; a WebSocket's head has status 200 there (RFC 8441 §5).
pub struct Hold {
    /// Status and fields, without framing fields (`Content-Length`, `Transfer-Encoding`), which the server adds.
    pub head: http::Response<()>,
    /// What runs from then on.
    pub session: Box<dyn Held>,
}

/// A session that has not started yet.
pub trait Held: 'static {
    /// Runs the session to its end over `link`. Dropping the future ends it at once.
    fn run(self: Box<Self>, link: Link) -> LocalBoxFuture<'static, ()>;
}

/// A whole response that there may not be for a long time, and after which the client asks anew.
pub trait Later: 'static {
    /// The response, once there is one. Dropping the future cancels it: the client is gone.
    fn respond(self: Box<Self>) -> LocalBoxFuture<'static, Response>;

    /// The same without the HTTP machinery, on a connection of HTTP/1.1 whose client asks the like again and again: writes
    /// the response and answers what follows, as long as it is like the first. Gives back what it can't answer; `None`
    /// when the connection has ended.
    fn take_turns(self: Box<Self>, turns: Turns) -> LocalBoxFuture<'static, Option<Turns>>;
}

/// Whom a connection is with.
#[derive(Debug)]
pub struct Peer {
    /// The other end.
    pub address: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
    /// Whose `X-Forwarded-*` is believed: whether `address` is such a proxy.
    pub trusted: Trust,
}

/// Whether the other end may speak for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Its forwarding fields are dropped.
    Client,
    /// Its forwarding fields are extended.
    Proxy,
}
