//! What a backend asked to be sent to its client later: keep-alives, and one delayed message.
//!
//! Time is an argument, in milliseconds of any steady clock.

use bytes::Bytes;

/// A frame for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8.
    Text(Bytes),
    /// Any bytes.
    Binary(Bytes),
    /// 125 bytes at most.
    Ping(Bytes),
    /// 125 bytes at most.
    Pong(Bytes),
}

/// A frame that the client gets again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// What is sent.
    pub frame: Frame,
    /// How long is waited before each, in milliseconds.
    pub every_ms: u64,
    /// From when it is waited.
    pub mode: Mode,
}

/// From when a keep-alive waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// From the last message to the client.
    Idle,
    /// From the last keep-alive.
    Interval,
}

/// What is to be sent to a client, and when.
#[derive(Debug, Default)]
pub struct Scheduled {
    beat: Option<(Beat, u64)>,
    delayed: Option<(Frame, u64)>,
}

impl Scheduled {
    /// Starts, replaces or ends the keep-alive.
    pub fn set_beat(&mut self, beat: Option<Beat>, now_ms: u64) {
        self.beat = beat.map(|beat| {
            let at_ms = now_ms.saturating_add(beat.every_ms);
            (beat, at_ms)
        });
    }

    /// Schedules the delayed message. One that waits already is returned, to be sent at once.
    pub fn delay(&mut self, frame: Frame, wait_ms: u64, now_ms: u64) -> Option<Frame> {
        self.delayed.replace((frame, now_ms.saturating_add(wait_ms))).map(|(frame, _)| frame)
    }

    /// Takes the delayed message, to be sent at once.
    pub fn flush(&mut self) -> Option<Frame> {
        self.delayed.take().map(|(frame, _)| frame)
    }

    /// Notes that a message went to the client.
    pub fn sent(&mut self, now_ms: u64) {
        if let Some((beat, at_ms)) = &mut self.beat
            && beat.mode == Mode::Idle
        {
            *at_ms = now_ms.saturating_add(beat.every_ms);
        }
    }

    /// The next frame that is due.
    pub fn due(&mut self, now_ms: u64) -> Option<Frame> {
        if self.delayed.as_ref().is_some_and(|(_, at_ms)| *at_ms <= now_ms) {
            return self.flush();
        }
        let (beat, at_ms) = self.beat.as_mut().filter(|(_, at_ms)| *at_ms <= now_ms)?;
        *at_ms = now_ms.saturating_add(beat.every_ms);
        Some(beat.frame.clone())
    }

    /// When [`Scheduled::due`] has something next.
    pub fn deadline_ms(&self) -> Option<u64> {
        let beat = self.beat.as_ref().map(|(_, at_ms)| *at_ms);
        let delayed = self.delayed.as_ref().map(|(_, at_ms)| *at_ms);
        beat.into_iter().chain(delayed).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> Frame {
        Frame::Text(text.into())
    }

    fn beat(mode: Mode) -> Scheduled {
        let mut scheduled = Scheduled::default();
        scheduled.set_beat(Some(Beat { frame: text("k"), every_ms: 100, mode }), 0);
        scheduled
    }

    #[test]
    fn an_idle_keep_alive_waits_for_silence() {
        let mut scheduled = beat(Mode::Idle);
        scheduled.sent(50);
        assert_eq!(scheduled.due(149), None);
        assert_eq!(scheduled.deadline_ms(), Some(150));
        assert_eq!(scheduled.due(150), Some(text("k")));
        assert_eq!(scheduled.due(150), None);
        assert_eq!(scheduled.deadline_ms(), Some(250));
        scheduled.set_beat(None, 150);
        assert_eq!(scheduled.deadline_ms(), None);
    }

    #[test]
    fn an_interval_keep_alive_waits_for_nothing() {
        let mut scheduled = beat(Mode::Interval);
        scheduled.sent(50);
        assert_eq!(scheduled.due(100), Some(text("k")));
        scheduled.sent(150);
        assert_eq!(scheduled.deadline_ms(), Some(200));
    }

    #[test]
    fn a_delayed_message_goes_once() {
        let mut scheduled = Scheduled::default();
        assert_eq!(scheduled.delay(text("a"), 10, 0), None);
        assert_eq!(scheduled.delay(text("b"), 10, 5), Some(text("a")));
        assert_eq!(scheduled.due(14), None);
        assert_eq!(scheduled.due(15), Some(text("b")));
        assert_eq!(scheduled.due(99), None);
        scheduled.delay(text("c"), 10, 20);
        assert_eq!(scheduled.flush(), Some(text("c")));
        assert_eq!((scheduled.flush(), scheduled.deadline_ms()), (None, None));
    }
}
