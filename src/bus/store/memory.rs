//! The embedded store: sessions come back to the instance that they were on.

use crate::bus::BusError;
use crate::bus::store::{SessionStore, StoredSession};
use crate::hub::clock::Clock;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Sessions that wait at most; beyond that the oldest is forgotten.
const SESSIONS_MAX: usize = 100_000;

/// Keeps sessions in this process.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Clock,
    ttl_us: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    sessions: HashMap<Box<str>, (u64, StoredSession)>,
    /// By the time of their end; one that was put again or taken is found stale here.
    ends: VecDeque<(u64, Box<str>)>,
}

impl MemoryStore {
    /// An empty store that keeps each session for `ttl`.
    pub fn new(clock: Clock, ttl: Duration) -> Self {
        Self { clock, ttl_us: ttl.as_micros() as u64, kept: Mutex::default() }
    }

    fn put_at(&self, token: &str, session: StoredSession, now_us: u64) {
        let end_us = now_us + self.ttl_us;
        let mut kept = self.kept.lock();
        kept.forget(now_us);
        kept.sessions.insert(token.into(), (end_us, session));
        kept.ends.push_back((end_us, token.into()));
    }

    fn take_at(&self, token: &str, now_us: u64) -> Option<StoredSession> {
        let mut kept = self.kept.lock();
        kept.forget(now_us);
        kept.sessions.remove(token).map(|(_, session)| session)
    }
}

impl Kept {
    fn forget(&mut self, now_us: u64) {
        while let Some((end_us, token)) = self.ends.front() {
            if *end_us > now_us && self.ends.len() < SESSIONS_MAX {
                break;
            }
            if self.sessions.get(token).is_some_and(|(end, _)| end == end_us) {
                self.sessions.remove(token);
            }
            self.ends.pop_front();
        }
    }
}

impl SessionStore for MemoryStore {
    fn put<'a>(&'a self, token: &'a str, session: StoredSession) -> BoxFuture<'a, Result<(), BusError>> {
        self.put_at(token, session, self.clock.now_us());
        Box::pin(std::future::ready(Ok(())))
    }

    fn take<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<StoredSession>, BusError>> {
        Box::pin(std::future::ready(Ok(self.take_at(token, self.clock.now_us()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::Cursor;

    fn session(route: &str) -> StoredSession {
        StoredSession { route: route.into(), channels: Vec::new(), cursor: Cursor::default() }
    }

    #[test]
    fn a_session_is_taken_once_and_expires() {
        let store = MemoryStore::new(Clock::start(), Duration::from_micros(10));
        store.put_at("a", session("r"), 0);
        store.put_at("b", session("r"), 0);
        store.put_at("b", session("s"), 5);
        assert_eq!(store.take_at("a", 9), Some(session("r")));
        assert_eq!(store.take_at("a", 9), None);
        assert_eq!(store.take_at("b", 12), Some(session("s")));
        store.put_at("c", session("r"), 20);
        assert_eq!(store.take_at("c", 30), None);
        assert!(store.kept.lock().ends.is_empty());
    }
}
