//! When a stream asks its backend for more: page after page until it is held, and then to recover.
//!
//! ```text
//!            ┌─ no hold, a link ─┐            missing · hint · its time
//! arrived ─▶ Paging ─▶ asked ────┘   Held ───────────────────────────────▶ asked ─▶ arrived
//!            └─ neither: the end      ▲─ a hold ─┘                            └─ failed ─▶ later, or the end
//! ```
//!
//! Time is an argument, in milliseconds of any steady clock, and so is chance.

use crate::proto::grip::instruct::NextLink;
use crate::proto::websocket_over_http::retry::{Jitter, wait_ms};

/// The most pages in a row that do not hold: more is a loop.
pub const PAGES_MAX: u32 = 1000;
/// The most pages in a row that neither hold nor have content: fewer are a loop already.
pub const EMPTY_PAGES_MAX: u32 = 10;
/// The wait before a second recovery that follows the first without progress, in milliseconds; then it doubles.
pub const RECOVER_PAUSE_MS: u64 = 1000;
/// The longest such wait, in milliseconds.
pub const RECOVER_PAUSE_MS_MAX: u64 = 60_000;

/// When the next page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    next: Option<NextLink>,
    state: State,
    /// Pages in a row that did not hold.
    pages: u32,
    /// Of these, the last ones without content.
    empty: u32,
    /// Failures in a row.
    failures: usize,
    /// Recoveries in a row that no message followed in order.
    recoveries: u32,
    /// When recoveries are allowed again.
    recover_from_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not held yet: the next page is asked for from this time on.
    Paging { from_ms: u64 },
    /// Held since this time; `wanted` says that a page is asked for from a time on.
    Held { since_ms: u64, wanted: Option<Wanted> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    why: Why,
    from_ms: u64,
}

/// Why a page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The stream is not held yet.
    Paging,
    /// Something is missing: nothing may be delivered before the page.
    Recover,
    /// A publisher said that there is something.
    Hint,
    /// There was nothing for long.
    Quiet,
}

/// Whether a stream's channels have been heard since the last page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Each of them.
    All,
    /// Not each of them.
    NotAll,
}

/// What a page was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Whether it holds.
    pub holds: bool,
    /// Whether it has no content.
    pub is_empty: bool,
    /// Where it goes on.
    pub next: Option<NextLink>,
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// A page without a hold and without a link.
    #[error("its last page came")]
    Complete,
    /// Something is missing, and there is no link to ask.
    #[error("something is missing on a channel with a prev-id, and there is no Grip-Link with rel=next to recover by")]
    Unrecoverable,
    /// The backend failed too often.
    #[error("the next page could not be had")]
    GaveUp,
    /// Pages without end.
    #[error("a loop of next links: over {PAGES_MAX} pages, or {EMPTY_PAGES_MAX} empty ones, without a hold")]
    Loop,
}

impl Pages {
    /// After the first response.
    ///
    /// # Errors
    /// When that was all.
    pub fn new(first: Arrived, now_ms: u64) -> Result<Self, Over> {
        let mut pages = Self {
            next: None,
            state: State::Paging { from_ms: now_ms },
            pages: 0,
            empty: 0,
            failures: 0,
            recoveries: 0,
            recover_from_ms: 0,
        };
        pages.arrived(first, now_ms)?;
        Ok(pages)
    }

    /// Whether what is published may be delivered.
    pub fn may_deliver(&self) -> bool {
        match self.state {
            State::Paging { .. } => false,
            State::Held { wanted, .. } => !wanted.is_some_and(|wanted| wanted.why == Why::Recover),
        }
    }

    /// Whether the stream is held.
    pub fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    /// Something is missing.
    ///
    /// # Errors
    /// When there is no link to ask.
    pub fn recover(&mut self, now_ms: u64) -> Result<(), Over> {
        if self.next.is_none() {
            return Err(Over::Unrecoverable);
        }
        if let State::Held { wanted, .. } = &mut self.state
            && !wanted.is_some_and(|wanted| wanted.why == Why::Recover)
        {
            *wanted = Some(Wanted { why: Why::Recover, from_ms: now_ms.max(self.recover_from_ms) });
            let pause = RECOVER_PAUSE_MS.saturating_mul(1 << self.recoveries.min(16)).min(RECOVER_PAUSE_MS_MAX);
            self.recover_from_ms = now_ms.max(self.recover_from_ms).saturating_add(pause);
            self.recoveries = self.recoveries.saturating_add(1);
        }
        Ok(())
    }

