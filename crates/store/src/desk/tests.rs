//! Who commits: the caller itself or the thread, and that it makes no difference to anybody.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use authority::ports::{Ledger, LedgerError};
use futures_util::FutureExt;
use tempfile::TempDir;

use crate::{
    Store,
    change::Prepared,
    rig::{event, numbers, try_open, try_open_idle},
    writer::{Reply, faults::Fault},
};

/// Whether a caller who comes now commits for itself. If not, nothing is written.
fn commits_for_itself(store: &Store, number: u64) -> bool {
    let write = Prepared::new(event(number)).unwrap();
    store.desk().enter().commit(write, Reply::Nobody, store.shared()).unwrap().is_none()
}

/// The same on a quick disk, at one of many tries: the thread has a look at the writer now and then.
fn may_commit_for_itself(store: &Store) -> bool {
    let mut numbers = 1000..1100;
    numbers.any(|number| {
        store.desk().pretend(Duration::ZERO);
        commits_for_itself(store, number)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_commits_for_itself_only_if_it_is_alone_and_the_disk_is_quick() {
    let dir = TempDir::new().unwrap();
    let store = try_open_idle(dir.path()).unwrap();
    assert!(!commits_for_itself(&store, 1), "nobody knows yet how quick it is");
    store.desk().pretend(Duration::from_secs(1));
    assert!(!commits_for_itself(&store, 2), "slow");
    assert!(may_commit_for_itself(&store));
    let other = store.desk().enter();
    store.desk().pretend(Duration::ZERO);
    assert!(!commits_for_itself(&store, 3), "somebody else waits too");
    drop(other);
    store.desk().pretend(Duration::ZERO);
    store.desk().awaited.store(20, Ordering::Relaxed);
    assert!(!commits_for_itself(&store, 4), "others were here a moment ago");
    store.desk().awaited.store(1, Ordering::Relaxed);
    assert!(may_commit_for_itself(&store), "it is quiet again");
    *store.shared().injected.lock().unwrap() = Some(Fault::Failed);
    assert!(store.commit(event(5)).await.is_err());
    store.desk().pretend(Duration::ZERO);
    let tried = commits_for_itself(&store, 6);
    assert!(!tried || store.fault().is_none(), "the database must be found first, by the thread");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_posted_before_is_committed_before() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.commit(event(1)).await.unwrap();
    store.desk().pretend(Duration::ZERO);
    store.post(event(2)).unwrap();
    assert_eq!(store.commit(event(3)).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_behind_follows_a_write_that_nobody_waits_for_any_more() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let held = store.desk().held();
    let mut asked = store.commit(event(1));
    assert!((&mut asked).now_or_never().is_none(), "nobody can write now");
    drop(asked);
    store.post_behind(event(2)).unwrap();
    store.post(event(3)).unwrap();
    drop(held);
    store.commit(event(4)).await.unwrap();
    let order = numbers(&store).await;
    assert_eq!((order.len(), order.iter().position(|n| *n == 1) < order.iter().position(|n| *n == 2)), (4, true), "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_breaks_down_in_a_callers_hands_ends_the_ledger() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.commit(event(1)).await.unwrap();
    store.desk().pretend(Duration::ZERO);
    *store.shared().injected.lock().unwrap() = Some(Fault::Panic);
    assert!(matches!(store.commit(event(2)).await, Err(LedgerError::Uncertain(_))));
    let noticed = async {
        while store.fault().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), noticed).await.unwrap();
    assert!(matches!(store.commit(event(3)).await, Err(LedgerError::Unavailable(_))));
    assert!(matches!(store.post(event(4)), Err(LedgerError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_once_the_data_directory_was_given_up() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.commit(event(1)).await.unwrap();
    store.close();
    store.desk().pretend(Duration::ZERO);
    assert!(matches!(store.commit(event(2)).await, Err(LedgerError::Unavailable(_))));
    // Another process may have it by now.
    let next = try_open(dir.path()).unwrap();
    assert!(matches!(store.commit(event(3)).await, Err(LedgerError::Unavailable(_))));
    assert_eq!(next.commit(event(4)).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_and_thread_together_give_each_write_an_index_of_its_own() {
    const CALLERS: u64 = 6;
    const EACH: u64 = 100;
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let caller = |caller: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut indices = Vec::new();
            for number in 0..EACH {
                store.desk().pretend(Duration::ZERO);
                indices.push(store.commit(event(caller * EACH + number)).await.unwrap());
            }
            indices
        })
    };
    let callers: Vec<_> = (0..CALLERS).map(caller).collect();
    let mut all = BTreeSet::new();
    for caller in callers {
        let indices = caller.await.unwrap();
        assert!(indices.is_sorted(), "a caller's writes keep their order");
        all.extend(indices);
    }
    assert_eq!(all, (0..CALLERS * EACH).collect());
}
