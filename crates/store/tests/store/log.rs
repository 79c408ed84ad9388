//! The log through the store: proofs at once, publication soon, search over all of it.
//! Proofs are checked as the token signer and an auditor check them, with nothing from the store.

use std::time::{Duration, Instant};

use auditlog::{
    checkpoint::Checkpoint,
    hash::Hash,
    proof::{verify_consistency, verify_inclusion},
    receipt::Receipt,
    trust::TrustPolicy,
};
use authority::ports::{Archive, Inclusion, Ledger, LogQuery, PublishedLog, Write};
use domain::{DecisionId, Timestamp};
use serde_json::json;
use store::Store;
use tempfile::TempDir;

use crate::rig::{check_log, event_of, log_key, numbered, open_slow, try_open, write};

fn hashes(bytes: &[[u8; 32]]) -> Vec<Hash> {
    bytes.iter().copied().map(Hash::from_bytes).collect()
}

/// Checks an inclusion as the token signer does; gives the tree that it saw.
fn check_inclusion(inclusion: &Inclusion, seen: (u64, Hash)) -> (u64, Hash) {
    let head = Checkpoint::open(inclusion.checkpoint.as_bytes(), &log_key()).unwrap().head;
    let leaf = Hash::of_leaf(&inclusion.leaf);
    verify_inclusion(&hashes(&inclusion.proof), leaf, inclusion.index, head.size, head.root).unwrap();
    verify_consistency(&hashes(&inclusion.consistency), seen, (head.size, head.root)).unwrap();
    (head.size, head.root)
}

