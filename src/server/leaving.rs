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
        let mut leave = self.leave.clone();
        let waiting = self.waiting.get_or_insert_with(|| {
            Box::pin(async move {
                let _ = leave.wait_for(|leave| *leave == Leave::Now).await;
            })
        });
        waiting.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

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
}
