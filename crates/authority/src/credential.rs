//! One credential, from the request to the hand-over. The order is the security: plan, decide, log *exactly this plan* with
//! its grant in one transaction, pass the gate, look at the task, create, record, look again, hand out. Whatever fails on
//! the way, the grant is taken back; whatever the process forgets on the way, its row remembers (design.md §9). The record
//! is not waited for (docs/decisions/0012): a row that nobody confirmed is a credential that may exist.

use crate::Authority;
use crate::caller::Caller;
use crate::decide::{Acting, Asked, Denial, settle};
use crate::gate::{Consistency, Refused, ShownPlan, tree_size};
use crate::live::LiveTask;
use crate::ports::{Change, Inclusion, LedgerError, Write};
use crate::record::{Record, Recording};
use crate::target::{self, Minted, Plan, TargetError, Verifier};
use crate::targets::{Flight, Flights, Health, TargetState};
use domain::{
    DecisionId, EndReason, Grant, GrantId, GrantState, Offer, OfferName, Operation, Outcome, Reason, RevokeReason, SecretOrigin,
    TargetName, Timestamp, Verdict,
};
use policy::Policy;
use secrecy::SecretString;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest time that issuing may take, the wait for a connection included.
pub(crate) const ISSUE_TIMEOUT: Duration = Duration::from_secs(30);
/// Seconds after which a grant that nobody confirmed is taken back: no attempt to issue it can be under way any more, on
/// the target's side either.
pub(crate) const UNCONFIRMED_SECS: u64 = 120;
/// How often the gate's view may move on under a request before it gives up.
const GATE_ATTEMPTS_MAX: usize = 16;
/// What a caller shall wait before it asks a target again that cannot issue now, in seconds.
const RETRY_AFTER_SECS: u64 = 10;

/// What a task asks for.
#[derive(Debug, Clone)]
pub struct CredentialRequest {
    /// Where.
    pub target: TargetName,
    /// What of all that is offered there.
    pub offer: OfferName,
    /// What is said about it.
    pub params: Map<String, Value>,
    /// How long it shall live, if shorter than the offer allows.
    pub lifetime_secs: Option<u64>,
    /// What the caller made, if it made the secret itself.
    pub verifier: Option<Verifier>,
}

/// A credential, for the one who asked, once.
#[derive(Debug)]
pub struct IssuedCredential {
    /// The grant: what to name when it is given back.
    pub grant: GrantId,
    /// Where it is good.
    pub target: TargetName,
    /// What it is.
    pub offer: OfferName,
    /// The decision in the log.
    pub decision: DecisionId,
    /// Its name, serial or id at the target.
    pub handle: String,
    /// Who made the secret.
    pub secret: SecretOrigin,
    /// When it dies by itself; it is taken back then at the latest.
    pub expires_at: Timestamp,
    /// What is needed to use it and is no secret.
    pub fields: BTreeMap<String, String>,
    /// The secrets that Writ or the target made.
    pub secrets: BTreeMap<String, SecretString>,
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Policy, or what is asked for, says no.
    #[error("{}", .0.explanation)]
    Denied(Denial),
    /// A human may allow it.
    #[error("{}", .0.explanation)]
    Ask(Denial),
    /// It could not be decided or logged.
    #[error("{}", .0.explanation)]
    Failed(Denial),
    /// The target cannot issue at present; the refusal is in the log.
    #[error("{}", .denial.explanation)]
    Unavailable {
        /// Why.
        denial: Denial,
        /// When to ask again, in seconds.
        retry_after_secs: u64,
    },
    /// It was allowed, and the target failed. Whatever was made is taken back.
    #[error("the credential was allowed but not issued: {0}")]
    Target(TargetError),
    /// The task ended meanwhile: what was made is taken back.
    #[error("the task has ended ({}), so the credential was taken back", .0.as_str())]
    TaskEnded(EndReason),
    /// Somebody revoked it while it was made.
    #[error("the credential was revoked while it was issued")]
    Revoked,
    /// Writ itself could not carry it out; what was made is taken back.
    #[error("the credential could not be issued: {0}")]
    Interrupted(String),
}

/// What is asked for, complete and planned.
pub(crate) struct Draft {
    pub(crate) plan: Plan,
    pub(crate) target: Arc<TargetState>,
}

/// An entry that is in the tree, and the size of the tree that its proof of consistency begins with.
pub(crate) struct Included {
    pub(crate) inclusion: Inclusion,
    pub(crate) seen: u64,
}

