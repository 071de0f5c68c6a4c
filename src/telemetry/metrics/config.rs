//! What is told of the running configuration and of reloads.

use super::labels::ReloadResult;
use super::page::Page;
use super::totals::Counts;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The configuration that runs, as far as metrics tell of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunningConfig {
    /// The start of its file's SHA-256, in hexadecimal.
    pub hash: String,
    /// When it began to run, in Unix seconds.
    pub since_unix_secs: f64,
    /// The certificates of its listeners by file name, and when each ends, in Unix seconds.
    pub certificates: Vec<(String, i64)>,
}

/// What reloads have come to.
#[derive(Debug)]
pub(super) struct ConfigTotals {
    running: Mutex<RunningConfig>,
    /// Whether the files are those that run.
    is_current: AtomicBool,
    reloads: Counts<{ ReloadResult::ALL.len() }>,
}

impl Default for ConfigTotals {
    fn default() -> Self {
        Self { running: Mutex::default(), is_current: AtomicBool::new(true), reloads: Counts::default() }
    }
}

impl ConfigTotals {
    pub(super) fn run(&self, config: RunningConfig) {
        *self.running.lock() = config;
    }

    pub(super) fn reloaded(&self, result: ReloadResult) {
        self.is_current.store(result != ReloadResult::Refused, Relaxed);
        self.reloads.add(result as usize, 1);
    }

    pub(super) fn write(&self, page: &mut Page) {
        let running = self.running.lock().clone();
        let current = f64::from(u8::from(self.is_current.load(Relaxed)));
        page.gauge("pushbridge_config_info", "Always 1; the hash is the start of the running file's SHA-256.")
            .sample(&[("hash", &running.hash)], 1.0);
        page.gauge(
            "pushbridge_config_last_reload_successful",
            "Whether the files are what runs: 0 if they were refused.",
        )
        .sample(&[], current);
        page.gauge(
            "pushbridge_config_last_reload_success_timestamp_seconds",
            "When the running configuration began to run, in Unix time.",
        )
        .sample(&[], running.since_unix_secs);
        let mut family = page.counter("pushbridge_config_reloads_total", "Reloads that came to something.");
        for result in ReloadResult::ALL {
            family.sample(&[("result", result.as_str())], self.reloads.get(result as usize));
        }
        let mut family = page.gauge(
            "pushbridge_tls_certificate_not_after_timestamp_seconds",
            "When a certificate that is served ends, in Unix time.",
        );
        for (name, not_after_secs) in &running.certificates {
            family.sample(&[("name", name)], *not_after_secs as f64);
        }
    }
}
