//! Keeps a WebSocket session in the session store, so that its client gets it back on any instance.
//!
//! ```text
//!  start ─▶ put ─▶ each half of the ttl, and soon after its channels changed: put ─▶ lost: a last put
//!                                                                               └─▶ ended for good: taken out
//! ```
//!
//! A message costs nothing here: what is written in between is as old as the last put, and the last one is exact. A client
//! that is back before its loss was noticed resumes at what was put last, so that it gets messages again rather than
//! too few. A session that its client took is not put any more. The store may be down: sessions live on without it.

use crate::bus::store::{Put, SessionStore, StoreError, StoredSession};
use crate::bus::{BusError, store};
use crate::model::session_token::SessionKey;
use crate::telemetry::metrics::{KeepResult, WorkerMetrics};
use futures_util::future::{BoxFuture, LocalBoxFuture};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// How long the store may take for one put.
pub const PUT_MS_MAX: u64 = 2_000;
/// How long after a put a change of channels waits for the next, however often a client changes them.
const CHANGE_MS: u64 = 1_000;

/// One session's place in the store.
pub struct Keeper {
    store: Arc<dyn SessionStore>,
    key: Arc<SessionKey>,
    metrics: Rc<WorkerMetrics>,
    every_ms: u64,
    plan: Plan,
    putting: Option<Putting>,
}

/// A put under way.
struct Putting {
    result: BoxFuture<'static, Result<Put, StoreError>>,
    timeout: LocalBoxFuture<'static, ()>,
}

/// When what is put. It knows no store: time is an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    /// The next put is due then; the one before was begun then.
    Lives { due_ms: u64, put_ms: Option<u64> },
    /// Its client took it, or it ended: nothing more is put.
    Over,
}

impl Plan {
    /// A put begins: the next comes after `every_ms`.
    fn begin(&mut self, now_ms: u64, every_ms: u64) {
        if let Self::Lives { due_ms, put_ms } = self {
            (*due_ms, *put_ms) = (now_ms.saturating_add(every_ms), Some(now_ms));
        }
    }

    /// The session has other channels now: they are put soon, but no more often than each [`CHANGE_MS`].
    fn change(&mut self, now_ms: u64) {
        if let Self::Lives { due_ms, put_ms } = self {
            *due_ms = (*due_ms).min(put_ms.map_or(now_ms, |put_ms| now_ms.max(put_ms.saturating_add(CHANGE_MS))));
        }
    }

    fn due_ms(&self) -> u64 {
        match self {
            Self::Lives { due_ms, .. } => *due_ms,
            Self::Over => u64::MAX,
        }
    }
}

impl Keeper {
    /// Keeps a session under `key`; the first put is due at once.
    pub fn new(store: Arc<dyn SessionStore>, key: SessionKey, metrics: Rc<WorkerMetrics>) -> Self {
        let half_ms = u64::try_from(store.ttl().as_millis() / 2).unwrap_or(u64::MAX / 4).max(1);
        // Sessions that began together, such as after a deploy, are not put together for ever.
        let spread_ms = half_ms / 4;
        let early_ms = key.as_str().bytes().fold(0, |sum, byte| (sum * 31 + u64::from(byte)) % (spread_ms + 1));
        Self {
            store,
            key: Arc::new(key),
            metrics,
            every_ms: half_ms - early_ms,
            plan: Plan::Lives { due_ms: 0, put_ms: None },
            putting: None,
        }
    }

    /// Says that the session has other channels now.
    pub fn change(&mut self, now_ms: u64) {
        self.plan.change(now_ms);
    }

    /// When [`Keeper::poll`] has something to do by itself; `u64::MAX` if never.
    pub fn due_ms(&self) -> u64 {
        if self.putting.is_some() { u64::MAX } else { self.plan.due_ms() }
    }

    /// Puts the session if that is due. `session` is asked only then, `sleep` makes the time that the store has.
    pub fn poll(
        &mut self,
        now_ms: u64,
        session: impl FnOnce() -> StoredSession,
        sleep: impl FnOnce(u64) -> LocalBoxFuture<'static, ()>,
        cx: &mut Context<'_>,
    ) {
        if self.putting.is_none() && self.plan.due_ms() <= now_ms {
            self.put(now_ms, session(), sleep(PUT_MS_MAX));
        }
        let _ = self.poll_put(cx);
    }

