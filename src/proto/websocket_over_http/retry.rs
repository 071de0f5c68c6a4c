//! When a request that surely was not processed is sent again.

/// How long is waited before each of the tries, in milliseconds, before jitter.
pub const WAITS_MS: [u64; 5] = [1000, 2000, 4000, 8000, 16_000];

/// A random number from 0 up to and including 1, in 65535ths: all numbers are as likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter(pub u16);

/// How long to wait before try number `tries` (0 is the first again), in milliseconds: half to one and a half of
/// [`WAITS_MS`]. `None`: it was tried often enough.
pub fn wait_ms(tries: usize, jitter: Jitter) -> Option<u64> {
    let base = *WAITS_MS.get(tries)?;
    Some(base / 2 + base * u64::from(jitter.0) / u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let middle = |tries| wait_ms(tries, Jitter(u16::MAX / 2)).map(|ms| (ms + 2) / 1000);
        assert_eq!([0, 1, 2, 3, 4, 5].map(middle), [Some(1), Some(2), Some(4), Some(8), Some(16), None]);
        assert_eq!(wait_ms(0, Jitter(0)), Some(500));
        assert_eq!(wait_ms(4, Jitter(u16::MAX)), Some(24_000));
    }
}
