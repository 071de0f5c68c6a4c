//! Tests of the whole program and of the repository itself, in one crate so that they link once.
//! Whole-program tests over real sockets: the built binary, real clients, no mocks of its own parts.
mod browser;
mod support;
mod tidy;
