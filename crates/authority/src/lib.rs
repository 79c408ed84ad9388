//! The use cases of Writ: attest, open, decide, issue, record, end. This crate owns the four laws: no identity, no task;
//! no log, no effect; authority only narrows; unsure means no. It knows what a ledger promises, but no SQL; what a policy
//! says, but no Cedar; what a request means, but no HTTP and no MCP.
//!
//! Start reading at [`decide`](Authority::decide) (one request) and [`issue`](Authority::issue) (one issuance).

mod admin;
mod attest;
mod breaker;
mod caller;
mod credential;
mod decide;
mod end;
mod ending;
mod error;
mod event;
mod forget;
mod gate;
mod hear;
mod hypothetical;
mod inventory;
mod issue;
mod live;
mod opening;
mod pace;
pub mod ports;
mod probe;
mod provider;
mod reconcile;
mod record;
mod register;
mod replay;
mod revoked;
mod sign;
mod subject;
pub mod target;
mod targets;
mod wall;

pub use admin::Introspection;
pub use attest::EvidenceInput;
pub use caller::{Caller, Presented, Scheme, Unauthenticated};
pub use credential::{CredentialError, CredentialRequest, IssuedCredential};
pub use decide::{CallOutcome, CallStatus, Decision, Denial, Permit, Released, Warrant, arguments_digest};
pub use end::Actor;
pub use error::{Error, IssueError};
pub use gate::{Consistency, LogGate, Refused, ShownPlan};
pub use hear::{Heard, Unheard};
pub use hypothetical::Hypothetical;
pub use issue::{Holder, IssueRequest, Issued, TaskRequest};
pub use live::{LiveTask, Over};
pub use opening::{Openings, TaskKey, WrappingKey};
pub use policy::{
    ApprovedTool, Compiled, Considered, Diagnostic, Explanation, Policy, RuleInfo, Severity, SourceFile, Sources, Standing,
};
pub use provider::{KeySource, Provider, ProviderKeys};
pub use sign::{SignerConfig, TokenKeys};
pub use targets::{ConfiguredTarget, Health, TargetStatus};

use arc_swap::ArcSwap;
use domain::{DecisionId, Digest, Operation, TargetName, TaskId, Timestamp, ToolName, Upstream, UpstreamName};
use inventory::{Inventory, UpstreamTable};
use live::LiveTasks;
use ports::{Archive, Clock, Entropy, Ledger, Loaded, PublishedLog};
use replay::{ReplayMemory, Shares};
use revoked::RevokedTokens;
use std::sync::Arc;
use std::time::Duration;
use token::dpop::{NonceKey, ProofKey};
use wall::WallWatch;

/// Most verified tokens that are remembered; one is about 1 KiB.
const VERIFIED_MAX: u64 = 50_000;
/// DPoP proofs that are remembered at once: of an agent 10,000 a second for as long as one is valid, and 200 a second whatever
/// others do. One is 33 bytes or some more, for two windows.
const PROOFS: Shares = Shares { each_max: 1_000_000, all_max: 4_000_000, free: 16_000 };
/// Seconds after which the nonce that is handed out changes.
const NONCE_SECS: u32 = 60;
/// Ends of tasks that a slow listener may fall behind; it must then look at every task it holds.
const ENDS_BEHIND_MAX: usize = 65_536;

/// What an authority is made of.
pub struct Parts {
    /// Our issuer URL, without a trailing slash; resources are below it.
    pub issuer: String,
    /// Life of access tokens, in seconds.
    pub token_lifetime_secs: u64,
    /// Whether every DPoP proof must carry a nonce of ours.
    pub dpop_nonce_required: bool,
    /// Sources of evidence.
    pub providers: Vec<Provider>,
    /// Their keys.
    pub keys: Arc<dyn KeySource>,
    /// The policy in force.
    pub policy: Policy,
    /// Upstreams of the configuration files.
    pub upstreams: Vec<Upstream>,
    /// The systems in which credentials are minted.
    pub targets: Vec<ConfiguredTarget>,
    /// How long a grant that is proved dead stays in the store after its time was over, in seconds.
    pub grants_kept_secs: u64,
    /// The write side of log and state.
    pub ledger: Arc<dyn Ledger>,
    /// The read side.
    pub archive: Arc<dyn Archive>,
    /// The published log.
    pub published: Arc<dyn PublishedLog>,
    /// The signing port.
    pub signer: SignerConfig,
    /// The key that wraps the keys of openings.
    pub wrapping: WrappingKey,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub entropy: Arc<dyn Entropy>,
}

