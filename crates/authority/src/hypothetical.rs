//! What policy would say of a task that nobody opened: for people who write policies and answer for agents. Not a
//! decision: nothing follows from it, so nothing is logged, and no permit comes of it.

use crate::Authority;
use crate::error::{Error, IssueError};
use crate::issue::declared;
use domain::{
    Agent, AgentId, Binding, ClaimPattern, Facts, Labels, Operation, Progress, Task, TaskId, TaskState, WorkloadIdentity,
};
use policy::{Explanation, Request};
use serde_json::{Map, Value};

/// A task that is only supposed.
#[derive(Debug, Clone)]
pub struct Hypothetical {
    /// Whose it would be.
    pub agent: AgentId,
    /// The intent that it would declare.
    pub intent: String,
    /// Its parameters.
    pub parameters: Map<String, Value>,
    /// Claims of its workload beside those that the agent's first identity rule demands exactly.
    pub claims: Map<String, Value>,
    /// What it would have read.
    pub labels: Labels,
    /// How its token would be bound.
    pub binding: Binding,
    /// Whether a human approved the request.
    pub approved: bool,
}

impl Authority {
    /// What policy would say of this request of that task, and why. Ask about [`Operation::OpenTask`] to hear whether the
    /// task could be opened at all.
    ///
    /// # Errors
    /// [`IssueError::Unregistered`], [`IssueError::Intent`] or [`IssueError::Params`]: there could be no such task.
    pub fn explain_if(&self, supposed: &Hypothetical, operation: Operation<'_>) -> Result<Explanation, IssueError> {
        let agent = self.agent(&supposed.agent).ok_or(IssueError::Unregistered)?;
        let policy = self.policy();
        let intent = declared(&supposed.intent, &agent, &policy)?;
        let params = intent.bind(&supposed.parameters).map_err(IssueError::Params)?;
        let now = self.0.clock.now();
        let workload = self.workload_of(&agent, &supposed.claims)?;
        let facts = Facts {
            now,
            labels: supposed.labels,
            approved: supposed.approved,
            calls_used: 0,
            binding: supposed.binding,
            attested_secs_ago: 0,
        };
        let task = Task {
            id: TaskId::from_bytes([0; 16]),
            agent: agent.id.clone(),
            intent: intent.name.clone(),
            params,
            opened_at: now,
            deadline: now.plus_secs(intent.limits.capped().lifetime_secs),
            calls_max: intent.limits.calls,
            idle_secs: intent.limits.idle_secs,
            workload: workload.clone(),
            predecessor: None,
            progress: Progress { calls_used: 0, labels: supposed.labels, seen_at: now, attested_at: now, state: TaskState::Open },
        };
        Ok(policy.explain(&Request { task: &task, agent: &agent, workload: &workload, operation, facts: &facts }))
    }

    /// What the policy in force says of a request of a task, ended or not, as of when these were the facts.
    ///
    /// # Errors
    /// The archive's.
    pub async fn explain_as_of(
        &self,
        task: TaskId,
        facts: &Facts,
        operation: Operation<'_>,
    ) -> Result<Option<Explanation>, Error> {
        let Some(task) = self.0.archive.task(task).await? else { return Ok(None) };
        let Some(agent) = self.agent(&task.agent) else { return Ok(None) };
        Ok(Some(self.policy().explain(&Request { task: &task, agent: &agent, workload: &task.workload, operation, facts })))
    }

    /// The least workload that is this agent by its first rule, with these claims besides.
    fn workload_of(&self, agent: &Agent, claims: &Map<String, Value>) -> Result<WorkloadIdentity, IssueError> {
        let rule = agent.rules.first().ok_or(IssueError::Unregistered)?;
        let demanded = rule.claims.iter().filter_map(|(path, pattern)| match pattern {
            ClaimPattern::Exact(value) => Some((path.clone(), value.clone())),
            ClaimPattern::Prefix(_) => None,
        });
        let claims: Map<String, Value> = demanded.chain(claims.clone()).collect();
        let provider = self.providers().iter().find(|provider| provider.name == rule.provider);
        Ok(WorkloadIdentity {
            provider: rule.provider.clone(),
            issuer: provider.map(crate::Provider::issuer).unwrap_or_default(),
            subject: claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned(),
            claims,
        })
    }
}
