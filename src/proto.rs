//! Bytes and machines without I/O: each file says what one wire form is.

pub mod accept;
pub mod allowance;
pub mod chunk;
pub mod cloudevents;
pub mod decimal;
pub mod drain_schedule;
pub mod event_stream;
pub mod events;
pub mod forwarded;
pub mod grip;
pub mod head_watch;
pub mod http1;
pub mod json;
pub mod json_pointer;
pub mod long_poll;
pub mod problem;
pub mod repeated_head;
pub mod request_check;
pub mod reset_watch;
pub mod sse;
pub mod subscribe;
pub mod v1;
pub mod webhook;
pub mod websocket;
pub mod websocket_cloudevents;
pub mod websocket_over_http;
