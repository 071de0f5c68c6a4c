//! A session that was taken for a client which may still be refused: then it waits for its client again.

use crate::bus::store::{SessionStore, StoredSession};
use crate::gateway::comeback::TAKE_TIMEOUT;
use crate::model::session_token::SessionKey;
use std::sync::Arc;

/// Gives the session back unless it is kept; also where the client goes before it is answered, and the future that holds
/// this is dropped.
pub(in crate::gateway) struct Loan {
    store: Arc<dyn SessionStore>,
    taken: Option<(SessionKey, StoredSession)>,
}

impl Loan {
    /// A loan of what was taken out, and under which key; `None`: nothing was.
    pub(in crate::gateway) fn new(store: &Arc<dyn SessionStore>, taken: Option<(SessionKey, StoredSession)>) -> Self {
        Self { store: Arc::clone(store), taken }
    }

    /// The client has its session: the token is used up.
    pub(in crate::gateway) fn keep(mut self) {
        self.taken = None;
    }

    /// The client is refused: once this is done, its token counts again. Cancel-safe.
    pub(in crate::gateway) async fn give_back(mut self) {
        if let Some((key, session)) = self.taken.clone() {
            give_back(&*self.store, &key, session).await;
            self.taken = None;
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Outside of a runtime the process is ending.
        if let Some((key, session)) = self.taken.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let store = Arc::clone(&self.store);
            tokio::task::spawn_local(async move { give_back(&*store, &key, session).await });
        }
    }
}

async fn give_back(store: &dyn SessionStore, key: &SessionKey, session: StoredSession) {
    let given = tokio::time::timeout(TAKE_TIMEOUT, store.give_back(key, session)).await;
    match given {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a refused client's session is lost"),
        Err(_) => tracing::warn!(error = "no answer in time", "a refused client's session is lost"),
    }
}
