//! SIGTERM and SIGINT.

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