/// The use cases. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    /// What was made before is nothing of this process.
    started_at: Timestamp,
    issuer: String,
    token_lifetime_secs: u64,
    nonces_required: bool,
    nonces: NonceKey,
    providers: Vec<Provider>,
    keys: Arc<dyn KeySource>,
    policy: ArcSwap<Policy>,
    policy_text: ArcSwap<(policy::PolicyVersion, Arc<String>)>,
    inventory: ArcSwap<Inventory>,
    upstreams: ArcSwap<UpstreamTable>,
    tasks: Arc<LiveTasks>,
    revoked_tokens: RevokedTokens,
    verified: moka::sync::Cache<[u8; 32], Arc<caller::SignedToken>>,
    proof_keys: moka::sync::Cache<String, ProofKey>,
    proofs_seen: ReplayMemory,
    wall: WallWatch,
    credentials: targets::Credentials,
    forgetting: forget::Forgetting,
    refusals: end::RefusalGate,
    ends: tokio::sync::broadcast::Sender<(TaskId, domain::EndReason)>,
    ledger: Arc<dyn Ledger>,
    archive: Arc<dyn Archive>,
    published: Arc<dyn PublishedLog>,
    signer: sign::Signer,
    wrapping: WrappingKey,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Changes of inventory, upstreams and policy go one after the other.
    admin: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.0.issuer)
    }
}

impl Authority {
    /// Starts from what the store holds. Reads no log.
    ///
    /// # Errors
    /// The archive's; [`Error::OpeningDamaged`] if the wrapping key is not the one that the open tasks were kept under;
    /// [`Error::TargetLeftOut`] if a target is missing at which credentials could still be used.
    pub async fn start(parts: Parts) -> Result<Self, Error> {
        let Loaded { agents, upstreams, tasks, revoked_tokens } = parts.archive.load().await?;
        let live = LiveTasks::default();
        for (task, wrapped) in tasks {
            let key = parts.wrapping.unwrap_key(task.id, &wrapped)?;
            live.insert(LiveTask::new(task, key, &*parts.clock));
        }
        let counts = parts.archive.grant_counts(parts.clock.now()).await?;
        targets::refuse_left_out(&*parts.archive, (&parts.targets, &counts), parts.clock.now()).await?;
        let credentials = targets::Credentials::new(parts.targets, &counts, LogGate::new(parts.signer.log_key.clone()));
        let mut nonce_secret = [0; 32];
        parts.entropy.fill(&mut nonce_secret);
        let text = Arc::new(parts.policy.version().to_string());
        Ok(Self(Arc::new(Inner {
            started_at: parts.clock.now(),
            issuer: parts.issuer,
            token_lifetime_secs: parts.token_lifetime_secs,
            nonces_required: parts.dpop_nonce_required,
            nonces: NonceKey::new(&nonce_secret, NONCE_SECS),
            providers: parts.providers,
            keys: parts.keys,
            policy_text: ArcSwap::from_pointee((*parts.policy.version(), text)),
            policy: ArcSwap::from_pointee(parts.policy),
            inventory: ArcSwap::from_pointee(Inventory::new(agents)),
            upstreams: ArcSwap::from_pointee(UpstreamTable::new(parts.upstreams, upstreams)),
            tasks: Arc::new(live),
            revoked_tokens: RevokedTokens::new(revoked_tokens),
            verified: moka::sync::Cache::new(VERIFIED_MAX),
            proof_keys: moka::sync::Cache::new(VERIFIED_MAX),
            proofs_seen: ReplayMemory::new(Duration::from_secs(proof_window_secs()), PROOFS),
            wall: WallWatch::new(&*parts.entropy),
            credentials,
            forgetting: forget::Forgetting::new(parts.grants_kept_secs),
            refusals: end::RefusalGate::default(),
            ends: tokio::sync::broadcast::Sender::new(ENDS_BEHIND_MAX),
            ledger: parts.ledger,
            archive: parts.archive,
            published: parts.published,
            signer: sign::Signer::new(parts.signer)?,
            wrapping: parts.wrapping,
            clock: parts.clock,
            entropy: parts.entropy,
            admin: tokio::sync::Mutex::new(()),
        })))
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.0.policy.load_full()
    }

