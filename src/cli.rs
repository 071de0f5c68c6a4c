//! The command line.

pub mod publish;
