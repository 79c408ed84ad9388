//! A ledger in memory that keeps the promises of the port over the real Merkle log, and can be told to break them.

use async_trait::async_trait;
use auditlog::checkpoint::{Checkpoint, Head};
use auditlog::hash::Hash;
use auditlog::note::{Ed25519Signer, Note, VerifierKey};
use auditlog::port::{HashReader, NoteSigner};
use auditlog::proof::{prove_consistency, prove_inclusion};
use auditlog::tree::{Frontier, Node};
use authority::ports::{
    Archive, ArchiveError, Change, Durable, GrantArchive, GrantCounts, GrantQuery, GrantRecord, Inclusion, Ledger, LedgerError,
    Loaded, LogEntry, LogPage, LogQuery, PublishedLog, TaskQuery, Write,
};
use domain::{Agent, AgentId, DecisionId, GrantId, TargetName, Task, TaskId, Timestamp, Upstream, UpstreamName};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// How the ledger breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is kept and an error is answered.
    Failed,
    /// Everything is kept and an error is answered all the same.
    FailedButKept,
}

#[derive(Default)]
struct State {
    frontier: Frontier,
    nodes: HashMap<Node, Hash>,
    leaves: Vec<Vec<u8>>,
    agents: BTreeMap<AgentId, Agent>,
    upstreams: BTreeMap<UpstreamName, Upstream>,
    tasks: BTreeMap<TaskId, (Task, Vec<u8>)>,
    evidence: HashMap<[u8; 32], Timestamp>,
    revoked: Vec<(String, Timestamp)>,
    openings: BTreeMap<u64, (TaskId, Vec<u8>)>,
    grants: crate::grants::Grants,
    files: BTreeMap<String, Vec<u8>>,
    fault: Option<Fault>,
}

/// A commit that is written and not answered yet: the moment in which a decision is durable and nobody acted on it.
#[derive(Default)]
pub struct Hold {
    written: Notify,
    go: Notify,
}

impl Hold {
    /// Resolves when it is written.
    pub async fn written(&self) {
        self.written.notified().await;
    }

    /// Lets it be answered.
    pub fn go(&self) {
        self.go.notify_one();
    }
}

/// A ledger, archive and published log in memory.
pub struct MemoryLedger {
    state: Mutex<State>,
    hold: Mutex<Option<Arc<Hold>>>,
    lose: AtomicBool,
    behind: AtomicUsize,
    unanchored: Mutex<bool>,
    signer: Ed25519Signer,
}

impl HashReader for State {
    fn hash(&self, node: Node) -> Result<Hash, auditlog::Error> {
        self.nodes.get(&node).copied().ok_or_else(|| panic!("node {node:?} was asked for and never completed"))
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        let signer = Ed25519Signer::from_seed("log.test", &Zeroizing::new([7; 32])).unwrap();
        Self {
            state: Mutex::default(),
            hold: Mutex::default(),
            lose: AtomicBool::default(),
            behind: AtomicUsize::default(),
            unanchored: Mutex::default(),
            signer,
        }
    }
}

impl MemoryLedger {
    /// The key that verifies its checkpoints.
    #[must_use]
    pub fn log_key(&self) -> VerifierKey {
        self.signer.verifier().clone()
    }

    /// From the next write on, break like this; `None` heals.
    pub fn break_with(&self, fault: Option<Fault>) {
        self.state.lock().unwrap().fault = fault;
    }

    /// The next write that somebody follows is taken, and lost.
    pub fn lose_next_followed(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }

    /// From now on nothing can be anchored, or everything can.
    pub fn break_anchor(&self, broken: bool) {
        *self.unanchored.lock().unwrap() = broken;
    }

    /// The next commit (or decision that is included) is written at once and answered only when the hold says so.
    pub fn hold_next_commit(&self) -> Arc<Hold> {
        let hold = Arc::<Hold>::default();
        *self.hold.lock().unwrap() = Some(Arc::clone(&hold));
        hold
    }

    /// How many writes were posted behind what waits. Nothing waits here, so their place in the log does not tell.
    #[must_use]
    pub fn posted_behind(&self) -> usize {
        self.behind.load(Ordering::SeqCst)
    }

    /// Like a real one it answers later, and whoever waits may have gone by then.
    async fn held(&self) {
        let hold = self.hold.lock().unwrap().take();
        if let Some(hold) = hold {
            hold.written.notify_one();
            hold.go.notified().await;
        }
        tokio::task::yield_now().await;
    }

    /// Puts a file onto the published read path; nothing is published by itself.
    pub fn publish(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    /// The events of the log, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.leaves.iter().map(|leaf| serde_json::from_slice::<Value>(leaf).unwrap().get("event").unwrap().clone()).collect()
    }

