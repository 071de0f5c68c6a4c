//! What waits to be written to a partition, and what its writer is told.

use crate::bus::kafka::note::Note;
use crate::bus::store::{Put, StoreError, StoredSession};
use crate::model::message::Message;
use crate::model::position::Position;
use tokio::sync::oneshot;

/// What became of what was written.
pub type Outcome = Result<Told, String>;

/// What a record turned out to be, for who wrote it.
#[derive(Debug)]
pub enum Told {
    /// The message stands there.
    At(Position, Written),
    /// Whether the session is kept.
    Put(Result<Put, StoreError>),
    /// The session, if it waited.
    Taken(Option<StoredSession>),
    /// Whether the session waits again.
    Back(Result<(), StoreError>),
}

/// Whether a message counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is new.
    First,
    /// Its id was known.
    Duplicate,
}

/// What waits to be written.
#[derive(Debug)]
pub struct Queued {
    /// What it is.
    pub content: Content,
    /// Who waits for it, if anybody.
    pub told: Option<oneshot::Sender<Outcome>>,
}

/// What is written.
#[derive(Debug)]
pub enum Content {
    /// A message.
    Message(Message),
    /// A note.
    Note(Note),
}

impl Queued {
    /// Whether it is to be written still: who waited and went was told that it was not published.
    pub fn is_wanted(&self) -> bool {
        self.told.as_ref().is_none_or(|told| !told.is_closed())
    }

    /// About how many bytes it takes.
    pub fn size_bytes(&self) -> usize {
        match &self.content {
            Content::Message(message) => message.size_bytes() + message.channel.as_str().len(),
            Content::Note(Note::Put(key, text)) => key.as_str().len() + text.len(),
            Content::Note(note) => note.key().len(),
        }
    }
}
