//! Commits that fail, and files that vanish, under a running writer.
//! What is asserted is what callers are told, and what a later start finds.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use authority::ports::{Change, Ledger, LedgerError, PublishedLog};
use domain::Timestamp;
use tempfile::TempDir;

use super::faults::Fault;
use crate::{
    Store,
    rig::{event, numbers, try_open, try_open_idle},
};

/// Commits until the store has recovered; gives the index.
async fn commit_again(store: &Store, number: u64) -> u64 {
    for _ in 0..1000 {
        match store.commit(event(number)).await {
            Ok(index) => return index,
            Err(LedgerError::Unavailable(_) | LedgerError::Uncertain(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the store did not recover");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_is_not_answered_as_done_and_leaves_no_trace() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    assert_eq!(store.commit(event(1)).await.unwrap(), 0);
    *store.shared().injected.lock().unwrap() = Some(Fault::Failed);
    assert!(matches!(store.commit(event(2)).await, Err(LedgerError::Uncertain(_))));
    assert!(matches!(store.post(event(3)), Err(LedgerError::Unavailable(_))));
    assert_eq!(commit_again(&store, 4).await, 1);
    assert_eq!(numbers(&store).await, [1, 4]);
    assert_eq!(store.fault(), None);
    store.close();
    drop(store);
    assert_eq!(numbers(&try_open(dir.path()).unwrap()).await, [1, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_kept_though_it_failed_is_adopted_but_not_answered_as_done() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.commit(event(1)).await.unwrap();
    *store.shared().injected.lock().unwrap() = Some(Fault::FailedButPersisted);
    assert!(matches!(store.commit(event(2)).await, Err(LedgerError::Uncertain(_))));
    assert_eq!(commit_again(&store, 3).await, 2);
    assert_eq!(numbers(&store).await, [1, 2, 3]);
    let inclusion = store.include(event(4), 1).await.unwrap();
    assert_eq!(inclusion.index, 3);
    store.close();
    assert_eq!(store.sizes(), (4, 4));
    drop(store);
    assert_eq!(numbers(&try_open(dir.path()).unwrap()).await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_database_is_noticed_at_the_next_write() {
    for file in ["writ.db", "writ.db-wal"] {
        let dir = TempDir::new().unwrap();
        let store = try_open(dir.path()).unwrap();
        store.commit(event(1)).await.unwrap();
        std::fs::remove_file(dir.path().join("data").join(file)).unwrap();
        for number in 2..5 {
            let refused = store.commit(event(number)).await.unwrap_err();
            // The first may have been committed to where nobody finds it.
            let expected =
                matches!(refused, LedgerError::Unavailable(_)) || number == 2 && matches!(refused, LedgerError::Uncertain(_));
            assert!(expected, "{file}: {refused}");
        }
        assert!(store.fault().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_deleted_during_a_commit_makes_nobody_believe_it_is_done() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.commit(event(1)).await.unwrap();
    *store.shared().injected.lock().unwrap() = Some(Fault::Unlinked);
    assert!(matches!(store.commit(event(2)).await, Err(LedgerError::Uncertain(_))));
    assert_eq!(store.fault().as_deref(), Some("the database file is gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_database_is_noticed_without_a_write() {
    let dir = TempDir::new().unwrap();
    let store = try_open_idle(dir.path()).unwrap();
    store.commit(event(1)).await.unwrap();
    std::fs::remove_file(dir.path().join("data/writ.db")).unwrap();
    let started = std::time::Instant::now();
    while store.fault().is_none() {
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "nobody noticed");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_swapped_for_a_backup_is_not_written_to() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.commit(event(1)).await.unwrap();
    let (file, copy) = (dir.path().join("data/writ.db"), dir.path().join("copy"));
    std::fs::copy(&file, &copy).unwrap();
    store.commit(event(2)).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(dir.path().join("data/writ.db-wal")).unwrap();
    std::fs::rename(&copy, &file).unwrap();
    let started = std::time::Instant::now();
    while started.elapsed() < std::time::Duration::from_millis(600) {
        assert!(store.commit(event(3)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn used_evidence_fails_its_own_write_only() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let with = |number, key: u8, expires: i64| {
        let mut write = event(number);
        write.changes.push(Change::UseEvidence { key: [key; 32], expires: Timestamp::from_millis(expires) });
        write
    };
    const LATER: i64 = 2_000_000;
    assert_eq!(store.commit(with(1, 1, LATER)).await.unwrap(), 0);
    // Many at once, so that they share a batch.
    let writes = (0..20).map(|i| store.commit(with(10 + i, u8::try_from(i % 2 + 1).unwrap(), LATER)));
    let results = futures_util::future::join_all(writes).await;
    let done: Vec<_> = results.iter().filter(|result| result.is_ok()).collect();
    assert_eq!(done.len(), 1, "only the first use of the second key");
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(LedgerError::Replayed))));
    // A write that uses fresh evidence beside used evidence leaves the fresh one unused.
    let mut both = with(50, 7, LATER);
    both.changes.push(Change::UseEvidence { key: [1; 32], expires: Timestamp::from_millis(LATER) });
    assert_eq!(store.commit(both).await, Err(LedgerError::Replayed));
    store.commit(with(51, 7, LATER)).await.unwrap();
    // The same key twice in one write is a replay, and expired evidence is forgotten.
    let mut twice = with(52, 8, LATER);
    twice.changes.push(Change::UseEvidence { key: [8; 32], expires: Timestamp::from_millis(LATER) });
    assert_eq!(store.commit(twice).await, Err(LedgerError::Replayed));
    store.commit(with(53, 9, 999_999)).await.unwrap();
    store.commit(with(54, 9, LATER)).await.unwrap();
    assert_eq!(store.commit(with(55, 9, LATER)).await, Err(LedgerError::Replayed));
    assert_eq!(numbers(&store).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_broke_down_is_a_fault_and_nothing_is_accepted_any_more() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.commit(event(1)).await.unwrap();
    *store.shared().injected.lock().unwrap() = Some(Fault::Panic);
    assert!(matches!(store.commit(event(2)).await, Err(LedgerError::Uncertain(_))));
    let noticed = async {
        while store.fault().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), noticed).await.unwrap();
    assert!(matches!(store.commit(event(3)).await, Err(LedgerError::Unavailable(_))));
    assert!(matches!(store.post(event(4)), Err(LedgerError::Unavailable(_))));
}
