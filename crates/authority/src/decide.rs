//! The decision about one request, and the permit that only an allowing one yields. A decision is durable in the log
//! before it is answered (law 2); a permit cannot be made elsewhere, copied, or used after its task ended.

use crate::Authority;
use crate::attest::sha256;
use crate::caller::{Caller, SignedToken};
use crate::event::{Arguments, DecisionEvent, OutcomeEvent, encode, hex, ids, reason};
use crate::live::{LiveTask, Over, Reserved};
use crate::opening::Openings;
use crate::ports::{Change, Clock, Write};
use crate::subject::Subject;
use crate::target::Plan;
use domain::{Agent, Binding, DecisionId, Facts, Operation, Outcome, Progress, Reading, Reason, TaskId, Timestamp, Verdict};
use policy::{Policy, Request};
use serde_json::Map;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span};

/// How often a request is decided at most, if the policy changes each time that its decision is written.
const DECISIONS_MAX: usize = 3;

/// The answer to one request, already in the log.
#[derive(Debug)]
#[must_use]
pub enum Decision {
    /// It may happen, once, by consuming the permit.
    Allow(Permit),
    /// It may not.
    Deny(Denial),
    /// It may once a human approved it.
    Ask(Denial),
    /// It could not be decided or logged, so it may not.
    Failed(Denial),
}

/// Why not, in words that a person and a model can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The decision in the log; `None` if the log could not be written.
    pub decision: Option<DecisionId>,
    /// The kind of reason.
    pub reason: Reason,
    /// What was refused, by which policy, what would be allowed.
    pub explanation: String,
    /// The policies that settled it.
    pub policies: Vec<String>,
    /// Who may approve it.
    pub approvers: Vec<String>,
}

/// The right to let one decided request happen, once. Not `Clone`, not constructible elsewhere; dropping it unused is
/// recorded.
#[derive(Debug)]
#[must_use = "an unused permit is recorded as not released"]
pub struct Permit {
    record: OutcomeRecord,
    /// The policy that allowed it.
    policy: Arc<Policy>,
    /// The token of the caller who asked, if this process saw it.
    token: Option<Arc<SignedToken>>,
}

/// A request that was let go. Its outcome must be recorded once; dropping it records that it was cancelled.
#[derive(Debug)]
#[must_use = "record the outcome"]
pub struct Released {
    record: OutcomeRecord,
    /// The policy that allowed it.
    policy: Arc<Policy>,
}

/// Whether the policy that let a request go is still in force: for who sends it later than the release.
#[derive(Clone)]
pub struct Warrant {
    authority: Authority,
    policy: Arc<Policy>,
}

impl Warrant {
    /// Whether it is.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.authority.has_in_force(&self.policy)
    }
}

impl std::fmt::Debug for Warrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warrant").field("stands", &self.stands()).finish_non_exhaustive()
    }
}

/// How an allowed request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStatus {
    /// The upstream answered.
    Ok,
    /// The tool answered that it failed.
    ToolError,
    /// The upstream failed, broke the protocol or answered with a protocol error.
    UpstreamError,
    /// The upstream took too long.
    Timeout,
    /// The caller went away.
    Cancelled,
    /// The task ended while the upstream worked: the answer was withheld.
    Withheld,
    /// The upstream's answer held the credential that was sent along: it was withheld, or cut before it.
    SecretEchoed,
    /// The task ended before the request was let go: nothing was sent.
    NotReleased,
}

impl CallStatus {
    /// The word for the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Withheld => "withheld",
            Self::SecretEchoed => "secret_echoed",
            Self::NotReleased => "not_released",
        }
    }
}

/// What the log keeps of an answer: never the answer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOutcome {
    /// How it ended.
    pub status: CallStatus,
    /// SHA-256 of what was given to the caller, if something was.
    pub result_sha256: Option<[u8; 32]>,
    /// Size of it.
    pub bytes: u64,
}

impl From<CallStatus> for CallOutcome {
    fn from(status: CallStatus) -> Self {
        Self { status, result_sha256: None, bytes: 0 }
    }
}

