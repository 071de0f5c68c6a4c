//! What operators see: logs, metrics and readiness.

pub mod access;
pub mod log;
pub mod metrics;
pub mod readiness;
