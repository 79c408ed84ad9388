//! Memory of what was seen within a window of time. Bounded: when it is full it refuses rather than forgets, because a
//! forgotten proof could be replayed. Each agent has a share of its own, so that one which fills it is refused alone. Knows
//! nothing of what the keys mean.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SHARDS: usize = 16;

/// How many keys are remembered within one window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shares {
    /// Of one agent, at most.
    pub(crate) each_max: usize,
    /// Of all agents: beyond it, none has more than what is free to each.
    pub(crate) all_max: usize,
    /// Of one agent, whatever the others do.
    pub(crate) free: usize,
}

/// Remembers keys for at least one window and at most two.
pub(crate) struct ReplayMemory {
    window: Duration,
    per_shard: Shares,
    shards: [Mutex<Generations>; SHARDS],
}

#[derive(Default)]
struct Generations {
    epoch: u64,
    current: HashSet<[u8; 32]>,
    previous: HashSet<[u8; 32]>,
    /// How many of the current ones are whose.
    counts: HashMap<String, usize>,
}

/// What the memory says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is new, and remembered from now on.
    New,
    /// It was seen before.
    Before,
    /// The share of this agent is full: treat as seen.
    Full,
}

impl ReplayMemory {
    pub(crate) fn new(window: Duration, shares: Shares) -> Self {
        let Shares { each_max, all_max, free } = shares;
        let [each_max, all_max, free] = [each_max, all_max, free].map(|keys| keys.div_ceil(SHARDS));
        let per_shard = Shares { each_max, all_max, free };
        Self { window: window.max(Duration::from_secs(1)), per_shard, shards: Default::default() }
    }

    /// Notes a key of this agent. `elapsed` is monotonic. Who may choose keys by their shard fills but its own share of it.
    pub(crate) fn note(&self, agent: &str, key: [u8; 32], elapsed: Duration) -> Seen {
        let epoch = elapsed.as_secs() / self.window.as_secs();
        let Some(shard) = self.shards.get(usize::from(key[0]) % SHARDS) else { return Seen::Full };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch > shard.epoch {
            let old = std::mem::take(&mut shard.current);
            shard.previous = if epoch == shard.epoch + 1 { old } else { HashSet::new() };
            shard.counts.clear();
            shard.epoch = epoch;
        }
        if shard.previous.contains(&key) || shard.current.contains(&key) {
            return Seen::Before;
        }
        let Shares { each_max, all_max, free } = self.per_shard;
        let own = shard.counts.get(agent).copied().unwrap_or(0);
        if own >= each_max || (shard.current.len() >= all_max && own >= free) {
            return Seen::Full;
        }
        match shard.counts.get_mut(agent) {
            Some(count) => *count += 1,
            None => drop(shard.counts.insert(agent.to_owned(), 1)),
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
        let memory = ReplayMemory::new(Duration::from_secs(10), Shares { each_max: 1_000, all_max: 1_000, free: 0 });
        let at = |secs| Duration::from_secs(secs);
        assert_eq!(memory.note("a", [1; 32], at(9)), Seen::New);
        assert_eq!(memory.note("a", [1; 32], at(9)), Seen::Before);
        assert_eq!(memory.note("a", [1; 32], at(19)), Seen::Before);
        assert_eq!(memory.note("a", [2; 32], at(19)), Seen::New);
        assert_eq!(memory.note("a", [1; 32], at(30)), Seen::New);
    }

    #[test]
    fn a_full_memory_refuses_instead_of_forgetting() {
        let memory = ReplayMemory::new(Duration::from_secs(10), Shares { each_max: SHARDS, all_max: SHARDS, free: 0 });
        assert_eq!(memory.note("a", [0; 32], Duration::ZERO), Seen::New);
        let mut other = [0; 32];
        other[1] = 1;
        assert_eq!(memory.note("a", other, Duration::ZERO), Seen::Full);
        assert_eq!(memory.note("a", [0; 32], Duration::ZERO), Seen::Before);
    }
    /// A key of the shard that whoever fills it chose.
    fn key(number: u8) -> [u8; 32] {
        let mut key = [0; 32];
        key[1] = number;
        key
    }

    #[test]
    fn an_agent_that_fills_its_share_is_refused_alone() {
        let shares = Shares { each_max: 3 * SHARDS, all_max: 100 * SHARDS, free: SHARDS };
        let memory = ReplayMemory::new(Duration::from_secs(10), shares);
        let note = |agent, number| memory.note(agent, key(number), Duration::ZERO);
        assert!((0..3).all(|number| note("greedy", number) == Seen::New));
        assert_eq!(note("greedy", 3), Seen::Full);
        assert!((10..13).all(|number| note("other", number) == Seen::New));
        assert_eq!(memory.note("greedy", key(3), Duration::from_secs(10)), Seen::New, "the next window has a new share");
        assert_eq!(memory.note("greedy", key(0), Duration::from_secs(10)), Seen::Before);
    }

    #[test]
    fn what_is_free_to_each_agent_no_others_can_take() {
        let shares = Shares { each_max: 3 * SHARDS, all_max: 4 * SHARDS, free: 2 * SHARDS };
        let memory = ReplayMemory::new(Duration::from_secs(10), shares);
        let note = |agent, number| memory.note(agent, key(number), Duration::ZERO);
        assert!((0..3).all(|number| note("one", number) == Seen::New) && note("two", 3) == Seen::New);
        assert_eq!(note("two", 4), Seen::New, "the second of those that are free");
        assert_eq!(note("two", 5), Seen::Full);
        assert!(note("three", 6) == Seen::New && note("three", 7) == Seen::New && note("three", 8) == Seen::Full);
    }
}
