//! What the authority needs from the world: a ledger that is durable before it answers, an archive to read from,
//! a clock, entropy. Each port is small and states its promise in prose; implementations live in `store` and in the
//! binary, fakes in `testkit`. Nothing here knows SQL, HTTP or Cedar.

use async_trait::async_trait;
use domain::{
    Agent, AgentId, DecisionId, Grant, GrantId, GrantState, Progress, RevokeReason, TargetName, Task, TaskId, Timestamp,
    Upstream, UpstreamName, WorkloadIdentity,
};
use std::pin::Pin;
use std::time::Duration;

/// The time. Wall clock for people, records and tokens; monotonic for measuring.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start that never goes back.
    fn elapsed(&self) -> Duration;
}

/// Unpredictable bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` from a cryptographically secure generator.
    fn fill(&self, out: &mut [u8]);
}

/// One atomic addition to the ledger: events for the log and the state changes that they record.
#[derive(Debug, Default)]
pub struct Write {
    /// Event bodies: canonical JSON objects, at most [`EVENT_BYTES_MAX`] bytes each. The ledger wraps each one in the
    /// node's chain (`{"epoch":…,"event":…,"node":…,"prev":…,"seq":…,"v":1}`) and makes it a leaf.
    pub events: Vec<Vec<u8>>,
    /// State changes of the same transaction.
    pub changes: Vec<Change>,
}

/// Largest event body. A leaf must stay below 65,535 bytes (C2SP tlog-tiles), with room for the chain around it.
pub const EVENT_BYTES_MAX: usize = 60_000;

/// A change of state. Applied in order, in the transaction of its [`Write`].
#[derive(Debug)]
pub enum Change {
    /// Registers an agent or replaces its record.
    PutAgent(Box<Agent>),
    /// Registers an upstream or replaces its record.
    PutUpstream(Box<Upstream>),
    /// Removes an upstream's record.
    RemoveUpstream(UpstreamName),
    /// Records a new task, and the wrapped key of its openings.
    OpenTask {
        /// The task.
        task: Box<Task>,
        /// The key of the task's openings, wrapped.
        wrapped_key: Vec<u8>,
    },
    /// What changes while a task is open, its end included. Joined with what is stored ([`Progress::joined`]), because
    /// two records of one task may arrive in either order. Within one batch they may be joined and written once.
    Progress(TaskId, Progress),
    /// The workload of an open task proved itself again.
    Attested(TaskId, Box<WorkloadIdentity>),
    /// Marks evidence as used. If `key` is marked already and has not expired, the whole write fails with
    /// [`LedgerError::Replayed`] and nothing of it is kept; other writes of the same batch are not affected.
    UseEvidence {
        /// What identifies the evidence.
        key: [u8; 32],
        /// Until when it must be remembered.
        expires: Timestamp,
    },
    /// Refuses one token from now on.
    RevokeToken {
        /// Its `jti`.
        jti: String,
        /// Until when it must be remembered.
        expires: Timestamp,
    },
    /// Keeps what opens the commitments of one event of this write, encrypted.
    PutOpening {
        /// Which of `events`.
        event: usize,
        /// The task whose key encrypts it.
        task: TaskId,
        /// The sealed openings.
        sealed: Vec<u8>,
    },
    /// Deletes (or replaces with a shorter one) the opening of the entry at this log index.
    RedactOpening {
        /// The log index of the entry.
        index: u64,
        /// What remains of the openings, sealed again; `None` deletes all.
        remaining: Option<Vec<u8>>,
    },
    /// Blanks a parameter of a task's record (text becomes empty): what was redacted in the log must not stand here.
    RedactParam {
        /// The task.
        task: TaskId,
        /// The parameter.
        name: String,
    },
    /// Deletes the key of a task's openings: none of them can be read again.
    ForgetTaskKey(TaskId),
    /// Records a grant before anything is created for it.
    PutGrant {
        /// The grant, in state [`GrantState::Intended`].
        grant: Box<Grant>,
        /// From when on it is taken back if nobody confirmed that it was issued: later than any attempt to issue it can
        /// still be under way.
        unconfirmed_at: Timestamp,
    },
    /// The credential exists. If the grant was revoked meanwhile it is due at once, otherwise when it expires.
    GrantIssued {
        /// The grant.
        grant: GrantId,
        /// When that was.
        at: Timestamp,
        /// What takes it back and cannot be found by its handle, sealed.
        sealed: Option<Vec<u8>>,
    },
    /// The grant counts as revoked from now on; the first reason and moment stay.
    RevokeGrant {
        /// The grant.
        grant: GrantId,
        /// When.
        at: Timestamp,
        /// Why.
        reason: RevokeReason,
        /// Nothing that would create it can be under way any more. A grant that is only intended and not settled stays due
        /// when it was.
        settled: bool,
    },
    /// The same, not settled, for every grant of a task: in the transaction of the task's end.
    RevokeGrantsOf {
        /// The task.
        task: TaskId,
        /// When.
        at: Timestamp,
    },
    /// One step of taking a credential back is done. A state never goes back; the last one forgets what was sealed.
    GrantStep {
        /// The grant.
        grant: GrantId,
        /// The state that it reached.
        state: GrantState,
        /// When.
        at: Timestamp,
    },
    /// Forgets grants that are proved dead, were made before an instant and would have died by themselves before it. The
    /// log keeps all that was said about them.
    ForgetGrants {
        /// The instant.
        before: Timestamp,
        /// At most so many, the oldest first.
        most: u32,
    },
    /// A step has to be tried (again).
    GrantRetry {
        /// The grant.
        grant: GrantId,
        /// When.
        try_at: Timestamp,
        /// How often in a row it failed.
        tries: u32,
    },
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The evidence was used before.
    #[error("this evidence was used before")]
    Replayed,
    /// More writes wait than the ledger may queue. Nothing was written; try again.
    #[error("the ledger is overloaded")]
    Overloaded,
    /// An event is larger than [`EVENT_BYTES_MAX`].
    #[error("the event has {0} bytes, more than a log entry may have")]
    TooLarge(usize),
    /// The storage cannot be written; the cause is in the operator's log. Nothing was written.
    #[error("the ledger cannot be written: {0}")]
    Unavailable(String),
    /// The storage failed while it wrote; the cause is in the operator's log. Whether the write was kept shows when the
    /// storage is back: until then the caller must treat it as not done, must not repeat its effect, and must not take
    /// back what it counted for it.
    #[error("the ledger failed while it was written: {0}")]
    Uncertain(String),
}

