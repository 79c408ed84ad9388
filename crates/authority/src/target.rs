//! The port behind which credentials are minted: one [`Target`] for each configured system. Implementations live in the
//! crate `targets`; they know their protocol and nothing of tasks, policy or the log beyond what a [`Plan`] says.
//!
//! Rules for every implementation (design.md §9, `docs/targets/`): `plan` is pure; nothing is created under a name that
//! is not made of the grant's id; the target's native expiry is always set; each [`Ending`] step is idempotent, commits
//! at the target before it answers, and takes *not found* for done; nothing without our mark is ever touched.

use async_trait::async_trait;
use domain::{AgentId, Ending, GrantId, IntentName, Offer, OfferName, Params, SecretOrigin, TargetName, TaskId, Timestamp};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a target needs to check a secret that the caller made and kept. None of these can be used to log in.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// A SCRAM-SHA-256 verifier as PostgreSQL stores it: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    ScramSha256(String),
    /// `*` and the upper-case hexadecimal SHA-1 of the SHA-1 of the password (MariaDB `mysql_native_password`).
    MysqlNative(String),
    /// Lower-case hexadecimal SHA-256 of the password (Redis and Valkey ACL).
    Sha256(String),
    /// An OpenSSH public key: `ssh-ed25519 AAAA…`.
    SshPublicKey(String),
    /// A PKCS #10 certificate request in PEM (RFC 2986).
    CertificateRequest(String),
}

impl Verifier {
    /// The word for it in the API: `scram_sha_256`, `mysql_native`, `sha256`, `ssh_public_key`, `certificate_request`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ScramSha256(_) => "scram_sha_256",
            Self::MysqlNative(_) => "mysql_native",
            Self::Sha256(_) => "sha256",
            Self::SshPublicKey(_) => "ssh_public_key",
            Self::CertificateRequest(_) => "certificate_request",
        }
    }
}

impl std::fmt::Debug for Verifier {
    /// Without its value: a password hash is no secret to log in with, but it is one to guess against.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({})", self.kind())
    }
}

/// For whom and until when a credential shall be.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The grant; every name at the target is made of it (see [`GrantId`]).
    pub grant: GrantId,
    /// Its task.
    pub task: TaskId,
    /// The task's agent.
    pub agent: &'a AgentId,
    /// The task's intent.
    pub intent: &'a IntentName,
    /// What is asked for, as configured.
    pub offer: &'a Offer,
    /// The checked parameters.
    pub params: &'a Params,
    /// What the caller made, if it made the secret.
    pub verifier: Option<&'a Verifier>,
    /// Now.
    pub now: Timestamp,
    /// When it shall die by itself.
    pub expires_at: Timestamp,
    /// Unpredictable bytes for serial numbers and for secrets that Writ makes.
    pub entropy: [u8; 32],
}

/// What exactly will be created. Its canonical bytes are hashed into the decision's leaf before anything happens, so that
/// a signer behind the target can be shown that exactly this was decided (*no log, no key*).
pub struct Plan {
    /// The grant.
    pub grant: GrantId,
    /// What is asked for.
    pub offer: OfferName,
    /// The name, serial or id at the target; goes into the grant's record and the log.
    pub handle: String,
    /// When it dies by itself at the target; never later than was asked, rounded as the target can.
    pub expires_at: Timestamp,
    /// Who makes the secret.
    pub secret: SecretOrigin,
    /// What will be done, in words: for people, for `plan` and for the log. No secrets.
    pub summary: Vec<String>,
    /// Everything that matters, byte for byte; only its implementation reads it. No secrets: secrets that Writ makes are
    /// in `secret_seed` and are not part of what is hashed.
    pub canonical: Vec<u8>,
    /// The unpredictable bytes of [`Asked::entropy`], for secrets that Writ makes.
    pub secret_seed: secrecy::SecretBox<[u8; 32]>,
}

impl Plan {
    /// SHA-256 of the canonical bytes: what the decision's leaf says.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        crate::attest::sha256(&[&self.canonical])
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("handle", &self.handle).field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// What was created, for the one who asked. Handed out once, never stored.
pub struct Minted {
    /// What is needed to use it and is no secret: `user`, `host`, `port`, `database`, `certificate`, …
    pub fields: BTreeMap<String, String>,
    /// The secrets that Writ or the target made, by name: `password`, `token`, `secret_access_key`, … Empty if the caller
    /// made the secret.
    pub secrets: BTreeMap<String, SecretString>,
    /// What the target needs to take it back and cannot be found by the handle (a token that revokes itself). Kept sealed
    /// in the grant's record until it is dead.
    pub to_revoke: Option<SecretString>,
}

impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted").field("fields", &self.fields).field("secrets", &self.secrets.keys()).finish_non_exhaustive()
    }
}

