//! Whole-program tests over real sockets (the built binary, real clients) and tests of the repository itself, in one
//! crate so that they link once.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::large_futures,
    reason = "these rules keep the workers fast; a test is no worker"
)]

mod admin;
mod autobahn;
mod bridge;
mod browser;
mod cli;
mod cloudevents;
mod drain;
mod grip;
mod http1;
mod http2;
mod limits;
mod members;
mod polls;
mod presence;
mod proxy;
mod publish;
mod push;
mod reload;
mod resume;
mod rolling;
mod sessions;
mod shared_bus;
mod sidecar;
mod slow_peer;
mod support;
mod tidy;
mod tls;
mod webhooks;
mod websocket;
