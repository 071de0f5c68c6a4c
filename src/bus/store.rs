//! Where sessions wait for their clients.
//!
//! What is kept of a session is what its client needs to go on elsewhere: the channels, the place up to which it was
//! served, and what its backend had noted. A session is kept from its beginning, renewed while it lives and once more
//! when it is lost. Taking it out uses it up: of two that ask one gets it, and who kept it learns that at the next
//! renewal. This room does not know tokens, only the keys that they give.

pub mod memory;
#[cfg(test)]
pub mod tests;

use crate::bus::BusError;
use crate::model::channel::ChannelName;
use crate::model::cursor::{CURSOR_CHANNELS_MAX, Cursor};
use crate::model::position::Position;
use crate::model::session_token::SessionKey;
use futures_util::future::BoxFuture;
use std::time::Duration;

/// The largest session that is kept, in bytes of its text. Larger ones start anew when they come back.
pub const SESSION_BYTES_MAX: usize = 64 * 1024;

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredSession {
    /// Its channels, in the order they were joined.
    pub channels: Vec<ChannelName>,
    /// Where it was: after what it was last sent.
    pub cursor: Cursor,
    /// What a bridged session's backend asked to keep for it: names and values.
    pub meta: Vec<(Box<str>, Box<str>)>,
}

/// What became of a session that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It waits for its client from now on.
    Kept,
    /// Its client took it already: it lives on elsewhere.
    Taken,
}

/// Why a session is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Over [`SESSION_BYTES_MAX`].
    #[error("a session of {0} bytes is over the {SESSION_BYTES_MAX} that are kept")]
    TooLarge(usize),
    /// The store can't be reached.
    #[error(transparent)]
    Unavailable(#[from] BusError),
}

/// Keeps sessions by their keys, each for `sessions.ttl` after it was last put.
pub trait SessionStore: Send + Sync + 'static {
    /// How long a session is kept after it was put.
    fn ttl(&self) -> Duration;

    /// Keeps a session, or keeps it longer and at another place, unless it was taken.
    ///
    /// # Errors
    /// When it is too large, or the store can't be reached. What was kept before stays.
    fn put<'a>(&'a self, key: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<Put, StoreError>>;

    /// Takes a session out; of two that ask for one, one gets it. For the time of another `sessions.ttl` it can't be put
    /// again.
    ///
    /// # Errors
    /// When the store can't be reached; it may have been taken out all the same.
    fn take<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<StoredSession>, StoreError>>;

    /// Lets a session that was taken wait for its client again, as if it had been put now: its client was refused. What
    /// was not taken, or has ended since, stays as it is.
    ///
    /// # Errors
    /// When it is too large, or the store can't be reached.
    fn give_back<'a>(&'a self, key: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<(), StoreError>>;
}

impl StoredSession {
    /// The session as JSON text; never empty.
    ///
    /// # Errors
    /// When it is over [`SESSION_BYTES_MAX`].
    pub fn encode(&self) -> Result<String, StoreError> {
        let channels: Vec<&str> = self.channels.iter().map(ChannelName::as_str).collect();
        let text = serde_json::json!({ "channels": channels, "cursor": self.cursor.encode(), "meta": self.meta });
        let text = text.to_string();
        if text.len() > SESSION_BYTES_MAX { Err(StoreError::TooLarge(text.len())) } else { Ok(text) }
    }

    /// The place in each channel that has one.
    pub fn places(&self) -> Vec<(ChannelName, Position)> {
        let place = |channel: &ChannelName| Some((channel.clone(), self.cursor.position(channel)?));
        self.channels.iter().filter_map(place).collect()
    }

    /// Reads what [`StoredSession::encode`] wrote; `None` if it was written by something else, or is too large.
    pub fn decode(text: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Text {
            channels: Vec<String>,
            cursor: String,
            #[serde(default)]
            meta: Vec<(Box<str>, Box<str>)>,
        }
        if text.len() > SESSION_BYTES_MAX {
            return None;
        }
        let Text { channels, cursor, meta } = serde_json::from_slice(text).ok()?;
        if channels.len() > CURSOR_CHANNELS_MAX {
            return None;
        }
        let channels = channels.iter().map(|name| ChannelName::new(name).ok()).collect::<Option<_>>()?;
        Some(Self { channels, cursor: Cursor::decode(cursor.as_bytes()).ok()?, meta })
    }
}
