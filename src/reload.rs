//! Hot reload: files, SIGHUP or `POST /reload` → load → check → diff → one swap, all or nothing.
//!
//! ```text
//! folders (inotify) ─▶ quiet for 200 ms ─┐
//! every 30 s ────────────────────────────┼─▶ are the contents new? ─▶ load ─▶ diff ─▶ Target::swap
//! SIGHUP, POST /reload ──────────────────┴──────────────────────────▶
//! ```
//!
//! What can't be run changes nothing: it is logged once for each distinct content, a gauge tells of it, and going back
//! to what runs heals it. What a swap does, only the wiring knows.

mod run;
mod watch;

pub use run::{Hangups, run};

use crate::config::diff::{Comparable, ConfigDiff};
use crate::config::sources::{Fingerprint, Sources};
use crate::config::{self, Config, Loaded, Problems};
use crate::telemetry::metrics::{Metrics, ReloadResult};
use std::path::PathBuf;
use std::sync::Arc;

/// What a reload changes.
pub trait Target {
    /// Puts a checked configuration in force, all of it or nothing.
    ///
    /// # Errors
    /// Why it can't be: then nothing has changed.
    fn swap(&mut self, config: Config) -> Result<(), String>;
}

/// Why a reload is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Something changed in a folder.
    Files,
    /// Time passed.
    Poll,
    /// SIGHUP.
    Signal,
    /// `POST /reload`.
    Request,
}

/// What came of a reload.
#[derive(Debug)]
pub enum Outcome {
    /// Another configuration runs.
    Applied(ConfigDiff),
    /// The files are what runs already.
    Unchanged,
    /// The files can't be run; what ran before goes on.
    Refused(Problems),
}

/// Brings the files of one configuration into force, again and again.
#[derive(Debug)]
pub struct Reloader<T> {
    path: PathBuf,
    target: T,
    metrics: Arc<Metrics>,
    running: Running,
    /// The files as of the last load.
    sources: Sources,
    /// What was refused last, if that is how the files still are.
    refused: Option<(Fingerprint, Problems)>,
}

/// What runs.
#[derive(Debug)]
pub struct Running {
    /// The configuration, to tell what changes.
    pub comparable: Comparable,
    /// The hash of its file.
    pub hash: String,
    /// What was read when it was loaded.
    pub sources: Sources,
}

impl Trigger {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Poll => "poll",
            Self::Signal => "SIGHUP",
            Self::Request => "POST /reload",
        }
    }

    /// Whether somebody waits for a word.
    fn is_asked_for(self) -> bool {
        matches!(self, Self::Signal | Self::Request)
    }
}

impl<T: Target> Reloader<T> {
    /// A reloader of the file at `path`.
    pub fn new(path: PathBuf, running: Running, target: T, metrics: Arc<Metrics>) -> Self {
        let sources = running.sources.clone();
        Self { path, target, metrics, running, sources, refused: None }
    }

    /// Reloads if the files are not what runs, or were not when they were last looked at.
    pub fn look(&mut self, trigger: Trigger) {
        if self.refused.is_some() || self.sources.look_again() != self.running.sources.fingerprint() {
            self.reload(trigger);
        }
    }

    /// Loads the files, whatever they were before.
    pub fn reload(&mut self, trigger: Trigger) -> Outcome {
        let Loaded { result, sources } = config::load_with_sources(&self.path);
        let fingerprint = sources.fingerprint();
        let outcome = match result {
            Ok(_) if fingerprint == self.running.sources.fingerprint() => self.unchanged(trigger),
            Ok(config) => self.apply(config, fingerprint, trigger),
            Err(problems) => self.refuse(problems, fingerprint, trigger),
        };
        if let Outcome::Refused(_) = outcome {
            // Broken files name fewer others; those are watched all the same, since one of them may be what is mended.
            self.sources = sources.with_those_of(&self.running.sources);
        } else {
            self.sources = sources.clone();
            self.running.sources = sources;
        }
        outcome
    }

    /// The hash of the running file.
    pub fn hash(&self) -> &str {
        &self.running.hash
    }

    /// The files as of the last load.
    fn sources(&self) -> &Sources {
        &self.sources
    }

    fn apply(&mut self, config: Config, fingerprint: Fingerprint, trigger: Trigger) -> Outcome {
        let comparable = Comparable::of(&config);
        let diff = ConfigDiff::between(&self.running.comparable, &comparable);
        let mut problems = Problems::new(self.path.display().to_string());
        for (key, text) in diff.restart_needed() {
            problems.add_for_key(key, text);
        }
        if !problems.is_empty() {
            return self.refuse(problems, fingerprint, trigger);
        }
        let (hash, warnings) = (config.hash.clone(), config.warnings.clone());
        if let Err(reason) = self.target.swap(config) {
            problems.add_for_file(reason, None);
            return self.refuse(problems, fingerprint, trigger);
        }
        // Before the log: who reads there that it runs finds it in the metrics.
        self.metrics.reloaded(ReloadResult::Applied);
        for warning in warnings.lines() {
            tracing::warn!(%warning, "configuration");
        }
        let changes = diff.lines().collect::<Vec<_>>().join("\n");
        tracing::info!(trigger = trigger.as_str(), %hash, changes, "configuration reloaded");
        (self.running.comparable, self.running.hash) = (comparable, hash);
        self.refused = None;
        Outcome::Applied(diff)
    }

    fn unchanged(&mut self, trigger: Trigger) -> Outcome {
        let was_refused = self.refused.take().is_some();
        if was_refused || trigger.is_asked_for() {
            self.metrics.reloaded(ReloadResult::Unchanged);
            tracing::info!(trigger = trigger.as_str(), hash = self.running.hash, "configuration is what runs already");
        }
        Outcome::Unchanged
    }

    fn refuse(&mut self, problems: Problems, fingerprint: Fingerprint, trigger: Trigger) -> Outcome {
        let known = self.refused.as_ref().is_some_and(|(content, text)| *content == fingerprint && *text == problems);
        if !known || trigger.is_asked_for() {
            self.metrics.reloaded(ReloadResult::Refused);
            tracing::error!(
                trigger = trigger.as_str(),
                running = self.running.hash,
                problems = %problems,
                "configuration refused; the running one goes on"
            );
        }
        self.refused = Some((fingerprint, problems.clone()));
        Outcome::Refused(problems)
    }
}

#[cfg(test)]
mod tests;
