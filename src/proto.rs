//! Bytes and machines without I/O: each file says what one wire form is.

pub mod chunk;
pub mod event_stream;
pub mod problem;
pub mod webhook;
