//! The client of the backends: picks a server, keeps connections, bounds every wait.

pub mod settings;