/// Resolves when a posted write is durable, or could not be made so.
pub type Durable = Pin<Box<dyn Future<Output = Result<(), LedgerError>> + Send>>;

/// A leaf that is in the tree, with the proof of it (receipt level L2 of the design). For a gate in this process: neither it
/// nor what is made because of it leaves the process before [`Ledger::anchored`].
#[derive(Debug, Clone)]
pub struct Inclusion {
    /// Its index.
    pub index: u64,
    /// The whole leaf, chain included.
    pub leaf: Vec<u8>,
    /// The inclusion proof of the leaf in `checkpoint`'s tree (RFC 6962 §2.1.1), lowest hash first.
    pub proof: Vec<[u8; 32]>,
    /// A signed checkpoint (C2SP tlog-checkpoint) whose tree holds the leaf.
    pub checkpoint: String,
    /// Consistency of `checkpoint`'s tree with the tree of the size that was asked about (RFC 6962 §2.1.2); empty when
    /// that size was zero or equal.
    pub consistency: Vec<[u8; 32]>,
}

/// The write side of log and state, which are one: what is logged and what is so cannot disagree.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Appends and applies. Durable on stable storage when it resolves with the log index of the first event (L1).
    async fn commit(&self, write: Write) -> Result<u64, LedgerError>;

    /// Appends and applies soon, in order with later writes, without waiting for durability. For records whose loss
    /// in a crash is safe because a durable record that came before implies at least as much.
    fn post(&self, write: Write) -> Result<(), LedgerError>;

    /// Like [`Ledger::post`], and not before any write that was asked for earlier, whether or not somebody still waits for it.
    fn post_behind(&self, write: Write) -> Result<(), LedgerError>;

    /// Like [`Ledger::post`], and tells when it is durable: for a record that need not be, but that must be made again if it
    /// was lost while the process lives on.
    fn follow(&self, write: Write) -> Result<Durable, LedgerError>;

    /// Like [`Ledger::commit`], and proves the inclusion of the first event (L2), with consistency from a tree of
    /// `seen` leaves. Its checkpoint is anchored soon, but need not be when this resolves.
    async fn include(&self, write: Write, seen: u64) -> Result<Inclusion, LedgerError>;

    /// Resolves once a signed checkpoint of at least `size` leaves, which [`Ledger::include`] answered with, survives outside
    /// of what holds the entries: from then on a history without them is noticed.
    async fn anchored(&self, size: u64) -> Result<(), LedgerError>;

    /// A consistency proof between two sizes of the durable tree (RFC 6962 §2.1.2); empty when `old` is zero or equal.
    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, LedgerError>;
}

/// What there is when a node starts.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All agents.
    pub agents: Vec<Agent>,
    /// All upstreams that were registered over the API.
    pub upstreams: Vec<Upstream>,
    /// All open tasks with the wrapped keys of their openings.
    pub tasks: Vec<(Task, Vec<u8>)>,
    /// Tokens that are refused: `jti` and until when.
    pub revoked_tokens: Vec<(String, Timestamp)>,
}

