//! What whole-program tests share, one file for each peer.

pub mod browser;
pub mod program;
