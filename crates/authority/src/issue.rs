//! One issuance: evidence in, task-bound token out. The order is the security: prove, find the agent, check the intent,
//! decide, log *exactly these claims* with the task in one transaction, and only then sign.

use crate::Authority;
use crate::attest::{Attested, EvidenceInput};
use crate::caller::Unauthenticated;
use crate::decide::{owner, sensitive_params};
use crate::end::Actor;
use crate::error::IssueError;
use crate::event::{Arguments, DecisionEvent, WorkloadRecord, encode, hex, ids, reason};
use crate::gate::{Consistency, Refused};
use crate::live::{LiveTask, Place};
use crate::opening::{Openings, TaskKey};
use crate::ports::{Change, LedgerError, Write};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::limits::OPEN_TASKS_PER_AGENT_MAX;
use domain::{Agent, Binding, EndReason, Intent, IntentName, Operation, Outcome, Progress, Task, TaskId, TaskState, Timestamp};
use policy::{Policy, Request};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use token::UnixSeconds;
use token::claims::{AccessClaims, CanonicalClaims, Confirmation};
use token::dpop::TargetUri;
use tracing::Instrument;

/// How often the signer's view may move on under a request before it gives up.
const SIGN_ATTEMPTS_MAX: usize = 16;

/// What an agent asks for.
#[derive(Debug)]
pub enum TaskRequest {
    /// A new task.
    Open {
        /// The declared intent.
        intent: String,
        /// Its parameters.
        parameters: Map<String, Value>,
        /// How long the task shall live, if shorter than its intent allows.
        lifetime_secs: Option<u64>,
        /// The task that this one replaces, because the agent changes course: it ends in the same transaction.
        replaces: Option<TaskId>,
    },
    /// A fresh token for an open task: re-attestation and a fresh decision.
    Renew(TaskId),
}

/// How the token shall be bound.
#[derive(Debug)]
pub struct Holder<'a> {
    /// A DPoP proof, and the method and URI that it must be about.
    pub dpop: Option<(&'a str, &'a str, &'a TargetUri)>,
    /// SHA-256 of the client certificate of the connection.
    pub certificate: Option<[u8; 32]>,
}

/// A request for a token.
#[derive(Debug)]
pub struct IssueRequest<'a> {
    /// Who it is.
    pub evidence: EvidenceInput,
    /// What for.
    pub task: TaskRequest,
    /// For which resources; empty means all that the intent reaches.
    pub resources: Vec<String>,
    /// By whom it will be held.
    pub holder: Holder<'a>,
}

/// What was issued.
#[derive(Debug)]
pub struct Issued {
    /// The access token (RFC 9068).
    pub token: SecretString,
    /// What it says.
    pub claims: AccessClaims,
    /// How it is bound.
    pub binding: Binding,
    /// The task.
    pub task: Arc<LiveTask>,
}

/// What is about to be decided, logged and signed.
struct Draft {
    agent: Arc<Agent>,
    task: Task,
    key: Option<TaskKey>,
    live: Option<Arc<LiveTask>>,
    operation: Operation<'static>,
    claims: AccessClaims,
    canonical: CanonicalClaims,
    binding: Binding,
    changes: Vec<Change>,
    replaced: Option<Arc<LiveTask>>,
    /// Held until the task is among the open ones.
    place: Option<Place>,
}

/// One thing that a token can be for (RFC 8707), and the scope that stands for it.
struct Resource {
    uri: String,
    scope: String,
}

impl Authority {
    /// Proves, decides, logs, signs: opens a task or renews its token.
    ///
    /// # Errors
    /// Why nothing was issued. Refusals are logged.
    pub async fn issue(&self, request: IssueRequest<'_>) -> Result<Issued, IssueError> {
        let now = self.0.clock.now();
        let attested = self.attest(&request.evidence, now).await.inspect_err(|error| self.log_refusal(None, None, error, now))?;
        let agent = self
            .agent_of(&attested.workload)
            .inspect_err(|error| self.log_refusal(None, Some(&attested.workload), error, now))?;
        let issued = self.issue_to(&request, &attested, Arc::clone(&agent), now).await;
        issued.inspect_err(|error| {
            if !matches!(error, IssueError::Denied { .. } | IssueError::UseNonce(_)) {
                self.log_refusal(Some(&agent), Some(&attested.workload), error, now);
            }
        })
    }