/// Which entries of the log are wanted. All given fields must match. Terms are compared exactly.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// `(field, value)` pairs, for example `("agent", "support-bot")`. Fields: `agent`, `task`, `intent`, `upstream`,
    /// `target`, `grant`, `subject` (the tool, resource, prompt or offer), `owner`, `outcome`, `type`, `decision`, `resource` (a declared
    /// parameter or clear argument, as `name=value`).
    pub terms: Vec<(String, String)>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Only entries below this index (for paging: newest first).
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// What a search found so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// The entries, newest first.
    pub entries: Vec<LogEntry>,
    /// Entries below this index were not looked at, because there are enough, or because a search reads only so much at one
    /// time. `None`: there is nothing more to find.
    pub rest: Option<u64>,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// The leaf: canonical JSON, chain included.
    pub leaf: Vec<u8>,
}

/// Which tasks are wanted.
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// Of this agent.
    pub agent: Option<AgentId>,
    /// Only open ones.
    pub open_only: bool,
    /// Opened before the task with this id (for paging: newest first).
    pub before: Option<TaskId>,
    /// At most so many.
    pub limit: usize,
}

/// A grant as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct GrantRecord {
    /// The grant.
    pub grant: Grant,
    /// Why it is being taken back, as [`RevokeReason::as_str`] says it.
    pub reason: Option<String>,
    /// When something is to be done about it; `None` once it is dead.
    pub next_try_at: Option<Timestamp>,
    /// How often in a row the next step failed.
    pub tries: u32,
    /// What takes it back, sealed.
    pub sealed: Option<Vec<u8>>,
}

impl std::fmt::Debug for GrantRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrantRecord")
            .field("grant", &self.grant)
            .field("reason", &self.reason)
            .field("next_try_at", &self.next_try_at)
            .field("tries", &self.tries)
            .finish_non_exhaustive()
    }
}

/// Which grants are wanted. All given fields must match.
#[derive(Debug, Clone, Default)]
pub struct GrantQuery {
    /// Of this task.
    pub task: Option<TaskId>,
    /// At this target.
    pub target: Option<TargetName>,
    /// In this state.
    pub state: Option<GrantState>,
    /// Only such that are not verified dead.
    pub standing_only: bool,
    /// Made before the grant with this id (for paging: newest first).
    pub before: Option<GrantId>,
    /// At most so many.
    pub limit: usize,
}

/// How many grants of one target stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrantCounts {
    /// Neither revoked nor past its time.
    pub held: u64,
    /// Revoked or expired here, and not yet proved dead at the target.
    pub ending: u64,
    /// Since when the oldest thing that is to be done has been waiting.
    pub oldest_due: Option<Timestamp>,
}

/// The read side of grants: what stands and what is due is asked here, never remembered.
#[async_trait]
pub trait GrantArchive: Send + Sync + 'static {
    /// One grant.
    async fn grant(&self, id: GrantId) -> Result<Option<GrantRecord>, ArchiveError>;
    /// Grants, newest first.
    async fn grants(&self, query: GrantQuery) -> Result<Vec<GrantRecord>, ArchiveError>;
    /// Grants of a target that something is to be done about now: those that are revoked before those that expired, the
    /// longest waiting first.
    async fn due_grants(&self, target: &TargetName, now: Timestamp, limit: usize) -> Result<Vec<GrantRecord>, ArchiveError>;
    /// What stands at each target where something does.
    async fn grant_counts(&self, now: Timestamp) -> Result<Vec<(TargetName, GrantCounts)>, ArchiveError>;
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The storage failed; the cause is in the operator's log.
    #[error("the store cannot be read: {0}")]
    Unavailable(String),
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// The read side. Never on the path of a governed call.
#[async_trait]
pub trait Archive: GrantArchive {
    /// What there is when the node starts. Does not read the log.
    async fn load(&self) -> Result<Loaded, ArchiveError>;
    /// One task, ended ones included.
    async fn task(&self, id: TaskId) -> Result<Option<Task>, ArchiveError>;
    /// Tasks, newest first.
    async fn tasks(&self, query: TaskQuery) -> Result<Vec<Task>, ArchiveError>;
    /// Log entries, newest first, published ones and those not yet published.
    async fn search(&self, query: LogQuery) -> Result<LogPage, ArchiveError>;
    /// The sealed opening of an entry and the wrapped key of its task.
    async fn opening(&self, index: u64) -> Result<Option<(Vec<u8>, Vec<u8>)>, ArchiveError>;
    /// The log index of a decision.
    async fn decision(&self, id: DecisionId) -> Result<Option<LogEntry>, ArchiveError>;
}

/// The published log (C2SP tlog-tiles).
#[async_trait]
pub trait PublishedLog: Send + Sync + 'static {
    /// A file of the read path: `checkpoint`, `tile/…`. `None` if there is none or the path is not of the log.
    async fn file(&self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError>;
    /// A `c2sp.org/tlog-proof@v1` of the entry at `index` in the latest published tree.
    async fn proof(&self, index: u64) -> Result<Option<String>, ArchiveError>;
    /// Sizes of the durable tree and of the published one; the difference is the log's lag.
    fn sizes(&self) -> (u64, u64);
}
