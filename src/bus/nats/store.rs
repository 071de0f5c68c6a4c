//! Lost sessions, in a bucket of NATS's key-value store, whose entries expire.

use crate::bus::BusError;
use crate::bus::nats::{NatsBus, down};
use crate::bus::store::{SessionStore, StoredSession};
use async_nats::jetstream::context::CreateKeyValueErrorKind;
use async_nats::jetstream::kv::{Config, Operation, Store};
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

    async fn bucket(&self) -> Result<Store, BusError> {
        let journal = self.bus.shared.journal()?;
        let name = format!("{}_sessions", self.bus.shared.settings.stream);
        // The bucket may have been lost with the server's data: it is asked for each time.
        match journal.context().get_key_value(&name).await {
            Ok(store) => Ok(store),
            Err(_) => {
                let config = Config { bucket: name.clone(), history: 1, max_age: self.ttl, ..Config::default() };
                match journal.context().create_key_value(config).await {
                    Ok(store) => Ok(store),
                    // Another instance was first.
                    Err(error) if error.kind() == CreateKeyValueErrorKind::BucketCreate => {
                        journal.context().get_key_value(&name).await.map_err(|error| down(&error.to_string()))
                    }
                    Err(error) => Err(down(&error.to_string())),
                }
            }
        }
    }
}

impl SessionStore for NatsStore {
    fn put<'a>(&'a self, token: &'a str, session: StoredSession) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            let put = self.bucket().await?.put(token, session.encode().into()).await;
            put.map(drop).map_err(|error| down(&error.to_string()))
        })
    }

    fn take<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<StoredSession>, BusError>> {
        Box::pin(async move {
            let bucket = self.bucket().await?;
            // A token that can be no key was never put.
            if token.is_empty() || !token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return Ok(None);
            }
            let entry = bucket.entry(token).await.map_err(|error| down(&error.to_string()))?;
            let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else { return Ok(None) };
            match bucket.delete_expect_revision(token, Some(entry.revision)).await {
                Ok(()) => Ok(StoredSession::decode(&entry.value)),
                // Somebody else took it, or put it anew: the client may ask again.
                Err(error) if error.to_string().contains("wrong last sequence") => Ok(None),
                Err(error) => Err(down(&error.to_string())),
            }
        })
    }
}
