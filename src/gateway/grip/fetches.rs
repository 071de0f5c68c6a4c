//! Requests of held sessions that are under way: alike ones are made once, and each upstream has few at a time, so that
//! a thousand sessions which miss the same message do not fall upon their backend together.

use crate::session::grip::{Page, SourceError};
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared, WeakShared};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of one worker's held sessions to one upstream at a time.
const AT_ONCE_MAX: usize = 32;

/// What a page's request came to; those who share it have the same page.
type Fetched = Result<Rc<Page>, SourceError>;
type Fetch = LocalBoxFuture<'static, Fetched>;

/// A worker's requests for pages.
#[derive(Default)]
pub(in crate::gateway) struct Fetches {
    under_way: RefCell<HashMap<Box<[u8]>, WeakShared<Fetch>>>,
    permits: RefCell<HashMap<Arc<str>, Arc<Semaphore>>>,
}

impl Fetches {
    /// The page that a request like this is under way for, or else what `fetch` gives.
    pub(super) fn share(&self, key: Box<[u8]>, fetch: impl FnOnce() -> Fetch) -> Shared<Fetch> {
        let mut under_way = self.under_way.borrow_mut();
        if let Some(shared) = under_way.get(&key).and_then(WeakShared::upgrade).filter(|shared| shared.peek().is_none())
        {
            return shared;
        }
        under_way.retain(|_, weak| weak.upgrade().is_some());
        let shared = fetch().shared();
        if let Some(weak) = shared.downgrade() {
            under_way.insert(key, weak);
        }
        shared
    }

    /// Waits until another request may be made to an upstream; held until it is answered.
    pub(super) async fn permit(&self, upstream: &Arc<str>) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut permits = self.permits.borrow_mut();
            // Of upstreams that reloads took away nobody waits any more.
            permits.retain(|name, known| name == upstream || Arc::strong_count(known) > 1);
            Arc::clone(permits.entry(Arc::clone(upstream)).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_MAX))))
        };
        // It is never closed.
        semaphore.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn alike_requests_are_made_once_while_they_are_under_way() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let fetches = Fetches::default();
            let made = Rc::new(Cell::new(0));
            let fetch = || -> Fetch {
                let made = Rc::clone(&made);
                Box::pin(async move {
                    made.set(made.get() + 1);
                    tokio::task::yield_now().await;
                    Err(SourceError::Failed("down".into()))
                })
            };
            let key = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
            let (one, two) = (fetches.share(key("a"), fetch), fetches.share(key("a"), fetch));
            let other = fetches.share(key("b"), fetch);
            let _ = tokio::join!(one, two, other);
            assert_eq!(made.get(), 2);
            let _ = fetches.share(key("a"), fetch).await;
            assert_eq!(made.get(), 3);
        });
    }

    #[test]
    fn an_upstream_has_few_requests_at_a_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (fetches, name) = (Fetches::default(), Arc::from("shop"));
            let mut held = Vec::new();
            for _ in 0..AT_ONCE_MAX {
                held.push(fetches.permit(&name).await);
            }
            assert!(fetches.permit(&name).now_or_never().is_none());
            held.pop();
            assert!(fetches.permit(&name).now_or_never().is_some());
        });
    }
}
