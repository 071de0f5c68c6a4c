//! What a shared bus counts. Its tasks are few, so that they count here directly.

use super::page::Page;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The counts of the bus. Where none is declared it is the embedded one, which is always there and counts nothing.
#[derive(Debug, Default)]
pub struct BusMetrics {
    shared: AtomicBool,
    connected: AtomicU64,
    lag_us: AtomicU64,
    published: AtomicU64,
    received: AtomicU64,
    errors: AtomicU64,
    resubscribes: AtomicU64,
    repairs: AtomicU64,
    history_misses: AtomicU64,
    channels: AtomicU64,
}

impl BusMetrics {
    /// Says that it is a shared one, which may be out of reach.
    pub fn declare(&self) {
        self.shared.store(true, Relaxed);
    }

    /// Whether the bus can be reached now.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(u64::from(connected), Relaxed);
    }

    /// A message came from the bus, this long after the bus took it (by the clocks of both machines).
    pub fn received(&self, lag_us: u64) {
        self.received.fetch_add(1, Relaxed);
        self.lag_us.store(lag_us, Relaxed);
    }

    /// The bus took a message from this instance.
    pub fn published(&self) {
        self.published.fetch_add(1, Relaxed);
    }

    /// The bus could not be asked, or its answer made no sense.
    pub fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Channels were subscribed to anew after a loss.
    pub fn resubscribed(&self, channels: u64) {
        self.resubscribes.fetch_add(channels, Relaxed);
    }

    /// Messages that did not come by themselves were fetched from the history.
    pub fn repaired(&self) {
        self.repairs.fetch_add(1, Relaxed);
    }

    /// The history no longer had what was missed, so that a gap was announced.
    pub fn history_missed(&self) {
        self.history_misses.fetch_add(1, Relaxed);
    }

    /// How many channels this instance follows on the bus.
    pub fn set_channels(&self, channels: usize) {
        self.channels.store(channels as u64, Relaxed);
    }

    /// Whether the bus can be reached now.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed) == 1
    }

    pub(super) fn write(&self, page: &mut Page) {
        let of = |value: &AtomicU64| value.load(Relaxed) as f64;
        page.gauge("pushbridge_bus_connected", "1 while the bus can be reached, as the embedded one always can.")
            .sample(&[], if self.shared.load(Relaxed) { of(&self.connected) } else { 1.0 });
        page.gauge("pushbridge_bus_lag_seconds", "From the bus's taking of the newest message to its arrival here.")
            .sample(&[], of(&self.lag_us) / 1e6);
        page.gauge("pushbridge_bus_channels", "Channels that this instance follows on the shared bus.")
            .sample(&[], of(&self.channels));
        let mut counter = |name, help, value| page.counter(name, help).sample(&[], of(value));
        counter(
            "pushbridge_bus_published_total",
            "Messages that the shared bus took from this instance.",
            &self.published,
        );
        counter("pushbridge_bus_received_total", "Messages that came from the shared bus.", &self.received);
        counter(
            "pushbridge_bus_errors_total",
            "Times that the shared bus could not be asked, or answered no sense.",
            &self.errors,
        );
        counter(
            "pushbridge_bus_resubscribes_total",
            "Channels that were followed anew after the bus was lost.",
            &self.resubscribes,
        );
        counter(
            "pushbridge_bus_repairs_total",
            "Times that missed messages were fetched from the bus's history.",
            &self.repairs,
        );
        counter(
            "pushbridge_bus_history_misses_total",
            "Times that the bus's history no longer had what was missed: a gap was announced.",
            &self.history_misses,
        );
    }
}
