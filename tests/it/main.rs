//! Whole-program tests over real sockets (the built binary, real clients) and tests of the repository itself, in one
//! crate so that they link once.

mod autobahn;
mod browser;
mod push;
mod resume;
mod support;
mod tidy;
mod websocket;