/// The credential that a step of taking back is about.
#[derive(Debug)]
pub struct Handle<'a> {
    /// The grant.
    pub grant: GrantId,
    /// What was asked for.
    pub offer: &'a OfferName,
    /// [`Plan::handle`].
    pub handle: &'a str,
    /// [`Plan::expires_at`].
    pub expires_at: Timestamp,
    /// [`Minted::to_revoke`].
    pub to_revoke: Option<&'a SecretString>,
}

/// What a step did or saw, for the log: `sessions=2`, `not_found`, `ends_by=expiry`. Short, no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Names and values.
    pub facts: BTreeMap<&'static str, String>,
    /// For [`Ending::Verify`]: whether the credential is dead at the target *now*. A target that can only wait for the
    /// native expiry answers `Some(instant)` and is asked again then. For [`Ending::Clean`]: when at the earliest a proof can
    /// be asked for, because what was taken away is still remembered in places that one question does not reach.
    pub again_at: Option<Timestamp>,
}

/// Something at the target that bears our mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name at the target, as in [`Plan::handle`].
    pub handle: String,
    /// The grant that its name says.
    pub grant: GrantId,
    /// When it dies by itself, if the target says.
    pub expires_at: Option<Timestamp>,
}

/// How bad a finding of `writ target doctor` or `scan` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// As it should be.
    Fine,
    /// Should be better.
    Warning,
    /// The target must not be used like this.
    Broken,
}

/// One thing that an examination found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub gravity: Gravity,
    /// What was looked at, as a stable word: `broker.superuser`, `lease.issue.executable`.
    pub check: &'static str,
    /// What was found, for people.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

/// A credential at the target that stands without us (R14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name at the target.
    pub name: String,
    /// What kind: `role`, `user`, `acl_user`, `authorized_key`, …
    pub kind: &'static str,
    /// What is wrong with it, as stable words: `no_expiry`, `superuser`, `shared`, `unused`, `old`, `owner_unknown`.
    pub flags: Vec<&'static str>,
    /// What it can do and when it was last used, as far as the target says.
    pub details: BTreeMap<&'static str, String>,
    /// The offer (TOML of a target file) that would replace it.
    pub proposal: String,
}

/// Whether the target still lets somebody in with a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// It does.
    Accepted,
    /// It does not.
    Refused,
}

/// Why a target did not do what was asked. Texts say what and why, never a secret, never a whole server message that
/// could hold one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The request cannot be expressed at this target; the caller can mend it.
    #[error("{0}")]
    Unacceptable(String),
    /// The target cannot be reached or did not answer in time; it may work later. Whether it was done is unknown.
    #[error("target unreachable: {0}")]
    Unreachable(String),
    /// The target refused: our account lacks a right, a limit was hit.
    #[error("the target refused: {0}")]
    Refused(String),
    /// A signer was not shown that exactly this was decided.
    #[error("the signer refused: {0}")]
    NotShown(&'static str),
}

/// One system in which credentials are minted.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// What exactly would be created. Pure: no I/O.
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError>;

    /// Creates it. Called at most once for a grant, after the decision with this plan's digest is in the log; `shown` proves
    /// that. After an error nothing or something may exist: the caller takes it back by its handle.
    async fn issue(&self, plan: &Plan, shown: &crate::ShownPlan) -> Result<Minted, TargetError>;

    /// One step of taking it back.
    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError>;

    /// Everything at the target that bears our mark (for targets that can list; others answer nothing).
    async fn inventory(&self) -> Result<Vec<Found>, TargetError>;

    /// Whether our account can do what it must and nothing more.
    async fn examine(&self) -> Result<Vec<Finding>, TargetError>;

    /// Uses a credential as its holder would: the probe's middle and last step.
    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError>;

    /// Credentials that stand at the target without us.
    async fn scan(&self) -> Result<Vec<Standing>, TargetError>;
}

/// What is known of a configured target beside how it is reached.
#[derive(Debug, Clone)]
pub struct TargetProfile {
    /// Its name.
    pub name: TargetName,
    /// `postgresql`, `mysql`, `redis`, `ssh`, `x509`, `aws`, `github`, `kubernetes`, `gcp`, `azure`.
    pub kind: &'static str,
    /// Who answers for it.
    pub owner: domain::OwnerId,
    /// How many things may be created at once.
    pub issue_connections: usize,
    /// How many steps of taking back may run at once: its own budget, so that neither starves the other.
    pub end_connections: usize,
    /// Most live credentials at once.
    pub live_max: u64,
    /// The file in which its driver publishes what was revoked: whole at every moment, and for anybody to read.
    pub revocation_list: Option<std::path::PathBuf>,
}
