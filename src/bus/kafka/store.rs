//! Sessions that wait for their clients, in the topic: every instance has them all in its memory, from reading it.

use crate::bus::kafka::note::Note;
use crate::bus::kafka::queue::Told;
use crate::bus::kafka::{KafkaBus, down};
use crate::bus::store::{Put, SessionStore, StoreError, StoredSession};
use crate::model::session_token::SessionKey;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Keeps sessions beside the channels, for as long as the bus was told at its start.
pub struct KafkaStore {
    bus: Arc<KafkaBus>,
}

impl KafkaStore {
    /// The store of a bus.
    pub fn new(bus: Arc<KafkaBus>) -> Self {
        Self { bus }
    }

    async fn put_session(&self, key: &SessionKey, session: StoredSession) -> Result<Put, StoreError> {
        let text = session.encode()?.into_bytes().into();
        match self.bus.write_session(key, Note::Put(key.clone(), text)).await? {
            Told::Put(put) => put,
            _ => Err(down("another answer than was asked for").into()),
        }
    }

    async fn take_session(&self, key: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        match self.bus.write_session(key, Note::Take(key.clone())).await? {
            Told::Taken(session) => Ok(session),
            _ => Err(down("another answer than was asked for").into()),
        }
    }

    async fn give_back_session(&self, key: &SessionKey, session: StoredSession) -> Result<(), StoreError> {
        let text = session.encode()?.into_bytes().into();
        match self.bus.write_session(key, Note::Back(key.clone(), text)).await? {
            Told::Back(back) => back,
            _ => Err(down("another answer than was asked for").into()),
        }
    }
}

impl SessionStore for KafkaStore {
    fn ttl(&self) -> Duration {
        self.bus.sessions_ttl()
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
