//! The server's end of a WebSocket without I/O (RFC 6455; over HTTP/2: RFC 8441).
//!
//! [`handshake`] checks the opening request and makes the answer's head; [`reader`] turns a client's bytes into messages
//! and control frames; [`frame`] makes the server's frames, each once for all sessions that send it; [`close`] keeps
//! close codes clean. No extension is spoken: what the client offers is left unanswered, and RSV bits are an error.
//! This module knows no timer and no socket: when to ping, and how long to wait for a close, is the session's business.

pub mod close;
pub mod frame;
pub mod handshake;
pub mod reader;

pub use close::Close;
pub use frame::Opcode;
pub use reader::{Event, Input, Reader, Violation};
