//! What the control plane needs from the binary: how upstreams are doing and what they offer, the policy files, and
//! whether the node is ready. Implementations are wired in `writ`; nothing here knows MCP, Cedar or a file system.

use async_trait::async_trait;
use domain::{Digest, Outcome, Reason, TargetName, Timestamp, ToolName, ToolTraits, UpstreamName};
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// How an upstream is doing, as far as the gateway knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// `Some(true)` if the last contact succeeded, `None` if there was none yet.
    pub reachable: Option<bool>,
    /// What went wrong last, for operators; never holds a secret.
    pub last_error: Option<String>,
}

/// Whether a tool of an upstream may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolState {
    /// Its live definition is the approved one, or it was not seen live yet.
    Approved,
    /// Its live definition differs from the approved one: quarantined.
    Changed,
    /// It was never approved: unreachable.
    New,
    /// It is approved, but the upstream no longer offers it.
    Gone,
}

impl ToolState {
    /// The word for the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Changed => "changed",
            Self::New => "new",
            Self::Gone => "gone",
        }
    }
}

/// A tool of an upstream, as approved and as last seen.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolView {
    /// Its name.
    pub name: ToolName,
    /// Whether it may be used.
    pub state: ToolState,
    /// The approved definition and its pin.
    pub approved: Option<(Value, Digest)>,
    /// The definition that the upstream offers now, and its pin.
    pub live: Option<(Value, Digest)>,
    /// How operators labelled it.
    pub traits: ToolTraits,
}

/// Why a port could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// There is no such upstream or tool.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// What the operator looked at is not what is there now.
    #[error("{0}")]
    Conflict(String),
    /// What was given does not validate; each problem with its place.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// The upstream did not answer as it should; the text is for the operator who asked, and never holds a secret.
    #[error("{0}")]
    Upstream(String),
    /// It failed; the text is for the operator's log.
    #[error("{0}")]
    Failed(String),
}

/// The upstreams' live side.
#[async_trait]
pub trait UpstreamCatalog: Send + Sync + 'static {
    /// How it is doing.
    fn status(&self, upstream: &UpstreamName) -> UpstreamStatus;
    /// Its tools: approved and live ones, asked for anew.
    async fn tools(&self, upstream: &UpstreamName) -> Result<Vec<ToolView>, PortError>;
    /// Approves the live definitions with exactly these pins. Takes effect and is logged, on behalf of the operator `by`,
    /// before it resolves; all or nothing.
    async fn accept(&self, upstream: &UpstreamName, tools: &[(ToolName, Digest)], by: &str) -> Result<(), PortError>;
}

/// The policy folder.
#[async_trait]
pub trait PolicySource: Send + Sync + 'static {
    /// Reads the folder anew. If it validates it takes effect as a whole, logged on behalf of the operator `by`; else
    /// the policy in force stays and the problems are answered.
    async fn reload(&self, by: &str) -> Result<(), PortError>;
}

/// The token signing keys, which live with the binary.
#[async_trait]
pub trait KeyRotation: Send + Sync + 'static {
    /// Publishes a new key, on behalf of the operator `by`. Logged before it resolves. It signs once verifiers have had
    /// time to fetch it; tokens of earlier keys stay verifiable until they expire.
    async fn rotate(&self, by: &str) -> Result<NextKey, PortError>;
}

/// A key that will sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextKey {
    /// Its `kid`.
    pub key_id: String,
    /// From when on.
    pub signs_at: Timestamp,
}

/// Counts what is answered. Called on the way of each answer: it must be quick and never wait.
pub trait Observer: Send + Sync + 'static {
    /// A request was decided for an enforcement point, or for an agent that asked.
    fn decided(&self, outcome: Outcome, reason: Option<Reason>);
    /// The token endpoint answered: `issued`, or the code of the error, after so long.
    fn issued(&self, answer: &'static str, took: Duration);
    /// A credential was `issued`, or refused with the code of the problem, after so long. `target` is one that is
    /// configured, or none.
    fn credential(&self, target: Option<&TargetName>, answer: &'static str, took: Duration);
}

/// The future of a [`Probe`].
pub type Probing = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// One thing that must work for the node to be ready.
pub struct Probe {
    /// Its name in the answer of `/readyz`.
    pub name: &'static str,
    /// Checks it. The text says what is wrong, for anybody to read.
    pub check: Box<dyn Fn() -> Probing + Send + Sync>,
}
