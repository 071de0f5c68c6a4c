//! The closed sets of label values.

/// Why something was turned away before it became a request or a session. A closed set of label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `limits.connections`.
    Connections,
    /// `limits.connections_per_ip`.
    ConnectionsPerIp,
    /// `limits.streams_per_connection`.
    Streams,
    /// The TLS handshake failed or took too long.
    TlsHandshake,
    /// No whole request head in time.
    HeaderTimeout,
    /// Not HTTP, or a head over the limit, or a smuggling shape.
    BadRequest,
    /// No route.
    NoRoute,
    /// 405, 406 or a bad parameter, cursor or origin on a push route.
    BadSubscribe,
    /// Authentication on any listener.
    Auth,
    /// Too many subscriptions or channels.
    Subscriptions,
    /// A body or message over its limit.
    TooLarge,
    /// A publish that was malformed.
    BadPublish,
    /// A webhook that did not verify.
    WebhookSignature,
    /// A session that would have begun while sessions end.
    Draining,
}

impl Refusal {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 14] = [
        Self::Connections,
        Self::ConnectionsPerIp,
        Self::Streams,
        Self::TlsHandshake,
        Self::HeaderTimeout,
        Self::BadRequest,
        Self::NoRoute,
        Self::BadSubscribe,
        Self::Auth,
        Self::Subscriptions,
        Self::TooLarge,
        Self::BadPublish,
        Self::WebhookSignature,
        Self::Draining,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerIp => "connections_per_ip",
            Self::Streams => "streams_per_connection",
            Self::TlsHandshake => "tls_handshake",
            Self::HeaderTimeout => "header_timeout",
            Self::BadRequest => "bad_request",
            Self::NoRoute => "no_route",
            Self::BadSubscribe => "bad_subscribe",
            Self::Auth => "auth",
            Self::Subscriptions => "subscriptions",
            Self::TooLarge => "too_large",
            Self::BadPublish => "bad_publish",
            Self::WebhookSignature => "webhook_signature",
            Self::Draining => "draining",
        }
    }
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishResult {
    /// It has a position.
    Accepted,
    /// Its id was known.
    Duplicate,
    /// `If-Match` failed.
    Moved,
    /// The bus can't take it.
    Unavailable,
}

impl PublishResult {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Duplicate, Self::Moved, Self::Unavailable];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Moved => "moved",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of an upstream request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamResult {
    /// A response with a status below 500.
    Ok,
    /// A response with a status of 500 or more.
    ServerError,
    /// No connection.
    ConnectFailed,
    /// No response head in time.
    Timeout,
    /// The connection broke, or the response was malformed.
    Broken,
    /// The client went first.
    Canceled,
}

impl UpstreamResult {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::ServerError, Self::ConnectFailed, Self::Timeout, Self::Broken, Self::Canceled];

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ServerError => "server_error",
            Self::ConnectFailed => "connect_failed",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Canceled => "canceled",
        }
    }
}

/// What became of a session that was to be kept for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeepResult {
    /// It waits for its client.
    Kept,
    /// Its client took it already: it lives on elsewhere.
    Taken,
    /// It has too many channels.
    TooLarge,
    /// The store can't be reached.
    Failed,
}

impl KeepResult {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Kept, Self::Taken, Self::TooLarge, Self::Failed];

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Taken => "taken",
            Self::TooLarge => "too_large",
            Self::Failed => "failed",
        }
    }
}

/// What became of a client that came back with a session's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComebackResult {
    /// It has its session again.
    Found,
    /// The token is used up, has ended, is of another route, or never was one.
    Unknown,
    /// The store can't be reached.
    Failed,
}

impl ComebackResult {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Found, Self::Unknown, Self::Failed];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// What a reload came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReloadResult {
    /// Another configuration runs.
    Applied,
    /// The files are what runs already.
    Unchanged,
    /// The files can't be run; what ran before goes on.
    Refused,
}

impl ReloadResult {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    /// The word in metrics, logs and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// The first digit of a status (RFC 9110 §15); what has none of the five counts as 5xx, as a recipient treats it.
pub(super) const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The index in [`STATUS_CLASSES`].
pub(super) fn status_class(status: u16) -> usize {
    match status {
        100..200 => 0,
        200..300 => 1,
        300..400 => 2,
        400..500 => 3,
        _ => 4,
    }
}

/// The HTTP versions of clients' connections.
pub(super) const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];

/// The index in [`PROTOCOLS`]; all that is not HTTP/2 is HTTP/1.1.
pub(super) fn protocol(name: &str) -> usize {
    usize::from(name == "h2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::session::{CloseReason, GapReason, Transport};

    /// Counts are kept in arrays by discriminant, and written out by the order of `ALL`.
    #[test]
    fn every_set_lists_its_values_in_the_order_of_their_declaration() {
        let in_order = |indices: Vec<usize>| assert!(indices.iter().copied().eq(0..indices.len()), "{indices:?}");
        in_order(Refusal::ALL.map(|value| value as usize).to_vec());
        in_order(PublishResult::ALL.map(|value| value as usize).to_vec());
        in_order(KeepResult::ALL.map(|value| value as usize).to_vec());
        in_order(ComebackResult::ALL.map(|value| value as usize).to_vec());
        in_order(ReloadResult::ALL.map(|value| value as usize).to_vec());
        in_order(UpstreamResult::ALL.map(|value| value as usize).to_vec());
        in_order(Transport::ALL.map(|value| value as usize).to_vec());
        in_order(CloseReason::ALL.map(|value| value as usize).to_vec());
        in_order(GapReason::ALL.map(|value| value as usize).to_vec());
        in_order(crate::proto::websocket_over_http::Ignored::ALL.map(|value| value as usize).to_vec());
    }

    #[test]
    fn a_status_belongs_to_the_class_of_its_first_digit() {
        for (status, class) in [(101, "1xx"), (200, "2xx"), (304, "3xx"), (499, "4xx"), (504, "5xx"), (999, "5xx")] {
            assert_eq!(STATUS_CLASSES[status_class(status)], class);
        }
    }
}