    /// Puts the session as it is at its end, in place of whatever is under way; [`Keeper::poll_put`] says when it is done.
    pub fn put(&mut self, now_ms: u64, session: StoredSession, timeout: LocalBoxFuture<'static, ()>) {
        if self.plan == Plan::Over {
            return;
        }
        self.plan.begin(now_ms, self.every_ms);
        let (store, key) = (Arc::clone(&self.store), Arc::clone(&self.key));
        let result = Box::pin(async move { store.put(&key, session).await });
        self.putting = Some(Putting { result, timeout });
    }

    /// Takes the session out, since it ended for good; [`Keeper::poll_put`] says when it is done.
    pub fn forget(&mut self, timeout: LocalBoxFuture<'static, ()>) {
        if self.plan == Plan::Over {
            return;
        }
        self.plan = Plan::Over;
        let (store, key) = (Arc::clone(&self.store), Arc::clone(&self.key));
        let result = Box::pin(async move { store.take(&key).await.map(|_| Put::Taken) });
        self.putting = Some(Putting { result, timeout });
    }

    /// Whether something is under way.
    pub fn is_putting(&self) -> bool {
        self.putting.is_some()
    }

    /// Ready when nothing is under way.
    pub fn poll_put(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(putting) = &mut self.putting else { return Poll::Ready(()) };
        let result = match putting.result.as_mut().poll(cx) {
            Poll::Ready(result) => result,
            Poll::Pending if putting.timeout.as_mut().poll(cx).is_ready() => {
                let late = format!("the session store did not answer within {} s", PUT_MS_MAX / 1000);
                Err(StoreError::Unavailable(BusError::Down(late)))
            }
            Poll::Pending => return Poll::Pending,
        };
        self.putting = None;
        self.done(&result);
        Poll::Ready(())
    }

