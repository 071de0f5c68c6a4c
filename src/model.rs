//! The words every other room uses, each checked once when it is built and right from then on.
//!
//! This floor knows no I/O, no clock and no random source.

pub mod channel;
pub mod cursor;
pub mod drain;
pub mod grip;
pub mod message;
pub mod name_map;
pub mod pattern;
pub mod position;
pub mod secret;
pub mod session;
pub mod session_token;
