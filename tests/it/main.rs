//! Whole-program tests over real sockets (the built binary, real clients) and tests of the repository itself, in one
//! crate so that they link once.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "rules for the program, not for its tests")]

mod browser;
mod drain;
mod push;
mod rolling;
mod support;
mod tidy;
