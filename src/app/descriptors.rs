//! File descriptors: each connection needs one. Raises the soft limit to the hard one, and says what came of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open besides clients' connections: sockets, runtimes, files, and idle connections to backends.
const OTHERS: u64 = 256;

/// Raises the limit as far as the system allows, and warns where `connections_max` does not fit below it.
pub fn claim(connections_max: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, "the limit of file descriptors can't be raised");
    }
    // None is no limit.
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    tracing::info!(limit, raised_from = current, "file descriptors");
    if let Some(fits) = too_few(limit, connections_max) {
        tracing::warn!(
            limit,
            limits.connections = connections_max,
            fits,
            "fewer file descriptors than limits.connections needs: raise `ulimit -n`, or lower limits.connections"
        );
    }
}

/// How many connections fit, if not all do.
fn too_few(limit: u64, connections_max: usize) -> Option<u64> {
    let fits = limit.saturating_sub(OTHERS);
    (fits < connections_max as u64).then_some(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_do_not_fit_are_told_of() {
        assert_eq!(too_few(1024, 100_000), Some(768));
        assert_eq!(too_few(100, 1), Some(0));
        assert_eq!(too_few(1_048_576, 100_000), None);
    }
}
