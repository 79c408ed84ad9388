//! What is asked of policy and what a person is told beyond the verdict. Plain values; deciding is `decide`'s.

use domain::{Agent, Effect, Facts, Operation, Task, Verdict, WorkloadIdentity};
use std::collections::BTreeMap;

/// One question: may this task do this, given these facts?
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The task (for `OpenTask`: as it would be opened).
    pub task: &'a Task,
    /// Its agent.
    pub agent: &'a Agent,
    /// Who the workload proved to be.
    pub workload: &'a WorkloadIdentity,
    /// What it wants to do.
    pub operation: Operation<'a>,
    /// What is known beside it.
    pub facts: &'a Facts,
}

/// One Cedar policy, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its `@id`.
    pub id: String,
    /// Which way it pulls.
    pub effect: Effect,
    /// Its annotations, `@id` apart.
    pub annotations: BTreeMap<String, String>,
    /// Its file.
    pub path: String,
    /// Its line in the file.
    pub line: usize,
}

/// What one policy said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its condition held.
    Held,
    /// It did not.
    NotHeld,
    /// It could not be evaluated.
    Error,
}

/// One policy that applies to a request by its scope, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// The policy.
    pub rule: RuleInfo,
    /// What it said.
    pub standing: Standing,
    /// The parts of its condition that did not hold, in words.
    pub unmet: Vec<String>,
}

/// A verdict and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// Every applicable policy, in the order of their ids.
    pub considered: Vec<Considered>,
}
