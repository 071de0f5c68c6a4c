//! A bridged session's part in being kept: what of it is put, and that it is put before its client can be back.

use super::{Counted, Run};
use crate::bus::store::StoredSession;
use crate::model::session::CloseReason;
use crate::proto::websocket_over_http::meta::Meta;
use crate::session::keep::{Keeper, PUT_MS_MAX};
use crate::session::websocket_over_http::seams::{Feed, Wire};
use futures_util::future::LocalBoxFuture;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How a session is kept for its client.
pub(super) struct Keeping {
    keeper: Keeper,
    /// [`Meta::changes`] when it was looked at.
    meta_changes: u32,
    /// Whether it was put as it is at its end.
    last: bool,
    /// How it is closed once that is done: who hears of the end may be back at once.
    closing: Option<(CloseReason, &'static str)>,
}

impl Keeping {
    pub(super) fn new(keeper: Keeper) -> Self {
        Self { keeper, meta_changes: 0, last: false, closing: None }
    }

    pub(super) fn change(&mut self, now_ms: u64) {
        self.keeper.change(now_ms);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// When there is something to do by time alone.
    pub(super) fn due_ms(&self) -> Option<u64> {
        Some(self.keeper.due_ms()).filter(|due_ms| !self.last && *due_ms < u64::MAX)
    }
}

/// A task that ends when a session is kept and counted; `None` if it is already.
pub(super) type Kept = Option<JoinHandle<()>>;

/// A session that is kept and counted however it ends, also where its connection drops it.
pub(super) struct Ended<W: Wire, F: Feed>(Option<(Run<W, F>, Counted)>);

impl<W: Wire, F: Feed> Ended<W, F> {
    pub(super) fn new(run: Run<W, F>, counted: Counted) -> Self {
        Self(Some((run, counted)))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.0.as_mut().map_or(Poll::Ready(CloseReason::ClientGone), |(run, _)| run.poll(cx))
    }

    /// What is left of the session, and when it is kept and counted.
    pub(super) fn take(&mut self, reason: CloseReason) -> Option<(Run<W, F>, Kept)> {
        let (mut run, mut counted) = self.0.take()?;
        counted.reason = reason;
        run.keep_last(reason, run.exchange.timeline().now_ms());
        // Outside of a runtime the process is ending.
        let putting = run.keeping.take().filter(|_| tokio::runtime::Handle::try_current().is_ok());
        let task = putting.map(|mut keeping| {
            tokio::task::spawn_local(async move {
                std::future::poll_fn(|cx| keeping.keeper.poll_put(cx)).await;
                drop(counted);
            })
        });
        Some((run, task))
    }
}

impl<W: Wire, F: Feed> Drop for Ended<W, F> {
    fn drop(&mut self) {
        let leaving = self.0.as_ref().and_then(|(run, _)| run.leaving);
        let _ = self.take(leaving.map_or(CloseReason::ClientGone, |leaving| leaving.reason));
    }
}

impl<W: Wire, F: Feed> Run<W, F> {
    /// Keeps the session while it lives. Once it was put for the last time, it is closed; whether it was.
    pub(super) fn keep(&mut self, cx: &mut Context<'_>, now_ms: u64) -> bool {
        let Some(keeping) = self.keeping.as_deref_mut() else { return false };
        if let Some((reason, text)) = keeping.closing {
            if keeping.keeper.poll_put(cx) == Poll::Pending {
                return false;
            }
            keeping.closing = None;
            self.close_now(reason, text, now_ms);
            return true;
        }
        if keeping.last {
            return false;
        }
        let (feed, meta) = (&self.subscriptions.feed, self.exchange.meta());
        let changes = meta.map_or(0, Meta::changes);
        if keeping.meta_changes != changes {
            keeping.meta_changes = changes;
            keeping.keeper.change(now_ms);
        }
        keeping.keeper.poll(now_ms, || stored(feed, meta), sleep, cx);
        false
    }

    /// Closes the session once it is kept as it is now, or taken out if it ends for good.
    pub(super) fn close_kept(&mut self, reason: CloseReason, text: &'static str, now_ms: u64) {
        self.keep_last(reason, now_ms);
        match self.keeping.as_deref_mut() {
            Some(keeping) => keeping.closing = Some((reason, text)),
            None => self.close_now(reason, text, now_ms),
        }
    }

    /// Keeps the session as it is at its end, or takes it out if it ends for good.
    pub(super) fn keep_last(&mut self, reason: CloseReason, now_ms: u64) {
        let Some(keeping) = self.keeping.as_deref_mut().filter(|keeping| !keeping.last) else { return };
        keeping.last = true;
        match reason.may_come_back() {
            true => {
                let session = stored(&self.subscriptions.feed, self.exchange.meta());
                keeping.keeper.put(now_ms, session, sleep(PUT_MS_MAX));
            }
            false => keeping.keeper.forget(sleep(PUT_MS_MAX)),
        }
    }
}

/// What the session is now, as its client would have it back.
fn stored<F: Feed>(feed: &F, meta: Option<&Meta>) -> StoredSession {
    let (channels, cursor) = feed.kept();
    StoredSession { channels, cursor, meta: meta.map(Meta::kept).unwrap_or_default() }
}

fn sleep(ms: u64) -> LocalBoxFuture<'static, ()> {
    Box::pin(tokio::time::sleep(Duration::from_millis(ms)))
}
