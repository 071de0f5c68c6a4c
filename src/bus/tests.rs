//! What every bus promises; each bus's own tests run it.

#[path = "../../tests/it/support/service.rs"]
pub mod service;

pub mod conformance;
pub mod simulation;
