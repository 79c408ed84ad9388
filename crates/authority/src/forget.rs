//! How long a grant is remembered after it is dead. Its row is for working with it; what happened to it stands in the log,
//! in the same transactions in which the row changed, and stays. Knows no schedule but its own.

use crate::Authority;
use crate::ports::{Change, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Time between two rounds of forgetting.
const EVERY: Duration = Duration::from_secs(10);
/// Most grants that one round forgets: no decision waits long for the transaction that it shares with them.
const TOGETHER: u32 = 500;

/// When it was done last, on the monotonic clock, and how long grants are kept.
pub(crate) struct Forgetting {
    keep_secs: u64,
    last: Mutex<Option<Duration>>,
}

impl Forgetting {
    pub(crate) const fn new(keep_secs: u64) -> Self {
        Self { keep_secs, last: Mutex::new(None) }
    }
}

impl Authority {
    /// Forgets grants that are proved dead and whose time was over long ago.
    pub(crate) fn forget_dead_grants(&self) {
        let (now, forgetting) = (self.0.clock.elapsed(), &self.0.forgetting);
        let mut last = forgetting.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_sub(last) < EVERY) {
            return;
        }
        *last = Some(now);
        drop(last);
        let kept_millis = i64::try_from(forgetting.keep_secs).unwrap_or(i64::MAX).saturating_mul(1_000);
        let before = domain::Timestamp::from_millis(self.0.clock.now().millis().saturating_sub(kept_millis));
        let changes = vec![Change::ForgetGrants { before, most: TOGETHER }];
        // Not waited for: what is lost is forgotten in a later round.
        if let Err(error) = self.0.ledger.post(Write { events: Vec::new(), changes }) {
            tracing::debug!(%error, "dead grants are forgotten later");
        }
    }
}
