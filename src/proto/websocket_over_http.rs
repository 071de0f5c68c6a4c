//! WebSocket over HTTP: a client's WebSocket ends here, and each batch of its frames is one POST to a plain backend.
//!
//! [`event`] is the form of a body in both directions, [`extension`] and [`control`] are what the backend can say
//! beside frames when it speaks `grip`, [`fields`] and [`meta`] are the header fields, and [`bridge`] is the machine
//! that says what is sent when. None of them knows sockets, clocks, channels' contents or who the backend is.

pub mod bridge;
pub mod close;
pub mod control;
pub mod event;
pub mod extension;
pub mod fields;
pub mod meta;
pub mod retry;
pub mod scheduled;

/// The media type of requests and answers.
pub const MEDIA_TYPE: &str = "application/websocket-events";
/// The most bytes of client frames that wait for the next request, before the client is read no further.
pub const PENDING_BYTES_MAX: usize = 200_000;
/// The largest answer of a backend, in bytes beside one message of the largest size: whatever a request holds can be
/// echoed.
pub const ANSWER_BYTES_MAX: usize = 1_000_000;
/// The most events of one answer: more than one request can hold, since each takes 10 bytes of [`PENDING_BYTES_MAX`].
pub const ANSWER_EVENTS_MAX: usize = 30_000;

/// What passed between a client and its backend and was passed over. A closed set: it is a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// A frame that starts with neither the message prefix nor `c:`.
    UnknownPrefix,
    /// A control message that is malformed or of an unknown type.
    BadControl,
    /// A filter that pushbridge does not know.
    UnknownFilter,
    /// A subscription over `subscriptions_per_session`.
    TooManySubscriptions,
    /// `Set-Meta-*` or `set-meta` over its bounds.
    MetaOverBounds,
    /// A `Keep-Alive-Interval` that is no number of seconds.
    BadKeepAliveInterval,
    /// Something that may not come at this point: an OPEN after the first, or anything after CLOSE.
    OutOfPlace,
    /// A frame of the client after `detach`.
    ClientFrameAfterDetach,
    /// An event that its backend did not take (CloudEvents).
    EventGivenUp,
}

impl Ignored {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::UnknownPrefix,
        Self::BadControl,
        Self::UnknownFilter,
        Self::TooManySubscriptions,
        Self::MetaOverBounds,
        Self::BadKeepAliveInterval,
        Self::OutOfPlace,
        Self::ClientFrameAfterDetach,
        Self::EventGivenUp,
    ];

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownPrefix => "unknown_prefix",
            Self::BadControl => "bad_control",
            Self::UnknownFilter => "unknown_filter",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::MetaOverBounds => "meta_over_bounds",
            Self::BadKeepAliveInterval => "bad_keep_alive_interval",
            Self::OutOfPlace => "out_of_place",
            Self::ClientFrameAfterDetach => "client_frame_after_detach",
            Self::EventGivenUp => "event_given_up",
        }
    }
}
