//! From a client's request to its answer; the file to read first.

pub mod forward;
pub mod respond;
pub mod settings;
mod tunnel;
