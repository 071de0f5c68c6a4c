//! Bytes and machines without I/O: each file says what one wire form is.

pub mod chunk;
pub mod forwarded;
pub mod head_watch;
pub mod problem;
pub mod request_check;
pub mod webhook;
