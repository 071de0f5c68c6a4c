//! The embedded store: sessions come back to the instance that they were on.

use crate::bus::store::{Put, SESSION_BYTES_MAX, SessionStore, StoreError, StoredSession};
use crate::hub::clock::Clock;
use crate::model::session_token::SessionKey;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The bytes of all sessions together, at most; beyond that the oldest are forgotten. 100,000 sessions, the default of
/// `limits.connections`, with a dozen channels each fit in.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What an entry takes beside its session.
const ENTRY_BYTES: usize = 192;

/// Keeps sessions in this process.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Clock,
    ttl_us: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    sessions: HashMap<SessionKey, Entry>,
    /// By the time of their end; one that was put again is found stale here.
    ends: VecDeque<(u64, SessionKey)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    end_us: u64,
    bytes: usize,
    /// `None`: it was taken.
    session: Option<StoredSession>,
}

impl MemoryStore {
    /// An empty store that keeps each session for `ttl`.
    pub fn new(clock: Clock, ttl: Duration) -> Self {
        Self { clock, ttl_us: ttl.as_micros() as u64, kept: Mutex::default() }
    }

    /// [`SessionStore::put`] at a time.
    pub(in crate::bus) fn put_at(
        &self,
        key: &SessionKey,
        session: StoredSession,
        now_us: u64,
    ) -> Result<Put, StoreError> {
        let bytes = bounded_size(&session)?;
        let mut kept = self.kept.lock();
        kept.forget(now_us);
        if kept.sessions.get(key).is_some_and(|entry| entry.session.is_none()) {
            return Ok(Put::Taken);
        }
        kept.insert(key, Entry { end_us: now_us + self.ttl_us, bytes, session: Some(session) });
        Ok(Put::Kept)
    }

    /// [`SessionStore::take`] at a time.
    pub(in crate::bus) fn take_at(&self, key: &SessionKey, now_us: u64) -> Option<StoredSession> {
        let mut kept = self.kept.lock();
        kept.forget(now_us);
        let session = kept.sessions.get_mut(key)?.session.take()?;
        // It is remembered that it was taken, so that who has it still can't put it again.
        kept.insert(key, Entry { end_us: now_us + self.ttl_us, bytes: 0, session: None });
        Some(session)
    }

    /// [`SessionStore::give_back`] at a time.
    pub(in crate::bus) fn give_back_at(
        &self,
        key: &SessionKey,
        session: StoredSession,
        now_us: u64,
    ) -> Result<(), StoreError> {
        let bytes = bounded_size(&session)?;
        let mut kept = self.kept.lock();
        kept.forget(now_us);
        if kept.sessions.get(key).is_some_and(|entry| entry.session.is_none()) {
            kept.insert(key, Entry { end_us: now_us + self.ttl_us, bytes, session: Some(session) });
        }
        Ok(())
    }
}

impl Kept {
    fn insert(&mut self, key: &SessionKey, entry: Entry) {
        self.bytes += entry.bytes + ENTRY_BYTES;
        self.ends.push_back((entry.end_us, key.clone()));
        if let Some(before) = self.sessions.insert(key.clone(), entry) {
            self.bytes -= before.bytes;
        }
    }

    /// Lets go what has come to its end, and the oldest of what is too much. Each entry of `ends` counts for memory.
    fn forget(&mut self, now_us: u64) {
        while let Some((end_us, key)) = self.ends.front() {
            if *end_us > now_us && self.bytes < BYTES_MAX {
                break;
            }
            self.bytes -= ENTRY_BYTES;
            if self.sessions.get(key).is_some_and(|entry| entry.end_us == *end_us)
                && let Some(entry) = self.sessions.remove(key)
            {
                self.bytes -= entry.bytes;
            }
            self.ends.pop_front();
        }
    }
}

/// What a session takes, if it is kept at all.
fn bounded_size(session: &StoredSession) -> Result<usize, StoreError> {
    // A place of the cursor takes 24 bytes; names may be shared, but need not be.
    let channels = session.channels.iter().map(|channel| channel.as_str().len() + 40).sum::<usize>();
    let meta = session.meta.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
    let bytes = channels + meta;
    if bytes > SESSION_BYTES_MAX { Err(StoreError::TooLarge(bytes)) } else { Ok(bytes) }
}

impl SessionStore for MemoryStore {
    fn ttl(&self) -> Duration {
        Duration::from_micros(self.ttl_us)
    }

    fn put<'a>(&'a self, key: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<Put, StoreError>> {
        Box::pin(ready(self.put_at(key, session, self.clock.now_us())))
    }

    fn take<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<StoredSession>, StoreError>> {
        Box::pin(ready(Ok(self.take_at(key, self.clock.now_us()))))
    }

