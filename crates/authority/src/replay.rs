//! Memory of what was seen within a window of time. Bounded: when it is full it refuses rather than forgets, because a
//! forgotten proof could be replayed. Knows nothing of what the keys mean.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SHARDS: usize = 16;

/// Remembers keys for at least one window and at most two.
pub(crate) struct ReplayMemory {
    window: Duration,
    per_shard_max: usize,
    shards: [Mutex<Generations>; SHARDS],
}

#[derive(Default)]
struct Generations {
    epoch: u64,
    current: HashSet<[u8; 32]>,
    previous: HashSet<[u8; 32]>,
}

/// What the memory says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is new, and remembered from now on.
    New,
    /// It was seen before.
    Before,
    /// The memory is full: treat as seen.
    Full,
}

impl ReplayMemory {
    pub(crate) fn new(window: Duration, keys_max: usize) -> Self {
        Self { window: window.max(Duration::from_secs(1)), per_shard_max: keys_max.div_ceil(SHARDS), shards: Default::default() }
    }

    /// Notes a key. `elapsed` is monotonic.
    pub(crate) fn note(&self, key: [u8; 32], elapsed: Duration) -> Seen {
        let epoch = elapsed.as_secs() / self.window.as_secs();
        let Some(shard) = self.shards.get(usize::from(key[0]) % SHARDS) else { return Seen::Full };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch > shard.epoch {
            let old = std::mem::take(&mut shard.current);
            shard.previous = if epoch == shard.epoch + 1 { old } else { HashSet::new() };
            shard.epoch = epoch;
        }
        if shard.previous.contains(&key) || shard.current.contains(&key) {
            return Seen::Before;
        }
        if shard.current.len() >= self.per_shard_max {
            return Seen::Full;
        }
        shard.current.insert(key);
        Seen::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_at_least_one_window() {
        let memory = ReplayMemory::new(Duration::from_secs(10), 1_000);
        let at = |secs| Duration::from_secs(secs);
        assert_eq!(memory.note([1; 32], at(9)), Seen::New);
        assert_eq!(memory.note([1; 32], at(9)), Seen::Before);
        assert_eq!(memory.note([1; 32], at(19)), Seen::Before);
        assert_eq!(memory.note([2; 32], at(19)), Seen::New);
        assert_eq!(memory.note([1; 32], at(30)), Seen::New);
    }

    #[test]
    fn a_full_memory_refuses_instead_of_forgetting() {
        let memory = ReplayMemory::new(Duration::from_secs(10), SHARDS);
        assert_eq!(memory.note([0; 32], Duration::ZERO), Seen::New);
        let mut other = [0; 32];
        other[1] = 1;
        assert_eq!(memory.note(other, Duration::ZERO), Seen::Full);
        assert_eq!(memory.note([0; 32], Duration::ZERO), Seen::Before);
    }
}
