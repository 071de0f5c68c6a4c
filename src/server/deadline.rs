//! A time limit that is set anew all the time and seldom reached.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A moment by which something is to happen. It moves with each request; its timer, which is dear to set, only when it would go off
/// too late, or has gone off too early.
#[derive(Debug, Default)]
pub(in crate::server) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// It is `limit` from now.
    pub(in crate::server) fn set(&mut self, limit: Duration) {
        self.at = Some(Instant::now() + limit);
    }

    /// Whether there is one.
    pub(in crate::server) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// There is none.
    pub(in crate::server) fn clear(&mut self) {
        self.at = None;
    }

    /// Ready when it has come.
    pub(in crate::server) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_is_kept() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        assert!(futures_util::poll!(poll_fn(|cx| deadline.poll(cx))).is_pending());
        for (limit_secs, expected_secs) in [(10, 10), (30, 40), (5, 45)] {
            // Once too early and once too late for the timer that is there.
            deadline.set(Duration::from_secs(90));
            assert!(futures_util::poll!(poll_fn(|cx| deadline.poll(cx))).is_pending());
            deadline.set(Duration::from_secs(limit_secs));
            poll_fn(|cx| deadline.poll(cx)).await;
            assert_eq!(start.elapsed().as_secs(), expected_secs);
        }
        deadline.set(Duration::from_secs(1));
        assert!(futures_util::poll!(poll_fn(|cx| deadline.poll(cx))).is_pending());
        deadline.clear();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(futures_util::poll!(poll_fn(|cx| deadline.poll(cx))).is_pending());
    }
}
