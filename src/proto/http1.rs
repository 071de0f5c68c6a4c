//! Messages of HTTP/1.1 as bytes (RFC 9112), for both ends: heads and bodies that are read, and that are written.
//!
//! A [`RequestReader`] or [`HeadReader`] takes a head from what came, a [`BodyReader`] its body; a [`Sending`] gives a message out piece
//! by piece. All may be fed and emptied in any pieces, and know of no connection.

mod body;
mod encode;
mod fields;
mod request;
mod response;
mod sending;

pub use body::{BodyFault, BodyReader, Piece};
pub use encode::{encode_request_head, encode_response_head, push_chunk_size, push_fields, push_last_chunk};
pub use fields::Framing;
pub use request::{Asked, RequestFault, RequestHead, RequestReader};
pub use response::{HEAD_BYTES_MAX, HeadFault, HeadReader, ReasonPhrase, ResponseHead};
pub use sending::{SendError, Sending, announced};
