//! Open tasks in memory: the table that every request consults, and the signal that reaches everything in flight when
//! one ends. Owns no rule of its own (those are `domain`'s) and writes nothing: the ledger does.

use crate::opening::TaskKey;
use crate::ports::Clock;
use arc_swap::ArcSwap;
use domain::{AgentId, EndReason, Labels, Progress, Reading, Task, TaskId, TaskState, Timestamp, WorkloadIdentity};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;

/// A task that was open when it was looked up. Holds on to its end.
pub struct LiveTask {
    task: Task,
    progress: Mutex<Progress>,
    workload: ArcSwap<WorkloadIdentity>,
    fate: watch::Sender<Fate>,
    /// When it is over on the monotonic clock, wherever the wall clock may be set to.
    over_at: Duration,
    /// When something was last heard of it, and when its workload last proved itself, in milliseconds of the monotonic clock;
    /// below zero for what was before this process.
    heard: AtomicI64,
    proved: AtomicI64,
    /// Labels that the task is known to be stored with, as bits: those of decisions under way are not among them.
    kept: AtomicU8,
    /// Whether the end is durable. Held while it is being made so, so that it is logged once.
    pub(crate) end_logged: tokio::sync::Mutex<bool>,
    pub(crate) key: TaskKey,
}

impl std::fmt::Debug for LiveTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveTask").field("id", &self.task.id).finish_non_exhaustive()
    }
}

/// What ends more than one request: all of the task, or all of one of its tokens.
#[derive(Debug, Default)]
struct Fate {
    ended: Option<EndReason>,
    /// Tokens that were given up or taken away before they expired (RFC 7009), and until when that matters.
    revoked: Vec<(String, Timestamp)>,
}

/// Why nothing more is given to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The task ended.
    TaskEnded(EndReason),
    /// The caller's token was revoked; the task may go on with another.
    TokenRevoked,
    /// The policy that the request was decided by is not in force any more. Only before a request is let go: ask again.
    PolicyChanged,
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
    /// Another request of the task was allowed meanwhile: what was decided, was decided on facts of before.
    Moved,
}

impl LiveTask {
    pub(crate) fn new(task: Task, key: TaskKey, clock: &dyn Clock) -> Arc<Self> {
        let ended = match task.progress.state {
            TaskState::Open => None,
            TaskState::Ended { reason, .. } => Some(reason),
        };
        let workload = ArcSwap::from_pointee(task.workload.clone());
        // One second more, because the rest of the life is counted in whole ones.
        let rest = Duration::from_secs(task.deadline.secs_since(clock.now()).saturating_add(1));
        let (now, elapsed) = (clock.now().millis(), millis(clock.elapsed()));
        let before = |then: Timestamp| elapsed.saturating_sub(now.saturating_sub(then.millis()).max(0));
        Arc::new(Self {
            kept: AtomicU8::new(bits(task.progress.labels)),
            progress: Mutex::new(task.progress),
            workload,
            fate: watch::Sender::new(Fate { ended, revoked: Vec::new() }),
            over_at: clock.elapsed().saturating_add(rest),
            heard: AtomicI64::new(before(task.progress.seen_at)),
            proved: AtomicI64::new(before(task.progress.attested_at)),
            end_logged: Default::default(),
            key,
            task,
        })
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
        self.fate.borrow().ended
    }

    /// Why nothing more is given to whoever holds this token, if so.
    pub(crate) fn over(&self, token: Option<&str>) -> Option<Over> {
        over(&self.fate.borrow(), token)
    }

    /// Resolves when nothing more is given to whoever holds this token.
    pub(crate) async fn wait_over(&self, token: &str) -> Over {
        let mut fate = self.fate.subscribe();
        let waited = fate.wait_for(|fate| over(fate, Some(token)).is_some()).await;
        // The sender lives in `self`, so it cannot have gone; refuse rather than wait for ever.
        waited.ok().and_then(|fate| over(&fate, Some(token))).unwrap_or(Over::TaskEnded(EndReason::Revoked))
    }

    /// Takes one token of the task away, from everything that is under way with it, too.
    pub(crate) fn revoke(&self, token: &str, expires: Timestamp, now: Timestamp) {
        self.fate.send_modify(|fate| {
            fate.revoked.retain(|(_, until)| *until >= now);
            fate.revoked.push((token.to_owned(), expires));
        });
    }

    /// Resolves when the task ends; at once if it has.
    pub async fn wait_ended(&self) -> EndReason {
        let mut fate = self.fate.subscribe();
        // The sender lives in `self`, so it cannot have gone; refuse rather than wait for ever.
        fate.wait_for(|fate| fate.ended.is_some()).await.ok().and_then(|fate| fate.ended).unwrap_or(EndReason::Revoked)
    }

    /// Whether the task should end by itself now, and why. A wall clock that went back does not make a life longer.
    pub(crate) fn overdue(&self, clock: &dyn Clock) -> Option<EndReason> {
        let elapsed = clock.elapsed();
        let over = elapsed >= self.over_at;
        let idle = || self.task.idle_secs.is_some_and(|secs| secs_since(&self.heard, elapsed) >= secs);
        let own = self.task.overdue(&self.progress(), clock.now());
        own.or_else(|| over.then_some(EndReason::Deadline)).or_else(|| idle().then_some(EndReason::Liveness))
    }

