//! State: what is written comes back, joined where two views of one task meet.
//! The domain's own join is the oracle for what the database does.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use authority::ports::{Archive, Change, Ledger, PublishedLog, TaskQuery, Write};
use domain::{EndReason, Labels, Progress, Sensitivity, TaskState, Timestamp};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::rig::{numbered, open_slow, task, try_open};

fn with(number: u64, changes: Vec<Change>) -> Write {
    Write { changes, ..numbered(number) }
}

fn open_task(number: u8, agent: &str) -> Change {
    Change::OpenTask { task: Box::new(task(number, agent)), wrapped_key: vec![number] }
}

fn progress(calls_used: u64, ended: Option<(i64, EndReason)>) -> Progress {
    let state = ended.map_or(TaskState::Open, |(at, reason)| TaskState::Ended { at: Timestamp::from_millis(at), reason });
    Progress { calls_used, state, ..task(1, "a").progress }
}

#[tokio::test]
async fn state_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let changes = vec![open_task(1, "a"), open_task(2, "a"), open_task(3, "b")];
    store.commit(with(1, changes)).await.unwrap();
    let ended = Change::Progress(task(2, "a").id, progress(9, Some((5, EndReason::Revoked))));
    let expires = Timestamp::from_millis(2_000_000);
    let token = Change::RevokeToken { jti: "j1".into(), expires };
    let stale = Change::RevokeToken { jti: "j2".into(), expires: Timestamp::from_millis(5) };
    store.commit(with(2, vec![ended, token, stale])).await.unwrap();
    store.close();
    drop(store);

    let store = try_open(dir.path()).unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.tasks, [(task(1, "a"), vec![1]), (task(3, "b"), vec![3])]);
    assert_eq!(loaded.revoked_tokens, [("j1".to_owned(), expires)]);
    let ended = store.task(task(2, "a").id).await.unwrap().unwrap();
    assert_eq!(ended.progress, progress(9, Some((5, EndReason::Revoked))));
    assert_eq!(store.task(task(9, "a").id).await.unwrap(), None);
}

#[tokio::test]
async fn tasks_are_listed_newest_first_by_agent_and_state() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let changes = (1..=5).map(|n| open_task(n, if n % 2 == 0 { "even" } else { "odd" })).collect();
    store.commit(with(1, changes)).await.unwrap();
    let end = Change::Progress(task(3, "odd").id, progress(0, Some((5, EndReason::Completed))));
    store.commit(with(2, vec![end])).await.unwrap();
    let ids = async |query: TaskQuery| -> Vec<u8> {
        store.tasks(query).await.unwrap().iter().map(|task| task.id.as_bytes()[0]).collect()
    };
    let all = TaskQuery { limit: 10, ..TaskQuery::default() };
    assert_eq!(ids(all.clone()).await, [5, 4, 3, 2, 1]);
    assert_eq!(ids(TaskQuery { limit: 2, before: Some(task(4, "even").id), ..all.clone() }).await, [3, 2]);
    assert_eq!(ids(TaskQuery { open_only: true, ..all.clone() }).await, [5, 4, 2, 1]);
    assert_eq!(ids(TaskQuery { agent: Some("odd".parse().unwrap()), open_only: true, ..all }).await, [5, 1]);
}

#[tokio::test]
async fn openings_are_kept_shortened_deleted_and_forgotten_with_their_key() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let id = task(1, "a").id;
    store.commit(with(1, vec![open_task(1, "a")])).await.unwrap();
    let events = vec![b"{\"n\":1}".to_vec(), b"{\"n\":2}".to_vec()];
    let opening = |event| Change::PutOpening { event, task: id, sealed: vec![7, u8::try_from(event).unwrap()] };
    let first = store.commit(Write { events, changes: vec![opening(0), opening(1)] }).await.unwrap();
    assert_eq!(store.opening(first).await.unwrap(), Some((vec![7, 0], vec![1])));
    assert_eq!(store.opening(first + 1).await.unwrap(), Some((vec![7, 1], vec![1])));
    assert_eq!(store.opening(first + 2).await.unwrap(), None);
    let redact = |index, remaining| Change::RedactOpening { index, remaining };
    store.commit(with(3, vec![redact(first, None), redact(first + 1, Some(vec![8]))])).await.unwrap();
    assert_eq!(store.opening(first).await.unwrap(), None);
    assert_eq!(store.opening(first + 1).await.unwrap(), Some((vec![8], vec![1])));
    store.commit(with(4, vec![Change::ForgetTaskKey(id)])).await.unwrap();
    assert_eq!(store.opening(first + 1).await.unwrap(), None);
}