/// Writes the outcome of one decision exactly once, at the latest when it is dropped.
struct OutcomeRecord {
    authority: Authority,
    live: Arc<LiveTask>,
    decision: DecisionId,
    since: Duration,
    if_dropped: CallStatus,
    /// Whether the decision is known to be in the log; before that, it may still wait to be written.
    decided: bool,
    written: bool,
    /// The span in which it was let go, if traces are wanted: what is recorded late, while an answer streams, belongs there.
    within: Span,
}

impl Drop for OutcomeRecord {
    fn drop(&mut self) {
        self.write(self.if_dropped.into());
    }
}

impl std::fmt::Debug for OutcomeRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.decision)
    }
}

impl OutcomeRecord {
    fn write(&mut self, outcome: CallOutcome) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let _logging = self.within.in_scope(|| tracing::debug_span!("log")).entered();
        let parts = &self.authority.0;
        let task = self.live.task();
        let millis = parts.clock.elapsed().saturating_sub(self.since).as_millis();
        let event = encode(&OutcomeEvent {
            agent: task.agent.as_str(),
            at: parts.clock.now().millis(),
            bytes: outcome.bytes,
            decision: &self.decision.to_string(),
            millis: u64::try_from(millis).unwrap_or(u64::MAX),
            result_sha256: outcome.result_sha256.map(|digest| hex(&digest)),
            status: outcome.status.as_str(),
            task: &task.id.to_string(),
            r#type: "outcome",
        });
        // CRASH(outcome-lost): the decision before it is durable and says that the call may have happened; a missing
        // outcome reads as "unknown". So its durability need not be waited for.
        let posted = event.and_then(|event| {
            let write = Write { events: vec![event], changes: Vec::new() };
            Ok(if self.decided { parts.ledger.post(write) } else { parts.ledger.post_behind(write) }?)
        });
        if let Err(error) = posted {
            tracing::error!(%error, decision = %self.decision, "the outcome of a call could not be logged");
        }
    }
}

impl Permit {
    /// The decision in the log.
    #[must_use]
    pub fn decision(&self) -> DecisionId {
        self.record.decision
    }

    /// The last look before the request leaves: whether the task is still open, the token not revoked, and the policy that
    /// allowed it still in force.
    ///
    /// INVARIANT(policy-stands): nothing leaves under a policy, and so under a pin, that was replaced before it left.
    ///
    /// # Errors
    /// Why not; nothing may be sent then, and that is recorded.
    pub fn release(mut self) -> Result<Released, Over> {
        let (live, parts) = (&self.record.live, &self.record.authority.0);
        let over = live.over(self.token.as_ref().map(|token| token.claims().token_id.as_str()));
        if let Some(over) = over.or_else(|| live.overdue(&*parts.clock).map(Over::TaskEnded)) {
            return Err(over);
        }
        if !self.stands() {
            return Err(Over::PolicyChanged);
        }
        self.record.if_dropped = CallStatus::Cancelled;
        // One load if nobody wants traces: even to ask for the current span costs more.
        if LevelFilter::current() >= LevelFilter::DEBUG {
            self.record.within = Span::current();
        }
        Ok(Released { record: self.record, policy: self.policy })
    }

    /// Whether the policy that allowed it is still in force.
    fn stands(&self) -> bool {
        self.record.authority.has_in_force(&self.policy)
    }

    /// Hands the right over to an enforcement point elsewhere, after the same last look. What came of it is not known
    /// here, so no outcome is recorded: the decision says that the request may have happened.
    ///
    /// # Errors
    /// Why not.
    pub fn hand_over(self) -> Result<DecisionId, Over> {
        let mut released = self.release()?;
        released.record.written = true;
        Ok(released.record.decision)
    }
}

impl Released {
    /// The decision in the log.
    #[must_use]
    pub fn decision(&self) -> DecisionId {
        self.record.decision
    }

    /// The task for which it was let go.
    #[must_use]
    pub fn live(&self) -> &Arc<LiveTask> {
        &self.record.live
    }

    /// Whether the policy that allowed it is still in force: for who must wait between the release and the sending.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.record.authority.has_in_force(&self.policy)
    }

    /// The same, to be asked when this is not at hand.
    #[must_use]
    pub fn warrant(&self) -> Warrant {
        Warrant { authority: self.record.authority.clone(), policy: Arc::clone(&self.policy) }
    }

    /// Records how it ended. Call it before the answer is given to the caller.
    pub fn record(mut self, outcome: CallOutcome) {
        self.record.write(outcome);
    }
}

