//! The channels and sessions of this instance.
//!
//! **A channel is a log, a session is a cursor with a waker.** Only the bus appends. Each worker has a [`shard::Shard`]
//! with its own mirror of the logs its sessions read, so that reading takes no lock.

pub mod log;
pub mod policy;
pub mod shard;

/// Why the hub can't open or feed a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// `limits.channels` is reached.
    #[error("there are {0} channels, the most allowed (limits.channels)")]
    TooManyChannels(usize),
}
