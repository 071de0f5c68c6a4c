//! SIGTERM and SIGINT.

use crate::drain::Drain;
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Blocks until SIGTERM or SIGINT; its name.
///
/// # Errors
/// When signals can't be heard.
pub fn wait() -> io::Result<&'static str> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
        }
    })
}

/// Passes signals on to the drain, and blocks until it says that the process may exit.
///
/// # Errors
/// When signals can't be heard.
pub fn drain(drain: &Drain) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let name = tokio::select! {
                () = drain.exited() => return Ok(()),
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
            drain.signal();
        }
    })
}
