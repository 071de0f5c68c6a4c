//! pushbridge: a reverse proxy that turns a backend's POST into SSE, WebSocket and long poll.
//!
//! Modules stand in floor order: each imports only those above it here, or its own folder.

// F0
pub mod model;
// F1
pub mod clock;
pub mod proto;
// F2
pub mod drain;
pub mod hub;
pub mod route;
pub mod telemetry;
// F3
pub mod bus;
pub mod server;
pub mod upstream;
// F4
pub mod presence;
pub mod session;
// F5
pub mod admin;
pub mod gateway;
pub mod publish;
// F6
pub mod config;
// F7
pub mod reload;
// F8
pub mod app;
// F9
pub mod demo;
// F10
pub mod cli;
