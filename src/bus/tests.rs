//! What every bus promises; each bus's own tests run it.

pub mod conformance;
pub mod simulation;