    /// How long ago its workload last proved itself, by the clock that says more.
    pub(crate) fn attested_secs_ago(&self, progress: &Progress, clock: &dyn Clock) -> u64 {
        clock.now().secs_since(progress.attested_at).max(secs_since(&self.proved, clock.elapsed()))
    }

    /// Something was heard of the task.
    pub fn touch(&self, now: Timestamp, elapsed: Duration) {
        self.heard.fetch_max(millis(elapsed), Ordering::Relaxed);
        let mut progress = self.locked();
        progress.seen_at = progress.seen_at.max(now);
    }

    /// Takes one call out of the budget and raises the labels by what the call may bring in.
    ///
    /// INVARIANT(labels-before-effect): labels rise when a call is allowed, before it is forwarded, so that a crash
    /// after forwarding can never leave a task that read something looking as if it had not.
    ///
    /// INVARIANT(facts-hold): the facts that the request was decided on (`seen`) still hold when its place is taken, so
    /// that requests at the same time cannot all be the first.
    pub(crate) fn reserve(&self, seen: &Progress, reading: Reading, now: Timestamp) -> Reserved {
        let mut progress = self.locked();
        if let TaskState::Ended { reason, .. } = progress.state {
            return Reserved::Ended(reason);
        }
        if (progress.calls_used, progress.labels) != (seen.calls_used, seen.labels) {
            return Reserved::Moved;
        }
        if progress.calls_used >= self.task.calls_max {
            return Reserved::Exhausted;
        }
        progress.calls_used += 1;
        progress.labels = progress.labels.joined(reading);
        progress.seen_at = progress.seen_at.max(now);
        Reserved::Yes(*progress)
    }

    /// Whether the task is known to be stored with the labels that this brings.
    pub(crate) fn has_kept(&self, reading: Reading) -> bool {
        let wanted = bits(Labels::default().joined(reading));
        self.kept.load(Ordering::Acquire) & wanted == wanted
    }

    /// Raises the labels by what is about to be heard without a decided request; why it must not be, if the task has ended.
    pub(crate) fn hear(&self, reading: Reading) -> Result<Progress, EndReason> {
        let mut progress = self.locked();
        if let TaskState::Ended { reason, .. } = progress.state {
            return Err(reason);
        }
        progress.labels = progress.labels.joined(reading);
        Ok(*progress)
    }

    /// The task is stored with these labels.
    pub(crate) fn keep(&self, labels: Labels) {
        self.kept.fetch_or(bits(labels), Ordering::Release);
    }

    /// Gives a place in the budget back, of a request that was refused because its decision is not in the log. One that may
    /// be there keeps its place: the log would tell of more calls than the task may have. Labels stay risen: another
    /// request may have read by the same ones meanwhile, and nobody can tell.
    pub(crate) fn give_back(&self) {
        let mut progress = self.locked();
        progress.calls_used = progress.calls_used.saturating_sub(1);
    }

    /// Ends the task in memory: from here on nothing of it is released. Answers whether this was its end.
    pub(crate) fn end(&self, at: Timestamp, reason: EndReason) -> bool {
        let first = self.locked().end(at, reason);
        if first {
            self.fate.send_modify(|fate| fate.ended = Some(reason));
        }
        first
    }

    pub(crate) fn attested(&self, workload: WorkloadIdentity, clock: &dyn Clock) -> Progress {
        let (at, elapsed) = (clock.now(), millis(clock.elapsed()));
        self.heard.fetch_max(elapsed, Ordering::Relaxed);
        self.proved.fetch_max(elapsed, Ordering::Relaxed);
        self.workload.store(Arc::new(workload));
        let mut progress = self.locked();
        progress.attested_at = progress.attested_at.max(at);
        progress.seen_at = progress.seen_at.max(at);
        *progress
    }

