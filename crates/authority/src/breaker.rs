//! One circuit breaker for each target: after some failures in a row nothing is tried for a while, then one attempt at a
//! time until one succeeds. Owns when something may be tried; reads no clock. What counts as a failure is the caller's:
//! only that a target could not be reached, never that it refused.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failures in a row after which it opens.
const FAILURES_MAX: u32 = 3;
/// First time for which it stays open.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest time for which it stays open. Together with the longest backoff of a grant this keeps the promise that a
/// target is clean within a minute of its return.
const WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    failures: u32,
    /// Until when nothing is tried, on the monotonic clock; `None` while it is closed.
    open_until: Option<Duration>,
    wait: Duration,
    trying: bool,
}

/// The breaker of one target.
#[derive(Default)]
pub(crate) struct Breaker(Mutex<State>);

/// Whether something may be tried.
pub(crate) enum Admission<'a> {
    /// It may.
    Free,
    /// It may, alone: nothing else is tried until this is dropped.
    Trial(#[expect(dead_code, reason = "held for what its end does")] Trial<'a>),
    /// It may not.
    Shut,
}

/// The one attempt that a breaker half open lets through.
pub(crate) struct Trial<'a>(&'a Breaker);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.locked().trying = false;
    }
}

impl Breaker {
    /// Asks at the instant `now` whether something may be tried.
    pub(crate) fn admit(&self, now: Duration) -> Admission<'_> {
        let mut state = self.locked();
        let Some(until) = state.open_until else { return Admission::Free };
        if now < until || state.trying {
            return Admission::Shut;
        }
        state.trying = true;
        Admission::Trial(Trial(self))
    }

    /// How long it stays shut; `None` if it is closed.
    pub(crate) fn shut_for(&self, now: Duration) -> Option<Duration> {
        self.locked().open_until.map(|until| until.saturating_sub(now))
    }

    /// The target answered. Says whether that closed the breaker.
    pub(crate) fn succeeded(&self) -> bool {
        std::mem::take(&mut *self.locked()).open_until.is_some()
    }

    /// The target could not be reached. Says whether that opened the breaker.
    pub(crate) fn failed(&self, now: Duration) -> bool {
        let mut state = self.locked();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES_MAX {
            return false;
        }
        let first = state.open_until.is_none();
        // Attempts that began before it opened fail after it did: they do not make the wait longer.
        if first || state.trying {
            state.wait = (state.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
            state.open_until = Some(now.saturating_add(state.wait));
        }
        first
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state is whole at every point: poison carries no news.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_half_opens_by_one_attempt() {
        let breaker = Breaker::default();
        assert!(!breaker.failed(at(0)) && !breaker.failed(at(0)));
        assert!(!breaker.succeeded(), "it was closed");
        for failure in 0..3 {
            assert_eq!(breaker.failed(at(0)), failure == 2);
        }
        assert!(matches!(breaker.admit(at(0)), Admission::Shut));
        let trial = breaker.admit(at(2));
        assert!(matches!(trial, Admission::Trial(_)));
        assert!(matches!(breaker.admit(at(2)), Admission::Shut), "one attempt at a time");
        assert!(!breaker.failed(at(2)));
        drop(trial);
        assert!(matches!(breaker.admit(at(3)), Admission::Shut), "the wait grew");
        let trial = breaker.admit(at(5));
        assert!(matches!(trial, Admission::Trial(_)) && breaker.succeeded());
        drop(trial);
        assert!(matches!(breaker.admit(at(5)), Admission::Free));
    }

    #[test]
    fn the_wait_is_bounded_whatever_happens() {
        let breaker = Breaker::default();
        let mut now = at(0);
        for _ in 0..100 {
            let _trial = breaker.admit(now);
            breaker.failed(now);
            now += breaker.shut_for(now).unwrap_or_default();
        }
        assert!(breaker.shut_for(at(0)).is_some());
        breaker.failed(now);
        assert!(breaker.shut_for(now).unwrap_or_default() <= WAIT_MAX);
    }
}