    fn done(&mut self, result: &Result<Put, StoreError>) {
        if self.plan == Plan::Over {
            // It was taken out, or will end by itself.
            return;
        }
        self.metrics.session_kept(match result {
            Ok(Put::Kept) => KeepResult::Kept,
            Ok(Put::Taken) => {
                self.plan = Plan::Over;
                KeepResult::Taken
            }
            Err(error) => {
                // Once for all: whoever keeps sessions tells when it is lost, and the metric counts.
                tracing::debug!(%error, "a session is not kept");
                match error {
                    store::StoreError::TooLarge(_) => KeepResult::TooLarge,
                    store::StoreError::Unavailable(_) => KeepResult::Failed,
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::store::memory::MemoryStore;
    use crate::hub::clock::Clock;
    use crate::model::session_token::SessionToken;
    use futures_util::future::{pending, ready};
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use std::time::Duration;

    /// Answers as it is told.
    #[derive(Default)]
    struct Told {
        puts: Mutex<usize>,
        takes: Mutex<usize>,
        answer: Mutex<Option<Result<Put, StoreError>>>,
    }

    impl SessionStore for Told {
        fn ttl(&self) -> Duration {
            Duration::from_secs(120)
        }

        fn put<'a>(&'a self, _: &'a SessionKey, _: StoredSession) -> BoxFuture<'a, Result<Put, StoreError>> {
            *self.puts.lock() += 1;
            match self.answer.lock().clone() {
                Some(answer) => Box::pin(ready(answer)),
                None => Box::pin(pending()),
            }
        }

        fn take<'a>(&'a self, _: &'a SessionKey) -> BoxFuture<'a, Result<Option<StoredSession>, StoreError>> {
            *self.takes.lock() += 1;
            Box::pin(ready(Ok(None)))
        }

        fn give_back<'a>(&'a self, _: &'a SessionKey, _: StoredSession) -> BoxFuture<'a, Result<(), StoreError>> {
            Box::pin(ready(Ok(())))
        }
    }

    fn key() -> SessionKey {
        SessionToken::from_random([1; 16]).key("r", &[])
    }

    fn keeper(store: &Arc<Told>) -> Keeper {
        let metrics = crate::telemetry::metrics::Metrics::new().worker();
        Keeper::new(Arc::<Told>::clone(store), key(), metrics)
    }

    fn turn(keeper: &mut Keeper, now_ms: u64) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        keeper.poll(now_ms, StoredSession::default, |_| Box::pin(pending()), &mut cx);
    }

    #[test]
    fn a_session_is_put_at_once_and_again_within_each_half_of_its_ttl() {
        let store = Arc::new(Told { answer: Mutex::new(Some(Ok(Put::Kept))), ..Told::default() });
        let mut keeper = keeper(&store);
        for round in 1..10 {
            let due_ms = keeper.due_ms();
            turn(&mut keeper, due_ms);
            assert_eq!(*store.puts.lock(), round);
            let wait_ms = keeper.due_ms() - due_ms;
            assert!((45_000..=60_000).contains(&wait_ms), "{wait_ms}");
            turn(&mut keeper, due_ms + wait_ms - 1);
            assert_eq!(*store.puts.lock(), round);
        }
    }

    #[test]
    fn a_change_is_put_soon_but_not_each() {
        let store = Arc::new(Told { answer: Mutex::new(Some(Ok(Put::Kept))), ..Told::default() });
        let mut keeper = keeper(&store);
        turn(&mut keeper, 0);
        for now_ms in (0..5_000).step_by(10) {
            keeper.change(now_ms);
            turn(&mut keeper, now_ms);
        }
        assert_eq!(*store.puts.lock(), 5, "once a second");
    }

    #[test]
    fn what_its_client_took_is_not_put_again() {
        let store = Arc::new(Told { answer: Mutex::new(Some(Ok(Put::Taken))), ..Told::default() });
        let mut keeper = keeper(&store);
        turn(&mut keeper, 0);
        keeper.change(5_000);
        assert_eq!(keeper.due_ms(), u64::MAX);
        keeper.put(9_000, StoredSession::default(), Box::pin(pending()));
        keeper.forget(Box::pin(pending()));
        turn(&mut keeper, 500_000);
        assert_eq!((*store.puts.lock(), *store.takes.lock()), (1, 0));
    }

    #[test]
    fn a_store_that_is_down_is_tried_again_and_holds_nothing_up() {
        let store = Arc::new(Told::default());
        let mut keeper = keeper(&store);
        turn(&mut keeper, 0);
        turn(&mut keeper, 100_000);
        assert_eq!(*store.puts.lock(), 1, "one is under way");
        keeper.put(100_000, StoredSession::default(), Box::pin(ready(())));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(keeper.poll_put(&mut cx).is_ready(), "its time is over");
        *store.answer.lock() = Some(Err(StoreError::Unavailable(BusError::Down("x".to_owned()))));
        let due_ms = keeper.due_ms();
        turn(&mut keeper, due_ms);
        *store.answer.lock() = Some(Ok(Put::Kept));
        let due_ms = keeper.due_ms();
        turn(&mut keeper, due_ms);
        assert_eq!(*store.puts.lock(), 4);
    }

    #[test]
    fn an_end_for_good_takes_it_out() {
        let store = Arc::new(MemoryStore::new(Clock::start(), Duration::from_secs(60)));
        let metrics = crate::telemetry::metrics::Metrics::new().worker();
        let shared: Arc<dyn SessionStore> = Arc::<MemoryStore>::clone(&store);
        let mut keeper = Keeper::new(shared, key(), metrics);
        turn(&mut keeper, 0);
        keeper.forget(Box::pin(pending()));
        turn(&mut keeper, 1);
        let taken = futures_util::FutureExt::now_or_never(store.take(&key()));
        assert_eq!(taken, Some(Ok(None)));
    }

    proptest! {
        /// Whatever changes when: puts are never closer than a second, and never further apart than half of the ttl.
        #[test]
        fn puts_keep_their_distance(changes in proptest::collection::vec(0u64..300_000, 0..200)) {
            let store = Arc::new(Told { answer: Mutex::new(Some(Ok(Put::Kept))), ..Told::default() });
            let mut keeper = keeper(&store);
            let (mut changes, mut last_ms) = (changes, None);
            changes.sort_unstable();
            let mut changes = changes.into_iter().peekable();
            for now_ms in (0..300_000).step_by(100) {
                while changes.next_if(|at_ms| *at_ms <= now_ms).is_some() {
                    keeper.change(now_ms);
                }
                let before = *store.puts.lock();
                turn(&mut keeper, now_ms);
                if *store.puts.lock() > before {
                    let since_ms = last_ms.map_or(CHANGE_MS, |last_ms| now_ms - last_ms);
                    prop_assert!((CHANGE_MS..=60_100).contains(&since_ms), "{}", since_ms);
                    last_ms = Some(now_ms);
                }
            }
            prop_assert!(last_ms.is_some_and(|last_ms| last_ms >= 300_000 - 60_200));
        }
    }
}
