//! What policy said, and why. A verdict is advice; only the authority turns an allowing one, once logged, into a permit.

use std::collections::BTreeMap;

/// The four answers. *Failed* is not *deny*: it says that Writ could not tell, and it refuses all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It may happen.
    Allow,
    /// It may not.
    Deny,
    /// It may happen once a human approved it.
    Ask,
    /// It could not be decided: refused.
    Failed,
}

impl Outcome {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
            Self::Failed => "failed",
        }
    }
}

/// Which way a policy pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It permits.
    Permit,
    /// It forbids.
    Forbid,
}

/// A policy that settled the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Determining {
    /// Its `@id`.
    pub id: String,
    /// Which way it pulled.
    pub effect: Effect,
    /// Its annotations, `@id` apart.
    pub annotations: BTreeMap<String, String>,
}

/// Why a request was refused, as a closed list for logs, metrics and API codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A `forbid` policy applies.
    Forbidden,
    /// No `permit` policy applies.
    NotPermitted,
    /// The upstream or operation is outside the intent's reach.
    OutOfReach,
    /// An argument is not in the tool's approved schema, or has another type.
    UnknownArgument,
    /// A human must approve it first.
    ApprovalNeeded,
    /// A policy could not be evaluated.
    PolicyError,
    /// The tool is unknown, not approved, or its definition changed.
    ToolUnavailable,
    /// The task has ended.
    TaskEnded,
    /// The task has no calls left.
    BudgetExhausted,
    /// The agent may not act.
    AgentNotEligible,
    /// The decision could not be logged.
    LogUnavailable,
}

impl Reason {
    /// The word for logs, metrics and API codes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::NotPermitted => "not_permitted",
            Self::OutOfReach => "out_of_reach",
            Self::UnknownArgument => "unknown_argument",
            Self::ApprovalNeeded => "approval_needed",
            Self::PolicyError => "policy_error",
            Self::ToolUnavailable => "tool_unavailable",
            Self::TaskEnded => "task_ended",
            Self::BudgetExhausted => "budget_exhausted",
            Self::AgentNotEligible => "agent_not_eligible",
            Self::LogUnavailable => "log_unavailable",
        }
    }
}

/// What policy says about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub outcome: Outcome,
    /// Why not, unless it is allowed.
    pub reason: Option<Reason>,
    /// The policies that settled it, in the order of their ids.
    pub determining: Vec<Determining>,
    /// One or two sentences for a person or a model: what was refused, by which policy, what would be allowed.
    /// Never holds argument values of the request that were not declared by the caller itself.
    pub explanation: String,
    /// Who may approve, when the outcome is *ask*.
    pub approvers: Vec<String>,
}
