//! What whole-program tests share, one file for each peer.

pub mod browser;
pub mod client;
pub mod held;
pub mod program;
pub mod proxy;

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer; panics after a minute.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