    async fn issue_to(
        &self,
        request: &IssueRequest<'_>,
        attested: &Attested,
        agent: Arc<Agent>,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        agent.eligible(now)?;
        let policy = self.policy();
        let (binding, confirmation) = self.bind(&request.holder, &agent, now)?;
        let draft = match &request.task {
            TaskRequest::Open { .. } => self.draft_open(request, attested, &agent, &policy, now)?,
            TaskRequest::Renew(id) => self.draft_renewal(*id, attested, &agent)?,
        };
        let draft = self.complete(draft, request, &policy, (binding, confirmation), now)?;
        let intent = draft.task.intent.clone();
        let issued = self.decide_and_sign(draft, attested, &policy, now).await?;
        tracing::info!(agent = %agent.id, task = %issued.task.task().id, %intent, "token issued");
        Ok(issued)
    }

    /// The holder's key. Unbound tokens only for agents that are explicitly allowed them.
    fn bind(&self, holder: &Holder<'_>, agent: &Agent, now: Timestamp) -> Result<(Binding, Option<Confirmation>), IssueError> {
        if let Some(proof) = holder.dpop {
            let proof = self.check_proof(agent.id.as_str(), proof, None, now).map_err(|error| match error {
                Unauthenticated::UseNonce(nonce) => IssueError::UseNonce(nonce),
                Unauthenticated::Proof(why) => IssueError::Proof(why),
                other => IssueError::Proof(other.to_string()),
            })?;
            return Ok((Binding::Dpop, Some(Confirmation::Jkt(proof.jkt))));
        }
        if let Some(thumbprint) = holder.certificate {
            return Ok((Binding::Mtls, Some(Confirmation::X5tS256(URL_SAFE_NO_PAD.encode(thumbprint)))));
        }
        if agent.allow_bearer { Ok((Binding::Bearer, None)) } else { Err(IssueError::BindingRequired) }
    }

