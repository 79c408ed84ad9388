//! How far tasks are, on its way into the database. A call moves its task on, and a task's record is large: so the calls of a
//! batch stand beside the batch first, in its row, and move to the tasks when that is forgotten. Who reads joins both.
//! The end of a task is written to it at once.

use std::collections::HashMap;

use domain::{Labels, Progress, TaskId, TaskState, Timestamp};
use rusqlite::{Connection, params};

use crate::error::{Error, sqlite};

/// Writes the ends of tasks; gives the rest as it stands beside a batch.
pub(crate) fn store_ends(db: &Connection, progress: HashMap<TaskId, Progress>) -> Result<Option<Vec<u8>>, Error> {
    let (open, ended): (HashMap<_, _>, HashMap<_, _>) =
        progress.into_iter().partition(|(_, progress)| progress.state == TaskState::Open);
    store(db, &ended)?;
    if open.is_empty() {
        return Ok(None);
    }
    let beside: Vec<Beside> = open.iter().map(|(task, progress)| encode(*task, &StoredProgress::of(progress))).collect();
    serde_json::to_vec(&beside).map(Some).map_err(|_| Error::Damaged { what: "how far a task is cannot be written" })
}

/// A task and how far it is, open as it is: calls, untrusted, sensitivity, seen, attested.
type Beside = (String, i64, i64, i64, i64, i64);

fn encode(task: TaskId, stored: &StoredProgress) -> Beside {
    let StoredProgress { calls_used, read_untrusted, read_sensitivity, seen_at, attested_at, .. } = *stored;
    (task.to_string(), calls_used, read_untrusted, read_sensitivity, seen_at, attested_at)
}

fn decode((task, calls_used, read_untrusted, read_sensitivity, seen_at, attested_at): Beside) -> Option<(TaskId, Progress)> {
    let (ended_at, end_reason) = (None, None);
    let stored = StoredProgress { calls_used, read_untrusted, read_sensitivity, seen_at, attested_at, ended_at, end_reason };
    Some((task.parse().ok()?, stored.decode()?))
}

/// What stands beside the batches up to this size.
pub(crate) fn beside(db: &Connection, size: u64) -> Result<HashMap<TaskId, Progress>, Error> {
    let mut all = HashMap::new();
    let failed = || sqlite("read how far tasks are");
    let mut statement =
        db.prepare_cached("SELECT progress FROM log_batch WHERE size <= ?1 AND progress IS NOT NULL").map_err(failed())?;
    let mut rows = statement.query(params![i64::try_from(size).unwrap_or(i64::MAX)]).map_err(failed())?;
    while let Some(row) = rows.next().map_err(failed())? {
        let text: Vec<u8> = row.get(0).map_err(failed())?;
        let unreadable = || Error::Damaged { what: "how far a task is cannot be read" };
        for known in serde_json::from_slice::<Vec<Beside>>(&text).map_err(|_| unreadable())? {
            let (task, progress) = decode(known).ok_or_else(unreadable)?;
            join(&mut all, task, progress);
        }
    }
    Ok(all)
}

/// Adds to what is known of a task.
pub(crate) fn join(all: &mut HashMap<TaskId, Progress>, task: TaskId, progress: Progress) {
    all.entry(task).and_modify(|joined| *joined = joined.joined(progress)).or_insert(progress);
}

/// Joins progress with what is stored: [`Progress::joined`], in SQL.
pub(crate) fn store(db: &Connection, progress: &HashMap<TaskId, Progress>) -> Result<(), Error> {
    for (task, change) in progress {
        let change = StoredProgress::of(change);
        let advanced = advance(db, *task, &change).map_err(sqlite("record progress"))?;
        if advanced == 0 {
            tracing::warn!(%task, "progress of a task that was never opened");
        }
        if change.ended_at.is_some() {
            end(db, *task, &change).map_err(sqlite("record the end of a task"))?;
        }
    }
    Ok(())
}

/// Everything but the end, which alone stands in an index: a call must not write that index's page, too.
fn advance(db: &Connection, task: TaskId, change: &StoredProgress) -> rusqlite::Result<usize> {
    db.prepare_cached(
        "UPDATE task SET
           calls_used = max(calls_used, ?2),
           read_untrusted = max(read_untrusted, ?3),
           read_sensitivity = max(read_sensitivity, ?4),
           seen_at = max(seen_at, ?5),
           attested_at = max(attested_at, ?6)
         WHERE id = ?1",
    )?
    .execute(params![
        task.as_bytes().as_slice(),
        change.calls_used,
        change.read_untrusted,
        change.read_sensitivity,
        change.seen_at,
        change.attested_at,
    ])
}

/// The end that came first stays.
fn end(db: &Connection, task: TaskId, change: &StoredProgress) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE task SET ended_at = ?2, end_reason = ?3 WHERE id = ?1 AND (ended_at IS NULL OR ended_at > ?2)")?
        .execute(params![task.as_bytes().as_slice(), change.ended_at, change.end_reason])
        .map(drop)
}

/// The columns of a task that change.
pub(crate) struct StoredProgress {
    pub(crate) calls_used: i64,
    pub(crate) read_untrusted: i64,
    pub(crate) read_sensitivity: i64,
    pub(crate) seen_at: i64,
    pub(crate) attested_at: i64,
    pub(crate) ended_at: Option<i64>,
    pub(crate) end_reason: Option<String>,
}

impl StoredProgress {
    pub(crate) fn of(progress: &Progress) -> Self {
        let (ended_at, end_reason) = match progress.state {
            TaskState::Open => (None, None),
            TaskState::Ended { at, reason } => (Some(at.millis()), Some(reason.as_str().to_owned())),
        };
        Self {
            calls_used: i64::try_from(progress.calls_used).unwrap_or(i64::MAX),
            read_untrusted: i64::from(progress.labels.read_untrusted),
            read_sensitivity: progress.labels.read_sensitivity.level(),
            seen_at: progress.seen_at.millis(),
            attested_at: progress.attested_at.millis(),
            ended_at,
            end_reason,
        }
    }

    /// The domain's value, unless a column holds what none could have written.
    pub(crate) fn decode(self) -> Option<Progress> {
        use domain::{EndReason, Sensitivity};
        let state = match (self.ended_at, self.end_reason) {
            (None, None) => TaskState::Open,
            (Some(at), Some(word)) => TaskState::Ended { at: Timestamp::from_millis(at), reason: EndReason::from_word(&word)? },
            _ => return None,
        };
        Some(Progress {
            calls_used: u64::try_from(self.calls_used).ok()?,
            labels: Labels {
                read_untrusted: self.read_untrusted != 0,
                read_sensitivity: Sensitivity::from_level(self.read_sensitivity)?,
            },
            seen_at: Timestamp::from_millis(self.seen_at),
            attested_at: Timestamp::from_millis(self.attested_at),
            state,
        })
    }
}