    fn give_back<'a>(&'a self, key: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(ready(self.give_back_at(key, session, self.clock.now_us())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::channel::ChannelName;
    use crate::model::session_token::SessionToken;
    use proptest::prelude::*;

    fn key(n: u8) -> SessionKey {
        SessionToken::from_random([n; 16]).key("r", &[])
    }

    fn session(channel: &str) -> StoredSession {
        StoredSession { channels: vec![ChannelName::new(channel).expect("a name")], ..StoredSession::default() }
    }

    fn store() -> MemoryStore {
        MemoryStore::new(Clock::start(), Duration::from_micros(10))
    }

    #[test]
    fn it_keeps_what_every_store_promises() {
        let of = |ttl_ms| MemoryStore::new(Clock::start(), Duration::from_millis(ttl_ms));
        let (store, short) = (of(60_000), of(300));
        crate::bus::tests::conformance::run(crate::bus::store::tests::conformance::all(&store, &store, &short));
    }

    #[test]
    fn a_session_is_taken_once_and_expires() {
        let store = store();
        assert_eq!(store.put_at(&key(1), session("a"), 0), Ok(Put::Kept));
        assert_eq!(store.put_at(&key(2), session("b"), 0), Ok(Put::Kept));
        assert_eq!(store.put_at(&key(2), session("c"), 5), Ok(Put::Kept));
        assert_eq!(store.take_at(&key(1), 9), Some(session("a")));
        assert_eq!(store.take_at(&key(1), 9), None);
        assert_eq!(store.take_at(&key(2), 12), Some(session("c")));
        assert_eq!(store.put_at(&key(3), session("d"), 30), Ok(Put::Kept));
        assert_eq!(store.take_at(&key(3), 40), None);
        let kept = store.kept.lock();
        assert_eq!((kept.ends.len(), kept.bytes), (0, 0));
    }

    #[test]
    fn who_has_a_taken_session_still_can_not_put_it_again() {
        let store = store();
        assert_eq!(store.put_at(&key(1), session("a"), 0), Ok(Put::Kept));
        assert_eq!(store.take_at(&key(1), 9), Some(session("a")));
        assert_eq!(store.put_at(&key(1), session("b"), 18), Ok(Put::Taken));
        assert_eq!(store.take_at(&key(1), 18), None);
    }

    #[test]
    fn one_that_was_forgotten_can_be_put_again() {
        let store = store();
        assert_eq!(store.put_at(&key(1), session("a"), 0), Ok(Put::Kept));
        assert_eq!(store.put_at(&key(1), session("b"), 50), Ok(Put::Kept));
        assert_eq!(store.take_at(&key(1), 55), Some(session("b")));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let store = store();
        let large = |n: u32| StoredSession {
            channels: (0..100).map(|at| ChannelName::new(&format!("{n}.{at:0>500}")).expect("a name")).collect(),
            ..StoredSession::default()
        };
        let keys: Vec<_> =
            (0..2000u32).map(|n| SessionToken::from_random((u128::from(n) + 1).to_be_bytes()).key("r", &[])).collect();
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(store.put_at(key, large(n as u32), 0), Ok(Put::Kept));
            assert!(store.kept.lock().bytes < BYTES_MAX + 2 * SESSION_BYTES_MAX);
        }
        assert_eq!(store.take_at(&keys[0], 1), None);
        assert_eq!(store.take_at(&keys[1999], 1), Some(large(1999)));
        let too_large = StoredSession { channels: [large(1).channels, large(2).channels].concat(), ..large(1) };
        assert!(matches!(store.put_at(&keys[0], too_large, 1), Err(StoreError::TooLarge(_))));
    }

    proptest! {
        /// Against a plain list: what it must answer, whatever is asked in which order.
        #[test]
        fn it_answers_as_a_list_would(steps in proptest::collection::vec((0u8..3, any::<bool>(), 0u64..8), 0..60)) {
            let store = store();
            let mut model: Vec<(u8, u64, bool)> = Vec::new();
            let mut now_us = 0;
            for (n, put, wait_us) in steps {
                now_us += wait_us;
                model.retain(|(_, end_us, _)| *end_us > now_us);
                let known = model.iter().position(|(known, _, _)| *known == n);
                let waits = known.map(|at| model[at].2);
                if put {
                    let expected = if waits == Some(false) { Put::Taken } else { Put::Kept };
                    prop_assert_eq!(store.put_at(&key(n), session("a"), now_us), Ok(expected));
                    if expected == Put::Kept {
                        model.retain(|(known, _, _)| *known != n);
                        model.push((n, now_us + 10, true));
                    }
                } else {
                    prop_assert_eq!(store.take_at(&key(n), now_us).is_some(), waits == Some(true));
                    if let (Some(at), Some(true)) = (known, waits) {
                        model[at] = (n, now_us + 10, false);
                    }
                }
            }
        }
    }
}
