//! Sessions that wait for their clients, in Redis: one key each, which expires. One that was taken is an empty text for
//! as long again.

use crate::bus::redis::{RedisBus, down};
use crate::bus::store::{Put, SessionStore, StoreError, StoredSession};
use crate::model::session_token::SessionKey;
use futures_util::future::BoxFuture;
use redis::{RedisError, Script};
use std::sync::Arc;
use std::time::Duration;

/// Keeps sessions beside the channels.
pub struct RedisStore {
    bus: Arc<RedisBus>,
    ttl_ms: u64,
    keep: Script,
    back: Script,
}

impl RedisStore {
    /// Keeps each session for `ttl`.
    pub fn new(bus: Arc<RedisBus>, ttl: Duration) -> Self {
        let (keep, back) = (Script::new(include_str!("keep.lua")), Script::new(include_str!("back.lua")));
        Self { bus, ttl_ms: ttl.as_millis() as u64, keep, back }
    }
}

impl SessionStore for RedisStore {
    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    fn put<'a>(&'a self, key: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(async move {
            let text = session.encode()?;
            let link = self.bus.link()?;
            let mut keep = self.keep.prepare_invoke();
            keep.key(self.bus.shared.keys.session(key)).arg(text).arg(self.ttl_ms);
            let kept: bool = keep.invoke_async(&mut link.commands.clone()).await.map_err(|error| failed(&error))?;
            Ok(if kept { Put::Kept } else { Put::Taken })
        })
    }

    fn take<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<StoredSession>, StoreError>> {
        Box::pin(async move {
            let link = self.bus.link()?;
            let mut take = redis::cmd("SET");
            take.arg(self.bus.shared.keys.session(key)).arg("").arg("XX").arg("GET").arg("PX").arg(self.ttl_ms);
            let text: Option<Vec<u8>> =
                take.query_async(&mut link.commands.clone()).await.map_err(|error| failed(&error))?;
            Ok(text.and_then(|text| StoredSession::decode(&text)))
        })
    }

    fn give_back<'a>(&'a self, key: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let text = session.encode()?;
            let link = self.bus.link()?;
            let mut back = self.back.prepare_invoke();
            back.key(self.bus.shared.keys.session(key)).arg(text).arg(self.ttl_ms);
            let given: Result<bool, _> = back.invoke_async(&mut link.commands.clone()).await;
            given.map(drop).map_err(|error| failed(&error))
        })
    }
}

fn failed(error: &RedisError) -> StoreError {
    StoreError::Unavailable(down(error))
}