    /// An open task, or one that just ended.
    #[must_use]
    pub fn live_task(&self, id: TaskId) -> Option<Arc<LiveTask>> {
        self.0.tasks.get(id)
    }

    /// How many tasks are open.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        self.0.tasks.len()
    }

    /// Whether a listing may show this to the task: whether it could ever be allowed, for some arguments.
    #[must_use]
    pub fn could_allow(&self, caller: &Caller, operation: &Operation<'_>) -> bool {
        self.policy().could_allow(caller.live.task(), &caller.agent, operation)
    }

    /// Whether the intent of the task reaches an upstream at all.
    #[must_use]
    pub fn reaches(&self, caller: &Caller, upstream: &UpstreamName) -> bool {
        self.policy().intent(&caller.live.task().intent).is_some_and(|intent| intent.reach.contains(upstream))
    }

    /// A tool as an operator approved it.
    #[must_use]
    pub fn approved_tool(&self, upstream: &UpstreamName, tool: &ToolName) -> Option<ApprovedTool> {
        self.policy().approved(upstream, tool).cloned()
    }

    /// The pin of a tool's whole wire definition at an upstream.
    #[must_use]
    pub fn pin(upstream: &UpstreamName, definition: &serde_json::Value) -> Digest {
        policy::pin(upstream, definition)
    }

    /// The canonical resource URI of an upstream's MCP endpoint (RFC 8707, without a trailing slash).
    #[must_use]
    pub fn resource_uri(&self, upstream: &UpstreamName) -> String {
        format!("{}/mcp/{upstream}", self.0.issuer)
    }

    /// The canonical resource URI of an HTTP API's endpoint.
    #[must_use]
    pub fn http_resource_uri(&self, target: &TargetName) -> String {
        format!("{}/http/{target}", self.0.issuer)
    }

    /// Our issuer URL.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The time, as everything here sees it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Fills `out` with unpredictable bytes.
    pub fn random(&self, out: &mut [u8]) {
        self.0.entropy.fill(out);
    }

    /// The read side of log and state.
    #[must_use]
    pub fn archive(&self) -> &dyn Archive {
        &*self.0.archive
    }

    /// The published log.
    #[must_use]
    pub fn published_log(&self) -> &dyn PublishedLog {
        &*self.0.published
    }

    fn policy_version_text(&self, policy: &Policy) -> Arc<String> {
        let known = self.0.policy_text.load();
        if known.0 == *policy.version() {
            return Arc::clone(&known.1);
        }
        let text = Arc::new(policy.version().to_string());
        self.0.policy_text.store(Arc::new((*policy.version(), Arc::clone(&text))));
        text
    }

    fn new_task_id(&self, now: Timestamp) -> TaskId {
        TaskId::from_bytes(self.uuid(now))
    }

    fn new_grant_id(&self, now: Timestamp) -> domain::GrantId {
        domain::GrantId::from_bytes(self.uuid(now))
    }

    fn new_decision_id(&self, now: Timestamp) -> DecisionId {
        DecisionId::from_bytes(self.uuid(now))
    }

    /// RFC 9562 §5.7: ordered by time, random in the rest.
    fn uuid(&self, now: Timestamp) -> [u8; 16] {
        let mut random = [0; 10];
        self.0.entropy.fill(&mut random);
        let millis = u64::try_from(now.millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into_bytes()
    }

    fn random_id(&self) -> String {
        use base64::Engine;
        let mut random = [0; 16];
        self.0.entropy.fill(&mut random);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random)
    }
}

/// How long a proof must be remembered: as long as it would be accepted.
fn proof_window_secs() -> u64 {
    u64::try_from(caller::PROOF_AGE_SECS_MAX + caller::PROOF_AHEAD_SECS_MAX).unwrap_or(0) + 1
}