/// What is known before policy is asked.
enum Prepared {
    /// It can be made exactly like this.
    Planned(Box<Draft>),
    /// Nothing is planned: policy will refuse it by itself.
    Unplanned,
    /// It cannot be made, whatever policy says.
    Settled(Verdict),
}

impl Authority {
    /// Decides about a credential, has it made, and hands it out. When this answers an error, nothing is left that would
    /// not be taken back.
    ///
    /// # Errors
    /// Why there is none. Refusals are in the log.
    pub async fn request_credential(
        &self,
        caller: &Caller,
        request: CredentialRequest,
    ) -> Result<IssuedCredential, CredentialError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (this, caller) = (self.clone(), caller.clone());
        // In a task of its own: a caller that goes away must not leave a half-made credential behind.
        tokio::spawn(async move {
            let (issued, recording) = match this.issue_credential(&caller, request).await {
                Ok((issued, recording)) => (Ok(issued), Some(recording)),
                Err(why) => (Err(why), None),
            };
            if let Err(Ok(unheard)) = answer.send(issued) {
                return this.take_back(unheard.grant, RevokeReason::NotHandedOut, true).await;
            }
            // CRASH(credential.handed_out): somebody may have it, and its row says *intended*: the next start ends it at once.
            tracing::trace!(target: "writ::step", at = "credential.handed_out");
            if let Some(recording) = recording {
                this.finish(recording).await;
            }
        });
        answered.await.unwrap_or_else(|_| Err(CredentialError::Interrupted("it broke off".into())))
    }

    async fn issue_credential(
        &self,
        caller: &Caller,
        request: CredentialRequest,
    ) -> Result<(IssuedCredential, Recording), CredentialError> {
        let _first = self.0.credentials.pace.ask();
        let now = self.0.clock.now();
        let policy = self.policy();
        let secret = if request.verifier.is_some() { SecretOrigin::Caller } else { SecretOrigin::Writ };
        let offer = policy.offer(&request.target, &request.offer).cloned();
        let lifetime_secs = lifetime(&request, offer.as_ref(), caller.live.task().deadline.secs_since(now));
        let operation = Operation::IssueCredential {
            target: &request.target,
            offer: &request.offer,
            arguments: &request.params,
            lifetime_secs,
            secret,
        };
        let prepared = match &offer {
            Some(offer) if policy.could_allow(caller.live.task(), &caller.agent, &operation) => {
                self.prepare(caller, &request, offer, (lifetime_secs, now))
            }
            // What a task could never have is refused before anything is said about the target.
            _ => Prepared::Unplanned,
        };
        // Before anybody can know the grant: whoever revokes it from here on is heard.
        let flight = match &prepared {
            Prepared::Planned(draft) => Some(Flights::begin(&self.0.credentials.flights, draft.plan.grant)),
            Prepared::Unplanned | Prepared::Settled(_) => None,
        };
        let acting = Acting::of(caller);
        let (draft, decision, included) = self.decide_grant(&acting, operation, &policy, prepared, now).await?;
        let grant = draft.plan.grant;
        let (handle, expires_at) = (draft.plan.handle.clone(), draft.plan.expires_at);
        let (minted, record) = match self.carry_out((&caller.live, &policy), draft, &included).await {
            Ok(made) => made,
            Err(why) => {
                // What was taken back is due once it is not under way any more.
                drop(flight);
                self.0.credentials.doorbell.notify_one();
                return Err(why);
            }
        };
        let Some(flight) = flight.filter(Flight::hand_out) else {
            self.0.credentials.doorbell.notify_one();
            return Err(CredentialError::Revoked);
        };
        let issued = IssuedCredential {
            grant,
            target: request.target,
            offer: request.offer,
            decision,
            handle,
            secret,
            expires_at,
            fields: minted.fields,
            secrets: minted.secrets,
        };
        Ok((issued, Recording { record, flight }))
    }

    /// Whether the target can, and what exactly would be made.
    fn prepare(
        &self,
        caller: &Caller,
        request: &CredentialRequest,
        offer: &Offer,
        (lifetime_secs, now): (u64, Timestamp),
    ) -> Prepared {
        let cannot = |why: String| Prepared::Settled(unable(Outcome::Failed, Reason::ToolUnavailable, why));
        let name = &request.target;
        let Some(target) = self.0.credentials.target(name) else {
            return cannot(format!("target `{name}` is described but not connected; its operator must look"));
        };
        match target.health() {
            Health::Unprobed => return cannot(format!("target `{name}` was not probed yet; try again in a moment")),
            Health::Broken { .. } => {
                return cannot(format!("target `{name}` failed its last probe, so it issues nothing; its owner must look"));
            }
            Health::Healthy { .. } => {}
        }
        if target.breaker.shut_for(self.0.clock.elapsed()).is_some_and(|rest| rest > Duration::ZERO) {
            return cannot(format!("target `{name}` does not answer at present; try again later"));
        }
        let Ok(params) = offer.bind(&request.params) else { return Prepared::Unplanned };
        let task = caller.live.task();
        let asked = target::Asked {
            grant: self.new_grant_id(now),
            task: task.id,
            agent: &task.agent,
            intent: &task.intent,
            offer,
            params: &params,
            verifier: request.verifier.as_ref(),
            now,
            expires_at: now.plus_secs(lifetime_secs),
            entropy: self.seed(),
        };
        match planned(&target, &asked) {
            Ok(plan) => Prepared::Planned(Box::new(Draft { plan, target })),
            Err(why) => Prepared::Settled(unable(Outcome::Deny, Reason::UnknownArgument, why)),
        }
    }

    /// Asks policy, and logs what it says. If it allows: with the plan's digest and the grant, in one transaction.
    async fn decide_grant(
        &self,
        acting: &Acting<'_>,
        operation: Operation<'_>,
        policy: &Policy,
        prepared: Prepared,
        now: Timestamp,
    ) -> Result<(Draft, DecisionId, Included), CredentialError> {
        let (draft, settled) = match prepared {
            Prepared::Planned(draft) if draft.target.take_place() => (Some(*draft), None),
            Prepared::Planned(draft) => (None, Some(full(&draft.target))),
            Prepared::Unplanned => (None, None),
            Prepared::Settled(verdict) => (None, Some(verdict)),
        };
        let unable_now = settled.as_ref().is_some_and(|verdict| verdict.outcome == Outcome::Failed);
        let (facts, mut verdict, progress) = settle(acting, operation, policy, settled, &*self.0.clock);
        if draft.is_none() && verdict.outcome == Outcome::Allow {
            // Unreachable while listing and deciding agree; refused if they ever should not.
            verdict = unable(Outcome::Failed, Reason::PolicyError, "nothing was planned for this credential".into());
        }
        let decision = self.new_decision_id(now);
        let asked = Asked { acting, operation, facts: &facts, policy, plan: draft.as_ref().map(|draft| &draft.plan) };
        let failed = |error: &crate::Error| CredentialError::Failed(Denial::unlogged(error));
        let reserved = progress.is_some();
        let logged = async {
            let (event, opening) = asked.event(self, decision, &verdict, now)?;
            let progress = progress.map(|progress| Change::Progress(acting.live.task().id, progress));
            let mut write = Write { events: vec![event], changes: progress.into_iter().chain(opening).collect() };
            match &draft {
                Some(draft) if verdict.outcome == Outcome::Allow => {
                    write.changes.push(intended(draft, &operation, acting.live, (decision, now)));
                    // CRASH(credential.decided): a place in the budget and labels rose in memory only; nothing was made.
                    tracing::trace!(target: "writ::step", at = "credential.decided");
                    Ok(Some(self.include_decision(write).await?))
                }
                _ => {
                    self.0.ledger.commit(write).await?;
                    Ok(None)
                }
            }
        };
        let logged: Result<Option<Included>, crate::Error> = logged.await;
        if reserved && logged.as_ref().is_err_and(crate::Error::wrote_nothing) {
            acting.live.give_back();
        }
        match (draft, logged) {
            (Some(draft), Ok(Some(included))) => Ok((draft, decision, included)),
            (draft, logged) => {
                if let Some(draft) = draft {
                    draft.target.give_place();
                }
                logged.map_err(|error| failed(&error))?;
                let denial = |verdict| Denial::new(decision, verdict);
                Err(match verdict.outcome {
                    Outcome::Ask => CredentialError::Ask(denial(verdict)),
                    Outcome::Failed if unable_now => {
                        CredentialError::Unavailable { denial: denial(verdict), retry_after_secs: RETRY_AFTER_SECS }
                    }
                    Outcome::Failed => CredentialError::Failed(denial(verdict)),
                    Outcome::Deny | Outcome::Allow => CredentialError::Denied(denial(verdict)),
                })
            }
        }
    }

    /// From the logged decision to the credential.
    ///
    /// CRASH(credential.logged): the grant is intended, nothing exists; it is taken back when nobody confirmed it, which
    /// finds nothing and is done.
    async fn carry_out(
        &self,
        (live, policy): (&LiveTask, &Arc<Policy>),
        draft: Draft,
        included: &Included,
    ) -> Result<(Minted, Record), CredentialError> {
        let grant = draft.plan.grant;
        tracing::trace!(target: "writ::step", at = "credential.logged");
        let shown = match self.show_plan(&draft.plan, included).await {
            Ok(shown) => shown,
            Err(error) => {
                tracing::error!(%error, %grant, "the gate stays shut for a credential");
                self.take_back(grant, RevokeReason::NotHandedOut, true).await;
                return Err(CredentialError::Interrupted("the signer was not shown what it demands".into()));
            }
        };
        if let Err(over) = self.still_stands(live, policy) {
            self.take_back(grant, RevokeReason::NotHandedOut, true).await;
            return Err(over);
        }
        let minted = match self.mint(&draft, &shown).await {
            Ok(minted) => minted,
            Err(error) => {
                // Whether something exists is not known after a silence; a refusal is an answer.
                let settled = !matches!(error, TargetError::Unreachable(_));
                self.take_back(grant, RevokeReason::NotHandedOut, settled).await;
                return Err(CredentialError::Target(error));
            }
        };
        // CRASH(credential.issued): the credential exists and nobody has it. Its row says *intended*: it is
        // taken back when nobody confirmed it. A token that only it can revoke itself is lost and dies by its expiry.
        tracing::trace!(target: "writ::step", at = "credential.issued");
        let record = match self.confirm(grant, live.task().id, &draft, &minted).await {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, %grant, "an issued credential could not be recorded, so it is not handed out");
                return Err(CredentialError::Interrupted("it could not be recorded".into()));
            }
        };
        // CRASH(credential.recorded): the credential is live and nobody has it. If its record was kept, it ends with its task
        // or when it expires; else as above.
        tracing::trace!(target: "writ::step", at = "credential.recorded");
        // INVARIANT(kept-before-seen): the flush of the anchor went on while the target worked.
        if let Err(error) = self.anchored(included).await {
            tracing::error!(%error, %grant, "the decision about a credential could not be anchored, so it is not handed out");
            self.take_back(grant, RevokeReason::NotHandedOut, true).await;
            return Err(CredentialError::Interrupted("its decision could not be anchored".into()));
        }
        if let Err(over) = self.still_stands(live, policy) {
            self.take_back(grant, RevokeReason::NotHandedOut, true).await;
            return Err(over);
        }
        Ok((minted, record))
    }

    /// The look before it is made, and again before it is handed out: the task is open, and the policy that allowed it is
    /// still in force. INVARIANT(policy-stands), as for a permit.
    fn still_stands(&self, live: &LiveTask, policy: &Arc<Policy>) -> Result<(), CredentialError> {
        if let Some(reason) = live.ended().or_else(|| live.overdue(&*self.0.clock)) {
            return Err(CredentialError::TaskEnded(reason));
        }
        if Arc::ptr_eq(&self.0.policy.load(), policy) {
            return Ok(());
        }
        Err(CredentialError::Interrupted("the policy was replaced meanwhile; ask again".into()))
    }

    async fn mint(&self, draft: &Draft, shown: &ShownPlan) -> Result<Minted, TargetError> {
        let Draft { plan, target } = draft;
        let work = async {
            let unable = |_| TargetError::Refused("the target is being replaced".into());
            let _place = target.issue_budget.acquire().await.map_err(unable)?;
            let _trial = match target.breaker.admit(self.0.clock.elapsed()) {
                crate::breaker::Admission::Shut => {
                    return Err(TargetError::Refused("the target does not answer at present".into()));
                }
                admitted => admitted,
            };
            let answer = target.driver.issue(plan, shown).await;
            target.heard(&answer, self.0.clock.elapsed());
            answer
        };
        let late = || TargetError::Unreachable(format!("it did not answer within {} seconds", ISSUE_TIMEOUT.as_secs()));
        match tokio::time::timeout(ISSUE_TIMEOUT, work).await {
            Ok(answer) => answer,
            Err(_) => {
                let answer = Err(late());
                target.heard(&answer, self.0.clock.elapsed());
                answer
            }
        }
    }

    /// Logs a decision that the gate shall be shown.
    pub(crate) async fn include_decision(&self, write: Write) -> Result<Included, LedgerError> {
        let seen = self.0.credentials.gate.seen();
        Ok(Included { inclusion: self.0.ledger.include(write, seen).await?, seen })
    }

    /// Resolves once what was made because of the entry may leave the process.
    pub(crate) async fn anchored(&self, included: &Included) -> Result<(), crate::Error> {
        let size = tree_size(&included.inclusion).map_err(|error| LedgerError::Unavailable(error.to_string()))?;
        Ok(self.0.ledger.anchored(size).await?)
    }

    /// Goes through the gate, fetching another consistency proof when others moved its view meanwhile.
    pub(crate) async fn show_plan(&self, plan: &Plan, included: &Included) -> Result<ShownPlan, crate::Error> {
        let gate = &self.0.credentials.gate;
        let unavailable = |error: Refused| LedgerError::Unavailable(error.to_string());
        let Included { inclusion, seen } = included;
        let size = tree_size(inclusion).map_err(unavailable)?;
        let (mut old, mut new, mut proof) = (*seen, size, inclusion.consistency.clone());
        for _ in 0..GATE_ATTEMPTS_MAX {
            match gate.show_plan(plan, inclusion, &Consistency { old, new, proof: &proof }) {
                Ok(shown) => return Ok(shown),
                Err(Refused::Moved(last)) => {
                    (old, new) = (last.min(size), last.max(size));
                    proof = self.0.ledger.consistency(old, new).await?;
                }
                Err(error) => return Err(unavailable(error).into()),
            }
        }
        Err(LedgerError::Unavailable("the log moves faster than the gate; try again".into()).into())
    }

    pub(crate) fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.entropy.fill(&mut seed);
        seed
    }
}

