//! Placeholder.

/// x
#[derive(Debug, Default)]
pub struct HeadWatch {}

impl HeadWatch {
    /// x
    pub fn see(&mut self, _bytes: &[u8]) {}
    /// x
    pub fn take_conflict(&mut self) -> bool {
        false
    }
}
