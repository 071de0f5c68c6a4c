//! What is counted of who is on channels. One thread counts, so that it does so here directly.

use super::page::Page;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counts of presence.
#[derive(Debug, Default)]
pub struct PresenceMetrics {
    channels: AtomicU64,
    users: AtomicU64,
    notes: AtomicU64,
    errors: AtomicU64,
    joins: AtomicU64,
    leaves: AtomicU64,
}

impl PresenceMetrics {
    /// How many channels' members are known here.
    pub fn set_channels(&self, channels: usize) {
        self.channels.store(channels as u64, Relaxed);
    }

    /// How many users have sessions here.
    pub fn set_users(&self, users: usize) {
        self.users.store(users as u64, Relaxed);
    }

    /// A note was written.
    pub fn wrote(&self) {
        self.notes.fetch_add(1, Relaxed);
    }

    /// The bus did not take a note or an announcement, or could not follow.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// A join (or else a leave) was published.
    pub fn announced(&self, join: bool) {
        if join { &self.joins } else { &self.leaves }.fetch_add(1, Relaxed);
    }

    pub(super) fn write(&self, page: &mut Page) {
        let of = |value: &AtomicU64| value.load(Relaxed) as f64;
        page.gauge("pushbridge_presence_channels", "Channels whose members this instance knows.")
            .sample(&[], of(&self.channels));
        page.gauge(
            "pushbridge_presence_users",
            "Users that have sessions on this instance, each on each channel that knows its members.",
        )
        .sample(&[], of(&self.users));
        page.counter("pushbridge_presence_notes_total", "Notes to other instances of who is on a channel.")
            .sample(&[], of(&self.notes));
        page.counter("pushbridge_presence_errors_total", "Notes, joins and leaves that the bus did not take at once.")
            .sample(&[], of(&self.errors));
        let mut announced =
            page.counter("pushbridge_presence_announced_total", "Joins and leaves that this instance published.");
        announced.sample(&[("event", "join")], of(&self.joins));
        announced.sample(&[("event", "leave")], of(&self.leaves));
    }
}