/// The plan of a driver, held to what was asked.
pub(crate) fn planned(target: &TargetState, asked: &target::Asked<'_>) -> Result<Plan, String> {
    let plan = target.driver.plan(asked).map_err(|error| error.to_string())?;
    let secret = if asked.verifier.is_some() { SecretOrigin::Caller } else { SecretOrigin::Writ };
    let kept = plan.grant == asked.grant && plan.offer == asked.offer.name && plan.expires_at <= asked.expires_at;
    match kept && !plan.handle.is_empty() {
        // Policy decides about who makes the secret: what it decided about must be what is done.
        true if plan.secret != secret => Err("this offer makes its secret otherwise than was asked for".into()),
        true => Ok(plan),
        false => Err("the target planned something else than was asked for".into()),
    }
}

/// The grant before anything exists.
fn intended(draft: &Draft, operation: &Operation<'_>, live: &LiveTask, (decision, now): (DecisionId, Timestamp)) -> Change {
    let task = live.task();
    let target = operation.target().cloned().unwrap_or_else(|| draft.target.profile.name.clone());
    let grant = Grant {
        id: draft.plan.grant,
        task: task.id,
        agent: task.agent.clone(),
        target,
        offer: draft.plan.offer.clone(),
        decision,
        handle: draft.plan.handle.clone(),
        granted_at: now,
        expires_at: draft.plan.expires_at,
        state: GrantState::Intended,
        revoked_at: None,
    };
    Change::PutGrant { grant: Box::new(grant), unconfirmed_at: now.plus_secs(UNCONFIRMED_SECS) }
}

fn lifetime(request: &CredentialRequest, offer: Option<&Offer>, rest_of_task_secs: u64) -> u64 {
    let most = offer.map_or(u64::MAX, |offer| offer.lifetime_secs).min(rest_of_task_secs);
    request.lifetime_secs.unwrap_or(most).min(most).max(1)
}

fn full(target: &TargetState) -> Verdict {
    let (name, max) = (&target.profile.name, target.profile.live_max);
    let why = format!("target `{name}` has as many live credentials as it may ({max}); try again when some have ended");
    unable(Outcome::Failed, Reason::ToolUnavailable, why)
}

fn unable(outcome: Outcome, reason: Reason, explanation: String) -> Verdict {
    Verdict { outcome, reason: Some(reason), determining: Vec::new(), explanation, approvers: Vec::new() }
}
