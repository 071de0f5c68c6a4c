//! A client's WebSocket as CloudEvents, in the form that Azure Web PubSub gives its upstream event handlers.
//!
//! [`machine`] says which event is sent when, [`identity`] makes the `ce-` fields of each, [`connect`] and [`message`]
//! are the bodies in both directions, [`state`] is what a backend gives a connection to carry, [`signature`] proves who
//! sends, and [`validation`] is the question whether a URL wants events at all. None of them knows sockets, clocks or
//! who the backend is.

pub mod connect;
pub mod identity;
pub mod machine;
pub mod message;
pub mod signature;
pub mod state;
pub mod validation;

/// The most messages of a client that wait for the backend, before the client is read no further.
pub const PENDING_MESSAGES_MAX: usize = 64;
/// How long the messages of a client that is gone are still sent, in milliseconds, before `disconnected` is.
pub const GONE_MS_MAX: u64 = 30_000;
