//! Sessions that wait for their clients, in a bucket of NATS's key-value store, whose entries expire.
//!
//! The bucket's stream is spoken to directly: an entry is read from its leader, never from a copy that may be behind,
//! and each call asks what is there, then changes just that.

use crate::bus::BusError;
use crate::bus::nats::journal::Journal;
use crate::bus::nats::newest::{AskError, newest_of};
use crate::bus::nats::{NatsBus, down};
use crate::bus::store::{Put, SessionStore, StoreError, StoredSession};
use crate::model::session_token::SessionKey;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// How often a change is tried that another one comes before.
const TRIES_MAX: usize = 4;

/// Keeps sessions beside the channels.
pub struct NatsStore {
    bus: Arc<NatsBus>,
    ttl: Duration,
}

/// What the bucket has of a session.
struct Entry {
    sequence: u64,
    /// `None`: it was taken.
    session: Option<StoredSession>,
}

impl NatsStore {
    /// Keeps each session for `ttl`; where the bucket was made with another time, that counts.
    pub fn new(bus: Arc<NatsBus>, ttl: Duration) -> Self {
        Self { bus, ttl }
    }

    fn bucket(&self) -> String {
        format!("{}_sessions", self.bus.shared.settings.stream)
    }

    fn subject(&self, key: &SessionKey) -> String {
        format!("$KV.{}.{}", self.bucket(), key.as_str())
    }

    /// Makes the bucket, as any client of the key-value store does.
    async fn make(&self, journal: &Journal) -> Result<(), BusError> {
        let config = Config {
            name: format!("KV_{}", self.bucket()),
            description: Some("Sessions of pushbridge that wait for their clients".to_owned()),
            subjects: vec![format!("$KV.{}.>", self.bucket())],
            max_messages_per_subject: 1,
            max_age: self.ttl,
            duplicate_window: self.ttl.min(Duration::from_secs(120)),
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        };
        journal.context().create_stream(config).await.map(drop).map_err(|error| down(&error.to_string()))
    }

    async fn put_session(&self, key: &SessionKey, session: StoredSession) -> Result<Put, StoreError> {
        let text: bytes::Bytes = session.encode()?.into();
        let journal = self.bus.shared.journal()?;
        for _ in 0..TRIES_MAX {
            let known = self.newest(&journal, key).await?;
            if matches!(&known, Some(Entry { session: None, .. })) {
                return Ok(Put::Taken);
            }
            let publish = PublishMessage::build()
                .payload(text.clone())
                .expected_last_subject_sequence(known.map_or(0, |entry| entry.sequence));
            match self.send(&journal, key, publish).await {
                Ok(()) => return Ok(Put::Kept),
                // Not made yet, or lost with the server's data.
                Err(PublishErrorKind::StreamNotFound) => self.make(&journal).await?,
                // Taken, or put by a request whose answer was lost.
                Err(PublishErrorKind::WrongLastSequence) => {}
                Err(kind) => return Err(down(&kind.to_string()).into()),
            }
        }
        Err(down("a session changes too fast").into())
    }

    async fn take_session(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        let journal = self.bus.shared.journal()?;
        for _ in 0..TRIES_MAX {
            let Some(Entry { sequence, session: Some(session) }) = self.newest(&journal, key).await? else {
                return Ok(None);
            };
            let taken = PublishMessage::build().header("KV-Operation", "DEL").expected_last_subject_sequence(sequence);
            match self.send(&journal, key, taken).await {
                Ok(()) => return Ok(Some(session)),
                // Somebody else took it, or who has it renewed it.
                Err(PublishErrorKind::WrongLastSequence) => {}
                Err(kind) => return Err(down(&kind.to_string()).into()),
            }
        }
        Ok(None)
    }

    async fn give_back_session(&self, key: &SessionKey, session: StoredSession) -> Result<(), StoreError> {
        let text: bytes::Bytes = session.encode()?.into();
        let journal = self.bus.shared.journal()?;
        for _ in 0..TRIES_MAX {
            let Some(Entry { sequence, session: None }) = self.newest(&journal, key).await? else { return Ok(()) };
            let back = PublishMessage::build().payload(text.clone()).expected_last_subject_sequence(sequence);
            match self.send(&journal, key, back).await {
                Ok(()) => return Ok(()),
                Err(PublishErrorKind::WrongLastSequence) => {}
                Err(kind) => return Err(down(&kind.to_string()).into()),
            }
        }
        Err(down("a session changes too fast").into())
    }

    async fn newest(&self, journal: &Journal, key: &SessionKey) -> Result<Option<Entry>, StoreError> {
        let name = format!("KV_{}", self.bucket());
        let stream = journal.context().get_stream_no_info(name).await.map_err(|error| down(&error.to_string()))?;
        match newest_of(&stream, &self.subject(key)).await {
            // An entry without a value marks one that was taken.
            Ok(entry) => {
                Ok(entry
                    .map(|entry| Entry { sequence: entry.sequence, session: StoredSession::decode(&entry.payload) }))
            }
            Err(AskError::NoStream) => Ok(None),
            Err(error) => Err(down(&error.to_string()).into()),
        }
    }

    async fn send(&self, journal: &Journal, key: &SessionKey, message: PublishMessage) -> Result<(), PublishErrorKind> {
        let sent = journal.context().send_publish(self.subject(key), message).await.map_err(|error| error.kind())?;
        sent.await.map(drop).map_err(|error| error.kind())
    }
}

impl SessionStore for NatsStore {
    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn put<'a>(&'a self, key: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(self.put_session(key, session))
    }

    fn take<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<StoredSession>, StoreError>> {
        Box::pin(self.take_session(key))
    }

    fn give_back<'a>(&'a self, key: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.give_back_session(key, session))
    }
}
