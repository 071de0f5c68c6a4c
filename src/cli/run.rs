//! `run`: serve until a signal says stop, then drain.

use crate::app::{self, Followed, StartError};
use crate::cli::EXIT_CONFIG;
use crate::config::{self, Loaded};
use crate::telemetry::log;
use anyhow::Context as _;
use std::path::Path;
use std::process::ExitCode;

/// Serves as the configuration says; exit code 78 when that is broken, 1 when a port is taken.
///
/// # Errors
/// When signals can't be heard.
#[expect(clippy::print_stderr, reason = "the configuration says how to log; before it is read, people read this")]
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let Loaded { result, sources } = config::load_with_sources(path);
    let config = match result {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let log_level = log::start(&config.log);
    for warning in config.warnings.lines() {
        tracing::warn!(%warning, "configuration");
    }
    let running = match app::start_followed(config, Followed { path: path.to_owned(), sources, log_level }) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "can't start");
            let broken = matches!(error, StartError::Tls { .. });
            return Ok(if broken { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE });
        }
    };
    app::signal::drain(running.drain()).context("can't listen for signals")?;
    running.leave();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
