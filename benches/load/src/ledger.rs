//! What the log costs alone: Writ's own ledger behind the bare proxy. Two entries a call as Writ makes them, a decision that
//! is durable before the call is forwarded and an outcome that nobody waits for, in the signed chain, the Merkle tree, the
//! database and the published tiles. Nothing is decided and no token is read: it is the bound that the log itself sets.

use anyhow::Result;
use auditlog::note::Ed25519Signer;
use auditlog::port::NoteSigner;
use authority::ports::{Clock, Ledger, Write};
use domain::Timestamp;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Keys, Store, StoreConfig};
use zeroize::Zeroizing;

/// Bytes of a decision of the bearer path, and of its outcome, without the chain around them.
const DECISION: usize = 566;
const OUTCOME: usize = 266;
/// Whom they are of: what the search index goes by.
const TASK: &str = "tsk_01a20aaab6737f2bb23c1a6fac0ec9fa";

struct Running(Instant);

impl Clock for Running {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A ledger in this folder, which is made.
pub(crate) fn open(folder: &Path) -> Result<Store> {
    let key =
        |name: &str| -> Result<Box<dyn NoteSigner>> { Ok(Box::new(Ed25519Signer::from_seed(name, &Zeroizing::new([7; 32]))?)) };
    let config =
        StoreConfig { data_dir: folder.to_owned(), anchor: folder.join("anchor"), publish_every: Duration::from_millis(250) };
    let keys = Keys { log: key("bench.example/log")?, node: key("node-1")? };
    Ok(store::open(config, keys, Arc::new(Running(Instant::now())))?)
}

/// Resolves when the decision on this call is durable.
pub(crate) async fn decided(store: &Store, message: &Value) -> Result<()> {
    store.commit(entry("decision", message, DECISION)?).await?;
    Ok(())
}

/// Hands over how it ended.
pub(crate) fn ended(store: &Store, message: &Value) -> Result<()> {
    Ok(store.post(entry("outcome", message, OUTCOME)?)?)
}

fn entry(kind: &str, message: &Value, bytes: usize) -> Result<Write> {
    let tool = message.pointer("/params/name").and_then(Value::as_str).unwrap_or_default();
    let mut event = json!({
        "agent": "loose", "intent": "load", "operation": "tools/call", "outcome": "allow", "owner": "bench", "room": "",
        "subject": tool, "task": TASK, "type": kind, "upstream": "echo",
    });
    let room = bytes.saturating_sub(serde_json::to_vec(&event)?.len());
    if let Some(slot) = event.get_mut("room") {
        *slot = ".".repeat(room).into();
    }
    Ok(Write { events: vec![serde_json::to_vec(&event)?], changes: Vec::new() })
}