/// Whose request is decided.
pub(crate) struct Acting<'a> {
    pub(crate) live: &'a Arc<LiveTask>,
    pub(crate) agent: &'a Agent,
    pub(crate) binding: Binding,
    /// The token of the caller who asks, if this process saw it.
    pub(crate) token: Option<&'a Arc<SignedToken>>,
}

impl<'a> Acting<'a> {
    pub(crate) fn of(caller: &'a Caller) -> Self {
        Self { live: &caller.live, agent: &caller.agent, binding: caller.binding, token: Some(&caller.signed) }
    }
}

impl Authority {
    /// Decides one request of a caller. When this resolves, the decision is in the log, on stable storage.
    pub async fn decide(&self, caller: &Caller, operation: Operation<'_>) -> Decision {
        self.decide_as(&Acting::of(caller), operation, None).await
    }

    /// Refuses a request for a reason that the enforcement point found by itself (the live definition of a tool is not the
    /// approved one), and logs that like any other decision. Never answers [`Decision::Allow`].
    pub async fn refuse(&self, caller: &Caller, operation: Operation<'_>, reason: Reason, explanation: &str) -> Decision {
        let verdict = Verdict {
            outcome: Outcome::Deny,
            reason: Some(reason),
            determining: Vec::new(),
            explanation: explanation.to_owned(),
            approvers: Vec::new(),
        };
        self.decide_as(&Acting::of(caller), operation, Some(verdict)).await
    }

    /// Whether a denial would tell its caller of something that its task must not know of: what could never be allowed
    /// looks like what does not exist, whatever the reason.
    #[must_use]
    pub fn hides(&self, caller: &Caller, denial: &Denial, operation: &Operation<'_>) -> bool {
        denial.reason == Reason::ToolUnavailable || !self.could_allow(caller, operation)
    }

    /// Decides one request of a task for an enforcement point that saw the caller itself. It says how the caller's
    /// token was bound. `None` if there is no such open task of an agent that may act.
    pub async fn decide_for(&self, task: TaskId, binding: Binding, operation: Operation<'_>) -> Option<Decision> {
        let (live, agent) = self.standing_of(task, self.0.clock.now()).ok()?;
        Some(self.decide_as(&Acting { live: &live, agent: &agent, binding, token: None }, operation, None).await)
    }

    /// Decides, and again if another policy came into force while the decision was written.
    async fn decide_as(&self, acting: &Acting<'_>, operation: Operation<'_>, settled: Option<Verdict>) -> Decision {
        for _ in 1..DECISIONS_MAX {
            match self.decide_once(acting, operation, settled.clone()).await {
                // Dropped: that it was not let go is recorded.
                Decision::Allow(permit) if !permit.stands() => drop(permit),
                decision => return decision,
            }
        }
        self.decide_once(acting, operation, settled).await
    }

