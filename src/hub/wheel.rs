//! A coarse timing wheel: one for all sessions of a shard, instead of a timer for each.
//!
//! An entry is a hint. Its owner keeps the exact deadline and the tick it is filed under; what is filed under another
//! tick than the owner's is stale and is passed over. So moving a deadline back costs nothing, and moving it forward
//! files a second hint.

/// The length of a tick, in milliseconds: how late a deadline may fire.
pub const TICK_MS: u64 = 250;
/// Ticks of one turn: 64 s; farther deadlines are filed at the end of the turn and filed again then.
const SLOTS: u64 = 256;

/// The wheel: keys by the tick at which they are due.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<u32>>,
    now_tick: u64,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), now_tick: 0 }
    }
}

impl Wheel {
    /// The tick under which a deadline is filed now: never the present one or an earlier one.
    pub fn tick_of(&self, at_ms: u64) -> u64 {
        at_ms.div_ceil(TICK_MS).clamp(self.now_tick + 1, self.now_tick + SLOTS - 1)
    }

    /// Files `key` under a tick that [`Wheel::tick_of`] gave.
    pub fn file(&mut self, key: u32, tick: u64) {
        self.slots[(tick % SLOTS) as usize].push(key);
    }

    /// Moves on by one tick if `now_ms` has reached it: the tick and the keys filed under it.
    pub fn advance(&mut self, now_ms: u64) -> Option<(u64, Vec<u32>)> {
        if self.now_tick >= now_ms / TICK_MS {
            return None;
        }
        self.now_tick += 1;
        Some((self.now_tick, std::mem::take(&mut self.slots[(self.now_tick % SLOTS) as usize])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_at_their_tick() {
        let mut wheel = Wheel::default();
        for (key, at_ms) in [(1, 0), (2, 250), (3, 251), (4, 1_000_000)] {
            let tick = wheel.tick_of(at_ms);
            wheel.file(key, tick);
        }
        assert_eq!(wheel.advance(249), None);
        assert_eq!(wheel.advance(700), Some((1, vec![1, 2])));
        assert_eq!(wheel.advance(700), Some((2, vec![3])));
        assert_eq!(wheel.advance(700), None);
        let far: Vec<u64> = std::iter::from_fn(|| wheel.advance(70_000))
            .filter(|(_, keys)| *keys == [4])
            .map(|(tick, _)| tick)
            .collect();
        assert_eq!(far, [255]);
    }
}
