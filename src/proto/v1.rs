//! The WebSocket subprotocol `pushbridge.v1.json`: one JSON object a text frame, told apart by `type`.
//!
//! [`command`] reads what clients say, [`reply`] writes what the server says. Whether a client may do what it asks for
//! is the session's business.

pub mod command;
pub mod reply;

pub use command::{Command, Rejected};
pub use reply::Reply;

/// The name in `Sec-WebSocket-Protocol`.
pub const NAME: &str = "pushbridge.v1.json";
/// The longest `ref`, in bytes of JSON text.
pub const REFERENCE_BYTES_MAX: usize = 256;

/// A client's own mark on a command (`ref`), echoed by its replies: JSON text of a string or number, 256 bytes at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(Box<str>);

impl Reference {
    /// Takes the JSON text of a string or number; `None` for anything else.
    fn of_json(text: &str) -> Option<Self> {
        let scalar = text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
        (scalar && text.len() <= REFERENCE_BYTES_MAX).then(|| Self(text.into()))
    }

    /// The JSON text, as the client wrote it.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// Why a command was not carried out (`error.code`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// It is no command. Three in a row close the session.
    Malformed,
    /// The route does not allow it.
    NotAllowed,
    /// The session would have too many channels.
    TooManySubscriptions,
    /// The channel takes no messages of this size.
    TooBig,
    /// Too many commands in too short a time.
    Rate,
    /// Nothing can be published now.
    BusDown,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::NotAllowed, Self::TooManySubscriptions, Self::TooBig, Self::Rate, Self::BusDown];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotAllowed => "not_allowed",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::TooBig => "too_big",
            Self::Rate => "rate",
            Self::BusDown => "bus_down",
        }
    }
}
