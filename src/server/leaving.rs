//! Waiting until idle connections are to end.

use crate::server::limits::Leave;
use futures_util::future::LocalBoxFuture;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// One connection's ear for [`Leave::Now`]. It is asked at each of the connection's turns, so it waits anew only when something
/// has changed.
pub(in crate::server) struct Leaving {
    leave: watch::Receiver<Leave>,
    waiting: Option<LocalBoxFuture<'static, ()>>,
}

impl Leaving {
    pub(in crate::server) fn new(leave: &watch::Receiver<Leave>) -> Self {
        Self { leave: leave.clone(), waiting: None }
    }

    /// Ready when idle connections are to end. To be polled by one task.
    pub(in crate::server) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Without a sender the worker is about to end.
        if self.waiting.is_some() && !self.leave.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        if *self.leave.borrow_and_update() == Leave::Now {
            return Poll::Ready(());
        }
        let leave = &self.leave;
        let waiting = self.waiting.get_or_insert_with(|| {
            let mut leave = leave.clone();
            // Without a budget it would say that it waits, and not do so.
            Box::pin(tokio::task::unconstrained(async move {
                let _ = leave.wait_for(|leave| *leave == Leave::Now).await;
            }))
        });
        waiting.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;

    #[tokio::test]
    async fn only_the_last_word_ends_it_however_often_others_came_before() {
        let sender = watch::Sender::new(Leave::Stay);
        let mut leaving = Leaving::new(&sender.subscribe());
        for leave in [Leave::AfterAnswer, Leave::Stay, Leave::AfterAnswer] {
            assert!(futures_util::poll!(poll_fn(|cx| leaving.poll(cx))).is_pending());
            sender.send_replace(leave);
        }
        let ending = tokio::join!(poll_fn(|cx| leaving.poll(cx)), async { sender.send_replace(Leave::Now) });
        assert_eq!(ending.1, Leave::AfterAnswer);
        poll_fn(|cx| Leaving::new(&sender.subscribe()).poll(cx)).await;
    }

    #[tokio::test]
    async fn it_is_heard_also_by_who_has_used_up_its_turn() {
        let sender = watch::Sender::new(Leave::Stay);
        let mut leaving = Leaving::new(&sender.subscribe());
        let mut is_asked = false;
        let hearing = poll_fn(|cx| {
            // The budget of the task's turn (tokio::task::coop).
            while !is_asked && tokio::task::coop::has_budget_remaining() {
                let _ = pin!(tokio::task::coop::consume_budget()).poll(cx);
            }
            is_asked = true;
            leaving.poll(cx)
        });
        tokio::join!(hearing, async { sender.send_replace(Leave::Now) });
    }
}
