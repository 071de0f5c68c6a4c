//! NATS JetStream as the bus.

pub mod follow;
pub mod subject;