/// Files of the data folder in which these bytes stand.
fn files_with(dir: &Path, wanted: &[u8]) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("data")).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    let holds = |path: &PathBuf| std::fs::read(path).unwrap().windows(wanted.len()).any(|bytes| bytes == wanted);
    files.filter(holds).map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn what_is_redacted_is_nowhere_in_the_data_folder_any_more() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let mut opened = task(1, "a");
    opened.params.0.extend([("reason".to_owned(), domain::Value::Text("Ms Doe is ill".to_owned()))]);
    let change = Change::OpenTask { task: Box::new(opened.clone()), wrapped_key: vec![1] };
    store.commit(with(1, vec![change])).await.unwrap();
    // Larger than a page: it lies on pages of its own, which become free.
    let sealed: Vec<u8> = (0..9000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let middle = sealed[20_000..20_400].to_vec();
    let opening = Change::PutOpening { event: 0, task: opened.id, sealed };
    let index = store.commit(with(2, vec![opening])).await.unwrap();
    store.close();
    drop(store);
    let store = try_open(dir.path()).unwrap();
    // What the start wipes is not what is looked for.
    let start = Instant::now();
    while std::fs::metadata(dir.path().join("data/writ.db-wal")).unwrap().len() > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "nothing is wiped at the start");
        tokio::task::yield_now().await;
    }
    assert_eq!((files_with(dir.path(), b"Ms Doe is ill").len(), files_with(dir.path(), &middle).len()), (1, 1));
    let event = br#"{"at":3,"detail":{"name":"reason"},"type":"redaction"}"#.to_vec();
    let redact = Change::RedactParam { task: opened.id, name: "reason".to_owned() };
    let changes = vec![Change::RedactOpening { index, remaining: None }, redact];
    store.commit(Write { events: vec![event], changes }).await.unwrap();
    let start = Instant::now();
    while !files_with(dir.path(), b"Ms Doe is ill").is_empty() || !files_with(dir.path(), &middle).is_empty() {
        let left = (files_with(dir.path(), b"Ms Doe is ill"), files_with(dir.path(), &middle));
        assert!(start.elapsed() < Duration::from_secs(10), "{left:?}");
        tokio::task::yield_now().await;
    }
    store.commit(with(4, vec![])).await.unwrap();
    assert_eq!(store.fault(), None);
}

#[tokio::test]
async fn a_redacted_parameter_leaves_the_record_of_its_task_alone_otherwise() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let mut opened = task(1, "a");
    let text = |text: &str| domain::Value::Text(text.to_owned());
    opened.params.0.extend([("reason".to_owned(), text("Ms Doe is ill")), ("order".to_owned(), text("7"))]);
    let change = Change::OpenTask { task: Box::new(opened.clone()), wrapped_key: vec![1] };
    store.commit(with(1, vec![change])).await.unwrap();
    let redact = |name: &str| Change::RedactParam { task: opened.id, name: name.to_owned() };
    store.commit(with(2, vec![redact("reason"), redact("no-such")])).await.unwrap();
    let kept = store.task(opened.id).await.unwrap().unwrap();
    assert_eq!((kept.params.get("reason"), kept.params.get("order")), (Some(&text("")), Some(&text("7"))));
    assert_eq!(kept.params.0.len(), 2);
    assert!(store.commit(with(3, vec![redact("a\".b")])).await.is_err());
}

