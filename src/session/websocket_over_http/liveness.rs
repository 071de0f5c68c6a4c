//! Whether a client is still there. Time is an argument.

/// Asks a silent client for a sign of life, and gives it up when none comes.
#[derive(Debug)]
pub struct Liveness {
    keep_alive_ms: u64,
    heard_ms: u64,
    asked_ms: Option<u64>,
    /// Whether a ping of ours has no pong yet.
    pong_due: bool,
}

/// What is to be done about a silent client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Nothing yet.
    Fine,
    /// Send a ping without content.
    Ask,
    /// Close it.
    Dead,
}

impl Liveness {
    /// A client that was heard just now; it is asked after `keep_alive_ms` of silence and dead after as much again.
    pub fn new(keep_alive_ms: u64, now_ms: u64) -> Self {
        Self { keep_alive_ms: keep_alive_ms.max(1), heard_ms: now_ms, asked_ms: None, pong_due: false }
    }

    /// Notes that something came from the client, or that it was not listened to.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.asked_ms = None;
    }

    /// Whether an empty pong answers a ping of ours: said once for each.
    pub fn take_answer(&mut self) -> bool {
        std::mem::take(&mut self.pong_due)
    }

    /// What is to be done now. [`Check::Ask`] is said once.
    pub fn check(&mut self, now_ms: u64) -> Check {
        if self.deadline_ms() > now_ms {
            return Check::Fine;
        }
        if self.asked_ms.is_some() {
            return Check::Dead;
        }
        self.asked_ms = Some(now_ms);
        self.pong_due = true;
        Check::Ask
    }

    /// When [`Liveness::check`] has something to say next.
    pub fn deadline_ms(&self) -> u64 {
        self.asked_ms.unwrap_or(self.heard_ms).saturating_add(self.keep_alive_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_is_asked_once_and_then_given_up() {
        let mut liveness = Liveness::new(100, 0);
        assert_eq!(liveness.check(99), Check::Fine);
        assert!(!liveness.take_answer());
        assert_eq!(liveness.check(100), Check::Ask);
        assert!(liveness.take_answer() && !liveness.take_answer());
        assert_eq!(liveness.check(199), Check::Fine);
        liveness.heard(199);
        assert_eq!((liveness.check(200), liveness.deadline_ms()), (Check::Fine, 299));
        assert_eq!(liveness.check(310), Check::Ask);
        assert_eq!(liveness.check(409), Check::Fine);
        assert_eq!(liveness.check(410), Check::Dead);
    }
}
