//! Which server gets a request. Knows nothing of connections.

use crate::upstream::settings::Balance;

/// What the choice is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Requests under way from this worker.
    pub(super) in_flight: usize,
    /// Whether this request may go there, and how gladly.
    pub(super) fitness: Fitness,
}

/// Whether a request may go to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// Gladly.
    Good,
    /// Only if there is none better: it took no connection a moment ago.
    Avoided,
    /// No: it took no connection for this very request.
    Tried,
}

/// Picks a server; `turn` counts the picks and spreads equal ones.
pub(super) fn pick(balance: Balance, candidates: &[Candidate], turn: usize) -> Option<usize> {
    let len = candidates.len();
    let best = candidates.iter().map(|candidate| candidate.fitness).min().filter(|best| *best != Fitness::Tried)?;
    let mut fit = (0..len).map(|at| (turn % len + at) % len).filter(|at| candidates[*at].fitness == best);
    match balance {
        Balance::RoundRobin => fit.next(),
        Balance::LeastRequests => fit.min_by_key(|at| candidates[*at].in_flight),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fitness::{Avoided, Good, Tried};

    #[track_caller]
    fn check(balance: Balance, candidates: &[(usize, Fitness)], turns: &[usize], expected: &[Option<usize>]) {
        let candidates: Vec<_> =
            candidates.iter().map(|&(in_flight, fitness)| Candidate { in_flight, fitness }).collect();
        let picked: Vec<_> = turns.iter().map(|turn| pick(balance, &candidates, *turn)).collect();
        assert_eq!(picked, expected);
    }

    #[test]
    fn round_robin_takes_turns_among_the_fit() {
        let round = Balance::RoundRobin;
        check(round, &[(0, Good), (9, Good)], &[0, 1, 2, usize::MAX], &[Some(0), Some(1), Some(0), Some(1)]);
        check(round, &[(0, Avoided), (9, Good)], &[0, 1], &[Some(1), Some(1)]);
        check(round, &[(0, Avoided), (9, Tried)], &[0, 1], &[Some(0), Some(0)]);
        check(round, &[(0, Tried)], &[0], &[None]);
        check(round, &[], &[0], &[None]);
    }

    #[test]
    fn least_requests_takes_the_least_busy_and_spreads_equals() {
        let least = Balance::LeastRequests;
        check(least, &[(2, Good), (1, Good), (3, Good)], &[0, 1, 2], &[Some(1), Some(1), Some(1)]);
        check(least, &[(1, Good), (1, Good)], &[0, 1], &[Some(0), Some(1)]);
        check(least, &[(0, Avoided), (7, Good)], &[0], &[Some(1)]);
    }
}
