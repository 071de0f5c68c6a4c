//! One client's session: the hub's messages, an encoder and a link, until one of them ends.

pub mod settings;
pub mod websocket_over_http;