    async fn decide_once(&self, acting: &Acting<'_>, operation: Operation<'_>, settled: Option<Verdict>) -> Decision {
        let now = self.0.clock.now();
        let policy = self.policy();
        let (facts, verdict, progress) = settle(acting, operation, &policy, settled, &*self.0.clock);
        let reserved = progress.is_some();
        let mut changes: Vec<_> =
            progress.map(|progress| Change::Progress(acting.live.task().id, progress)).into_iter().collect();
        let decision = self.new_decision_id(now);
        let asked = Asked { acting, operation, facts: &facts, policy: &policy, plan: None };
        // CRASH(call.decided): a place in the budget and labels rose in memory only; nothing was sent.
        tracing::trace!(target: "writ::step", at = "call.decided");
        // Before the commit: who asked may go away while it is written, and then its outcome is known.
        let mut record = (verdict.outcome == Outcome::Allow).then(|| self.outcome_record(acting, decision));
        let logged = match asked.event(self, decision, &verdict, now) {
            Ok((event, opening)) => {
                changes.extend(opening);
                let committed = self.0.ledger.commit(Write { events: vec![event], changes });
                committed.instrument(tracing::debug_span!("log")).await.map_err(crate::Error::from)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = logged {
            tracing::error!(%error, "a decision could not be logged, so it is refused");
            if let Some(record) = &mut record {
                // There is no entry whose outcome it could be; or if there is, that reads as unknown.
                record.written = true;
            }
            if reserved && error.wrote_nothing() {
                acting.live.give_back();
            }
            return Decision::Failed(Denial::unlogged(&error));
        }
        // CRASH(call.logged): the decision is in the log and its place in the budget is used, though nothing was sent.
        tracing::trace!(target: "writ::step", at = "call.logged");
        match (record, verdict.outcome) {
            (Some(mut record), _) => {
                record.since = self.0.clock.elapsed();
                record.decided = true;
                Decision::Allow(Permit { record, policy, token: acting.token.cloned() })
            }
            (None, Outcome::Deny) => Decision::Deny(Denial::new(decision, verdict)),
            (None, Outcome::Ask) => Decision::Ask(Denial::new(decision, verdict)),
            // Allowed without a record cannot be: it was made above.
            (None, Outcome::Failed | Outcome::Allow) => Decision::Failed(Denial::new(decision, verdict)),
        }
    }

    fn has_in_force(&self, policy: &Arc<Policy>) -> bool {
        Arc::ptr_eq(&self.0.policy.load(), policy)
    }

    fn outcome_record(&self, acting: &Acting<'_>, decision: DecisionId) -> OutcomeRecord {
        OutcomeRecord {
            authority: self.clone(),
            live: Arc::clone(acting.live),
            decision,
            since: self.0.clock.elapsed(),
            if_dropped: CallStatus::NotReleased,
            decided: false,
            written: false,
            within: Span::none(),
        }
    }
}

/// What policy says, and, if it allows, the task's progress with the request's place in the budget. Asked again when
/// another request of the task was allowed meanwhile; each time one of them has got on, so this ends.
pub(crate) fn settle(
    acting: &Acting<'_>,
    operation: Operation<'_>,
    policy: &Policy,
    settled: Option<Verdict>,
    clock: &dyn Clock,
) -> (Facts, Verdict, Option<Progress>) {
    let workload = acting.live.workload();
    loop {
        let seen = acting.live.progress();
        let facts = facts(acting.live, &seen, acting.binding, clock);
        let request = Request { task: acting.live.task(), agent: acting.agent, workload: &workload, operation, facts: &facts };
        let verdict = settled.clone().unwrap_or_else(|| policy.decide(&request));
        if verdict.outcome != Outcome::Allow {
            return (facts, verdict, None);
        }
        let reading = policy.traits(&operation).map_or_else(Reading::default, |traits| traits.reading);
        let refused = match acting.live.reserve(&seen, reading, facts.now) {
            Reserved::Yes(progress) => return (facts, verdict, Some(progress)),
            Reserved::Moved => continue,
            Reserved::Ended(end) => over(Reason::TaskEnded, &format!("the task has ended ({})", end.as_str())),
            Reserved::Exhausted => over(Reason::BudgetExhausted, "the task has used up its budget of calls"),
        };
        return (facts, refused, None);
    }
}

/// What policies may know of a task at this progress.
pub(crate) fn facts(live: &LiveTask, progress: &Progress, binding: Binding, clock: &dyn Clock) -> Facts {
    let now = clock.now();
    Facts {
        now,
        labels: progress.labels,
        approved: false,
        calls_used: progress.calls_used,
        binding,
        attested_secs_ago: live.attested_secs_ago(progress, clock),
    }
}

fn over(reason: Reason, explanation: &str) -> Verdict {
    Verdict {
        outcome: Outcome::Deny,
        reason: Some(reason),
        determining: Vec::new(),
        explanation: format!("{explanation}; open a new task"),
        approvers: Vec::new(),
    }
}

impl Denial {
    pub(crate) fn new(decision: DecisionId, verdict: Verdict) -> Self {
        Self {
            decision: Some(decision),
            reason: verdict.reason.unwrap_or(Reason::NotPermitted),
            explanation: verdict.explanation,
            policies: verdict.determining.into_iter().map(|policy| policy.id).collect(),
            approvers: verdict.approvers,
        }
    }

    pub(crate) fn unlogged(error: &crate::Error) -> Self {
        let explanation = match error {
            crate::Error::Ledger(crate::ports::LedgerError::TooLarge(_)) => {
                "the request is too large to be logged, so it is refused"
            }
            _ => "the decision could not be logged, so the request is refused; try again later",
        };
        Self {
            decision: None,
            reason: Reason::LogUnavailable,
            explanation: explanation.into(),
            policies: Vec::new(),
            approvers: Vec::new(),
        }
    }
}

/// What was asked, for its log entry.
pub(crate) struct Asked<'a> {
    pub(crate) acting: &'a Acting<'a>,
    pub(crate) operation: Operation<'a>,
    pub(crate) facts: &'a Facts,
    pub(crate) policy: &'a Policy,
    /// The credential that is issued if it is allowed.
    pub(crate) plan: Option<&'a Plan>,
}

impl Asked<'_> {
    pub(crate) fn event(
        &self,
        authority: &Authority,
        decision: DecisionId,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Option<Change>), crate::Error> {
        let task = self.acting.live.task();
        let entropy = &*authority.0.entropy;
        let mut openings = Openings::default();
        let mut arguments = self.operation.arguments().filter(|arguments| !arguments.is_empty()).map(|arguments| {
            let clear = self.policy.traits(&self.operation).map_or(&[][..], |traits| &traits.clear_arguments);
            Arguments::record(arguments, clear, &mut openings, entropy)
        });
        // What was refused is not created: its plan has no place in the log, nor could it be shown to a signer.
        let plan = self.plan.filter(|_| verdict.outcome == Outcome::Allow);
        let subject = self.operation.subject().map(Subject::of);
        if let Some(Subject { whole: Some(whole), .. }) = subject {
            arguments.get_or_insert_default().commit_subject(whole, &mut openings, entropy);
        }
        let (decision_text, task_text) = (decision.to_string(), task.id.to_string());
        let event = encode(&DecisionEvent {
            agent: task.agent.as_str(),
            arguments,
            at: now.millis(),
            claims_sha256: None,
            decision: &decision_text,
            determining: ids(&verdict.determining),
            expires_at: plan.map(|plan| plan.expires_at.millis()),
            facts: self.facts.into(),
            grant: plan.map(|plan| plan.grant.to_string()),
            handle: plan.map(|plan| plan.handle.as_str()),
            intent: task.intent.as_str(),
            operation: self.operation.kind(),
            outcome: verdict.outcome.as_str(),
            owner: owner(self.acting.agent),
            params: None,
            plan_sha256: plan.map(|plan| hex(&plan.digest())),
            policy: authority.policy_version_text(self.policy).as_str(),
            predecessor: None,
            reason: reason(verdict),
            secret: plan.map(|plan| plan.secret.as_str()),
            subject: subject.as_ref().map(|subject| &*subject.shown),
            target: self.operation.target().map(domain::TargetName::as_str),
            task: &task_text,
            r#type: "decision",
            upstream: self.operation.upstream().map(domain::UpstreamName::as_str),
            workload: None,
        })?;
        let opening = if openings.is_empty() {
            None
        } else {
            let sealed = self.acting.live.key.seal(decision.as_bytes(), &openings, entropy)?;
            Some(Change::PutOpening { event: 0, task: task.id, sealed })
        };
        Ok((event, opening))
    }
}

pub(crate) fn owner(agent: &Agent) -> &str {
    agent.owner.as_ref().map_or("", domain::OwnerId::as_str)
}

/// Digest of an argument object, for callers that bind something to the arguments of a request.
#[must_use]
pub fn arguments_digest(arguments: &Map<String, serde_json::Value>) -> [u8; 32] {
    sha256(&[domain::json::canonical(&serde_json::Value::Object(arguments.clone())).as_bytes()])
}

pub(crate) fn sensitive_params(policy: &Policy, intent: &domain::IntentName) -> BTreeSet<String> {
    let intent = policy.intent(intent);
    intent
        .into_iter()
        .flat_map(|intent| &intent.params)
        .filter(|(_, param)| param.sensitive)
        .map(|(name, _)| name.clone())
        .collect()
}
