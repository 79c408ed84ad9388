//! A task and how it ends. Owns the state machine; knows neither tokens nor storage.

use crate::identity::WorkloadIdentity;
use crate::label::Labels;
use crate::name::{AgentId, IntentName, TaskId};
use crate::time::Timestamp;
use crate::value::Params;

/// Why a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its agent said that it is done.
    Completed,
    /// Its deadline passed.
    Deadline,
    /// Its budget of calls was used up.
    Budget,
    /// Nothing was heard of it for too long.
    Liveness,
    /// An operator revoked it.
    Revoked,
    /// Its agent was suspended, lost its owner, is overdue for review, or may not declare its intent any more.
    Agent,
    /// Its agent declared another intent in its place.
    Superseded,
    /// Policy no longer lets it be open.
    Policy,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Completed,
        Self::Deadline,
        Self::Budget,
        Self::Liveness,
        Self::Revoked,
        Self::Agent,
        Self::Superseded,
        Self::Policy,
    ];

    /// The word for logs and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
            Self::Liveness => "liveness",
            Self::Revoked => "revoked",
            Self::Agent => "agent",
            Self::Superseded => "superseded",
            Self::Policy => "policy",
        }
    }

    /// The reason by its word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// It may act.
    Open,
    /// It is over, for good.
    Ended {
        /// When.
        at: Timestamp,
        /// Why.
        reason: EndReason,
    },
}

/// What changes while a task is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Calls allowed so far.
    pub calls_used: u64,
    /// What it has read.
    pub labels: Labels,
    /// When something was last heard of it.
    pub seen_at: Timestamp,
    /// When its workload last proved itself.
    pub attested_at: Timestamp,
    /// Where it stands.
    pub state: TaskState,
}

/// One agent pursuing one declared intent with concrete parameters, until it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its identifier.
    pub id: TaskId,
    /// Whose it is.
    pub agent: AgentId,
    /// What it is for.
    pub intent: IntentName,
    /// For what exactly.
    pub params: Params,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it ends at the latest.
    pub deadline: Timestamp,
    /// Most calls that it may make.
    pub calls_max: u64,
    /// It ends when nothing was heard of it for so many seconds.
    pub idle_secs: Option<u64>,
    /// The workload as it last proved itself: what policies see as posture.
    pub workload: WorkloadIdentity,
    /// The task that it replaced when its agent changed course.
    pub predecessor: Option<TaskId>,
    /// What changes while it is open.
    pub progress: Progress,
}

impl Progress {
    /// Whether the task may act.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == TaskState::Open
    }

    /// Ends the task. INVARIANT(end-is-final): the first end stays; a later one changes nothing and answers `false`.
    pub fn end(&mut self, at: Timestamp, reason: EndReason) -> bool {
        if !self.is_open() {
            return false;
        }
        self.state = TaskState::Ended { at, reason };
        true
    }

    /// Both views of one task joined: what rose stays risen, and an end is final. Two records of a task may arrive in
    /// either order; joined, they say the same.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let state = match (self.state, other.state) {
            (TaskState::Open, state) | (state, TaskState::Open) => state,
            (TaskState::Ended { at: one, .. }, TaskState::Ended { at: two, .. }) => {
                if one <= two {
                    self.state
                } else {
                    other.state
                }
            }
        };
        Self {
            calls_used: self.calls_used.max(other.calls_used),
            labels: Labels {
                read_untrusted: self.labels.read_untrusted || other.labels.read_untrusted,
                read_sensitivity: self.labels.read_sensitivity.max(other.labels.read_sensitivity),
            },
            seen_at: self.seen_at.max(other.seen_at),
            attested_at: self.attested_at.max(other.attested_at),
            state,
        }
    }
}

impl Task {
    /// Whether the task, at this progress, should end by itself now, and why.
    #[must_use]
    pub fn overdue(&self, progress: &Progress, now: Timestamp) -> Option<EndReason> {
        if now >= self.deadline {
            return Some(EndReason::Deadline);
        }
        let idle = self.idle_secs.is_some_and(|secs| now.secs_since(progress.seen_at) >= secs);
        idle.then_some(EndReason::Liveness)
    }
}
