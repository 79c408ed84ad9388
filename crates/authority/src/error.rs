//! What can go wrong in a use case, named by its cause. Owns no wording for the outside: each protocol's edge maps these.

use crate::ports::{ArchiveError, LedgerError};
use crate::target::TargetError;
use domain::{EndReason, NotEligible, ParamFault};

/// Why a use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger refused or failed; nothing took effect that is not in the log, if it kept the write.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Sealed openings or a wrapped key do not open.
    #[error("the sealed value is damaged or belongs to another task")]
    OpeningDamaged,
    /// There is no such thing.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Two agents would share one identity (R3).
    #[error("agents `{one}` and `{other}` have the same identity rule: two agents never share an identity")]
    SharedIdentity {
        /// One agent.
        one: String,
        /// The other.
        other: String,
    },
    /// The record is not acceptable.
    #[error("{0}")]
    Unacceptable(&'static str),
    /// The caller may not do this.
    #[error("not allowed: {0}")]
    Forbidden(&'static str),
    /// The task has ended.
    #[error("the task has ended: {}", .0.as_str())]
    TaskEnded(EndReason),
    /// A target cannot be removed, or become one of another kind, while credentials live there.
    #[error("target `{target}` has {count} credentials that are not proved dead; revoke them and wait, then remove or change it")]
    TargetInUse {
        /// The target.
        target: String,
        /// How many.
        count: u64,
    },
    /// A target was taken out of the configuration while nothing ran, and credentials can still be used there.
    #[error(
        "target `{target}` is not configured any more, and {count} credentials there are neither proved dead nor expired; put its file back and start again"
    )]
    TargetLeftOut {
        /// The target.
        target: String,
        /// How many.
        count: u64,
    },
    /// A target did not do what was asked.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Error {
    /// Whether the log is sure not to have it.
    pub(crate) fn wrote_nothing(&self) -> bool {
        !matches!(self, Self::Ledger(LedgerError::Uncertain(_)))
    }
}

/// Why no token was issued. The edge maps each to its RFC error code; details that would help an attacker stay out of
/// the message and go to the log.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The evidence does not prove an identity. The text names the cause and what to do next, never a value of the token.
    #[error("the identity evidence was refused: {0}")]
    Evidence(String),
    /// The evidence was used before.
    #[error("the identity evidence was used before; get a fresh one")]
    EvidenceReplayed,
    /// Identity provider keys could not be had.
    #[error("the keys of identity provider `{0}` are not available; try again")]
    ProviderUnavailable(String),
    /// The workload is no registered agent, or more than one.
    #[error("no registered agent has this identity; ask an operator to register it with an owner and a purpose")]
    Unregistered,
    /// The agent may not act.
    #[error("{0}; ask its owner or an operator")]
    NotEligible(#[from] NotEligible),
    /// The intent does not exist or is not among those that the agent may declare.
    #[error("this agent may not declare intent `{intent}`; it may declare: {allowed}")]
    Intent {
        /// What was declared, cut to a printable length.
        intent: String,
        /// What would be possible.
        allowed: String,
    },
    /// The parameters do not fit the intent.
    #[error("the parameters do not fit the intent: {}", join(.0))]
    Params(Vec<ParamFault>),
    /// What was declared does not fit into a token.
    #[error("what was declared is too long for a token; declare shorter parameters, or ask for fewer resources with `resource`")]
    TooLong,
    /// A requested resource is not within the intent's reach.
    #[error("resource `{0}` is not within the reach of the intent; leave `resource` out to get all that it reaches")]
    Target(String),
    /// Policy refused.
    #[error("{explanation}")]
    Denied {
        /// What policy says.
        explanation: String,
        /// Whether a human could approve it.
        ask: bool,
    },
    /// The task to renew or replace does not exist, has ended, or belongs to somebody else.
    #[error("the task cannot be renewed or replaced: {0}")]
    Task(&'static str),
    /// A proof of possession is needed: neither a DPoP proof nor a client certificate came, and bearer is not allowed.
    #[error("send a DPoP proof (RFC 9449) or use a client certificate (RFC 8705): this agent may not hold unbound tokens")]
    BindingRequired,
    /// The DPoP proof was refused.
    #[error("the DPoP proof was refused: {0}")]
    Proof(String),
    /// The client must repeat its request with this nonce (RFC 9449 §8).
    #[error("use the nonce of the DPoP-Nonce header")]
    UseNonce(String),
    /// Too many tasks of this agent are open.
    #[error("too many tasks of this agent are open; end some first")]
    TooManyTasks,
    /// Writ itself could not do it: nothing was issued.
    #[error("the token could not be issued: {0}")]
    Unavailable(String),
}

fn join(faults: &[ParamFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
