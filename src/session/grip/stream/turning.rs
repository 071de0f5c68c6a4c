//! How a held stream asks its backend for pages and takes them in.

use super::{Beat, Session};
use crate::hub::shard::Subscription;
use crate::model::session::CloseReason;
use crate::proto::grip::pages::{Over, Why};
use crate::proto::websocket_over_http::retry::Jitter;
use crate::server::Link;
use crate::session::grip::{Joined, Page, SourceError, join};
use crate::telemetry::metrics::GripPage;
use std::borrow::Cow;
use std::rc::Rc;

impl Session {
    /// Whether every reliable session was asked to recover.
    pub(super) fn look_for_recovery(&mut self, now_ms: u64) -> Result<(), CloseReason> {
        let recoveries = self.subscription.shard().recoveries();
        if self.recoveries == recoveries {
            return Ok(());
        }
        self.recoveries = recoveries;
        if self.holding.is_reliable() { self.recover(now_ms) } else { Ok(()) }
    }

    /// Something is missing: the backend is asked, or the stream is over.
    pub(super) fn recover(&mut self, now_ms: u64) -> Result<(), CloseReason> {
        self.pages.recover(now_ms).map_err(over)
    }

    /// Asks for a page if it is time.
    pub(super) fn ask(&mut self, now_ms: u64) -> bool {
        let Some(source) = &self.source else { return false };
        let holding = &mut self.holding;
        let Some((link, why)) = self.pages.due(|| holding.take_heard(), now_ms) else { return false };
        let last = if why == Why::Paging { Vec::new() } else { self.holding.last() };
        self.fetch = Some((why, source.page(link, last)));
        true
    }

    /// Takes in a page: its content goes out, and its hold is the session's from then on.
    pub(super) fn take_page(
        &mut self,
        link: &mut Link,
        why: Why,
        page: Result<Rc<Page>, SourceError>,
    ) -> Result<(), CloseReason> {
        let now_ms = self.now_ms();
        let page = match page {
            Ok(page) => page,
            Err(SourceError::Failed(error)) => {
                self.metrics.grip_page(GripPage::Failed);
                tracing::debug!(%error, "a page of a held stream is tried again");
                return self.pages.failed(why, jitter(&self.subscription), now_ms).map_err(over);
            }
            Err(error) => {
                let refused = matches!(error, SourceError::Refused(_));
                self.metrics.grip_page(if refused { GripPage::Refused } else { GripPage::Unusable });
                tracing::warn!(%error, "a held stream ends: its next page can't be used");
                return Err(CloseReason::Upstream);
            }
        };
        self.metrics.grip_page(GripPage::Arrived);
        let body = page.holding.body(&page.body).map_err(|error| {
            tracing::warn!(%error, "a held stream ends: the content of its next page can't be made");
            CloseReason::Upstream
        })?;
        match body {
            Cow::Borrowed(_) => self.push(link, page.body.clone()),
            Cow::Owned(made) => self.push(link, made.into()),
        }
        self.pages.arrived(page.arrived.clone(), now_ms).map_err(over)?;
        if let Some(keep_alive) = &page.keep_alive {
            self.beat = Beat::new(keep_alive, now_ms);
        }
        if page.arrived.holds {
            let mut holding = page.holding.clone();
            holding.inherit_meta(&self.holding);
            self.holding = holding;
            let joined = join(&mut self.subscription, &self.holding).map_err(|error| {
                tracing::warn!(%error, "a held stream ends: its channels can't be joined");
                CloseReason::Upstream
            })?;
            if joined == Joined::Behind {
                self.recover(now_ms)?;
            }
        }
        Ok(())
    }
}

/// Why a stream that has no more pages is closed.
fn over(over: Over) -> CloseReason {
    match over {
        Over::Complete => CloseReason::Backend,
        Over::Unrecoverable => {
            tracing::debug!(reason = %over, "a held stream ends");
            CloseReason::Gap
        }
        Over::GaveUp | Over::Loop => {
            tracing::warn!(reason = %over, "a held stream ends");
            CloseReason::Upstream
        }
    }
}

fn jitter(subscription: &Subscription) -> Jitter {
    Jitter(u16::try_from(subscription.chance(0..u64::from(u16::MAX) + 1)).unwrap_or(u16::MAX))
}
