//! The drain without a clock: phases, and what requests and signals do to them.

use crate::drain::{CancelError, DrainSettings};
use crate::model::drain::Phase;
use std::time::Duration;

/// Whether the process is to exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It stays when it is drained.
    No,
    /// It exits when it is drained.
    WhenDone,
    /// It exits without more waiting.
    Now,
}

/// What those who watch a drain see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// How far it is.
    pub phase: Phase,
    /// What comes after.
    pub exit: Exit,
    /// Whether the drain's conductor has done all that it had to.
    pub closed: bool,
}

impl State {
    /// Whether the process may exit.
    pub fn is_exit(&self) -> bool {
        self.closed && self.exit != Exit::No
    }
}

/// The state machine; times are milliseconds of any clock that does not go back.
#[derive(Debug)]
pub struct Machine {
    state: State,
    /// Of the drain under way, or of the next.
    settings: DrainSettings,
    /// Of the next, if they differ.
    next: Option<DrainSettings>,
    began_ms: u64,
    leave_by_ms: u64,
}

impl Machine {
    /// An instance that serves.
    pub fn new(settings: DrainSettings) -> Self {
        let state = State { phase: Phase::Serving, exit: Exit::No, closed: false };
        Self { state, settings, next: None, began_ms: 0, leave_by_ms: 0 }
    }

    /// What those who watch see.
    pub fn state(&self) -> State {
        self.state
    }

    /// The settings of the drain that has begun, or of the next.
    pub fn settings(&self) -> &DrainSettings {
        &self.settings
    }

    /// Adopts other settings, for the next drain.
    pub fn set_settings(&mut self, settings: DrainSettings) {
        match self.state.phase {
            Phase::Serving => self.settings = settings,
            _ => self.next = Some(settings),
        }
    }

    /// A request asks for a drain.
    pub fn request(&mut self, now_ms: u64) {
        if self.state.phase == Phase::Serving {
            self.state.phase = Phase::Settle;
            self.began_ms = now_ms;
        }
    }

    /// A signal asks the process to stop.
    pub fn signal(&mut self, now_ms: u64) {
        self.request(now_ms);
        self.state.exit = match self.state.exit {
            Exit::No => Exit::WhenDone,
            Exit::WhenDone | Exit::Now => Exit::Now,
        };
        if self.state.exit == Exit::Now {
            self.state.phase = Phase::Drained;
            self.leave_by_ms = now_ms;
        } else if self.state.phase == Phase::Drained {
            // It was drained by request, and served plain requests since.
            self.leave_by_ms = now_ms + ms(self.settings.margin);
        } else {
            self.leave_by_ms = self.end_of(Phase::Margin);
        }
    }

    /// A request takes the drain back.
    ///
    /// # Errors
    /// When it is too late, or was not a request's.
    pub fn cancel(&mut self) -> Result<(), CancelError> {
        match (self.state.phase, self.state.exit) {
            (Phase::Serving, _) => Ok(()),
            (_, Exit::WhenDone | Exit::Now) => Err(CancelError::Signalled),
            (Phase::Settle, Exit::No) => {
                self.state.phase = Phase::Serving;
                self.settings = self.next.take().unwrap_or_else(|| self.settings.clone());
                Ok(())
            }
            (past, Exit::No) => Err(CancelError::Past(past)),
        }
    }

    /// Goes on by one phase, if its time is over or nobody is left to wait for. Who settles waits for those who are
    /// still sent here, so that phase is never cut short.
    pub fn advance(&mut self, now_ms: u64, left: usize) {
        let over = now_ms >= self.end_of(self.state.phase);
        self.state.phase = match self.state.phase {
            Phase::Settle if over => Phase::Spread,
            Phase::Spread | Phase::Margin if left == 0 => Phase::Drained,
            Phase::Spread if over => Phase::Margin,
            Phase::Margin if over => Phase::Drained,
            same => same,
        };
    }

    /// What had to be done once drained is done.
    pub fn close(&mut self) {
        self.state.closed = self.state.phase == Phase::Drained;
    }

    /// Until when requests in flight may be waited for, once the process may exit.
    pub fn leave_by_ms(&self) -> u64 {
        self.leave_by_ms
    }

