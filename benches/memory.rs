//! pushbridge with its heap watched: `bench/memory.py` asks where each byte of a waiting session is.
//!
//! ```text
//! memory CONFIG OUT   serves as CONFIG says; a line on the input, and what lives on the heap is written to OUT
//! ```

#![allow(clippy::disallowed_methods, reason = "a thread of its own serves; the process ends without a drain")]

use clap::Parser as _;
use pushbridge::cli::Cli;
use std::io::BufRead as _;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Frames of each allocation that are kept, from the allocation outwards.
const FRAMES: usize = 48;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let (Some(config), Some(out)) = (args.next(), args.next()) else {
        panic!("memory CONFIG OUT; see bench/memory.py");
    };
    let profiler = dhat::Profiler::builder().file_name(out).trim_backtraces(Some(FRAMES)).build();
    std::thread::spawn(move || Cli::parse_from(["pushbridge", "run", "--config", &config]).execute());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("an input");
    // Writes the file.
    drop(profiler);
    std::process::exit(0);
}
