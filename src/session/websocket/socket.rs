//! What every WebSocket session does alike: pings, pongs, the closing handshake, and the time limits of all three.
//!
//! ```text
//!  Open ──close()──▶ Closing ──client's close, its end, or 5 s──▶ Finished
//!   ├──client's close (echoed) · its end ──────────────────────────▶ │
//!   └──violation (told by a close frame) ──────────────────────────▶ │
//! ```
//!
//! A ping goes out when nothing came, or nothing went, for `keep_alive`. If nothing at all comes in for two more of
//! them, the client counts as gone. Time is an argument, in milliseconds of any clock that does not go back.

use crate::model::session::CloseReason;
use crate::proto::websocket::{Event, Input, Reader, close, frame};
use crate::session::websocket::seam::Output;
use std::time::Duration;

/// The longest wait for the client's close frame after ours.
pub const CLOSE_WAIT_MS: u64 = 5_000;

/// How far a WebSocket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Both sides may speak.
    Open,
    /// Our close frame went out, the client's has not come.
    Closing {
        /// Why it closes.
        reason: CloseReason,
        /// How long the client's close is waited for.
        until_ms: u64,
    },
    /// Nothing more is said.
    Finished {
        /// Why it ended.
        reason: CloseReason,
        /// How to leave the link.
        ending: Ending,
    },
}

/// How to leave the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client knows: the link is finished.
    Clean,
    /// The client may still be sending: the link is finished, then read for a while, so that our close frame is not lost
    /// to a reset.
    Linger,
    /// The client is gone: there is nothing to say.
    Gone,
}

/// One WebSocket's state.
#[derive(Debug)]
pub struct Socket {
    reader: Reader,
    phase: Phase,
    keep_alive_ms: u64,
    heard_ms: u64,
    sent_ms: u64,
    pinged_ms: u64,
    /// The first ping since anything came.
    unanswered_ms: Option<u64>,
}

