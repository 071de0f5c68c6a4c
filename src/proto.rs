//! Bytes and machines without I/O: each file says what one wire form is.

pub mod chunk;
pub mod problem;
pub mod webhook;
pub mod websocket_over_http;
