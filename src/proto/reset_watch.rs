//! Notices RST_STREAM frames in what a client sends over HTTP/2 (RFC 9113 §6.4), without I/O.
//!
//! A held stream hears of its reset through this, and not through a waker in the HTTP/2 machine: that waker is also
//! woken by each grant of send capacity, so that every frame sent would run its session twice.

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const RST_STREAM: u8 = 3;

/// Follows the frames of one connection, from its preface on.
#[derive(Debug)]
pub struct ResetWatch {
    /// Bytes of the preface or of a frame's payload that are still to come.
    skip: usize,
    head: [u8; HEAD_BYTES],
    have: usize,
    in_reset: bool,
}

impl Default for ResetWatch {
    fn default() -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], have: 0, in_reset: false }
    }
}

impl ResetWatch {
    /// Takes the next bytes; true if a RST_STREAM frame ended in them.
    pub fn see(&mut self, mut bytes: &[u8]) -> bool {
        let mut seen = false;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0 && self.in_reset {
                self.in_reset = false;
                seen = true;
            }
            if bytes.is_empty() {
                return seen;
            }
            let taken = (HEAD_BYTES - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD_BYTES {
                self.have = 0;
                self.skip =
                    usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2]);
                self.in_reset = self.head[3] == RST_STREAM;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len();
        let mut bytes = vec![(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, 0, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    proptest! {
        #[test]
        fn resets_are_counted_however_the_bytes_come(
            kinds in proptest::collection::vec((0u8..10, 0usize..40), 0..20),
            cut in 1usize..50,
        ) {
            let mut bytes = vec![b'P'; PREFACE_BYTES];
            for (kind, len) in &kinds {
                bytes.extend(frame(*kind, &vec![3; if *kind == RST_STREAM { 4 } else { *len }]));
            }
            let mut watch = ResetWatch::default();
            let parts = bytes.chunks(cut).filter(|part| watch.see(part)).count();
            let resets = kinds.iter().filter(|(kind, _)| *kind == RST_STREAM).count();
            prop_assert!(parts <= resets && (parts > 0) == (resets > 0));
        }
    }

    #[test]
    fn a_reset_is_seen_when_it_is_whole() {
        let mut watch = ResetWatch::default();
        assert!(!watch.see(&[0; PREFACE_BYTES]));
        let reset = frame(RST_STREAM, &[0, 0, 0, 8]);
        assert!(!watch.see(&reset[..12]));
        assert!(watch.see(&reset[12..]));
        assert!(!watch.see(&frame(0, b"data")));
    }
}