    fn locked(&self) -> MutexGuard<'_, Progress> {
        // No code panics while it holds the lock, and the value is valid at every point: poison carries no news.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Labels as bits, so that joining them is *or*: one for untrusted text, one for each level of sensitivity that was reached.
fn bits(labels: Labels) -> u8 {
    let level = u32::try_from(labels.read_sensitivity.level()).unwrap_or(7).min(7);
    (u8::from(labels.read_untrusted) << 7) | u8::try_from((1_u32 << level) - 1).unwrap_or(0x7f)
}

fn millis(elapsed: Duration) -> i64 {
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

fn secs_since(then: &AtomicI64, elapsed: Duration) -> u64 {
    u64::try_from(millis(elapsed).saturating_sub(then.load(Ordering::Relaxed)) / 1_000).unwrap_or(0)
}

fn over(fate: &Fate, token: Option<&str>) -> Option<Over> {
    let revoked = || token.is_some_and(|token| fate.revoked.iter().any(|(revoked, _)| revoked == token));
    fate.ended.map(Over::TaskEnded).or_else(|| revoked().then_some(Over::TokenRevoked))
}

/// Why tasks that ended lately did, for a helpful answer; older ones are only known to the archive.
const LATELY_ENDED_MAX: u64 = 10_000;

/// All open tasks of this node.
pub(crate) struct LiveTasks {
    table: RwLock<Table>,
    lately_ended: moka::sync::Cache<TaskId, EndReason>,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<TaskId, Arc<LiveTask>>,
    by_agent: HashMap<AgentId, OfAgent>,
}

/// The tasks of one agent.
#[derive(Default)]
struct OfAgent {
    open: HashSet<TaskId>,
    /// How many more are being opened.
    opening: usize,
}

/// A place among the open tasks of an agent, taken before the task is written; given back when it is dropped.
pub(crate) struct Place {
    tasks: Arc<LiveTasks>,
    agent: AgentId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.tasks.written();
        if let Some(tasks) = table.by_agent.get_mut(&self.agent) {
            tasks.opening = tasks.opening.saturating_sub(1);
        }
        table.forget_idle(&self.agent);
    }
}

impl Table {
    fn forget_idle(&mut self, agent: &AgentId) {
        if self.by_agent.get(agent).is_some_and(|tasks| tasks.open.is_empty() && tasks.opening == 0) {
            self.by_agent.remove(agent);
        }
    }
}

impl Default for LiveTasks {
    fn default() -> Self {
        Self { table: RwLock::default(), lately_ended: moka::sync::Cache::new(LATELY_ENDED_MAX) }
    }
}

impl LiveTasks {
    pub(crate) fn insert(&self, live: Arc<LiveTask>) {
        let mut table = self.written();
        table.by_agent.entry(live.task.agent.clone()).or_default().open.insert(live.task.id);
        table.by_id.insert(live.task.id, live);
    }

    /// Takes a place for one more task of an agent that may have so many; `None` if there is none.
    ///
    /// INVARIANT(tasks-counted): a task counts from before it is written until after it is in the table, so that however
    /// many are opened at once, no more than `max` ever are.
    pub(crate) fn take_place(self: &Arc<Self>, agent: &AgentId, max: usize) -> Option<Place> {
        let mut table = self.written();
        let tasks = table.by_agent.entry(agent.clone()).or_default();
        if tasks.open.len() + tasks.opening >= max {
            return None;
        }
        tasks.opening += 1;
        Some(Place { tasks: Arc::clone(self), agent: agent.clone() })
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<Arc<LiveTask>> {
        self.read().by_id.get(&id).cloned()
    }

    /// Why a task ended that is not in the table any more, if that was lately.
    pub(crate) fn lately_ended(&self, id: TaskId) -> Option<EndReason> {
        self.lately_ended.get(&id)
    }

    /// Forgets a task. Only after its end is durable: a lookup that finds nothing refuses as well.
    pub(crate) fn remove(&self, live: &LiveTask) {
        if let Some(reason) = live.ended() {
            self.lately_ended.insert(live.task.id, reason);
        }
        let mut table = self.written();
        table.by_id.remove(&live.task.id);
        if let Some(tasks) = table.by_agent.get_mut(&live.task.agent) {
            tasks.open.remove(&live.task.id);
        }
        table.forget_idle(&live.task.agent);
    }

    pub(crate) fn len(&self) -> usize {
        self.read().by_id.len()
    }

    pub(crate) fn select(&self, wanted: impl Fn(&LiveTask) -> bool) -> Vec<Arc<LiveTask>> {
        self.read().by_id.values().filter(|live| wanted(live)).cloned().collect()
    }

    pub(crate) fn of_agent(&self, agent: &AgentId) -> Vec<Arc<LiveTask>> {
        let table = self.read();
        let ids = table.by_agent.get(agent).map(|tasks| &tasks.open);
        ids.into_iter().flatten().filter_map(|id| table.by_id.get(id)).cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        // No code panics while it holds the lock, and the table is whole at every point: poison carries no news.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn labels_as_bits_join_as_labels_do() {
        let readings = [false, true].into_iter().flat_map(|untrusted| {
            ["public", "internal", "confidential", "restricted"]
                .map(|word| Reading { untrusted, sensitivity: word.parse().unwrap() })
        });
        let readings: Vec<_> = readings.collect();
        for one in &readings {
            for two in &readings {
                let (a, b) = (Labels::default().joined(*one), Labels::default().joined(*two));
                assert_eq!(bits(a) | bits(b), bits(a.joined(*two)));
                assert_eq!(bits(a) & bits(b) == bits(b), a.joined(*two) == a, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn no_more_tasks_than_allowed_are_ever_opened_at_once() {
        let tasks = Arc::new(LiveTasks::default());
        let agent: AgentId = "bot".parse().unwrap();
        let start = std::sync::Barrier::new(8);
        let held: usize = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                (0..100).filter_map(|_| tasks.take_place(&agent, 50)).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            let places: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            places.iter().map(Vec::len).sum()
        });
        assert_eq!(held, 50);
        assert!(tasks.read().by_agent.is_empty(), "places that were given back leave nothing behind");
        assert!(tasks.take_place(&agent, 1).is_some());
    }
}
