//! How tasks end, and everything with them: by their agent, an operator, their limits, or because what they stand on is
//! gone. The end takes effect in memory at once and is then made durable; if it cannot be made durable it stays in
//! effect and is tried again by the sweep, because refusing is always safe.

use crate::Authority;
use crate::admin::to_the_end;
use crate::caller::Caller;
use crate::error::{Error, IssueError};
use crate::event::{EndEvent, RefusalEvent, WorkloadRecord, encode};
use crate::live::LiveTask;
use crate::ports::{Change, Write};
use crate::provider::Provider;
use domain::{Agent, EndReason, Progress, TaskId, TaskState, Timestamp, WorkloadIdentity};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::MutexGuard;

/// Most refusals that are logged in one second: a stranger must not be able to fill the log.
const REFUSALS_PER_SEC_MAX: u64 = 20;

/// Who does something.
#[derive(Debug, Clone)]
pub enum Actor {
    /// An agent, for its own task.
    Agent(Caller),
    /// An operator, by name.
    Operator(String),
    /// Whoever holds a token, and may give up that token (RFC 7009).
    Holder,
    /// Writ itself.
    System,
}

impl Actor {
    /// The name that the log shows.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Agent(caller) => format!("agent:{}", caller.agent().id),
            Self::Operator(name) => format!("operator:{name}"),
            Self::Holder => "holder".into(),
            Self::System => "writ".into(),
        }
    }
}

impl Authority {
    /// Ends a task. From this instant everything of it is dead, also if this answers an error.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`] for an agent and another's task, [`Error::TaskEnded`] if it had ended,
    /// [`Error::Ledger`] if its end could not be made durable yet.
    pub async fn end_task(&self, id: TaskId, by: &Actor, reason: EndReason) -> Result<(), Error> {
        if let Actor::Agent(caller) = by
            && caller.task() != id
        {
            return Err(Error::Forbidden("an agent can end only the task of its own token"));
        }
        let Some(live) = self.0.tasks.get(id) else {
            return match self.0.archive.task(id).await?.map(|task| task.progress.state) {
                Some(domain::TaskState::Ended { reason, .. }) => Err(Error::TaskEnded(reason)),
                _ => Err(Error::NotFound { what: "task", name: id.to_string() }),
            };
        };
        if let Some(reason) = live.ended() {
            return Err(Error::TaskEnded(reason));
        }
        let (this, by) = (self.clone(), by.name());
        to_the_end(async move { this.end(&live, reason, &by).await }).await
    }

    pub(crate) async fn end(&self, live: &Arc<LiveTask>, reason: EndReason, by: &str) -> Result<(), Error> {
        let now = self.0.clock.now();
        // INVARIANT(end-is-instant): memory first. Whatever happens to the log, nothing of the task is released again.
        if live.end(now, reason) {
            // Nobody listening is not an error: then there is nothing in flight to cut.
            let _ = self.0.ends.send((live.task().id, reason));
        }
        // CRASH(end.effective): nobody was told that it ended, and after the start it is open; whoever ended it asks again.
        tracing::trace!(target: "writ::step", at = "end.effective");
        self.log_end(live, by, now).await
    }

    /// Makes an end durable, once, whoever asks.
    async fn log_end(&self, live: &Arc<LiveTask>, by: &str, now: Timestamp) -> Result<(), Error> {
        let mut logged = live.end_logged.lock().await;
        if *logged {
            return Ok(());
        }
        let write = end_record(live, live.progress(), by, now)?;
        self.0.ledger.commit(write).await?;
        // CRASH(end.logged): it has ended, for good.
        tracing::trace!(target: "writ::step", at = "end.logged");
        *logged = true;
        self.0.credentials.doorbell.notify_one();
        self.0.tasks.remove(live);
        Ok(())
    }

