//! Signed heads on their way to the anchor, and who waits for them. A proof is shown inside the process as soon as its
//! entries are committed; what was made because of it leaves when its head is anchored (docs/decisions/0012). Owns the thread
//! that waits for the anchor's flush, so that the writer does not; knows neither entries nor what is made.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use auditlog::checkpoint::Draft;
use authority::ports::LedgerError;
use tokio::sync::watch;

use crate::shared::Shared;

/// See the module.
#[derive(Default)]
pub(crate) struct Keeper {
    waiting: Mutex<Waiting>,
    came: Condvar,
    told: watch::Sender<Told>,
}

/// What the thread finds.
#[derive(Default)]
struct Waiting {
    /// The newest one: whoever waits for an older one is served by it, because each holds all before it.
    draft: Option<Draft>,
    stop: bool,
}

/// Sizes of heads.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// The largest one that is anchored, as far as anybody waited for it.
    kept: u64,
    /// The largest one that could not be.
    failed: u64,
}

impl Keeper {
    /// Has a head anchored soon.
    pub(crate) fn put(&self, draft: Draft) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.draft = Some(draft);
        drop(waiting);
        self.came.notify_one();
    }

    /// Says how it ended.
    pub(crate) fn tell(&self, size: u64, kept: bool) {
        self.told.send_modify(|told| {
            let place = if kept { &mut told.kept } else { &mut told.failed };
            *place = (*place).max(size);
        });
    }

    /// Whether the last attempt failed.
    pub(crate) fn fails(&self) -> bool {
        let told = *self.told.borrow();
        told.failed > told.kept
    }

    /// Resolves once a head of at least this size is anchored.
    pub(crate) async fn kept(&self, size: u64) -> Result<(), LedgerError> {
        let mut told = self.told.subscribe();
        let failed = || LedgerError::Unavailable("the anchor of the log cannot be written".to_owned());
        let told = *told.wait_for(|told| told.kept >= size || told.failed >= size).await.map_err(|_| failed())?;
        if told.kept >= size { Ok(()) } else { Err(failed()) }
    }

    /// The thread ends when nothing waits any more.
    pub(crate) fn stop(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.came.notify_one();
    }

    fn next(&self) -> Option<Draft> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |waiting: &mut Waiting| waiting.draft.is_none() && !waiting.stop;
        self.came.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner).draft.take()
    }
}

/// Anchors what comes until it is told to stop.
pub(crate) fn run(shared: &Arc<Shared>) {
    let _watched = Died(shared);
    while let Some(draft) = shared.keeper.next() {
        let size = draft.head().size;
        if let Err(error) = shared.keep(draft) {
            tracing::error!(error = &error as &dyn std::error::Error, size, "a signed checkpoint could not be anchored");
        }
    }
}

/// Nobody waits for a thread that died of a bug: from then on the writer anchors by itself.
struct Died<'a>(&'a Shared);

impl Drop for Died<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the thread that anchors checkpoints broke down; they are anchored by the writer from now on");
            self.0.keeper.tell(u64::MAX, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_hears_of_their_own_head_and_of_none_before() {
        let keeper = Keeper::default();
        let waits = |size| tokio::time::timeout(std::time::Duration::ZERO, keeper.kept(size));
        assert!(waits(1).await.is_err(), "nothing is anchored yet");
        keeper.tell(5, true);
        assert_eq!(waits(5).await, Ok(Ok(())));
        assert!(waits(6).await.is_err());
        keeper.tell(7, false);
        assert!(keeper.fails() && matches!(waits(6).await, Ok(Err(_))));
        assert_eq!(waits(5).await, Ok(Ok(())), "what is anchored stays so");
        keeper.tell(8, true);
        assert!(!keeper.fails());
        assert_eq!(waits(6).await, Ok(Ok(())));
    }
}
