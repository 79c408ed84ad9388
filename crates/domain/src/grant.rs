//! A grant and the life of the credential under it (design.md §9): `intended → issued → auth closed → sessions ended →
//! residue cleaned → verified dead`. Owns the order of the steps; knows neither targets nor storage.

use crate::name::{AgentId, DecisionId, GrantId, OfferName, TargetName, TaskId};
use crate::task::EndReason;
use crate::time::Timestamp;

/// How far the credential of a grant is. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrantState {
    /// Decided and logged under its name; whether it exists at the target is not known yet.
    Intended,
    /// It exists at the target and was handed out.
    Issued,
    /// Nobody can log in with it any more.
    AuthClosed,
    /// No session that was opened with it lives.
    SessionsEnded,
    /// Nothing that it owned or was is left.
    ResidueCleaned,
    /// The target was asked again and knows nothing of it, or refuses it.
    VerifiedDead,
}

impl GrantState {
    /// All states, in order.
    pub const ALL: [Self; 6] =
        [Self::Intended, Self::Issued, Self::AuthClosed, Self::SessionsEnded, Self::ResidueCleaned, Self::VerifiedDead];

    /// The word for the log, the store and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Issued => "issued",
            Self::AuthClosed => "auth_closed",
            Self::SessionsEnded => "sessions_ended",
            Self::ResidueCleaned => "residue_cleaned",
            Self::VerifiedDead => "verified_dead",
        }
    }

    /// The state by its word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The next step of taking a credential back; `None` when nothing is left to do. A grant that was only intended is
    /// taken back like one that was issued, because it may exist.
    #[must_use]
    pub const fn next_ending(self) -> Option<Ending> {
        match self {
            Self::Intended | Self::Issued => Some(Ending::CloseAuth),
            Self::AuthClosed => Some(Ending::EndSessions),
            Self::SessionsEnded => Some(Ending::Clean),
            Self::ResidueCleaned => Some(Ending::Verify),
            Self::VerifiedDead => None,
        }
    }
}

/// One step of taking a credential back. Each is committed at the target before the next begins: closing authentication
/// and ending sessions in one transaction lets a client slip back in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Let nobody log in with it any more.
    CloseAuth,
    /// End every session that was opened with it.
    EndSessions,
    /// Remove what it owned and it itself.
    Clean,
    /// Ask the target again.
    Verify,
}

impl Ending {
    /// The word for the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloseAuth => "close_auth",
            Self::EndSessions => "end_sessions",
            Self::Clean => "clean",
            Self::Verify => "verify",
        }
    }

    /// The state after the step.
    #[must_use]
    pub const fn reaches(self) -> GrantState {
        match self {
            Self::CloseAuth => GrantState::AuthClosed,
            Self::EndSessions => GrantState::SessionsEnded,
            Self::Clean => GrantState::ResidueCleaned,
            Self::Verify => GrantState::VerifiedDead,
        }
    }
}

/// Why a credential is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevokeReason {
    /// Its task ended.
    TaskEnded(EndReason),
    /// Its own deadline passed.
    Expired,
    /// Its holder gave it back.
    Returned,
    /// An operator revoked it.
    Operator,
    /// Nobody confirmed that it was handed out: issuing failed, or Writ stopped in between.
    NotHandedOut,
    /// It stood at the target with our mark, and no live grant of ours stands for it.
    Orphan,
    /// Its target does not have it any more, though nobody here took it back.
    Vanished,
    /// It was made to prove that the target can take credentials back.
    Probe,
}

impl RevokeReason {
    /// The word for the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskEnded(_) => "task_ended",
            Self::Expired => "expired",
            Self::Returned => "returned",
            Self::Operator => "operator",
            Self::NotHandedOut => "not_handed_out",
            Self::Orphan => "orphan",
            Self::Vanished => "vanished",
            Self::Probe => "probe",
        }
    }
}

/// The right of one task to hold one credential, and where its credential stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// Its task.
    pub task: TaskId,
    /// The task's agent.
    pub agent: AgentId,
    /// Where.
    pub target: TargetName,
    /// What.
    pub offer: OfferName,
    /// The decision that allowed it.
    pub decision: DecisionId,
    /// The name, serial or id of the credential at its target: made of the grant's id before anything is created.
    pub handle: String,
    /// When it was decided.
    pub granted_at: Timestamp,
    /// When the credential dies by itself, as far as the target can do that.
    pub expires_at: Timestamp,
    /// How far it is.
    pub state: GrantState,
    /// Since when it is being taken back: from this instant it counts as revoked here, whatever the target says.
    pub revoked_at: Option<Timestamp>,
}
