//! What whole-program tests share, one file for each peer.

pub mod backend;
pub mod bridge_backend;
pub mod browser;
pub mod certificates;
pub mod client;
pub mod duplex;
pub mod events;
pub mod figures;
pub mod frames;
pub mod held;
pub mod hpack;
pub mod http2;
pub mod kafka;
pub mod kafka_broker;
pub mod metrics;
pub mod named_backend;
#[allow(dead_code, reason = "the tests of the bus itself use the rest")]
pub mod nats_server;
pub mod program;
pub mod proxy;
pub mod raw_backend;
#[allow(dead_code, reason = "the tests of the bus itself use the rest")]
pub mod redis;
pub mod relay;
pub mod service;
pub mod socket;
pub mod tls;
pub mod websocket;

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
