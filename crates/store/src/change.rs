//! State changes: prepared by the caller (encoding costs its thread, not the writer's), applied by the writer in
//! the transaction of the entries that tell of them. Owns the SQL of all state tables' writes.

use std::collections::{HashMap, HashSet};

use authority::ports::{Change, EVENT_BYTES_MAX, LedgerError, Write};
use domain::{Progress, TaskId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::IgnoredAny;

use crate::{
    error::{Error, sqlite},
    grant::GrantRow,
    progress::{StoredProgress, join},
    record::{Unreadable, encode_agent, encode_task, encode_upstream, encode_workload},
};

/// A write that is ready for the writer: checked and encoded.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) events: Vec<Vec<u8>>,
    pub(crate) rows: Vec<Row>,
}

/// One change as the database takes it.
#[derive(Debug)]
pub(crate) enum Row {
    PutAgent { id: String, record: String },
    PutUpstream { name: String, record: String },
    RemoveUpstream { name: String },
    OpenTask(Box<OpenTask>),
    Progress(TaskId, Progress),
    Attested { task: TaskId, workload: String },
    UseEvidence { key: [u8; 32], expires: Timestamp },
    RevokeToken { jti: String, expires: Timestamp },
    PutOpening { event: usize, task: TaskId, sealed: Vec<u8> },
    RedactOpening { index: u64, remaining: Option<Vec<u8>> },
    RedactParam { task: TaskId, name: String },
    ForgetTaskKey(TaskId),
    Grant(GrantRow),
}

#[derive(Debug)]
pub(crate) struct OpenTask {
    id: TaskId,
    agent: String,
    record: String,
    workload: String,
    wrapped_key: Vec<u8>,
    progress: Progress,
}

impl Prepared {
    /// Checks and encodes a write.
    ///
    /// # Errors
    /// [`LedgerError::TooLarge`], or [`LedgerError::Unavailable`] for what could not be stored in any case.
    pub(crate) fn new(write: Write) -> Result<Self, LedgerError> {
        for event in &write.events {
            if event.len() > EVENT_BYTES_MAX {
                return Err(LedgerError::TooLarge(event.len()));
            }
            // The event stands unquoted inside the leaf: what is no JSON object would break the leaf around it.
            if event.first() != Some(&b'{') || serde_json::from_slice::<IgnoredAny>(event).is_err() {
                return Err(LedgerError::Unavailable("an event is not a JSON object".to_owned()));
            }
        }
        let events = write.events.len();
        let rows = write.changes.into_iter().map(|change| prepare(change, events)).collect::<Result<_, _>>();
        match rows {
            Ok(rows) => Ok(Self { events: write.events, rows }),
            Err(Unreadable(what)) => Err(LedgerError::Unavailable(format!("the {what} cannot be stored"))),
        }
    }

    /// Whether it takes something out that must not stand anywhere any more.
    pub(crate) fn redacts(&self) -> bool {
        let redacts = |row: &Row| matches!(row, Row::RedactOpening { .. } | Row::RedactParam { .. } | Row::ForgetTaskKey(_));
        self.rows.iter().any(redacts)
    }

    /// Bytes that it adds to a batch, about.
    pub(crate) fn weight(&self) -> usize {
        self.events.iter().map(|event| event.len() + 256).sum::<usize>() + self.rows.len() * 256
    }
}

fn prepare(change: Change, events: usize) -> Result<Row, Unreadable> {
    Ok(match change {
        Change::PutAgent(agent) => Row::PutAgent { id: agent.id.as_str().to_owned(), record: encode_agent(&agent)? },
        Change::PutUpstream(upstream) => {
            Row::PutUpstream { name: upstream.name.as_str().to_owned(), record: encode_upstream(&upstream)? }
        }
        Change::RemoveUpstream(name) => Row::RemoveUpstream { name: name.as_str().to_owned() },
        Change::OpenTask { task, wrapped_key } => Row::OpenTask(Box::new(OpenTask {
            id: task.id,
            agent: task.agent.as_str().to_owned(),
            record: encode_task(&task)?,
            workload: encode_workload(&task.workload)?,
            wrapped_key,
            progress: task.progress,
        })),
        Change::Progress(task, progress) => Row::Progress(task, progress),
        Change::Attested(task, workload) => Row::Attested { task, workload: encode_workload(&workload)? },
        Change::UseEvidence { key, expires } => Row::UseEvidence { key, expires },
        Change::RevokeToken { jti, expires } => Row::RevokeToken { jti, expires },
        Change::PutOpening { event, .. } if event >= events => return Err(Unreadable("opening of a missing event")),
        Change::PutOpening { event, task, sealed } => Row::PutOpening { event, task, sealed },
        Change::RedactOpening { index, remaining } => Row::RedactOpening { index, remaining },
        Change::RedactParam { name, .. } if name.contains(['"', '\\']) => return Err(Unreadable("parameter's name")),
        Change::RedactParam { task, name } => Row::RedactParam { task, name },
        Change::ForgetTaskKey(task) => Row::ForgetTaskKey(task),
        Change::PutGrant { grant, unconfirmed_at } => Row::Grant(GrantRow::Put { grant, unconfirmed_at }),
        Change::GrantIssued { grant, at, sealed } => Row::Grant(GrantRow::Issued { grant, at, sealed }),
        Change::RevokeGrant { grant, at, reason, settled } => Row::Grant(GrantRow::Revoke { grant, at, reason, settled }),
        Change::RevokeGrantsOf { task, at } => Row::Grant(GrantRow::RevokeOf { task, at }),
        Change::GrantStep { grant, state, at } => Row::Grant(GrantRow::Step { grant, state, at }),
        Change::ForgetGrants { before, most } => Row::Grant(GrantRow::Forget { before, most }),
        Change::GrantRetry { grant, try_at, tries } => Row::Grant(GrantRow::Retry { grant, try_at, tries }),
    })
}

