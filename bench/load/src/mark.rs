//! The mark in each payload: which message it is, and when it was sent.
//!
//! A mark is found by its look in the bytes that a client reads, whatever a server wraps around it: `<<SEQ.NANOS>>` with
//! 8 and 16 digits in base 16. It has no letter that JSON, SSE or chunked coding would change.

/// Bytes of a mark.
pub const LEN: usize = 2 + 8 + 1 + 16 + 2;

/// What a payload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which message of its channel, from 0.
    pub seq: u32,
    /// CLOCK_MONOTONIC just before it was published.
    pub sent_ns: u64,
}

impl Mark {
    /// A payload of `bytes` (at least [`LEN`]) with this mark in front.
    pub fn payload(self, bytes: usize) -> String {
        let mut text = format!("<<{:08x}.{:016x}>>", self.seq, self.sent_ns);
        while text.len() < bytes {
            text.push(char::from(b'a' + (text.len() % 26) as u8));
        }
        text
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.get(..LEN)?).ok()?;
        let (seq, nanos) = text.strip_prefix("<<")?.strip_suffix(">>")?.split_once('.')?;
        Some(Self { seq: u32::from_str_radix(seq, 16).ok()?, sent_ns: u64::from_str_radix(nanos, 16).ok()? })
    }
}

/// Finds marks in a stream of bytes, also where they are cut.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The beginning of a mark at the end of what came last.
    cut: Vec<u8>,
}

impl Scanner {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(Mark)) {
        if self.cut.is_empty() {
            self.scan(bytes, &mut found);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(bytes);
            self.scan(&joined, &mut found);
        }
    }

    fn scan(&mut self, bytes: &[u8], found: &mut impl FnMut(Mark)) {
        let mut at = 0;
        while let Some(offset) = memchr::memchr(b'<', &bytes[at..]) {
            at += offset;
            if bytes.len() - at < LEN {
                self.cut = bytes[at..].to_vec();
                return;
            }
            match Mark::parse(&bytes[at..]) {
                Some(mark) => {
                    found(mark);
                    at += LEN;
                }
                None => at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_however_the_stream_is_cut() {
        let marks: Vec<Mark> = (0..5).map(|seq| Mark { seq, sent_ns: u64::from(seq) * 7 + 1 }).collect();
        let text: String = marks.iter().map(|mark| format!("data: <{}\n\n<<", mark.payload(60))).collect();
        for size in 1..text.len() {
            let (mut scanner, mut found) = (Scanner::default(), Vec::new());
            text.as_bytes().chunks(size).for_each(|part| scanner.feed(part, |mark| found.push(mark)));
            assert_eq!(found, marks, "in parts of {size}");
        }
    }
}
