//! The process of a server that a bus runs on: killed when dropped, stopped and let go on by signals.

use std::process::{Child, Command};

/// A process, if it runs.
#[derive(Default)]
pub struct Service(Option<Child>);

impl From<Child> for Service {
    fn from(child: Child) -> Self {
        Self(Some(child))
    }
}

impl Service {
    /// Whether it was started and not killed since.
    pub fn is_started(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().expect("its status can be read").is_some())
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it without ending it: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let child = self.0.as_ref().expect("it runs");
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "the signal was not sent");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
