//! The command line.

pub mod subscribe;
