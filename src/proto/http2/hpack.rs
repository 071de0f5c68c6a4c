//! Header blocks of HTTP/2 as bytes (RFC 7541): those of requests that are read, those of responses that are written.
//!
//! A [`Decoder`] reads every block of its connection, in order, because a block may name what earlier ones left in the
//! dynamic table. What is written uses the static table alone: no response's size tells of another, and a connection
//! keeps no state for it. Neither knows of frames, of streams or of what a field means; the characters of names and
//! values are the caller's to check, and so is how much of them it takes.

mod decode;
mod encode;
mod huffman;
mod table;

pub use decode::{DecodeError, Decoder};
pub use encode::{field, status, table_size_zero};

#[cfg(test)]
mod tests;