async fn wait_published(store: &Store, size: u64) {
    let start = Instant::now();
    while store.sizes().1 < size {
        assert!(start.elapsed() < Duration::from_secs(20), "not published: {:?}", store.sizes());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_proved_before_it_is_published_and_after() {
    for publish in [false, true] {
        let dir = TempDir::new().unwrap();
        let store = if publish { try_open(dir.path()).unwrap() } else { open_slow(dir.path()) };
        let mut seen = (0, Hash::of_empty_tree());
        for round in 0..40 {
            let inclusion = store.include(numbered(round), seen.0).await.unwrap();
            assert_eq!(inclusion.index, round * 9);
            seen = check_inclusion(&inclusion, seen);
            let events = (0..8).map(|i| format!("{{\"number\":{i}}}").into_bytes()).collect();
            store.commit(Write { events, changes: vec![] }).await.unwrap();
            if publish {
                wait_published(&store, store.sizes().0).await;
            }
        }
        // A signer that slept for long can still be shown that nothing was rewritten.
        let old = store.include(numbered(99), 9).await.unwrap();
        assert!(!old.consistency.is_empty());
        assert_eq!(store.consistency(0, 5).await.unwrap(), Vec::<[u8; 32]>::new());
        assert!(!store.consistency(5, 300).await.unwrap().is_empty());
        assert!(store.consistency(5, 3000).await.is_err());
        store.close();
        assert_eq!(check_log(dir.path()).len(), 361);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proofs_share_a_checkpoint_and_all_verify() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let included = futures_util::future::join_all((0..100).map(|number| store.include(numbered(number), 0))).await;
    let mut indexes: Vec<_> = included
        .into_iter()
        .map(|inclusion| {
            let inclusion = inclusion.unwrap();
            check_inclusion(&inclusion, (0, Hash::of_empty_tree()));
            inclusion.index
        })
        .collect();
    indexes.sort_unstable();
    assert_eq!(indexes, (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_verifies_offline_and_each_entry_has_a_receipt() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    for number in 0..700 {
        store.post(numbered(number)).unwrap();
    }
    store.commit(numbered(700)).await.unwrap();
    wait_published(&store, 701).await;
    assert_eq!(check_log(dir.path()).len(), 701);
    for index in [0, 255, 256, 699, 700] {
        let receipt = Receipt::parse(store.proof(index).await.unwrap().unwrap().as_bytes()).unwrap();
        let query = LogQuery { before: Some(index + 1), limit: 1, ..LogQuery::default() };
        let entry = store.search(query).await.unwrap().entries.remove(0);
        assert_eq!(entry.index, index);
        receipt.verify(&entry.leaf, &TrustPolicy::of_log(log_key())).unwrap();
    }
    assert_eq!(store.proof(701).await.unwrap(), None);
    assert!(store.file("checkpoint").await.unwrap().is_some());
    assert_eq!(store.file("tile/0/000").await.unwrap().unwrap().len(), 8192);
    for path in ["tile/0/009", "../writ.db", "tile/entries/../../../writ.db", "", "checkpoint/", "tile/0/000.p/256"] {
        assert_eq!(store.file(path).await.unwrap(), None, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_has_a_checkpoint() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    assert!(store.search(LogQuery { limit: 9, ..LogQuery::default() }).await.unwrap().entries.is_empty());
    assert_eq!(store.proof(0).await.unwrap(), None);
    assert!(check_log(dir.path()).is_empty());
}

fn decision(number: u64) -> (DecisionId, Write) {
    let mut id = [9; 16];
    id[..6].copy_from_slice(&(number * 1000).to_be_bytes()[2..]);
    id[8..].copy_from_slice(&number.to_be_bytes());
    let id = DecisionId::from_bytes(id);
    let event = json!({
        "agent": format!("agent-{}", number % 7),
        "arguments": {"clear": {"order": number % 13}},
        "at": number * 1000,
        "decision": id.to_string(),
        "outcome": if number.is_multiple_of(100) { "deny" } else { "allow" },
        "type": "decision",
    });
    (id, write(&event))
}

#[tokio::test(flavor = "multi_thread")]
async fn search_finds_the_same_before_and_after_publication_and_after_a_rebuilt_index() {
    let dir = TempDir::new().unwrap();
    let build = |store: Store| async move {
        for number in 0..1500 {
            store.post(decision(number).1).unwrap();
        }
        store.commit(decision(1500).1).await.unwrap();
        store
    };
    let store = build(open_slow(dir.path())).await;
    check_searches(&store).await;
    store.close();
    drop(store);
    let store = try_open(dir.path()).unwrap();
    check_searches(&store).await;
    store.close();
    drop(store);
    for file in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join("data").join(file));
    }
    let store = try_open(dir.path()).unwrap();
    check_searches(&store).await;
    store.close();
    drop(store);
    std::fs::write(dir.path().join("data/index.db"), "rubbish, not a database at all, and long enough to be read").unwrap();
    let store = try_open(dir.path()).unwrap();
    check_searches(&store).await;
}

async fn check_searches(store: &Store) {
    let all: Vec<u64> = (0..=1500).rev().collect();
    let find = async |terms: &[(&str, &str)], query: LogQuery| -> Vec<u64> {
        let terms = terms.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect();
        store.search(LogQuery { terms, ..query }).await.unwrap().entries.iter().map(|entry| entry.index).collect()
    };
    let many = LogQuery { limit: 1000, ..LogQuery::default() };
    let expect = |keep: &dyn Fn(&u64) -> bool| -> Vec<u64> { all.iter().copied().filter(keep).take(1000).collect() };
    assert_eq!(find(&[], many.clone()).await, expect(&|_| true));
    assert_eq!(find(&[("agent", "agent-3")], many.clone()).await, expect(&|n| n % 7 == 3));
    assert_eq!(find(&[("outcome", "deny"), ("agent", "agent-3")], many.clone()).await, expect(&|n| n % 100 == 0 && n % 7 == 3));
    assert_eq!(find(&[("resource", "order=5")], many.clone()).await, expect(&|n| n % 13 == 5));
    assert_eq!(find(&[("agent", "agent-9")], many.clone()).await, Vec::<u64>::new());
    assert_eq!(find(&[("nonsense", "x")], many.clone()).await, Vec::<u64>::new());
    let window =
        LogQuery { since: Some(Timestamp::from_millis(300_000)), until: Some(Timestamp::from_millis(310_000)), ..many.clone() };
    assert_eq!(find(&[], window).await, expect(&|n| (300..=310).contains(n)));
    let page = LogQuery { before: Some(700), limit: 3, ..many };
    assert_eq!(find(&[("outcome", "deny")], page).await, [600, 500, 400]);
    for number in [0, 255, 256, 1023, 1500] {
        let found = store.decision(decision(number).0).await.unwrap().unwrap();
        assert_eq!((found.index, event_of(&found)["at"].as_u64().unwrap()), (number, number * 1000));
    }
    assert_eq!(store.decision(DecisionId::from_bytes([3; 16])).await.unwrap(), None);
}
