//! What somebody could do to the files between two runs, and while one runs: each is refused, with its reason.
//! Kills are imitated by copying the files aside; real ones are in `crash`.

use std::{path::Path, time::Duration};

use auditlog::Error as LogError;
use authority::ports::{Archive, ArchiveError, Change, Ledger, PublishedLog};
use rusqlite::Connection;
use store::{Error, Keys};
use tempfile::TempDir;

use crate::rig::{check_log, keys, numbered, open_slow, signer, task, try_open, try_open_with};

/// A store that was killed with these unpublished entries in its database.
async fn killed(dir: &Path, published: u64, unpublished: u64) {
    let store = try_open(dir).unwrap();
    for number in 0..published {
        store.post(numbered(number)).unwrap();
    }
    store.close();
    drop(store);
    let store = open_slow(dir);
    for number in 0..unpublished {
        store.commit(numbered(published + number)).await.unwrap();
    }
    kill(store, dir);
}

/// Leaves the files as a kill would: copies them, lets the store end, puts the copies back.
fn kill(store: store::Store, dir: &Path) {
    let copy = dir.join("copy");
    copy_tree(&dir.join("data"), &copy);
    let anchor = std::fs::read(dir.join("anchor")).unwrap();
    store.close();
    drop(store);
    std::fs::remove_dir_all(dir.join("data")).unwrap();
    std::fs::rename(&copy, dir.join("data")).unwrap();
    std::fs::write(dir.join("anchor"), anchor).unwrap();
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn sql(dir: &Path, statement: &str) {
    let changed = Connection::open(dir.join("data/writ.db")).unwrap().execute(statement, []).unwrap();
    assert!(changed > 0, "{statement}");
}

fn refusal(dir: &Path) -> Error {
    try_open(dir).err().unwrap_or_else(|| panic!("it was opened"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_store_goes_on_with_every_entry() {
    let dir = TempDir::new().unwrap();
    killed(dir.path(), 300, 20).await;
    let store = try_open(dir.path()).unwrap();
    assert_eq!(store.sizes().0, 320);
    assert_eq!(store.commit(numbered(320)).await.unwrap(), 320);
    store.close();
    assert_eq!(check_log(dir.path()).len(), 321);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rows_of_the_log_are_found_at_start() {
    for (statement, expected) in [
        (
            "UPDATE log_batch SET packed = CAST(replace(CAST(packed AS TEXT), 'number', 'nimber') AS BLOB) WHERE first = 305",
            "changed",
        ),
        ("UPDATE log_batch SET root = zeroblob(32) WHERE first = 305", "unsigned"),
        ("UPDATE log_batch SET signature = zeroblob(64) WHERE first = 305", "unsigned"),
        ("DELETE FROM log_batch WHERE first = 305", "gap"),
        ("DELETE FROM log_batch WHERE first >= 315", "damaged"),
        ("UPDATE log_head SET size = 319", "damaged"),
        ("UPDATE log_head SET checkpoint = NULL", "behind"),
    ] {
        let dir = TempDir::new().unwrap();
        killed(dir.path(), 300, 20).await;
        sql(dir.path(), statement);
        let refused = refusal(dir.path());
        let source = |error: &Error| match error {
            Error::Log(LogError::Ledger { source, .. }) => source.to_string(),
            other => other.to_string(),
        };
        let holds = match expected {
            "changed" => matches!(refused, Error::Log(LogError::BatchChanged { first: 305 })),
            "unsigned" => source(&refused).contains("entry 305 was not signed by this node"),
            "gap" => matches!(refused, Error::Log(LogError::BatchGap { expected: 305, .. })),
            "behind" => matches!(refused, Error::Log(_)),
            _ => matches!(refused, Error::Damaged { .. } | Error::Log(LogError::DatabaseBehind { .. })),
        };
        assert!(holds, "{statement}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_before_it_is_published_stops_publication() {
    let dir = TempDir::new().unwrap();
    let store = try_open_with(dir.path(), keys(), Duration::from_millis(300)).unwrap();
    store.commit(numbered(0)).await.unwrap();
    sql(dir.path(), "UPDATE log_batch SET packed = CAST(replace(CAST(packed AS TEXT), 'test', 'tost') AS BLOB)");
    store.close();
    assert_eq!(store.sizes(), (1, 0));
    assert!(check_log(dir.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_went_back_in_time_is_refused() {
    let dir = TempDir::new().unwrap();
    killed(dir.path(), 10, 5).await;
    let backup = dir.path().join("backup");
    copy_tree(&dir.path().join("data"), &backup);
    let store = open_slow(dir.path());
    store.include(numbered(15), 0).await.unwrap();
    store.anchored(16).await.unwrap();
    // Before anything is published or closed in good order: what may leave the process is in the file.
    let anchor = std::fs::read(dir.path().join("anchor")).unwrap();
    store.close();
    drop(store);
    std::fs::write(dir.path().join("anchor"), anchor).unwrap();
    // The whole data directory comes from the backup; only the anchor is newer.
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    std::fs::rename(&backup, dir.path().join("data")).unwrap();
    let refused = refusal(dir.path());
    assert!(matches!(refused, Error::Log(LogError::DatabaseBehind { database: 15, signed: 16 })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_not_silently_started_anew() {
    let dir = TempDir::new().unwrap();
    killed(dir.path(), 10, 0).await;
    for file in ["writ.db", "writ.db-wal", "writ.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join("data").join(file));
    }
    let refused = refusal(dir.path());
    assert!(matches!(refused, Error::Log(LogError::DatabaseBehind { database: 0, signed: 10 })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_anchor_of_a_log_in_use_is_refused() {
    let dir = TempDir::new().unwrap();
    killed(dir.path(), 10, 0).await;
    std::fs::remove_file(dir.path().join("anchor")).unwrap();
    assert!(matches!(refusal(dir.path()), Error::AnchorMissing { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_missing_log_files_are_refused() {
    for (path, damage) in [("log/tile/0/000.p/10", true), ("log/tile/entries/000.p/10", false), ("log/checkpoint", true)] {
        let dir = TempDir::new().unwrap();
        killed(dir.path(), 10, 0).await;
        let file = dir.path().join("data").join(path);
        let mut bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        if damage {
            bytes[7] ^= 1;
            std::fs::write(&file, bytes).unwrap();
        }
        let refused = refusal(dir.path());
        let holds = matches!(refused, Error::Log(LogError::FileCorrupt { .. } | LogError::FileMissing { .. }));
        assert!(holds, "{path}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_of_state_is_refused_at_load() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let mut write = numbered(0);
    write.changes.push(Change::OpenTask { task: Box::new(task(1, "a")), wrapped_key: vec![] });
    store.commit(write).await.unwrap();
    sql(dir.path(), "UPDATE task SET record = '{}'");
    assert!(matches!(store.load().await, Err(ArchiveError::Damaged(_))));
    assert!(matches!(store.task(task(1, "a").id).await, Err(ArchiveError::Damaged(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_refused() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir_all(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/writ.db"), "x".repeat(8192)).unwrap();
    assert!(matches!(refusal(dir.path()), Error::Sqlite { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_serves_one_process_and_one_set_of_keys() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.commit(numbered(0)).await.unwrap();
    assert!(matches!(refusal(dir.path()), Error::InUse { .. }));
    kill(store, dir.path());
    let every = Duration::from_millis(10);
    let other_log = Keys { log: signer("writ.example/log", 9), ..keys() };
    assert!(matches!(try_open_with(dir.path(), other_log, every).err(), Some(Error::Log(LogError::AnchorUnreadable { .. }))));
    let odd_name = Keys { node: signer("node\"1", 2), ..keys() };
    assert!(matches!(try_open_with(dir.path(), odd_name, every).err(), Some(Error::Log(LogError::KeyMalformed { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    let dir = TempDir::new().unwrap();
    killed(dir.path(), 1, 0).await;
    Connection::open(dir.path().join("data/writ.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(refusal(dir.path()), Error::SchemaNewer { found: 99, known: 3 }));
}
