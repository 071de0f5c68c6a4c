//! Bytes and machines without I/O: each file says what one wire form is.

pub mod chunk;
pub mod cloudevents;
pub mod events;
pub mod json;
pub mod json_pointer;
pub mod problem;
pub mod webhook;