    /// Puts the end of a task into the write of what it gives way to, so that both are in the log or neither is. Nobody
    /// else can log its end until the guard is dropped; it takes effect by [`Authority::gave_way`], once that is durable.
    pub(crate) async fn give_way<'a>(
        &self,
        live: &'a LiveTask,
        by: &str,
        now: Timestamp,
        write: &mut Write,
    ) -> Result<MutexGuard<'a, bool>, IssueError> {
        let logged = live.end_logged.lock().await;
        if *logged {
            return Err(IssueError::Task("the task that it replaces has ended; open one without replaces"));
        }
        let mut over = live.progress();
        over.end(now, EndReason::Superseded);
        let mut end = end_record(live, over, by, now).map_err(|error| IssueError::Unavailable(error.to_string()))?;
        write.events.append(&mut end.events);
        write.changes.append(&mut end.changes);
        Ok(logged)
    }

    /// The end of [`Authority::give_way`] is durable: from here on nothing of the task is released.
    pub(crate) fn gave_way(&self, live: &LiveTask, mut logged: MutexGuard<'_, bool>, now: Timestamp) {
        if live.end(now, EndReason::Superseded) {
            let _ = self.0.ends.send((live.task().id, EndReason::Superseded));
        }
        // A credential that was recorded between that write and this instant was not among those it revoked.
        let late = Change::RevokeGrantsOf { task: live.task().id, at: now };
        if let Err(error) = self.0.ledger.post(Write { events: Vec::new(), changes: vec![late] }) {
            tracing::error!(%error, "credentials of a replaced task are taken back when they expire");
        }
        self.0.credentials.doorbell.notify_one();
        *logged = true;
        self.0.tasks.remove(live);
    }

    /// Ends several tasks.
    ///
    /// # Errors
    /// The first one whose end could not be made durable; all have taken effect.
    pub(crate) async fn end_all(&self, tasks: Vec<Arc<LiveTask>>, reason: EndReason, by: &str) -> Result<(), Error> {
        let mut first = Ok(());
        // All take effect before any is waited for.
        let now = self.0.clock.now();
        for live in &tasks {
            if live.end(now, reason) {
                let _ = self.0.ends.send((live.task().id, reason));
            }
        }
        if !tasks.is_empty() {
            // CRASH(end.effective): what ended them is durable, so the sweep after the start ends them again.
            tracing::trace!(target: "writ::step", at = "end.effective");
        }
        for live in &tasks {
            first = first.and(self.log_end(live, by, now).await);
        }
        first
    }

    /// Ends what is overdue and makes ends durable that could not be made so earlier. Call it about once a second.
    ///
    /// # Errors
    /// The first end that could not be made durable.
    pub async fn sweep(&self) -> Result<usize, Error> {
        let now = self.0.clock.now();
        if self.0.wall.is_behind(now) {
            tracing::warn!("the clock was set back: proofs of possession need a nonce until it has caught up");
        }
        self.0.revoked_tokens.forget_before(now);
        let (inventory, policy) = (self.0.inventory.load(), self.policy());
        let due = self.0.tasks.select(|live| {
            live.ended().is_some() || live.overdue(&*self.0.clock).is_some() || {
                let unfit = |agent: &Arc<Agent>| agent.eligible(now).is_err() || !agent.may_declare(&live.task().intent);
                inventory.get(&live.task().agent).is_none_or(unfit) || policy.intent(&live.task().intent).is_none()
            }
        });
        let mut first = Ok(());
        for live in &due {
            // What took its intent away may have died before it could end it.
            let orphaned = policy.intent(&live.task().intent).is_none().then_some(EndReason::Policy);
            let reason = live.overdue(&*self.0.clock).or(orphaned).unwrap_or(EndReason::Agent);
            first = first.and(self.end(live, live.ended().unwrap_or(reason), "writ").await);
        }
        first.map(|()| due.len())
    }

    /// Hears of every task that ends from now on.
    #[must_use]
    pub fn subscribe_ends(&self) -> tokio::sync::broadcast::Receiver<(TaskId, EndReason)> {
        self.0.ends.subscribe()
    }

    /// Records that evidence was refused, at a bounded rate; what was left out is counted in the next record.
    pub(crate) fn log_refusal(
        &self,
        agent: Option<&Agent>,
        workload: Option<&WorkloadIdentity>,
        error: &IssueError,
        now: Timestamp,
    ) {
        let Some(suppressed) = self.0.refusals.admit(now) else { return };
        let reason: String = error.to_string().chars().take(1_000).collect();
        let workload = workload.map(|workload| WorkloadRecord {
            issuer: &workload.issuer,
            provider: workload.provider.as_str(),
            subject: &workload.subject,
        });
        let event = encode(&RefusalEvent {
            agent: agent.map(|agent| agent.id.as_str()),
            at: now.millis(),
            outcome: "deny",
            reason: &reason,
            suppressed: (suppressed > 0).then_some(suppressed),
            r#type: "refusal",
            workload,
        });
        let posted = event.and_then(|event| Ok(self.0.ledger.post(Write { events: vec![event], changes: Vec::new() })?));
        if let Err(error) = posted {
            tracing::error!(%error, "a refusal could not be logged; it was refused all the same");
        }
    }
}

/// The entry of an end and the change that goes with it.
fn end_record(live: &LiveTask, progress: Progress, by: &str, now: Timestamp) -> Result<Write, Error> {
    let task = live.task();
    let reason = match progress.state {
        TaskState::Ended { reason, .. } => reason,
        TaskState::Open => EndReason::Revoked,
    };
    let event = encode(&EndEvent {
        agent: task.agent.as_str(),
        at: now.millis(),
        by,
        calls_used: progress.calls_used,
        intent: task.intent.as_str(),
        reason: reason.as_str(),
        task: &task.id.to_string(),
        r#type: "task.ended",
    })?;
    // Its credentials count as revoked from the instant of its end; their targets are told afterwards.
    let changes = vec![Change::Progress(task.id, progress), Change::RevokeGrantsOf { task: task.id, at: now }];
    Ok(Write { events: vec![event], changes })
}

/// Admits so many records in a second and counts the rest.
#[derive(Default)]
pub(crate) struct RefusalGate {
    second: AtomicU64,
    admitted: AtomicU64,
    suppressed: AtomicU64,
}

impl RefusalGate {
    /// How many were left out before this one, if this one is admitted.
    fn admit(&self, now: Timestamp) -> Option<u64> {
        let second = u64::try_from(now.secs()).unwrap_or(0);
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.admitted.store(0, Ordering::Relaxed);
        }
        if self.admitted.fetch_add(1, Ordering::Relaxed) < REFUSALS_PER_SEC_MAX {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Authority {
    /// The configured providers.
    #[must_use]
    pub fn providers(&self) -> &[Provider] {
        &self.0.providers
    }
}
