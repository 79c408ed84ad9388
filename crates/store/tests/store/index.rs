//! The search index is a projection that may be lost, damaged or exchanged at any time: searches find the same after
//! it was built anew, by itself, and nobody else notices.

use std::{fs, path::Path, time::Instant};

use authority::ports::{Archive, Ledger, LogQuery, Write};
use serde_json::json;
use store::Store;
use tempfile::TempDir;

use crate::rig::{try_open, write};

const ENTRIES: u64 = 2000;

/// A published and indexed log, closed again.
async fn indexed(dir: &Path, agent: &str) {
    let store = try_open(dir).unwrap();
    fill(&store, agent, ENTRIES).await;
    store.close();
}

async fn fill(store: &Store, agent: &str, entries: u64) {
    let event = |number: u64| {
        let agent = if number == 100 { "rare" } else { agent };
        serde_json::to_vec(&json!({ "agent": agent, "at": number, "subject": format!("thing-{number}"), "type": "test" }))
            .unwrap()
    };
    for first in (0..entries).step_by(100) {
        store.commit(Write { events: (first..first + 100).map(event).collect(), changes: vec![] }).await.unwrap();
    }
}

/// What a search finds once the index was noticed to be damaged.
async fn finds(store: &Store, field: &str, value: &str) -> Vec<u64> {
    let query = || LogQuery { terms: vec![(field.to_owned(), value.to_owned())], limit: 9, ..LogQuery::default() };
    let start = Instant::now();
    loop {
        match store.search(query()).await {
            Ok(found) => return found.entries.iter().map(|entry| entry.index).collect(),
            Err(error) => assert!(start.elapsed().as_secs() < 10, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_is_built_anew_and_nothing_else_is_held_up() {
    let dir = TempDir::new().unwrap();
    indexed(dir.path(), "bot").await;
    let path = dir.path().join("data/index.db");
    let mut bytes = fs::read(&path).unwrap();
    // The header and the schema stay as they are; every other page is rubbish.
    bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0xaa);
    fs::write(&path, bytes).unwrap();
    let store = try_open(dir.path()).unwrap();
    assert_eq!(finds(&store, "agent", "rare").await, [100]);
    assert_eq!(finds(&store, "subject", "thing-1999").await, [1999]);
    store.commit(write(&json!({ "agent": "late", "at": 1, "type": "test" }))).await.unwrap();
    assert_eq!(finds(&store, "agent", "late").await, [ENTRIES]);
    assert!(!store.unpublishable(), "the log itself is published");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_deleted_under_a_running_store_is_built_anew() {
    let dir = TempDir::new().unwrap();
    indexed(dir.path(), "bot").await;
    let store = try_open(dir.path()).unwrap();
    for file in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(dir.path().join("data").join(file));
    }
    assert_eq!(finds(&store, "agent", "rare").await, [100]);
    assert_eq!(finds(&store, "agent", "nobody").await, Vec::<u64>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_of_another_log_hides_nothing_of_this_one() {
    let (other, dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    indexed(other.path(), "stranger").await;
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::copy(other.path().join("data/index.db"), dir.path().join("data/index.db")).unwrap();
    let store = try_open(dir.path()).unwrap();
    fill(&store, "bot", 600).await;
    store.close();
    drop(store);
    let store = try_open(dir.path()).unwrap();
    assert_eq!(finds(&store, "agent", "bot").await.len(), 9);
    assert_eq!(finds(&store, "subject", "thing-7").await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_speaks_of_a_decision_is_found_however_long_the_call_and_wherever_the_clock_was() {
    const MADE_AT: u64 = 100_000_000;
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let mut id = [9; 16];
    id[..6].copy_from_slice(&MADE_AT.to_be_bytes()[2..]);
    let id = domain::DecisionId::from_bytes(id).to_string();
    let hour = 3_600_000;
    let mut expected = Vec::new();
    for at in [MADE_AT, MADE_AT + 1000, MADE_AT + 30_000, MADE_AT + 8 * hour, MADE_AT - hour] {
        let event = write(&json!({ "at": at, "decision": id, "type": "test" }));
        expected.push(store.commit(event).await.unwrap());
        fill(&store, "bot", 600).await;
    }
    store.close();
    drop(store);
    expected.reverse();
    let store = try_open(dir.path()).unwrap();
    assert_eq!(finds(&store, "decision", &id).await, expected);
}
