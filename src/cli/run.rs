//! `run`: serve until a signal says stop.

use crate::app::{self, StartError};
use crate::cli::EXIT_CONFIG;
use crate::config;
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
    let config = match config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    log::start(&config.log);
    for warning in config.warnings.lines() {
        tracing::warn!(%warning, "configuration");
    }
    let running = match app::start(config) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "can't start");
            let broken = matches!(error, StartError::Tls { .. });
            return Ok(if broken { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE });
        }
    };
    let signal = wait_for_signal()?;
    tracing::info!(signal, "stopping");
    running.stop();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Blocks until SIGTERM or SIGINT; its name.
///
/// # Errors
/// When signals can't be heard.
pub fn wait_for_signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
        tokio::select! {
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
        }
    })
}
