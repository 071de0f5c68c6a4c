//! Lost sessions, in a bucket of NATS's key-value store, whose entries expire.
//!
//! The bucket's stream is spoken to directly: an entry is read from its leader, never from a copy that may be behind,
//! and each call is one or two requests.

use crate::bus::BusError;
use crate::bus::nats::journal::Journal;
use crate::bus::nats::{NatsBus, down};
use crate::bus::store::{SessionStore, StoredSession};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RawMessageErrorKind};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Keeps sessions beside the channels.
pub struct NatsStore {
    bus: Arc<NatsBus>,
    ttl: Duration,
}

impl NatsStore {
    /// Keeps each session for `ttl`; where the bucket was made with another time, that counts.
    pub fn new(bus: Arc<NatsBus>, ttl: Duration) -> Self {
        Self { bus, ttl }
    }

    fn bucket(&self) -> String {
        format!("{}_sessions", self.bus.shared.settings.stream)
    }

    fn subject(&self, token: &str) -> String {
        format!("$KV.{}.{token}", self.bucket())
    }

    /// Makes the bucket, as any client of the key-value store does.
    async fn make(&self, journal: &Journal) -> Result<(), BusError> {
        let config = Config {
            name: format!("KV_{}", self.bucket()),
            description: Some("Lost sessions of pushbridge".to_owned()),
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

    async fn put_session(&self, token: &str, session: StoredSession) -> Result<(), BusError> {
        if !is_token(token) {
            return Err(down("a session token that can be no key"));
        }
        let journal = self.bus.shared.journal()?;
        let text: bytes::Bytes = session.encode().into();
        let mut made = false;
        loop {
            let publish = PublishMessage::build().payload(text.clone());
            let acked = match journal.context().send_publish(self.subject(token), publish).await {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            match acked {
                Ok(_) => return Ok(()),
                // Not made yet, or lost with the server's data.
                Err(error) if error.kind() == PublishErrorKind::StreamNotFound && !made => {
                    self.make(&journal).await?;
                    made = true;
                }
                Err(error) => return Err(down(&error.to_string())),
            }
        }
    }

    async fn take_session(&self, token: &str) -> Result<Option<StoredSession>, BusError> {
        // A token that can be no key was never put.
        if !is_token(token) {
            return Ok(None);
        }
        let journal = self.bus.shared.journal()?;
        let name = format!("KV_{}", self.bucket());
        let stream = journal.context().get_stream_no_info(name).await.map_err(|error| down(&error.to_string()))?;
        let entry = match stream.raw_message_builder().last_by_subject(self.subject(token)).send().await {
            Ok(entry) => entry,
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => return Ok(None),
                RawMessageErrorKind::JetStream(cause)
                    if cause.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND =>
                {
                    return Ok(None);
                }
                _ => return Err(down(&error.to_string())),
            },
        };
        // An entry without a value marks one that was taken.
        let Some(session) = StoredSession::decode(&entry.payload) else { return Ok(None) };
        let taken =
            PublishMessage::build().header("KV-Operation", "DEL").expected_last_subject_sequence(entry.sequence);
        let acked = match journal.context().send_publish(self.subject(token), taken).await {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        match acked {
            Ok(_) => Ok(Some(session)),
            // Somebody else took it.
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
            Err(error) => Err(down(&error.to_string())),
        }
    }
}

impl SessionStore for NatsStore {
    fn put<'a>(&'a self, token: &'a str, session: StoredSession) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(self.put_session(token, session))
    }

    fn take<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<StoredSession>, BusError>> {
        Box::pin(self.take_session(token))
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}
