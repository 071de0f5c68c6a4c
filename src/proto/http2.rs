//! The server's side of an HTTP/2 connection, without I/O (RFC 9113).
//!
//! ```text
//! what was read ─▶ Connection::receive ─▶ frames ─▶ header blocks (hpack) ─▶ Request ─▶ Connection::next_request
//!                                           └─────▶ data, windows, resets ─▶ Stream, whose readers and writers are woken
//! what is sent ◀── Connection::unsent ◀── frames ◀── Connection::{send_head, data_frame, reset …}
//! ```
//!
//! Made for many streams that wait: a stream that waits for messages is one [`stream::Stream`], and what a fan-out sends on
//! a connection's streams gathers in one buffer, which goes out with one write.
//!
//! Everything that a client sends is bounded: windows bound bodies, a header block has a limit of bytes and of frames, and what
//! costs this end more than it costs the client is paid from a [`budget::Budget`].

pub mod budget;
pub mod connection;
pub mod frame;
pub mod hpack;
pub mod request;
pub mod settings;
pub mod stream;
pub mod window;

use std::fmt;

/// The first bytes of a connection (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why a stream or a connection ends (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0);
    /// The other end broke a rule.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// This end can't go on.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More was sent than the window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame came for a stream that had ended.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame has a size that it can't have.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The request was not looked at: it may be sent again.
    pub const REFUSED_STREAM: Self = Self(7);
    /// Nobody waits for the answer any more.
    pub const CANCEL: Self = Self(8);
    /// A header block can't be decoded.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The other end asks for more than its share.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NO_ERROR => "NO_ERROR",
            Self::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Self::INTERNAL_ERROR => "INTERNAL_ERROR",
            Self::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Self::STREAM_CLOSED => "STREAM_CLOSED",
            Self::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Self::REFUSED_STREAM => "REFUSED_STREAM",
            Self::CANCEL => "CANCEL",
            Self::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Self::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            _ => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What ends a connection (RFC 9113 §5.4.1): its reason goes out in a GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({reason})")]
pub struct ConnectionError {
    /// What the client is told.
    pub reason: Reason,
    /// What it did.
    pub what: &'static str,
}

impl ConnectionError {
    /// An error of the other end.
    pub const fn new(reason: Reason, what: &'static str) -> Self {
        Self { reason, what }
    }

    /// A broken rule.
    pub const fn protocol(what: &'static str) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, what)
    }

    /// A frame of a wrong size.
    pub const fn size(what: &'static str) -> Self {
        Self::new(Reason::FRAME_SIZE_ERROR, what)
    }
}

/// Why nothing can be sent on or read from a stream any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The client reset it, or this end had to for what the client did.
    #[error("the stream was reset: {0}")]
    Reset(Reason),
    /// This end had sent all.
    #[error("the response has ended already")]
    Ended,
    /// The client took nothing of the response for too long.
    #[error("the client takes nothing of the response")]
    Stalled,
    /// Too much waits for the client to take it.
    #[error("more waits to be sent on the connection than it may")]
    TooMuchWaits,
    /// Its connection has ended.
    #[error("the connection has ended")]
    ConnectionEnded,
}
