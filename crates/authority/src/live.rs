//! Open tasks in memory: the table that every request consults, and the signal that reaches everything in flight when
//! one ends. Owns no rule of its own (those are `domain`'s) and writes nothing: the ledger does.

use crate::opening::TaskKey;
use arc_swap::ArcSwap;
use domain::{AgentId, EndReason, Labels, Progress, Reading, Task, TaskId, TaskState, Timestamp, WorkloadIdentity};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::watch;

/// A task that was open when it was looked up. Holds on to its end.
pub struct LiveTask {
    task: Task,
    progress: Mutex<Progress>,
    workload: ArcSwap<WorkloadIdentity>,
    end: watch::Sender<Option<EndReason>>,
    pub(crate) key: TaskKey,
}

impl std::fmt::Debug for LiveTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveTask").field("id", &self.task.id).finish_non_exhaustive()
    }
}

/// A place in the budget of a task, taken before the call is decided for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// There was one; this is the task's progress with it.
    Yes(Progress),
    /// The task has ended.
    Ended(EndReason),
    /// The budget is used up.
    Exhausted,
}

impl LiveTask {
    pub(crate) fn new(task: Task, key: TaskKey) -> Arc<Self> {
        let end = match task.progress.state {
            TaskState::Open => None,
            TaskState::Ended { reason, .. } => Some(reason),
        };
        let workload = ArcSwap::from_pointee(task.workload.clone());
        Arc::new(Self { progress: Mutex::new(task.progress), workload, end: watch::Sender::new(end), key, task })
    }

    /// The task as it was opened. Its `progress` and `workload` are of then; ask [`LiveTask::progress`] and
    /// [`LiveTask::workload`] for now.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.locked()
    }

    /// The workload as it last proved itself.
    #[must_use]
    pub fn workload(&self) -> Arc<WorkloadIdentity> {
        self.workload.load_full()
    }

    /// Why the task ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<EndReason> {
        *self.end.borrow()
    }

    /// Resolves when the task ends; at once if it has.
    pub async fn wait_ended(&self) -> EndReason {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            // The sender lives in `self`, so it cannot have gone; refuse rather than wait for ever.
            Ok(None) | Err(_) => EndReason::Revoked,
        }
    }

    /// Something was heard of the task.
    pub fn touch(&self, now: Timestamp) {
        let mut progress = self.locked();
        progress.seen_at = progress.seen_at.max(now);
    }

    /// Takes one call out of the budget and raises the labels by what the call may bring in.
    ///
    /// INVARIANT(labels-before-effect): labels rise when a call is allowed, before it is forwarded, so that a crash
    /// after forwarding can never leave a task that read something looking as if it had not.
    pub(crate) fn reserve(&self, reading: Reading, now: Timestamp) -> Reserved {
        let mut progress = self.locked();
        if let TaskState::Ended { reason, .. } = progress.state {
            return Reserved::Ended(reason);
        }
        if progress.calls_used >= self.task.calls_max {
            return Reserved::Exhausted;
        }
        progress.calls_used += 1;
        progress.labels = progress.labels.joined(reading);
        progress.seen_at = progress.seen_at.max(now);
        Reserved::Yes(*progress)
    }

    /// Ends the task in memory: from here on nothing of it is released. Answers whether this was its end.
    pub(crate) fn end(&self, at: Timestamp, reason: EndReason) -> bool {
        let first = self.locked().end(at, reason);
        if first {
            self.end.send_replace(Some(reason));
        }
        first
    }

    pub(crate) fn attested(&self, workload: WorkloadIdentity, at: Timestamp) -> Progress {
        self.workload.store(Arc::new(workload));
        let mut progress = self.locked();
        progress.attested_at = progress.attested_at.max(at);
        progress.seen_at = progress.seen_at.max(at);
        *progress
    }

    pub(crate) fn labels(&self) -> Labels {
        self.locked().labels
    }

    fn locked(&self) -> MutexGuard<'_, Progress> {
        // No code panics while it holds the lock, and the value is valid at every point: poison carries no news.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All open tasks of this node, and those that ended since it started and may still be asked about.
#[derive(Default)]
pub(crate) struct LiveTasks {
    by_id: RwLock<HashMap<TaskId, Arc<LiveTask>>>,
}

impl LiveTasks {
    pub(crate) fn insert(&self, live: Arc<LiveTask>) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).insert(live.task.id, live);
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<Arc<LiveTask>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Forgets a task. Only after its end is durable: a lookup that finds nothing refuses as well.
    pub(crate) fn remove(&self, id: TaskId) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn select(&self, wanted: impl Fn(&LiveTask) -> bool) -> Vec<Arc<LiveTask>> {
        let tasks = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        tasks.values().filter(|live| wanted(live)).cloned().collect()
    }

    pub(crate) fn count_of(&self, agent: &AgentId) -> usize {
        let tasks = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        tasks.values().filter(|live| live.task.agent == *agent).count()
    }
}
