//! How much a task asked of an API: requests in a minute and bytes in all. A task keeps what it used for as long as tasks can
//! live, so that nobody starts afresh by waiting.

use super::config::HttpLimits;
use domain::{TargetName, TaskId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most pairs of task and API that are remembered; one is about 200 bytes.
const REMEMBERED_MAX: u64 = 1_000_000;

/// What each task used.
pub(crate) struct Usage(moka::sync::Cache<(TaskId, TargetName), Arc<Spent>>);

/// What one task used at one API.
pub(crate) struct Spent {
    state: Mutex<State>,
}

struct State {
    /// Those in force when it last asked.
    limits: HttpLimits,
    /// Requests that may be made now; refilled with time.
    tokens: f64,
    refilled: Instant,
    bytes: u64,
}

/// There is nothing left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdrawn {
    /// Of requests, for so many seconds.
    Requests(u64),
    /// Of bytes, for good.
    Bytes,
}

impl Default for Usage {
    fn default() -> Self {
        let lives = Duration::from_secs(domain::limits::TASK_LIFETIME_SECS_MAX);
        Self(moka::sync::Cache::builder().max_capacity(REMEMBERED_MAX).time_to_idle(lives).build())
    }
}

impl Usage {
    /// Takes a request of a task out of what it may make.
    pub(crate) fn take(
        &self,
        task: TaskId,
        target: &TargetName,
        limits: HttpLimits,
        now: Instant,
    ) -> Result<Arc<Spent>, Overdrawn> {
        let spent = self.0.get_with((task, target.clone()), || {
            let state = State { limits, tokens: f64::from(limits.requests_per_minute), refilled: now, bytes: 0 };
            Arc::new(Spent { state: Mutex::new(state) })
        });
        spent.state().limits = limits;
        spent.request(now)?;
        Ok(spent)
    }
}

impl Spent {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more request, or message of an open socket.
    pub(crate) fn request(&self, now: Instant) -> Result<(), Overdrawn> {
        let mut state = self.state();
        if state.bytes >= state.limits.bytes_per_task {
            return Err(Overdrawn::Bytes);
        }
        let most = f64::from(state.limits.requests_per_minute);
        let gained = now.saturating_duration_since(state.refilled).as_secs_f64() * most / 60.0;
        state.tokens = (state.tokens + gained).min(most);
        state.refilled = now;
        if state.tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - state.tokens) * 60.0 / most);
            return Err(Overdrawn::Requests(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
        }
        state.tokens -= 1.0;
        Ok(())
    }

    /// Counts bytes that were sent or received.
    pub(crate) fn bytes(&self, count: usize) -> Result<(), Overdrawn> {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_add(count as u64);
        if state.bytes > state.limits.bytes_per_task { Err(Overdrawn::Bytes) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_task_has_so_many_requests_in_a_minute_and_so_many_bytes_in_all() {
        let (usage, target) = (Usage::default(), "api".parse().unwrap());
        let limits = HttpLimits { requests_per_minute: 2, bytes_per_task: 10, ..HttpLimits::default() };
        let (one, two, start) = (TaskId::from_bytes([1; 16]), TaskId::from_bytes([2; 16]), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        let take = |task, at| usage.take(task, &target, limits, at).map(drop);
        assert_eq!([take(one, start), take(one, start), take(one, start)], [Ok(()), Ok(()), Err(Overdrawn::Requests(30))]);
        assert_eq!(take(two, start), Ok(()), "another task has its own");
        assert_eq!([take(one, after(30)), take(one, after(30))], [Ok(()), Err(Overdrawn::Requests(30))]);
        let spent = usage.take(one, &target, limits, after(90)).unwrap();
        assert_eq!([spent.bytes(6), spent.bytes(6)], [Ok(()), Err(Overdrawn::Bytes)]);
        assert_eq!(take(one, after(900)), Err(Overdrawn::Bytes), "bytes do not come back");
        let more = HttpLimits { requests_per_minute: 1, bytes_per_task: 20, ..limits };
        let take = |at| usage.take(one, &target, more, at).map(drop);
        assert_eq!([take(after(960)), take(after(960))], [Ok(()), Err(Overdrawn::Requests(60))], "other limits are in force");
    }
}