#[tokio::test]
async fn a_write_that_names_an_event_it_does_not_have_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = try_open(dir.path()).unwrap();
    let opening = Change::PutOpening { event: 1, task: task(1, "a").id, sealed: vec![] };
    assert!(store.commit(with(1, vec![opening])).await.is_err());
    for event in [b"[]".to_vec(), b"{}}".to_vec(), b"{\"a\":1},{".to_vec(), b"".to_vec()] {
        assert!(store.commit(Write { events: vec![event], changes: vec![] }).await.is_err());
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(60_000));
    let refused = store.commit(Write { events: vec![large.into_bytes()], changes: vec![] }).await;
    assert!(matches!(refused, Err(authority::ports::LedgerError::TooLarge(_))));
    assert_eq!(store.commit(numbered(1)).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_posted_is_kept_when_the_store_closes_and_refused_after() {
    let dir = TempDir::new().unwrap();
    let store = open_slow(dir.path());
    store.post(numbered(0)).unwrap();
    store.close();
    assert!(matches!(store.post(numbered(1)), Err(authority::ports::LedgerError::Unavailable(_))));
    drop(store);
    assert_eq!(open_slow(dir.path()).sizes().0, 1);
}

#[tokio::test]
async fn posted_writes_keep_their_order_and_are_durable_before_a_later_commit() {
    let dir = TempDir::new().unwrap();
    let store = open_slow(dir.path());
    store.commit(with(0, vec![open_task(1, "a")])).await.unwrap();
    for number in 1..=300 {
        store.post(with(number, vec![Change::Progress(task(1, "a").id, progress(number, None))])).unwrap();
    }
    assert_eq!(store.commit(numbered(301)).await.unwrap(), 301);
    assert_eq!(store.task(task(1, "a").id).await.unwrap().unwrap().progress.calls_used, 300);
    store.close();
    let numbers: Vec<_> = crate::rig::check_log(dir.path()).iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..=301).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_the_same_before_and_after_its_batch_is_published_and_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let id = task(1, "a").id;
    let calls = |found: Vec<domain::Task>| found.first().unwrap().progress.calls_used;
    let store = open_slow(dir.path());
    store.commit(with(0, vec![open_task(1, "a")])).await.unwrap();
    store.commit(with(1, vec![Change::Progress(id, progress(3, None))])).await.unwrap();
    // A copy of the files as a crash would leave them, with the batch unpublished.
    let crashed = TempDir::new().unwrap();
    let crashed = crashed.path().join("copy");
    crate::damage::copy_tree(dir.path(), &crashed);
    assert_eq!(calls(store.tasks(TaskQuery { limit: 1, ..TaskQuery::default() }).await.unwrap()), 3, "before");
    store.close();
    assert_eq!(store.sizes(), (2, 2));
    assert_eq!(store.task(id).await.unwrap().unwrap().progress.calls_used, 3, "published");
    drop(store);
    for folder in [dir.path(), &crashed] {
        let store = try_open(folder).unwrap();
        assert_eq!(store.load().await.unwrap().tasks.first().unwrap().0.progress.calls_used, 3, "after a restart");
    }
}

fn any_progress() -> impl Strategy<Value = Progress> {
    let ended = prop::option::of((0_i64..4, 0_usize..EndReason::ALL.len()));
    (0_u64..5, any::<bool>(), 0_usize..4, 0_i64..5, 0_i64..5, ended).prop_map(|(calls, untrusted, level, seen, proved, ended)| {
        let levels = [Sensitivity::Public, Sensitivity::Internal, Sensitivity::Confidential, Sensitivity::Restricted];
        Progress {
            calls_used: calls,
            labels: Labels { read_untrusted: untrusted, read_sensitivity: levels[level] },
            seen_at: Timestamp::from_millis(seen),
            attested_at: Timestamp::from_millis(proved),
            state: ended.map_or(TaskState::Open, |(at, reason)| TaskState::Ended {
                at: Timestamp::from_millis(at),
                reason: EndReason::ALL[reason],
            }),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn progress_is_joined_in_the_database_as_in_the_domain(steps in prop::collection::vec((any_progress(), any::<bool>()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = TempDir::new().unwrap();
        let store = open_slow(dir.path());
        let stored = runtime.block_on(async {
            store.commit(with(0, vec![open_task(1, "a")])).await.unwrap();
            for (step, wait) in &steps {
                let write = with(1, vec![Change::Progress(task(1, "a").id, *step)]);
                // Some share a batch, some do not.
                if *wait {
                    let _index = store.commit(write).await.unwrap();
                } else { store.post(write).unwrap() }
            }
            store.commit(numbered(2)).await.unwrap();
            store.task(task(1, "a").id).await.unwrap().unwrap().progress
        });
        let expected = steps.iter().fold(task(1, "a").progress, |joined, (step, _)| joined.joined(*step));
        prop_assert_eq!(stored, expected);
    }
}
