//! Whole-program tests over real sockets: the built binary, real clients, no mocks of its own parts.

mod browser;
mod support;
