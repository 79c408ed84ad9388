//! The documented record of facts that policies may use beside the task's parameters and the request's arguments.
//! A fact is verified or counted by Writ itself; nothing that the agent merely says is a fact.

use crate::label::Labels;
use crate::time::Timestamp;

/// How the task's token is bound to its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binding {
    /// RFC 9449 proof of possession.
    Dpop,
    /// RFC 8705 client certificate.
    Mtls,
    /// Not bound. Only for agents that are allowed it.
    Bearer,
}

impl Binding {
    /// The word that policies compare with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dpop => "dpop",
            Self::Mtls => "mtls",
            Self::Bearer => "bearer",
        }
    }

    /// The binding by its word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Dpop, Self::Mtls, Self::Bearer].into_iter().find(|known| known.as_str() == word)
    }
}

/// What is known at the moment of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The moment of the decision.
    pub now: Timestamp,
    /// What the task has read so far.
    pub labels: Labels,
    /// A human approved exactly this request.
    pub approved: bool,
    /// Calls that the task has made before this one.
    pub calls_used: u64,
    /// How the token is bound.
    pub binding: Binding,
    /// Seconds since the workload proved itself.
    pub attested_secs_ago: u64,
}
