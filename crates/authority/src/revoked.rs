//! Tokens that are refused although they have not expired. Bounded by their expiry: what has expired is forgotten.

use domain::Timestamp;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

#[derive(Default)]
pub(crate) struct RevokedTokens {
    by_id: RwLock<HashMap<String, Entry>>,
    count: AtomicUsize,
}

struct Entry {
    until: Timestamp,
    durable: bool,
}

impl RevokedTokens {
    pub(crate) fn new(tokens: impl IntoIterator<Item = (String, Timestamp)>) -> Self {
        let by_id: HashMap<_, _> = tokens.into_iter().map(|(id, until)| (id, Entry { until, durable: true })).collect();
        Self { count: AtomicUsize::new(by_id.len()), by_id: RwLock::new(by_id) }
    }

    pub(crate) fn contains(&self, id: &str, now: Timestamp) -> bool {
        // Most of the time nothing is revoked, and then no lock is taken.
        self.count.load(Ordering::Acquire) > 0
            && self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).is_some_and(|entry| entry.until >= now)
    }

    /// Refuses a token from now on. Whether that is durable already.
    pub(crate) fn refuse(&self, id: &str, until: Timestamp) -> bool {
        let mut tokens = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        let durable = tokens.entry(id.to_owned()).or_insert(Entry { until, durable: false }).durable;
        self.count.store(tokens.len(), Ordering::Release);
        durable
    }

    /// A refusal is durable now.
    pub(crate) fn kept(&self, id: &str) {
        if let Some(entry) = self.by_id.write().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
            entry.durable = true;
        }
    }

    pub(crate) fn forget_before(&self, now: Timestamp) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut tokens = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, entry| entry.until >= now);
        self.count.store(tokens.len(), Ordering::Release);
    }
}