    fn draft_open(
        &self,
        request: &IssueRequest<'_>,
        attested: &Attested,
        agent: &Arc<Agent>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<DraftTask, IssueError> {
        let TaskRequest::Open { intent, parameters, lifetime_secs, replaces } = &request.task else {
            return Err(IssueError::Task("it is not a request for a new task"));
        };
        let intent = declared(intent, agent, policy)?;
        let params = intent.bind(parameters).map_err(IssueError::Params)?;
        let place = self.0.tasks.take_place(&agent.id, OPEN_TASKS_PER_AGENT_MAX).ok_or(IssueError::TooManyTasks)?;
        let replaced = replaces.map(|id| self.own_open_task(id, agent)).transpose()?;
        let limits = intent.limits.capped();
        let lifetime = lifetime_secs.map_or(limits.lifetime_secs, |wanted| wanted.clamp(1, limits.lifetime_secs));
        let task = Task {
            id: self.new_task_id(now),
            agent: agent.id.clone(),
            intent: intent.name.clone(),
            params,
            opened_at: now,
            deadline: now.plus_secs(lifetime),
            calls_max: limits.calls,
            idle_secs: limits.idle_secs,
            workload: attested.workload.clone(),
            predecessor: *replaces,
            progress: Progress {
                calls_used: 0,
                labels: Default::default(),
                seen_at: now,
                attested_at: now,
                state: TaskState::Open,
            },
        };
        let key = TaskKey::generate(&*self.0.entropy);
        Ok(DraftTask {
            agent: Arc::clone(agent),
            task,
            key: Some(key),
            live: None,
            operation: Operation::OpenTask,
            replaced,
            place: Some(place),
        })
    }

    fn draft_renewal(&self, id: TaskId, attested: &Attested, agent: &Arc<Agent>) -> Result<DraftTask, IssueError> {
        let live = self.own_open_task(id, agent)?;
        if live.overdue(&*self.0.clock).is_some() {
            return Err(IssueError::Task("it is past its deadline or was idle for too long; open a new one"));
        }
        if live.task().workload.subject != attested.workload.subject || live.task().workload.issuer != attested.workload.issuer {
            return Err(IssueError::Task("it was opened by another workload of this agent; open a task of your own"));
        }
        let mut task = live.task().clone();
        task.workload = attested.workload.clone();
        task.progress = live.progress();
        Ok(DraftTask {
            agent: Arc::clone(agent),
            task,
            key: None,
            live: Some(live),
            operation: Operation::RenewTask,
            replaced: None,
            place: None,
        })
    }

    /// An open task of this agent. Somebody else's task and no task at all look the same.
    fn own_open_task(&self, id: TaskId, agent: &Agent) -> Result<Arc<LiveTask>, IssueError> {
        let live = self.0.tasks.get(id).filter(|live| live.task().agent == agent.id && live.ended().is_none());
        live.ok_or(IssueError::Task("there is no open task of this agent with that id; open a new one"))
    }

    fn complete(
        &self,
        draft: DraftTask,
        request: &IssueRequest<'_>,
        policy: &Policy,
        bound: (Binding, Option<Confirmation>),
        now: Timestamp,
    ) -> Result<Draft, IssueError> {
        let intent =
            policy.intent(&draft.task.intent).ok_or(IssueError::Task("its intent no longer exists; declare another one"))?;
        let reach = self.resources(policy, intent, &request.resources)?;
        let lifetime = self.0.token_lifetime_secs.min(draft.task.deadline.secs_since(now)).max(1);
        let claims = AccessClaims {
            issuer: self.0.issuer.clone(),
            subject: draft.agent.id.to_string(),
            client_id: draft.agent.id.to_string(),
            audience: reach.iter().map(|resource| resource.uri.clone()).chain([self.0.issuer.clone()]).collect(),
            issued_at: UnixSeconds(now.secs()),
            expires_at: UnixSeconds(now.secs()).plus(i64::try_from(lifetime).unwrap_or(1)),
            token_id: self.0.wall.token_id(self.0.clock.elapsed(), &self.random_id()),
            task: draft.task.id.to_string(),
            intent: draft.task.intent.to_string(),
            act: None,
            confirmation: bound.1,
            scope: (!reach.is_empty())
                .then(|| reach.iter().map(|resource| resource.scope.as_str()).collect::<Vec<_>>().join(" ")),
            authorization_details: vec![granted(&draft.task)],
        };
        // Its times and its names are ours: only what the agent declared can make it unfit.
        let canonical = claims.canonical().map_err(|_| IssueError::TooLong)?;
        let (key, changes) = match (draft.key, &draft.live) {
            (Some(key), _) => {
                let wrapped_key = self.0.wrapping.wrap(draft.task.id, &key, &*self.0.entropy).map_err(unavailable)?;
                (Some(key), vec![Change::OpenTask { task: Box::new(draft.task.clone()), wrapped_key }])
            }
            (None, _) => (None, vec![Change::Attested(draft.task.id, Box::new(draft.task.workload.clone()))]),
        };
        Ok(Draft {
            agent: draft.agent,
            task: draft.task,
            key,
            live: draft.live,
            operation: draft.operation,
            claims,
            canonical,
            binding: bound.0,
            changes,
            replaced: draft.replaced,
            place: draft.place,
        })
    }

    /// The upstreams and HTTP APIs that the token shall be for: those asked for, all within the intent's reach.
    fn resources(&self, policy: &Policy, intent: &Intent, wanted: &[String]) -> Result<Vec<Resource>, IssueError> {
        let upstreams = intent.reach.iter().map(|name| Resource { uri: self.resource_uri(name), scope: format!("mcp:{name}") });
        let apis = intent.targets.iter().filter(|name| policy.target(name).is_some_and(policy::TargetOffers::is_http));
        let apis = apis.map(|name| Resource { uri: self.http_resource_uri(name), scope: format!("http:{name}") });
        let mut reach: Vec<_> = upstreams.chain(apis).collect();
        if wanted.is_empty() {
            return Ok(reach);
        }
        // The issuer itself is in every audience: asking for it alone asks for no resource.
        let wanted: BTreeSet<_> = wanted.iter().map(|uri| token::oauth::metadata::slashless(uri)).collect();
        let unknown = |uri: &&&str| **uri != self.0.issuer && !reach.iter().any(|resource| resource.uri == ***uri);
        if let Some(uri) = wanted.iter().find(unknown) {
            return Err(IssueError::Target(uri.chars().take(200).collect()));
        }
        reach.retain(|resource| wanted.contains(resource.uri.as_str()));
        Ok(reach)
    }

    async fn decide_and_sign(
        &self,
        mut draft: Draft,
        attested: &Attested,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        let mut facts_now = facts_of(&draft, now);
        facts_now.attested_secs_ago = 0;
        let request = Request {
            task: &draft.task,
            agent: &draft.agent,
            workload: &attested.workload,
            operation: draft.operation,
            facts: &facts_now,
        };
        let verdict = policy.decide(&request);
        let allowed = verdict.outcome == Outcome::Allow;
        let event = self.decision_event(&draft, attested, &Ruling { policy, verdict: &verdict, facts: &facts_now })?;
        if !allowed {
            self.0
                .ledger
                .commit(Write { events: event.events, changes: Vec::new() })
                .await
                .map_err(|error| IssueError::Unavailable(error.to_string()))?;
            return Err(IssueError::Denied { explanation: verdict.explanation, ask: verdict.outcome == Outcome::Ask });
        }
        let mut write = event;
        let opening = std::mem::take(&mut write.changes);
        write.changes = std::mem::take(&mut draft.changes);
        write.changes.extend(opening);
        write.changes.extend(attested.use_once.map(|(key, expires)| Change::UseEvidence { key, expires }));
        // INVARIANT(logged-is-in-force): whoever asked may go away from here on. A task that the log says was replaced, and that
        // goes on, would be worse than none.
        let this = self.clone();
        let whole = async move { this.include_and_sign(draft, write, now).await };
        let done = tokio::spawn(whole.instrument(tracing::Span::current())).await;
        done.unwrap_or_else(|_| Err(IssueError::Unavailable("it broke off".into())))
    }

    /// CRASH(issue.decided): nothing happened; the evidence is unused.
    /// CRASH(issue.included and later): the task is open and in the log, the one that it replaced has ended; its token was
    /// never seen by anybody. It ends by its deadline or idle limit. The evidence is used: the agent gets a fresh one and
    /// opens another task.
    async fn include_and_sign(&self, draft: Draft, mut write: Write, now: Timestamp) -> Result<Issued, IssueError> {
        let replaced = draft.replaced;
        let giving_way = match &replaced {
            Some(replaced) => Some((replaced, self.give_way(replaced, draft.agent.id.as_str(), now, &mut write).await?)),
            None => None,
        };
        let seen = self.0.signer.seen();
        tracing::trace!(target: "writ::step", at = "issue.decided");
        let inclusion = self.0.ledger.include(write, seen).await.map_err(|error| match error {
            LedgerError::Replayed => IssueError::EvidenceReplayed,
            other => IssueError::Unavailable(other.to_string()),
        })?;
        tracing::trace!(target: "writ::step", at = "issue.included");
        let live = match draft.live {
            Some(live) => {
                live.attested(draft.task.workload.clone(), &*self.0.clock);
                live
            }
            None => {
                let key = draft.key.ok_or_else(|| IssueError::Unavailable("the task has no key".into()))?;
                let live = LiveTask::new(draft.task, key, &*self.0.clock);
                self.0.tasks.insert(Arc::clone(&live));
                drop(draft.place);
                live
            }
        };
        if let Some((replaced, logged)) = giving_way {
            self.gave_way(replaced, logged, now);
        }
        tracing::trace!(target: "writ::step", at = "issue.effective");
        if let Some(reason) = self.fallen(&live, now) {
            self.end(&live, reason, &Actor::System.name()).await.map_err(unavailable)?;
            return Err(IssueError::Task("what it stands on changed meanwhile; declare it anew"));
        }
        // Whoever ended it was told that nothing more is given to it.
        if live.ended().is_some() {
            return Err(IssueError::Task("it ended meanwhile; open a new one"));
        }
        let token = self.sign_included(&draft.canonical, &inclusion, seen).await?;
        // INVARIANT(kept-before-seen): the flush of the anchor went on meanwhile.
        let size = crate::gate::tree_size(&inclusion).map_err(|error| IssueError::Unavailable(error.to_string()))?;
        self.0.ledger.anchored(size).await.map_err(|error| IssueError::Unavailable(error.to_string()))?;
        tracing::trace!(target: "writ::step", at = "issue.signed");
        Ok(Issued { token: token.into(), claims: draft.claims, binding: draft.binding, task: live })
    }

    /// Whether what a task stands on fell away while its decision was written. Whoever takes it away ends the tasks that
    /// are open then; this one was not yet.
    fn fallen(&self, live: &LiveTask, now: Timestamp) -> Option<EndReason> {
        let (task, inventory) = (live.task(), self.0.inventory.load());
        let stands =
            |agent: &Arc<Agent>| agent.eligible(now).is_ok() && agent.may_declare(&task.intent) && agent.is(&live.workload());
        if !inventory.get(&task.agent).is_some_and(stands) {
            return Some(EndReason::Agent);
        }
        self.policy().intent(&task.intent).is_none().then_some(EndReason::Policy)
    }

    /// Signs, fetching another consistency proof when other issuances moved the signer's view meanwhile.
    async fn sign_included(
        &self,
        claims: &CanonicalClaims,
        inclusion: &crate::ports::Inclusion,
        seen: u64,
    ) -> Result<String, IssueError> {
        let size = crate::gate::tree_size(inclusion).map_err(|error| IssueError::Unavailable(error.to_string()))?;
        let (mut old, mut new, mut proof) = (seen, size, inclusion.consistency.clone());
        for _ in 0..SIGN_ATTEMPTS_MAX {
            match self.0.signer.sign(claims, inclusion, &Consistency { old, new, proof: &proof }) {
                Ok(token) => return Ok(token),
                Err(Refused::Moved(last)) => {
                    (old, new) = (last.min(size), last.max(size));
                    proof =
                        self.0.ledger.consistency(old, new).await.map_err(|error| IssueError::Unavailable(error.to_string()))?;
                }
                Err(error) => {
                    tracing::error!(%error, "the signer refused");
                    return Err(IssueError::Unavailable(error.to_string()));
                }
            }
        }
        Err(IssueError::Unavailable("the log moves faster than the signer; try again".into()))
    }

    fn decision_event(&self, draft: &Draft, attested: &Attested, ruling: &Ruling<'_>) -> Result<Write, IssueError> {
        let Ruling { policy, verdict, facts } = ruling;
        let now = facts.now;
        let decision = self.new_decision_id(now);
        let entropy = &*self.0.entropy;
        let params = draft.task.params.to_json();
        let sensitive = sensitive_params(policy, &draft.task.intent);
        let sensitive = sensitive.iter().map(String::as_str).collect();
        let mut openings = Openings::default();
        let claims_sha256 = hex(&draft.canonical.digest());
        let predecessor = draft.task.predecessor.map(|id| id.to_string());
        let event = encode(&DecisionEvent {
            agent: draft.agent.id.as_str(),
            arguments: None,
            at: now.millis(),
            claims_sha256: Some(&claims_sha256),
            decision: &decision.to_string(),
            determining: ids(&verdict.determining),
            expires_at: None,
            facts: (*facts).into(),
            grant: None,
            handle: None,
            intent: draft.task.intent.as_str(),
            operation: draft.operation.kind(),
            outcome: verdict.outcome.as_str(),
            owner: owner(&draft.agent),
            params: Some(Arguments::of_params(&params, &sensitive, &mut openings, entropy)),
            plan_sha256: None,
            policy: self.policy_version_text(policy).as_str(),
            predecessor: predecessor.as_deref(),
            reason: reason(verdict),
            secret: None,
            subject: None,
            target: None,
            task: &draft.task.id.to_string(),
            r#type: "decision",
            upstream: None,
            workload: Some(WorkloadRecord {
                issuer: &attested.workload.issuer,
                provider: attested.workload.provider.as_str(),
                subject: &attested.workload.subject,
            }),
        })
        .map_err(unavailable)?;
        let key = draft.key.as_ref().or(draft.live.as_ref().map(|live| &live.key));
        let mut changes = Vec::new();
        if let (false, Some(key), true) = (openings.is_empty(), key, verdict.outcome == Outcome::Allow) {
            let sealed = key.seal(decision.as_bytes(), &openings, entropy).map_err(unavailable)?;
            changes.push(Change::PutOpening { event: 0, task: draft.task.id, sealed });
        }
        Ok(Write { events: vec![event], changes })
    }
}

/// What policy said of a draft.
struct Ruling<'a> {
    policy: &'a Policy,
    verdict: &'a domain::Verdict,
    facts: &'a domain::Facts,
}

