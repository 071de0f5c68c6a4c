//! Where sessions that were lost wait for their clients.
//!
//! A session's token names what a client needs to go on elsewhere without asking its backend: the route it was on, its
//! channels, and the place up to which it was served. Taking it out uses it up.

pub mod memory;

use crate::bus::BusError;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use futures_util::future::BoxFuture;

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The route that it was on; it comes back on no other.
    pub route: Box<str>,
    /// Its channels, in the order they were joined.
    pub channels: Vec<ChannelName>,
    /// Where it was: after what it was last sent.
    pub cursor: Cursor,
}

/// Keeps sessions by their tokens, each for [`sessions.ttl`](crate::bus::settings::SessionSettings) after it was last
/// put.
pub trait SessionStore: Send + Sync + 'static {
    /// Keeps a session, or keeps it longer and at another place.
    ///
    /// # Errors
    /// When the store can't be reached. The session is not kept then.
    fn put<'a>(&'a self, token: &'a str, session: StoredSession) -> BoxFuture<'a, Result<(), BusError>>;

    /// Takes a session out; of two that ask for one token, one gets it.
    ///
    /// # Errors
    /// When the store can't be reached.
    fn take<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<StoredSession>, BusError>>;
}

impl StoredSession {
    /// The session as JSON text.
    pub fn encode(&self) -> String {
        let channels: Vec<&str> = self.channels.iter().map(ChannelName::as_str).collect();
        serde_json::json!({ "route": &*self.route, "channels": channels, "cursor": self.cursor.encode() }).to_string()
    }

    /// Reads what [`StoredSession::encode`] wrote; `None` if it was written by something else.
    pub fn decode(text: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(text).ok()?;
        let channels = value.get("channels")?.as_array()?;
        Some(Self {
            route: value.get("route")?.as_str()?.into(),
            channels: channels.iter().map(|name| ChannelName::new(name.as_str()?).ok()).collect::<Option<_>>()?,
            cursor: Cursor::decode(value.get("cursor")?.as_str()?.as_bytes()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::position::Position;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_session_survives_its_text(names in proptest::collection::vec("[a-z.]{1,20}", 0..5), epoch: u64, offset: u64) {
            let channels: Vec<_> = names.iter().map(|name| ChannelName::new(name).expect("a name")).collect();
            let position = Position { epoch, offset };
            let cursor = Cursor::of(channels.iter().map(|channel| (channel, position)));
            let session = StoredSession { route: "r".into(), channels, cursor };
            prop_assert_eq!(StoredSession::decode(session.encode().as_bytes()), Some(session));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,100}") {
            let _ = StoredSession::decode(text.as_bytes());
        }
    }
}
