//! From a client's request to its answer; the file to read first.

pub mod settings;
