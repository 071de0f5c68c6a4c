//! Flow control (RFC 9113 §5.2, §6.9).

/// What a window may never be over.
const MOST: i64 = 0x7fff_ffff;
/// What windows are until they are told otherwise.
pub const DEFAULT_BYTES: u32 = 65_535;

/// What may be sent. It is below nothing when the client has made it smaller than what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendWindow(i32);

/// A window grew over 2^31-1 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

impl SendWindow {
    /// A window of `bytes`, which is at most 2^31-1.
    pub fn new(bytes: u32) -> Self {
        Self(i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// Bytes that may be sent.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Takes note of what was sent, which is never more than [`SendWindow::bytes`].
    pub fn sent(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.bytes());
        self.0 -= bytes as i32;
    }

    /// Changes it by what the client said.
    ///
    /// # Errors
    /// When it would be too large.
    pub fn change(&mut self, by: i64) -> Result<(), Overflow> {
        let sum = i64::from(self.0) + by;
        if sum > MOST {
            return Err(Overflow);
        }
        // It is at least -(2^31-1): only settings lower it, by no more than they raised it.
        self.0 = i32::try_from(sum).unwrap_or(i32::MIN);
        Ok(())
    }
}

/// What the client may send, and what of it has been taken by its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveWindow {
    size: u32,
    left: u32,
    taken: u32,
}

impl ReceiveWindow {
    /// A window of `size` bytes.
    pub fn new(size: u32) -> Self {
        Self { size, left: size, taken: 0 }
    }

    /// Takes note of what came.
    ///
    /// # Errors
    /// When it is more than the window allows.
    pub fn received(&mut self, bytes: usize) -> Result<(), Overflow> {
        self.left = u32::try_from(bytes).ok().and_then(|bytes| self.left.checked_sub(bytes)).ok_or(Overflow)?;
        Ok(())
    }

    /// Takes note of what its reader took: by how much the window is to be opened, when that is worth a frame.
    pub fn taken(&mut self, bytes: usize) -> Option<u32> {
        self.taken = self.taken.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)).min(self.size - self.left);
        if self.taken < self.size / 2 {
            return None;
        }
        let by = std::mem::take(&mut self.taken);
        self.left += by;
        Some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_may_be_below_nothing() {
        let mut window = SendWindow::new(100);
        window.sent(90);
        assert_eq!(window.change(-50), Ok(()));
        assert_eq!(window.bytes(), 0);
        assert_eq!(window.change(41), Ok(()));
        assert_eq!(window.bytes(), 1);
    }

    #[test]
    fn a_send_window_has_31_bits() {
        let mut window = SendWindow::new(1);
        assert_eq!(window.change(MOST), Err(Overflow));
        assert_eq!(window.change(MOST - 1), Ok(()));
        assert_eq!(window.bytes(), 0x7fff_ffff);
        window.sent(0x7fff_ffff);
        assert_eq!(window.change(-MOST), Ok(()));
        assert_eq!((window.bytes(), window.change(MOST)), (0, Ok(())));
        assert_eq!(window.bytes(), 0);
    }

    #[test]
    fn a_receive_window_opens_when_half_was_taken() {
        let mut window = ReceiveWindow::new(100);
        assert_eq!(window.received(100), Ok(()));
        assert_eq!(window.received(1), Err(Overflow));
        assert_eq!(window.taken(49), None);
        assert_eq!(window.taken(1), Some(50));
        assert_eq!(window.received(50), Ok(()));
        assert_eq!(window.received(1), Err(Overflow));
        assert_eq!(window.taken(1000), Some(100), "never more than came");
    }
}