/// A task before its token is drafted.
struct DraftTask {
    agent: Arc<Agent>,
    task: Task,
    key: Option<TaskKey>,
    live: Option<Arc<LiveTask>>,
    operation: Operation<'static>,
    replaced: Option<Arc<LiveTask>>,
    place: Option<Place>,
}

pub(crate) fn declared<'a>(name: &str, agent: &Agent, policy: &'a Policy) -> Result<&'a Intent, IssueError> {
    let known = name.parse::<IntentName>().ok().filter(|name| agent.may_declare(name));
    known.and_then(|name| policy.intent(&name)).ok_or_else(|| IssueError::Intent {
        intent: name.chars().take(64).collect(),
        allowed: agent.intents.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    })
}

/// What the token grants, in the words of RFC 9396.
fn granted(task: &Task) -> Value {
    json!({
        "type": "writ_task",
        "task": task.id.to_string(),
        "intent": task.intent.as_str(),
        "parameters": task.params.to_json(),
        "deadline": task.deadline.secs(),
        "calls_max": task.calls_max,
    })
}

fn unavailable(error: crate::Error) -> IssueError {
    IssueError::Unavailable(error.to_string())
}

fn facts_of(draft: &Draft, now: Timestamp) -> domain::Facts {
    let progress = draft.task.progress;
    domain::Facts {
        now,
        labels: progress.labels,
        approved: false,
        calls_used: progress.calls_used,
        binding: draft.binding,
        attested_secs_ago: now.secs_since(progress.attested_at),
    }
}
