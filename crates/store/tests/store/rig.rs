//! A store in a directory, its clock, and the check that everything in its log holds.
//! Knows the public face of the store only.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use auditlog::{
    directory::Directory,
    note::{Ed25519Signer, VerifierKey},
    port::NoteSigner,
    trust::TrustPolicy,
    verify::{Options, Verdict, verify},
};
use authority::ports::{Clock, LogEntry, Write};
use domain::{Labels, Params, Progress, Sensitivity, Task, TaskId, TaskState, Timestamp, WorkloadIdentity};
use serde_json::Value;
use store::{ChainCheck, Error, Keys, Store, StoreConfig, open};

pub(crate) struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

pub(crate) fn signer(name: &str, seed: u8) -> Box<dyn NoteSigner> {
    Box::new(Ed25519Signer::from_seed(name, &zeroize::Zeroizing::new([seed; 32])).unwrap())
}

pub(crate) fn keys() -> Keys {
    Keys { log: signer("writ.example/log", 1), node: signer("node-1", 2) }
}

pub(crate) fn log_key() -> VerifierKey {
    keys().log.verifier().clone()
}

pub(crate) fn config(dir: &Path, publish_every: Duration) -> StoreConfig {
    StoreConfig { data_dir: dir.join("data"), anchor: dir.join("anchor"), publish_every }
}

pub(crate) fn try_open_with(dir: &Path, keys: Keys, publish_every: Duration) -> Result<Store, Error> {
    open(config(dir, publish_every), keys, Arc::new(TestClock(Instant::now())))
}

pub(crate) fn try_open(dir: &Path) -> Result<Store, Error> {
    try_open_with(dir, keys(), Duration::from_millis(10))
}

/// A store that publishes only when it is closed.
pub(crate) fn open_slow(dir: &Path) -> Store {
    try_open_with(dir, keys(), Duration::from_secs(3600)).unwrap()
}

pub(crate) fn write(event: &Value) -> Write {
    Write { events: vec![serde_json::to_vec(event).unwrap()], changes: Vec::new() }
}

pub(crate) fn numbered(number: u64) -> Write {
    write(&serde_json::json!({"at": number, "number": number, "type": "test"}))
}

pub(crate) fn event_of(entry: &LogEntry) -> Value {
    serde_json::from_slice::<Value>(&entry.leaf).unwrap()["event"].clone()
}

pub(crate) fn task(number: u8, agent: &str) -> Task {
    Task {
        id: TaskId::from_bytes([number; 16]),
        agent: agent.parse().unwrap(),
        intent: "refund-order".parse().unwrap(),
        params: Params::default(),
        opened_at: Timestamp::from_millis(1),
        deadline: Timestamp::from_millis(2),
        calls_max: 3,
        idle_secs: None,
        workload: WorkloadIdentity {
            provider: "ci".parse().unwrap(),
            issuer: "https://ci.example".into(),
            subject: "s".into(),
            claims: serde_json::Map::new(),
        },
        predecessor: None,
        progress: Progress {
            calls_used: 0,
            labels: Labels { read_untrusted: false, read_sensitivity: Sensitivity::Public },
            seen_at: Timestamp::from_millis(1),
            attested_at: Timestamp::from_millis(1),
            state: TaskState::Open,
        },
    }
}

/// Verifies the published log as a stranger would, and the nodes' chain inside it. Gives the events.
pub(crate) fn check_log(dir: &Path) -> Vec<Value> {
    let mut entries = Vec::new();
    let options = Options { older: None, entry: &mut |_, entry| entries.push(entry.to_vec()), progress: &mut |_, _| {} };
    let verdict = verify(&Directory::new(dir.join("data/log")), &TrustPolicy::of_log(log_key()), options).unwrap();
    assert!(matches!(verdict, Verdict::Valid(_)), "{verdict:?}");
    check_chain(&entries)
}

/// Checks the chain that goes through all leaves; gives their events.
fn check_chain(entries: &[Vec<u8>]) -> Vec<Value> {
    let mut chain = ChainCheck::default();
    let mut check = |leaf: &Vec<u8>| {
        chain.entry(leaf).unwrap();
        serde_json::from_slice::<Value>(leaf).unwrap()["event"].clone()
    };
    entries.iter().map(&mut check).collect()
}