    fn end_of(&self, phase: Phase) -> u64 {
        let DrainSettings { settle, spread, margin, .. } = &self.settings;
        let length = match phase {
            Phase::Serving | Phase::Drained => return u64::MAX,
            Phase::Settle => *settle,
            Phase::Spread => *settle + *spread,
            Phase::Margin => *settle + *spread + *margin,
        };
        self.began_ms + ms(length)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::FailReadiness;

    /// Settle to 100 ms, spread to 600, margin to 650.
    fn machine() -> Machine {
        Machine::new(DrainSettings {
            settle: Duration::from_millis(100),
            spread: Duration::from_millis(500),
            margin: Duration::from_millis(50),
            fail_readiness: FailReadiness::AtStart,
        })
    }

    #[track_caller]
    fn check(machine: &mut Machine, now_ms: u64, left: usize, phase: Phase) {
        machine.advance(now_ms, left);
        assert_eq!(machine.state().phase, phase, "at {now_ms} ms with {left} left");
    }

    #[test]
    fn phases_follow_each_other_at_their_times() {
        let mut machine = machine();
        check(&mut machine, 0, 9, Phase::Serving);
        machine.request(1000);
        check(&mut machine, 1099, 0, Phase::Settle);
        check(&mut machine, 1100, 9, Phase::Spread);
        check(&mut machine, 1599, 9, Phase::Spread);
        check(&mut machine, 1600, 9, Phase::Margin);
        check(&mut machine, 1649, 9, Phase::Margin);
        check(&mut machine, 1650, 9, Phase::Drained);
    }

    #[test]
    fn it_is_over_when_nobody_is_left() {
        let mut machine = machine();
        machine.signal(0);
        check(&mut machine, 100, 1, Phase::Spread);
        check(&mut machine, 101, 0, Phase::Drained);
        assert!(!machine.state().is_exit(), "what is left to do comes first");
        machine.close();
        assert!(machine.state().is_exit());
        assert_eq!(machine.leave_by_ms(), 650);
    }

    #[test]
    fn phases_that_were_slept_through_are_still_passed_one_by_one() {
        let mut machine = machine();
        machine.request(0);
        for phase in [Phase::Spread, Phase::Margin, Phase::Drained, Phase::Drained] {
            check(&mut machine, 10_000, 1, phase);
        }
    }

    #[test]
    fn repeated_requests_change_nothing() {
        let mut machine = machine();
        machine.request(0);
        machine.request(90);
        check(&mut machine, 100, 1, Phase::Spread);
        machine.request(110);
        check(&mut machine, 600, 1, Phase::Margin);
        check(&mut machine, 650, 1, Phase::Drained);
        machine.request(700);
        assert_eq!(machine.state().phase, Phase::Drained);
    }

    #[test]
    fn drained_by_request_it_stays_until_a_signal() {
        let mut machine = machine();
        machine.request(0);
        check(&mut machine, 100, 0, Phase::Spread);
        check(&mut machine, 100, 0, Phase::Drained);
        machine.close();
        assert!(!machine.state().is_exit());
        machine.signal(5000);
        assert!(machine.state().is_exit());
        assert_eq!((machine.state().exit, machine.leave_by_ms()), (Exit::WhenDone, 5050));
    }

    #[test]
    fn a_signal_during_a_requested_drain_says_exit_when_done_and_a_second_forces() {
        let mut machine = machine();
        machine.request(0);
        machine.signal(50);
        assert_eq!((machine.state().phase, machine.state().exit), (Phase::Settle, Exit::WhenDone));
        check(&mut machine, 100, 1, Phase::Spread);
        machine.signal(200);
        assert_eq!((machine.state().phase, machine.state().exit), (Phase::Drained, Exit::Now));
        assert_eq!(machine.leave_by_ms(), 200);
    }

    #[test]
    fn only_a_requested_drain_that_settles_can_be_taken_back() {
        let mut machine = machine();
        assert_eq!(machine.cancel(), Ok(()));
        machine.request(0);
        assert_eq!((machine.cancel(), machine.state().phase), (Ok(()), Phase::Serving));
        machine.request(1000);
        check(&mut machine, 1050, 0, Phase::Settle);
        machine.signal(1060);
        assert_eq!(machine.cancel(), Err(CancelError::Signalled));
        let mut machine = self::machine();
        machine.request(0);
        machine.advance(100, 1);
        assert_eq!(machine.cancel(), Err(CancelError::Past(Phase::Spread)));
    }

    #[test]
    fn other_settings_are_for_the_next_drain() {
        let mut machine = machine();
        let other = DrainSettings { settle: Duration::ZERO, ..DrainSettings::default() };
        machine.request(0);
        machine.set_settings(other.clone());
        check(&mut machine, 99, 0, Phase::Settle);
        assert_eq!(machine.cancel(), Ok(()));
        assert_eq!(machine.settings(), &other);
        machine.request(1000);
        check(&mut machine, 1000, 1, Phase::Spread);
    }
}