    /// A publisher says that there is something; without a link there is nothing to ask.
    pub fn hint(&mut self, now_ms: u64) {
        if let State::Held { wanted: wanted @ None, .. } = &mut self.state
            && self.next.is_some()
        {
            *wanted = Some(Wanted { why: Why::Hint, from_ms: now_ms });
        }
    }

    /// A message came in order: recoveries help.
    pub fn progressed(&mut self) {
        (self.recoveries, self.recover_from_ms) = (0, 0);
    }

    /// The link to ask now, and why. `heard` is asked when the link's time has come.
    pub fn due(&mut self, heard: impl FnOnce() -> Heard, now_ms: u64) -> Option<(&str, Why)> {
        let why = match &mut self.state {
            State::Paging { from_ms } if *from_ms <= now_ms => Why::Paging,
            State::Paging { .. } => return None,
            State::Held { wanted: Some(wanted), .. } if wanted.from_ms <= now_ms => wanted.why,
            State::Held { wanted: Some(_), .. } => return None,
            State::Held { since_ms, wanted: None } => {
                let timeout_ms = self.next.as_ref()?.timeout_ms;
                if since_ms.saturating_add(timeout_ms) > now_ms {
                    return None;
                }
                *since_ms = now_ms;
                if heard() == Heard::All {
                    return None;
                }
                Why::Quiet
            }
        };
        self.next.as_ref().map(|next| (&*next.uri, why))
    }

    /// When [`Pages::due`] has something because of time alone; `u64::MAX` if never.
    pub fn deadline_ms(&self) -> u64 {
        match &self.state {
            State::Paging { from_ms } => *from_ms,
            State::Held { wanted: Some(wanted), .. } => wanted.from_ms,
            State::Held { since_ms, wanted: None } => {
                self.next.as_ref().map_or(u64::MAX, |next| since_ms.saturating_add(next.timeout_ms))
            }
        }
    }

    /// Takes in a page. One without a link keeps the link before it while it holds.
    ///
    /// # Errors
    /// Why the stream is over.
    pub fn arrived(&mut self, page: Arrived, now_ms: u64) -> Result<(), Over> {
        self.failures = 0;
        let has_next = page.next.is_some();
        if has_next || !page.holds {
            self.next = page.next;
        }
        if page.holds {
            (self.pages, self.empty) = (0, 0);
            self.state = State::Held { since_ms: now_ms, wanted: None };
            return Ok(());
        }
        if !has_next {
            return Err(Over::Complete);
        }
        self.pages += 1;
        self.empty = if page.is_empty { self.empty + 1 } else { 0 };
        if self.pages > PAGES_MAX || self.empty > EMPTY_PAGES_MAX {
            return Err(Over::Loop);
        }
        self.state = State::Paging { from_ms: now_ms };
        Ok(())
    }