impl Socket {
    /// A WebSocket that was just opened. Messages of the client may have `message_bytes_max` bytes.
    pub fn new(message_bytes_max: usize, keep_alive: Duration, now_ms: u64) -> Self {
        Self {
            reader: Reader::new(message_bytes_max),
            phase: Phase::Open,
            keep_alive_ms: u64::try_from(keep_alive.as_millis()).unwrap_or(u64::MAX / 4).clamp(1, u64::MAX / 4),
            heard_ms: now_ms,
            sent_ms: now_ms,
            pinged_ms: now_ms,
            unanswered_ms: None,
        }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether both sides may speak.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The bytes of memory that it owns beside itself.
    pub fn buffered_bytes(&self) -> usize {
        self.reader.buffered_bytes()
    }

    /// The next event in what the client sent; `None` when all is read, or the client broke the protocol.
    ///
    /// Pings are answered and a close is echoed here; both are returned all the same. What comes while closing is only
    /// for the caller to ignore.
    pub fn next<'a>(&'a mut self, input: &'a mut Input<'_>, now_ms: u64, out: &mut dyn Output) -> Option<Event<'a>> {
        self.heard(now_ms);
        let event = match self.reader.next(input) {
            Ok(event) => event?,
            Err(violation) => {
                let reason = match self.phase {
                    Phase::Open => {
                        out.push(close::encode(violation.reason().close_code(), &violation.to_string()));
                        violation.reason()
                    }
                    Phase::Closing { reason, .. } | Phase::Finished { reason, .. } => reason,
                };
                self.phase = Phase::Finished { reason, ending: Ending::Linger };
                return None;
            }
        };
        match (self.phase, &event) {
            (Phase::Open, Event::Ping(payload)) => {
                out.push(frame::pong(payload));
                self.sent_ms = now_ms;
            }
            (Phase::Open, Event::Close(said)) => {
                out.push(close::encode(said.map_or(1005, |said| said.code), ""));
                self.phase = Phase::Finished { reason: CloseReason::Done, ending: Ending::Clean };
            }
            (Phase::Closing { reason, .. }, Event::Close(_)) => {
                self.phase = Phase::Finished { reason, ending: Ending::Clean };
            }
            _ => {}
        }
        Some(event)
    }

    /// Begins the closing handshake, if it has not begun.
    pub fn close(&mut self, reason: CloseReason, now_ms: u64, out: &mut dyn Output) {
        self.close_with(reason, reason.close_code(), reason.as_str(), now_ms, out);
    }

    /// Begins the closing handshake with a code and a text of somebody else, such as a backend's.
    pub fn close_with(&mut self, reason: CloseReason, code: u16, text: &str, now_ms: u64, out: &mut dyn Output) {
        if self.is_open() {
            out.push(close::encode(code, text));
            self.phase = Phase::Closing { reason, until_ms: now_ms + CLOSE_WAIT_MS };
        }
    }

    /// Ends it without a word, for a reason of ours if it was still open.
    pub fn cut(&mut self, reason: CloseReason) {
        if self.is_open() {
            self.phase = Phase::Finished { reason, ending: Ending::Gone };
        }
        self.ended();
    }

    /// The client's end came, or the link broke.
    pub fn ended(&mut self) {
        let reason = match self.phase {
            Phase::Open => CloseReason::ClientGone,
            Phase::Closing { reason, .. } => reason,
            Phase::Finished { .. } => return,
        };
        self.phase = Phase::Finished { reason, ending: Ending::Gone };
    }

    /// The client sent something, or took what it did not take before.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.unanswered_ms = None;
    }

    /// A frame went out, then or later.
    pub fn sent(&mut self, at_ms: u64) {
        self.sent_ms = self.sent_ms.max(at_ms);
    }

    /// Does what is due. Called at [`Socket::deadline`] or at any other time, after what came in was read.
    pub fn tick(&mut self, now_ms: u64, out: &mut dyn Output) {
        match self.phase {
            Phase::Open if self.idle_at_ms().is_some_and(|at_ms| now_ms >= at_ms) => {
                self.close(CloseReason::Idle, now_ms, out);
            }
            Phase::Open if now_ms >= self.ping_at_ms() => {
                out.push(frame::ping());
                self.pinged_ms = now_ms;
                self.sent_ms = now_ms;
                self.unanswered_ms.get_or_insert(now_ms);
            }
            Phase::Closing { reason, until_ms } if now_ms >= until_ms => {
                self.phase = Phase::Finished { reason, ending: Ending::Linger };
            }
            _ => {}
        }
    }

    /// When [`Socket::tick`] has something to do; `None` once finished.
    pub fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Open => Some(self.idle_at_ms().map_or(self.ping_at_ms(), |at_ms| at_ms.min(self.ping_at_ms()))),
            Phase::Closing { until_ms, .. } => Some(until_ms),
            Phase::Finished { .. } => None,
        }
    }

    fn ping_at_ms(&self) -> u64 {
        self.heard_ms.min(self.sent_ms).max(self.pinged_ms).saturating_add(self.keep_alive_ms)
    }

    fn idle_at_ms(&self) -> Option<u64> {
        self.unanswered_ms.map(|at_ms| at_ms.saturating_add(2 * self.keep_alive_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::websocket::tests::{Sink, client};

    const KEEP_ALIVE: Duration = Duration::from_secs(20);

    fn open() -> (Socket, Sink) {
        (Socket::new(100, KEEP_ALIVE, 0), Sink::default())
    }

    fn hear(socket: &mut Socket, mut bytes: Vec<u8>, now_ms: u64, out: &mut Sink) -> usize {
        let mut input = Input::new(&mut bytes);
        std::iter::from_fn(|| socket.next(&mut input, now_ms, out).map(|_| ())).count()
    }

    #[test]
    fn silence_is_broken_by_pings_and_ends_in_idle() {
        let (mut socket, mut out) = open();
        socket.tick(19_999, &mut out);
        assert_eq!(out.take(), [""; 0]);
        assert_eq!(socket.deadline(), Some(20_000));
        for at_ms in [20_000, 40_000] {
            socket.tick(at_ms, &mut out);
            assert_eq!(out.take(), ["ping"], "at {at_ms}");
        }
        assert_eq!(socket.deadline(), Some(60_000));
        socket.tick(60_000, &mut out);
        assert_eq!(out.take(), ["close 4408 idle"]);
        assert_eq!(socket.phase(), Phase::Closing { reason: CloseReason::Idle, until_ms: 65_000 });
    }

    #[test]
    fn whatever_comes_in_keeps_a_socket_alive() {
        let (mut socket, mut out) = open();
        socket.tick(20_000, &mut out);
        socket.tick(40_000, &mut out);
        assert_eq!(out.take(), ["ping", "ping"]);
        // A single byte of a frame is a sign of life.
        assert_eq!(hear(&mut socket, vec![0x8a], 59_999, &mut out), 0);
        assert_eq!(socket.deadline(), Some(60_000), "nothing was sent since 40,000");
        socket.tick(60_000, &mut out);
        assert_eq!(out.take(), ["ping"]);
        assert_eq!(socket.deadline(), Some(80_000));
        socket.tick(99_999, &mut out);
        assert_eq!(out.take(), ["ping"]);
        socket.tick(100_000, &mut out);
        assert_eq!(out.take(), ["close 4408 idle"]);
    }

    #[test]
    fn a_client_that_only_listens_is_pinged_all_the_same() {
        let (mut socket, mut out) = open();
        for at_ms in (1_000..20_000).step_by(1_000) {
            socket.sent(at_ms);
            socket.tick(at_ms, &mut out);
        }
        assert_eq!(out.take(), [""; 0]);
        socket.tick(20_000, &mut out);
        assert_eq!(out.take(), ["ping"]);
    }

    #[test]
    fn a_client_that_only_talks_is_pinged_all_the_same() {
        let (mut socket, mut out) = open();
        for at_ms in (1_000..20_000).step_by(1_000) {
            hear(&mut socket, client(0x8a, b""), at_ms, &mut out);
            socket.tick(at_ms, &mut out);
        }
        assert_eq!(out.take(), [""; 0]);
        socket.tick(20_000, &mut out);
        assert_eq!(out.take(), ["ping"]);
    }

    #[test]
    fn a_clock_that_jumps_pings_before_it_ends_anything() {
        let (mut socket, mut out) = open();
        socket.tick(10_000_000, &mut out);
        assert_eq!(out.take(), ["ping"]);
        assert!(socket.is_open());
    }

    #[test]
    fn pings_are_answered_with_their_bytes() {
        let (mut socket, mut out) = open();
        assert_eq!(hear(&mut socket, [client(0x89, b"a"), client(0x89, b"")].concat(), 1, &mut out), 2);
        assert_eq!(out.take(), ["pong a", "pong "]);
    }

    #[test]
    fn a_clients_close_is_echoed() {
        for (payload, echo) in [(&b""[..], "close"), (b"\x03\xe9away", "close 1001 "), (b"\x0f\xa0", "close 4000 ")] {
            let (mut socket, mut out) = open();
            assert_eq!(hear(&mut socket, client(0x88, payload), 1, &mut out), 1);
            assert_eq!(out.take(), [echo]);
            assert_eq!(socket.phase(), Phase::Finished { reason: CloseReason::Done, ending: Ending::Clean });
            socket.close(CloseReason::Drain, 2, &mut out);
            socket.tick(1_000_000, &mut out);
            assert_eq!(out.take(), [""; 0], "nothing follows a close");
            assert_eq!(socket.deadline(), None);
        }
    }

    #[test]
    fn our_close_waits_for_the_clients() {
        let (mut socket, mut out) = open();
        socket.close(CloseReason::Drain, 7, &mut out);
        socket.close(CloseReason::Gap, 8, &mut out);
        assert_eq!(out.take(), ["close 1012 drain"]);
        assert_eq!(socket.deadline(), Some(5_007));
        hear(&mut socket, client(0x89, b"late"), 9, &mut out);
        assert_eq!(out.take(), [""; 0], "nothing follows a close");
        hear(&mut socket, client(0x88, b"\x03\xe8"), 10, &mut out);
        assert_eq!(socket.phase(), Phase::Finished { reason: CloseReason::Drain, ending: Ending::Clean });
        assert_eq!(out.take(), [""; 0]);
    }

    #[test]
    fn our_close_does_not_wait_for_ever() {
        let (mut socket, mut out) = open();
        socket.close(CloseReason::Drain, 0, &mut out);
        socket.tick(4_999, &mut out);
        assert!(matches!(socket.phase(), Phase::Closing { .. }));
        socket.tick(5_000, &mut out);
        assert_eq!(socket.phase(), Phase::Finished { reason: CloseReason::Drain, ending: Ending::Linger });
    }

    #[test]
    fn an_end_without_a_close_is_a_client_that_is_gone() {
        let (mut socket, _) = open();
        socket.ended();
        assert_eq!(socket.phase(), Phase::Finished { reason: CloseReason::ClientGone, ending: Ending::Gone });
        let (mut socket, mut out) = open();
        socket.close(CloseReason::Slow, 0, &mut out);
        socket.ended();
        assert_eq!(socket.phase(), Phase::Finished { reason: CloseReason::Slow, ending: Ending::Gone });
    }

    #[test]
    fn violations_are_told_by_their_code() {
        for (bytes, told, reason) in [
            (client(0x81, b"\xff"), "close 1007 a text is no UTF-8", CloseReason::BadUtf8),
            (client(0x82, &[0; 101]), "close 1009 a message has more than 100 bytes", CloseReason::TooBig),
            (client(0x83, b""), "close 1002 opcode 3 is not defined", CloseReason::Protocol),
        ] {
            let (mut socket, mut out) = open();
            assert_eq!(hear(&mut socket, bytes, 1, &mut out), 0);
            assert_eq!(out.take(), [told]);
            assert_eq!(socket.phase(), Phase::Finished { reason, ending: Ending::Linger });
        }
    }

    #[test]
    fn a_violation_while_closing_keeps_the_first_reason() {
        let (mut socket, mut out) = open();
        socket.close(CloseReason::Drain, 0, &mut out);
        out.take();
        hear(&mut socket, client(0xff, b""), 1, &mut out);
        assert_eq!(out.take(), [""; 0]);
        assert_eq!(socket.phase(), Phase::Finished { reason: CloseReason::Drain, ending: Ending::Linger });
    }
}
