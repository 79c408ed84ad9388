//! A registered agent and whether it may act at all. The inventory is the source of truth (R3): what is not
//! registered, suspended, ownerless or overdue for review gets no task.

use crate::identity::{IdentityRule, WorkloadIdentity};
use crate::name::{AgentId, IntentName, OwnerId};
use crate::time::Timestamp;

/// Whether an operator lets the agent act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentState {
    /// It may open tasks.
    Active,
    /// It may not, and its tasks were ended.
    Suspended,
}

/// A registered non-human identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its name.
    pub id: AgentId,
    /// Who answers for it. `None` is possible in the record (a team was dissolved) and means that it may not act.
    pub owner: Option<OwnerId>,
    /// Why it exists, for people.
    pub purpose: String,
    /// How it may prove itself; any one suffices.
    pub rules: Vec<IdentityRule>,
    /// The intents that it may declare: its ceiling, whatever policy permits.
    pub intents: Vec<IntentName>,
    /// Until when its registration was reviewed.
    pub review_by: Timestamp,
    /// Whether it may act.
    pub state: AgentState,
    /// Whether it may hold tokens that are not bound to a key. Flagged wherever it is shown.
    pub allow_bearer: bool,
    /// Whether an agent file declares it: then it goes when the file goes.
    pub declared: bool,
}

/// Why an agent may not act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotEligible {
    /// An operator suspended it.
    #[error("the agent is suspended")]
    Suspended,
    /// Nobody answers for it.
    #[error("the agent has no owner")]
    Ownerless,
    /// Its review date has passed.
    #[error("the agent is overdue for review")]
    ReviewOverdue,
}

impl Agent {
    /// Whether the agent may hold a task now.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn eligible(&self, now: Timestamp) -> Result<(), NotEligible> {
        if self.state == AgentState::Suspended {
            return Err(NotEligible::Suspended);
        }
        if self.owner.is_none() {
            return Err(NotEligible::Ownerless);
        }
        if self.review_by <= now {
            return Err(NotEligible::ReviewOverdue);
        }
        Ok(())
    }

    /// Whether this workload is the agent.
    #[must_use]
    pub fn is(&self, workload: &WorkloadIdentity) -> bool {
        self.rules.iter().any(|rule| rule.matches(workload))
    }

    /// Whether the intent is within the agent's ceiling.
    #[must_use]
    pub fn may_declare(&self, intent: &IntentName) -> bool {
        self.intents.contains(intent)
    }
}
