//! Words about sessions that several rooms share: how a client is served, and why a session ends.

/// How a client is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `text/event-stream` (WHATWG HTML §9.2).
    Sse,
    /// RFC 6455, RFC 8441.
    WebSocket,
    /// One JSON answer a request.
    LongPoll,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sse, Self::WebSocket, Self::LongPoll];

    /// The word in configuration, metrics and problem documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Sse => "sse",
            Transport::WebSocket => "websocket",
            Transport::LongPoll => "long_poll",
        }
    }
}

/// Why a session ended. A WebSocket tells it by a close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// It came to its natural end (a long poll was answered, a WebSocket was closed by its client).
    Done,
    /// The client went without a word.
    ClientGone,
    /// This instance is stopping.
    Drain,
    /// A gap, on a transport that has no place to announce it.
    Gap,
    /// It fell behind on a channel that closes slow sessions.
    Slow,
    /// It took nothing for too long, or sent nothing where it had to.
    Idle,
    /// A message of the client was over the limit.
    TooBig,
    /// A text of the client was no UTF-8.
    BadUtf8,
    /// The client broke the WebSocket protocol.
    Protocol,
    /// The client broke a rule of the route.
    Policy,
    /// Three malformed commands in a row.
    Malformed,
    /// The backend that it is bridged to failed.
    Upstream,
    /// The backend closed it.
    Backend,
    /// An operator asked for it.
    Operator,
    /// Its route is no longer in the configuration.
    RouteRemoved,
    /// What let its client in is no longer valid.
    CredentialEnded,
    /// The client sent more than it may, and went on.
    Rate,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Done,
        Self::ClientGone,
        Self::Drain,
        Self::Gap,
        Self::Slow,
        Self::Idle,
        Self::TooBig,
        Self::BadUtf8,
        Self::Protocol,
        Self::Policy,
        Self::Malformed,
        Self::Upstream,
        Self::Backend,
        Self::Operator,
        Self::RouteRemoved,
        Self::CredentialEnded,
        Self::Rate,
    ];

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientGone => "client_gone",
            Self::Drain => "drain",
            Self::Gap => "gap",
            Self::Slow => "slow",
            Self::Idle => "idle",
            Self::TooBig => "too_big",
            Self::BadUtf8 => "bad_utf8",
            Self::Protocol => "protocol",
            Self::Policy => "policy",
            Self::Malformed => "malformed",
            Self::Upstream => "upstream",
            Self::Backend => "backend",
            Self::Operator => "operator",
            Self::RouteRemoved => "route_removed",
            Self::CredentialEnded => "credential_ended",
            Self::Rate => "rate",
        }
    }

    /// Whether the client should come back: its session ends here for no fault of its own, and goes on elsewhere.
    pub fn is_moved(self) -> bool {
        matches!(self, Self::Drain | Self::Operator)
    }

    /// Whether its client may have the session again: it was lost, or ended for no fault that would come again at once.
    pub fn may_come_back(self) -> bool {
        matches!(
            self,
            Self::ClientGone | Self::Drain | Self::Operator | Self::Gap | Self::Slow | Self::Idle | Self::Upstream
        )
    }

    /// The WebSocket close code (RFC 6455 §7.4; 4000–4999 are pushbridge's own).
    pub fn close_code(self) -> u16 {
        match self {
            Self::Done | Self::ClientGone | Self::Backend => 1000,
            Self::Drain | Self::Operator => 1012,
            Self::Protocol => 1002,
            Self::BadUtf8 => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Upstream => 1011,
            Self::Gap => 4001,
            Self::Malformed => 4400,
            Self::CredentialEnded => 4401,
            Self::RouteRemoved => 4404,
            Self::Idle => 4408,
            Self::Slow => 4413,
            Self::Rate => 4429,
        }
    }
}

/// What a session is to those who count and close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// A client on channels.
    Push(Transport),
    /// Bytes between a client and a backend that have no natural end: a tunnel, or a backend's event stream.
    Proxied,
}

impl SessionKind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Push(Transport::Sse), Self::Push(Transport::WebSocket), Self::Push(Transport::LongPoll), Self::Proxied];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push(transport) => transport.as_str(),
            Self::Proxied => "proxied",
        }
    }

    /// Where it stands in [`SessionKind::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Push(transport) => transport as usize,
            Self::Proxied => 3,
        }
    }
}

/// Which sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All that there are, and those that come in the window or later.
    All,
    /// Those of one kind.
    Kind(SessionKind),
    /// Those of one route, by its name.
    Route(std::sync::Arc<str>),
    /// Those that are on a channel, whatever else they are on.
    Channel(super::channel::ChannelName),
}

/// Why a stretch of a channel can't be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// It is no longer in the channel's history.
    Evicted,
    /// The cursor is of another life of the channel, or of other channels.
    Epoch,
    /// The session fell behind.
    Slow,
    /// The bus lost it.
    Bus,
}

impl GapReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Evicted, Self::Epoch, Self::Slow, Self::Bus];

    /// The word on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Epoch => "epoch",
            Self::Slow => "slow",
            Self::Bus => "bus",
        }
    }
}

/// A stretch of one or more channels that can't be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Which channels.
    pub channels: Vec<super::channel::ChannelName>,
    /// Why.
    pub reason: GapReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_where_they_say() {
        assert_eq!(SessionKind::ALL.map(SessionKind::index), [0, 1, 2, 3]);
    }
}
