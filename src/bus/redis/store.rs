//! Lost sessions, in Redis: one key each, which expires.

use crate::bus::BusError;
use crate::bus::redis::{RedisBus, down};
use crate::bus::store::{SessionStore, StoredSession};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Keeps sessions beside the channels.
pub struct RedisStore {
    bus: Arc<RedisBus>,
    ttl: Duration,
}

impl RedisStore {
    /// Keeps each session for `ttl`.
    pub fn new(bus: Arc<RedisBus>, ttl: Duration) -> Self {
        Self { bus, ttl }
    }
}

impl SessionStore for RedisStore {
    fn put<'a>(&'a self, token: &'a str, session: StoredSession) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            let link = self.bus.link()?;
            let mut set = redis::cmd("SET");
            set.arg(self.bus.shared.keys.session(token)).arg(session.encode());
            set.arg("PX").arg(self.ttl.as_millis() as u64);
            set.exec_async(&mut link.commands.clone()).await.map_err(|error| down(&error))
        })
    }

    fn take<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<StoredSession>, BusError>> {
        Box::pin(async move {
            let link = self.bus.link()?;
            let mut take = redis::cmd("GETDEL");
            take.arg(self.bus.shared.keys.session(token));
            let text: Option<Vec<u8>> =
                take.query_async(&mut link.commands.clone()).await.map_err(|error| down(&error))?;
            Ok(text.and_then(|text| StoredSession::decode(&text)))
        })
    }
}