    /// Takes in that a page could not be had: it is asked for again, later and later. One that was asked for without
    /// need is waited for until its time comes again.
    ///
    /// # Errors
    /// When it failed too often.
    pub fn failed(&mut self, why: Why, jitter: Jitter, now_ms: u64) -> Result<(), Over> {
        if matches!(why, Why::Quiet | Why::Hint) {
            self.state = State::Held { since_ms: now_ms, wanted: None };
            return Ok(());
        }
        let wait = wait_ms(self.failures, jitter).ok_or(Over::GaveUp)?;
        self.failures += 1;
        let from_ms = now_ms.saturating_add(wait);
        match &mut self.state {
            State::Paging { from_ms: at } => *at = from_ms,
            State::Held { wanted, .. } => *wanted = Some(Wanted { why, from_ms }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: Jitter = Jitter(0x7fff);

    fn link(uri: &str) -> Option<NextLink> {
        Some(NextLink { uri: uri.into(), timeout_ms: 120_000 })
    }

    fn page(holds: bool, next: Option<NextLink>) -> Arrived {
        Arrived { holds, is_empty: false, next }
    }

    fn held() -> Pages {
        Pages::new(page(true, link("/next")), 0).expect("held")
    }

    #[test]
    fn pages_follow_each_other_until_a_hold() {
        let mut pages = Pages::new(page(false, link("/2")), 0).expect("more");
        assert_eq!(pages.due(|| Heard::NotAll, 0), Some(("/2", Why::Paging)));
        assert!(!pages.may_deliver());
        pages.arrived(page(false, link("/3")), 10).expect("more");
        assert_eq!(pages.due(|| Heard::NotAll, 10), Some(("/3", Why::Paging)));
        pages.arrived(page(true, link("/4")), 20).expect("held");
        assert!(pages.is_held() && pages.may_deliver());
        assert_eq!(pages.due(|| Heard::NotAll, 20), None);
        assert_eq!(pages.deadline_ms(), 120_020);
        assert_eq!(pages.arrived(page(false, None), 30), Err(Over::Complete));
        assert_eq!(Pages::new(page(false, None), 0), Err(Over::Complete));
    }

    #[test]
    fn a_loop_is_noticed() {
        let mut pages = Pages::new(page(false, link("/a")), 0).expect("more");
        let mut turns = 1;
        while pages.arrived(page(false, link("/a")), 0).is_ok() {
            turns += 1;
        }
        assert_eq!(turns, PAGES_MAX);
        let mut pages = Pages::new(page(false, link("/a")), 0).expect("more");
        let empty = || Arrived { is_empty: true, ..page(false, link("/a")) };
        for _ in 0..EMPTY_PAGES_MAX {
            pages.arrived(empty(), 0).expect("more");
        }
        assert_eq!(pages.arrived(empty(), 0), Err(Over::Loop));
    }

    #[test]
    fn what_is_missing_is_asked_for_at_once_and_then_less_and_less_often() {
        let mut pages = held();
        pages.recover(100).expect("a link");
        assert!(!pages.may_deliver());
        assert_eq!(pages.due(|| Heard::All, 100), Some(("/next", Why::Recover)));
        pages.arrived(page(true, None), 110).expect("held");
        assert!(pages.may_deliver());
        pages.recover(120).expect("the same link");
        assert_eq!(pages.due(|| Heard::All, 1099), None);
        assert_eq!(pages.deadline_ms(), 1100);
        assert_eq!(pages.due(|| Heard::All, 1100), Some(("/next", Why::Recover)));
        pages.arrived(page(true, link("/next")), 1110).expect("held");
        pages.recover(1120).expect("a link");
        assert_eq!(pages.deadline_ms(), 3100);
        pages.arrived(page(true, link("/next")), 3110).expect("held");
        pages.progressed();
        pages.recover(3120).expect("a link");
        assert_eq!(pages.deadline_ms(), 3120);
        let mut linkless = Pages::new(page(true, None), 0).expect("held");
        assert_eq!(linkless.recover(0), Err(Over::Unrecoverable));
        assert_eq!(linkless.deadline_ms(), u64::MAX);
    }

    #[test]
    fn silence_and_hints_ask_as_well() {
        let mut pages = held();
        assert_eq!(pages.due(|| Heard::NotAll, 119_999), None);
        assert_eq!(pages.due(|| Heard::All, 120_000), None, "every channel was heard");
        assert_eq!(pages.deadline_ms(), 240_000);
        assert_eq!(pages.due(|| Heard::NotAll, 240_000), Some(("/next", Why::Quiet)));
        assert!(pages.may_deliver());
        pages.failed(Why::Quiet, MIDDLE, 240_001).expect("not needed");
        assert_eq!(pages.deadline_ms(), 360_001);
        pages.hint(250_000);
        assert_eq!(pages.due(|| Heard::All, 250_000), Some(("/next", Why::Hint)));
    }

    #[test]
    fn failures_are_waited_out_and_given_up() {
        let mut pages = held();
        pages.recover(0).expect("a link");
        let mut now_ms = 0;
        let mut waits = 0;
        while pages.failed(Why::Recover, MIDDLE, now_ms).is_ok() {
            assert!(pages.deadline_ms() > now_ms && !pages.may_deliver());
            now_ms = pages.deadline_ms();
            waits += 1;
        }
        assert_eq!(waits, 5);
    }
}
