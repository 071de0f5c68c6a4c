//! The publish listener: where backends POST events.

pub mod settings;