/// Whether evidence of this write was used before. Asked before anything of the write is applied, so that a
/// refused write leaves nothing behind in the batch that it shares.
pub(crate) fn is_replay(db: &Connection, rows: &[Row], now: Timestamp) -> Result<bool, Error> {
    let mut own = HashSet::new();
    for row in rows {
        let Row::UseEvidence { key, .. } = row else { continue };
        let mut statement = db
            .prepare_cached("SELECT 1 FROM evidence WHERE key = ?1 AND expires > ?2")
            .map_err(sqlite("look for used evidence"))?;
        let used: Option<i64> = statement
            .query_row(params![key.as_slice(), now.millis()], |row| row.get(0))
            .optional()
            .map_err(sqlite("look for used evidence"))?;
        if used.is_some() || !own.insert(key) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Applies the changes of one write whose first entry has index `first`. Progress is not written yet but joined
/// into `progress`: a task that made many calls in one batch costs one row.
pub(crate) fn apply(db: &Connection, rows: Vec<Row>, first: u64, progress: &mut HashMap<TaskId, Progress>) -> Result<(), Error> {
    for row in rows {
        match row {
            Row::Progress(task, change) => {
                join(progress, task, change);
            }
            other => execute(db, other, first).map_err(sqlite("apply a change"))?,
        }
    }
    Ok(())
}

fn execute(db: &Connection, row: Row, first: u64) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| db.prepare_cached(sql)?.execute(values).map(drop);
    match row {
        Row::PutAgent { id, record } => run("INSERT OR REPLACE INTO agent (id, record) VALUES (?1, ?2)", params![id, record]),
        Row::PutUpstream { name, record } => {
            run("INSERT OR REPLACE INTO upstream (name, record) VALUES (?1, ?2)", params![name, record])
        }
        Row::RemoveUpstream { name } => run("DELETE FROM upstream WHERE name = ?1", params![name]),
        Row::OpenTask(task) => open_task(db, &task),
        Row::Attested { task, workload } => {
            run("UPDATE task SET workload = ?2 WHERE id = ?1", params![task.as_bytes().as_slice(), workload])
        }
        Row::UseEvidence { key, expires } => {
            run("INSERT OR REPLACE INTO evidence (key, expires) VALUES (?1, ?2)", params![key.as_slice(), expires.millis()])
        }
        Row::RevokeToken { jti, expires } => run(
            "INSERT INTO revoked_token (jti, expires) VALUES (?1, ?2)
             ON CONFLICT (jti) DO UPDATE SET expires = max(expires, excluded.expires)",
            params![jti, expires.millis()],
        ),
        Row::PutOpening { event, task, sealed } => run(
            "INSERT INTO opening (entry, task, sealed) VALUES (?1, ?2, ?3)",
            params![first.saturating_add(event as u64), task.as_bytes().as_slice(), sealed],
        ),
        Row::RedactOpening { index, remaining: None } => {
            wiping(db, || run("DELETE FROM opening WHERE entry = ?1", params![index]))
        }
        Row::RedactOpening { index, remaining: Some(sealed) } => {
            wiping(db, || run("UPDATE opening SET sealed = ?2 WHERE entry = ?1", params![index, sealed]))
        }
        Row::RedactParam { task, name } => wiping(db, || {
            run(
                "UPDATE task SET record = json_replace(record, '$.params.\"' || ?2 || '\"', '') WHERE id = ?1",
                params![task.as_bytes().as_slice(), name],
            )
        }),
        Row::ForgetTaskKey(task) => {
            wiping(db, || run("UPDATE task SET wrapped_key = NULL WHERE id = ?1", params![task.as_bytes().as_slice()]))
        }
        Row::Grant(change) => crate::grant::execute(db, change),
        // Joined by the caller.
        Row::Progress(..) => Ok(()),
    }
}

/// Zeroes whatever becomes free by this, whole pages too. Not always: what a published batch held need not be wiped.
fn wiping(db: &Connection, change: impl FnOnce() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    db.pragma_update(None, "secure_delete", true)?;
    let changed = change();
    db.pragma_update(None, "secure_delete", "FAST")?;
    changed
}

fn open_task(db: &Connection, task: &OpenTask) -> rusqlite::Result<()> {
    let stored = StoredProgress::of(&task.progress);
    db.prepare_cached(
        "INSERT INTO task (id, agent, record, workload, wrapped_key, calls_used, read_untrusted, read_sensitivity,
                           seen_at, attested_at, ended_at, end_reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        task.id.as_bytes().as_slice(),
        task.agent,
        task.record,
        task.workload,
        task.wrapped_key,
        stored.calls_used,
        stored.read_untrusted,
        stored.read_sensitivity,
        stored.seen_at,
        stored.attested_at,
        stored.ended_at,
        stored.end_reason,
    ])
    .map(drop)
}

/// Forgets evidence and tokens whose time is over, a few at a time. They are refused by their own expiry by now.
pub(crate) fn sweep(db: &Connection, now: Timestamp) -> Result<(), Error> {
    for sql in [
        "DELETE FROM evidence WHERE key IN (SELECT key FROM evidence WHERE expires <= ?1 ORDER BY expires LIMIT 500)",
        "DELETE FROM revoked_token WHERE jti IN (SELECT jti FROM revoked_token WHERE expires <= ?1 LIMIT 500)",
    ] {
        db.prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params![now.millis()]))
            .map_err(sqlite("forget what has expired"))?;
    }
    Ok(())
}
