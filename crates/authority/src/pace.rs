//! Who goes first when a great many credentials expire at once: whoever asks for a new one. Owns how many expired ones are
//! cleaned up together and how long clean-up rests, and knows neither targets nor the store. Revoked credentials are never
//! slowed down here: somebody wants them dead now. An expired one is refused already, by its own time here and at its
//! target; only the tidying waits (design.md §9).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Expired grants that are taken back together while somebody asks for a credential: what they write shares transactions
/// with decisions, and a decision waits for the whole of its transaction.
pub(crate) const EXPIRED_MAX: usize = 8;
/// Clean-up rests so many times as long as it worked: a quarter of the time is its share while somebody asks.
const REST_FACTOR: u32 = 3;
/// Shortest and longest rest. The longest bounds how late something that is revoked meanwhile is looked at.
const REST_MIN: Duration = Duration::from_millis(5);
const REST_MAX: Duration = Duration::from_millis(50);

/// How many ask for a credential.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    under_way: AtomicU64,
    begun: AtomicU64,
}

/// One request for a credential, from the decision to the hand-over.
pub(crate) struct Asking<'a>(&'a Pace);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pace {
    /// Somebody asks, until this is dropped.
    pub(crate) fn ask(&self) -> Asking<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Asking(self)
    }

    /// Whether somebody asks now, or asked since this was called last with the same `mark`.
    pub(crate) fn busy_since(&self, mark: &mut u64) -> bool {
        let begun = self.begun.load(Ordering::Relaxed);
        let came = std::mem::replace(mark, begun) != begun;
        came || self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Where to begin with [`Pace::busy_since`].
    pub(crate) fn mark(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}

/// How long clean-up rests after it worked so long beside those who ask.
pub(crate) fn rest(worked: Duration) -> Duration {
    worked.saturating_mul(REST_FACTOR).clamp(REST_MIN, REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_busy_while_somebody_asks_and_once_after_somebody_asked() {
        let pace = Pace::default();
        let mut mark = pace.mark();
        assert!(!pace.busy_since(&mut mark));
        let asking = pace.ask();
        assert!(pace.busy_since(&mut mark) && pace.busy_since(&mut mark));
        drop(asking);
        assert!(!pace.busy_since(&mut mark));
        drop(pace.ask());
        assert!(pace.busy_since(&mut mark), "it came and went between two looks");
        assert!(!pace.busy_since(&mut mark));
    }

    #[test]
    fn clean_up_has_a_quarter_of_the_time_and_looks_again_soon() {
        let millis = |worked| rest(Duration::from_millis(worked)).as_millis();
        assert_eq!([0, 3, 10, 1_000].map(millis), [5, 9, 30, 50]);
    }
}