    fn write(&self, write: Write) -> Result<u64, LedgerError> {
        let state = &mut *self.state.lock().unwrap();
        let broken = || LedgerError::Unavailable("it was told to break".into());
        if state.fault == Some(Fault::Failed) {
            return Err(broken());
        }
        for change in &write.changes {
            if let Change::UseEvidence { key, .. } = change
                && state.evidence.contains_key(key)
            {
                return Err(LedgerError::Replayed);
            }
        }
        let first = state.leaves.len() as u64;
        for event in &write.events {
            let leaf =
                format!(r#"{{"event":{},"seq":{},"v":1}}"#, std::str::from_utf8(event).unwrap(), state.leaves.len()).into_bytes();
            let State { frontier, nodes, .. } = state;
            frontier.push(Hash::of_leaf(&leaf), |node, hash| {
                nodes.insert(node, hash);
            });
            state.leaves.push(leaf);
        }
        for change in write.changes {
            state.apply(change, first);
        }
        if state.fault == Some(Fault::FailedButKept) {
            Err(LedgerError::Uncertain("it was told to break".into()))
        } else {
            Ok(first)
        }
    }
}

impl State {
    fn apply(&mut self, change: Change, first: u64) {
        let Some(change) = self.grants.apply(change) else { return };
        match change {
            Change::PutAgent(agent) => drop(self.agents.insert(agent.id.clone(), *agent)),
            Change::PutUpstream(upstream) => drop(self.upstreams.insert(upstream.name.clone(), *upstream)),
            Change::RemoveUpstream(name) => drop(self.upstreams.remove(&name)),
            Change::OpenTask { task, wrapped_key } => drop(self.tasks.insert(task.id, (*task, wrapped_key))),
            Change::Progress(id, progress) => {
                if let Some((task, _)) = self.tasks.get_mut(&id) {
                    task.progress = task.progress.joined(progress);
                }
            }
            Change::Attested(id, workload) => {
                if let Some((task, _)) = self.tasks.get_mut(&id) {
                    task.workload = *workload;
                }
            }
            Change::UseEvidence { key, expires } => drop(self.evidence.insert(key, expires)),
            Change::RevokeToken { jti, expires } => self.revoked.push((jti, expires)),
            Change::PutOpening { event, task, sealed } => drop(self.openings.insert(first + event as u64, (task, sealed))),
            Change::RedactOpening { index, remaining } => match remaining {
                Some(sealed) => drop(self.openings.entry(index).and_modify(|opening| opening.1 = sealed)),
                None => drop(self.openings.remove(&index)),
            },
            Change::RedactParam { task, name } => {
                if let Some((task, _)) = self.tasks.get_mut(&task) {
                    task.params.0.insert(name, domain::Value::Text(String::new()));
                }
            }
            Change::ForgetTaskKey(id) => drop(self.tasks.entry(id).and_modify(|task| task.1.clear())),
            _ => panic!("a change that nothing applies"),
        }
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn commit(&self, write: Write) -> Result<u64, LedgerError> {
        let written = self.write(write);
        self.held().await;
        written
    }

    fn post(&self, write: Write) -> Result<(), LedgerError> {
        self.write(write).map(drop)
    }

    fn post_behind(&self, write: Write) -> Result<(), LedgerError> {
        self.behind.fetch_add(1, Ordering::SeqCst);
        self.post(write)
    }

    fn follow(&self, write: Write) -> Result<Durable, LedgerError> {
        let lost = self.lose.swap(false, Ordering::SeqCst);
        let written = if lost { Err(LedgerError::Unavailable("it was lost".into())) } else { Ok(self.write(write)?) };
        Ok(Box::pin(async move { written.map(drop) }))
    }

    async fn anchored(&self, _: u64) -> Result<(), LedgerError> {
        match *self.unanchored.lock().unwrap() {
            true => Err(LedgerError::Unavailable("the anchor was told to break".into())),
            false => Ok(()),
        }
    }

    async fn include(&self, write: Write, seen: u64) -> Result<Inclusion, LedgerError> {
        let written = self.write(write);
        self.held().await;
        let index = written?;
        let state = self.state.lock().unwrap();
        let head = Head { size: state.frontier_size(), root: state.frontier.root() };
        let mut note = Note::new(Checkpoint { origin: "log.test".into(), head }.text()).unwrap();
        note.sign(&self.signer).unwrap();
        let bytes = |hashes: Vec<Hash>| hashes.iter().map(|hash| *hash.as_bytes()).collect();
        Ok(Inclusion {
            index,
            leaf: state.leaves.get(usize::try_from(index).unwrap()).unwrap().clone(),
            proof: bytes(prove_inclusion(&*state, index, head.size).unwrap()),
            checkpoint: String::from_utf8(note.encode()).unwrap(),
            consistency: bytes(prove_consistency(&*state, seen.min(head.size), head.size).unwrap()),
        })
    }

    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, LedgerError> {
        let proof = prove_consistency(&*self.state.lock().unwrap(), old, new).unwrap();
        Ok(proof.iter().map(|hash| *hash.as_bytes()).collect())
    }
}

impl State {
    fn frontier_size(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn entry(&self, index: usize) -> Option<LogEntry> {
        self.leaves.get(index).map(|leaf| LogEntry { index: index as u64, leaf: leaf.clone() })
    }
}

#[async_trait]
impl Archive for MemoryLedger {
    async fn load(&self) -> Result<Loaded, ArchiveError> {
        let state = self.state.lock().unwrap();
        Ok(Loaded {
            agents: state.agents.values().cloned().collect(),
            upstreams: state.upstreams.values().cloned().collect(),
            tasks: state.tasks.values().filter(|(task, _)| task.progress.is_open()).cloned().collect(),
            revoked_tokens: state.revoked.clone(),
        })
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, ArchiveError> {
        Ok(self.state.lock().unwrap().tasks.get(&id).map(|(task, _)| task.clone()))
    }

    async fn tasks(&self, query: TaskQuery) -> Result<Vec<Task>, ArchiveError> {
        let state = self.state.lock().unwrap();
        let wanted = |task: &&Task| {
            query.agent.as_ref().is_none_or(|agent| task.agent == *agent)
                && (!query.open_only || task.progress.is_open())
                && query.before.is_none_or(|before| task.id < before)
        };
        Ok(state.tasks.values().rev().map(|(task, _)| task).filter(wanted).take(query.limit).cloned().collect())
    }

    async fn search(&self, query: LogQuery) -> Result<LogPage, ArchiveError> {
        let state = self.state.lock().unwrap();
        let matches = |leaf: &[u8]| {
            let leaf: Value = serde_json::from_slice(leaf).unwrap();
            let event = leaf.get("event").unwrap();
            query.terms.iter().all(|(field, value)| event.get(field).and_then(Value::as_str) == Some(value))
        };
        let below = query.before.map_or(state.leaves.len(), |before| usize::try_from(before).unwrap().min(state.leaves.len()));
        let entries = (0..below).rev().filter_map(|index| state.entry(index));
        let entries: Vec<LogEntry> = entries.filter(|entry| matches(&entry.leaf)).take(query.limit).collect();
        let rest = entries.last().map(|last| last.index).filter(|_| entries.len() >= query.limit);
        Ok(LogPage { entries, rest })
    }

    async fn opening(&self, index: u64) -> Result<Option<(Vec<u8>, Vec<u8>)>, ArchiveError> {
        let opening = {
            let state = self.state.lock().unwrap();
            let opening = state.openings.get(&index);
            opening.and_then(|(task, sealed)| Some((sealed.clone(), state.tasks.get(task)?.1.clone())))
        };
        // Like a real one it answers later, and others may have written by then.
        tokio::task::yield_now().await;
        Ok(opening)
    }

    async fn decision(&self, id: DecisionId) -> Result<Option<LogEntry>, ArchiveError> {
        let query = LogQuery {
            terms: vec![("decision".into(), id.to_string()), ("type".into(), "decision".into())],
            limit: 1,
            ..LogQuery::default()
        };
        Ok(self.search(query).await?.entries.pop())
    }
}

#[async_trait]
impl GrantArchive for MemoryLedger {
    async fn grant(&self, id: GrantId) -> Result<Option<GrantRecord>, ArchiveError> {
        Ok(self.state.lock().unwrap().grants.one(id))
    }

    async fn grants(&self, query: GrantQuery) -> Result<Vec<GrantRecord>, ArchiveError> {
        Ok(self.state.lock().unwrap().grants.query(&query))
    }

    async fn due_grants(&self, target: &TargetName, now: Timestamp, limit: usize) -> Result<Vec<GrantRecord>, ArchiveError> {
        Ok(self.state.lock().unwrap().grants.due(target, now, limit))
    }

    async fn grant_counts(&self, now: Timestamp) -> Result<Vec<(TargetName, GrantCounts)>, ArchiveError> {
        Ok(self.state.lock().unwrap().grants.counts(now))
    }
}

#[async_trait]
impl PublishedLog for MemoryLedger {
    async fn file(&self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        Ok(self.state.lock().unwrap().files.get(path).cloned())
    }

    async fn proof(&self, _index: u64) -> Result<Option<String>, ArchiveError> {
        Ok(None)
    }

    fn sizes(&self) -> (u64, u64) {
        let size = self.state.lock().unwrap().frontier_size();
        (size, size)
    }
}
