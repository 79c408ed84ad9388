//! How tasks end, and everything with them: by their agent, an operator, their limits, or because what they stand on is
//! gone. The end takes effect in memory at once and is then made durable; if it cannot be made durable it stays in
//! effect and is tried again by the sweep, because refusing is always safe.

use crate::Authority;
use crate::caller::Caller;
use crate::error::{Error, IssueError};
use crate::event::{EndEvent, RefusalEvent, WorkloadRecord, encode};
use crate::live::LiveTask;
use crate::ports::{Change, Write};
use crate::provider::Provider;
use domain::{Agent, EndReason, TaskId, Timestamp, WorkloadIdentity};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
        self.end(&live, reason, &by.name()).await
    }

    pub(crate) async fn end(&self, live: &Arc<LiveTask>, reason: EndReason, by: &str) -> Result<(), Error> {
        let now = self.0.clock.now();
        // INVARIANT(end-is-instant): memory first. Whatever happens to the log, nothing of the task is released again.
        if live.end(now, reason) {
            // Nobody listening is not an error: then there is nothing in flight to cut.
            let _ = self.0.ends.send((live.task().id, reason));
        }
        self.log_end(live, by, now).await
    }

    /// Makes an end durable, once, whoever asks.
    async fn log_end(&self, live: &Arc<LiveTask>, by: &str, now: Timestamp) -> Result<(), Error> {
        let mut logged = live.end_logged.lock().await;
        if *logged {
            return Ok(());
        }
        let (task, progress) = (live.task(), live.progress());
        let event = encode(&EndEvent {
            agent: task.agent.as_str(),
            at: now.millis(),
            by,
            calls_used: progress.calls_used,
            intent: task.intent.as_str(),
            reason: live.ended().unwrap_or(EndReason::Revoked).as_str(),
            task: &task.id.to_string(),
            r#type: "task.ended",
        })?;
        self.0.ledger.commit(Write { events: vec![event], changes: vec![Change::Progress(task.id, progress)] }).await?;
        *logged = true;
        self.0.tasks.remove(live);
        Ok(())
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
        self.0.revoked_tokens.forget_before(now);
        let inventory = self.0.inventory.load();
        let due = self.0.tasks.select(|live| {
            live.ended().is_some() || live.overdue(&*self.0.clock).is_some() || {
                let unfit = |agent: &Arc<Agent>| agent.eligible(now).is_err() || !agent.may_declare(&live.task().intent);
                inventory.get(&live.task().agent).is_none_or(unfit)
            }
        });
        let mut first = Ok(());
        for live in &due {
            let reason = live.overdue(&*self.0.clock).unwrap_or(EndReason::Agent);
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
