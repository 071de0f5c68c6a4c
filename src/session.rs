//! One client's session: the hub's messages, an encoder and a link, until one of them ends.

pub mod grip;
pub mod keep;
pub mod long_poll;
pub mod settings;
pub mod sse;
pub mod token;
pub mod websocket;
pub mod websocket_cloudevents;
pub mod websocket_over_http;
