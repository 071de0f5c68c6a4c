//! The pushbridge program: arguments → run → exit code.

use clap::Parser;
use pushbridge::cli::Cli;
use std::process::ExitCode;

/// glibc's allocator keeps what sessions free when they hand their buffers back; jemalloc returns it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pushbridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
