//! Grants: the SQL of their changes and of their reads. Owns the stored form of a state; what a state means and which
//! step is next is `domain`'s, when something is due is the authority's.

use authority::ports::{GrantCounts, GrantQuery, GrantRecord};
use domain::{DecisionId, Grant, GrantId, GrantState, RevokeReason, TargetName, TaskId, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::{archive::Failure, error::sqlite, record::Unreadable};

/// Most grants that one query may answer with.
const GRANTS_MAX: usize = 1000;
const COLUMNS: &str = "id, task, agent, target, offer, decision, handle, granted_at, expires_at, state, revoked_at, reason,
                       next_try_at, tries, sealed";

/// One change of a grant.
#[derive(Debug)]
pub(crate) enum GrantRow {
    Put { grant: Box<Grant>, unconfirmed_at: Timestamp },
    Issued { grant: GrantId, at: Timestamp, sealed: Option<Vec<u8>> },
    Revoke { grant: GrantId, at: Timestamp, reason: RevokeReason, settled: bool },
    RevokeOf { task: TaskId, at: Timestamp },
    Step { grant: GrantId, state: GrantState, at: Timestamp },
    Retry { grant: GrantId, try_at: Timestamp, tries: u32 },
    Forget { before: Timestamp, most: u32 },
}

/// The place of a state in [`GrantState::ALL`].
fn ordinal(state: GrantState) -> i64 {
    (0..).zip(GrantState::ALL).find_map(|(place, known)| (known == state).then_some(place)).unwrap_or(0)
}

pub(crate) fn execute(db: &Connection, change: GrantRow) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| db.prepare_cached(sql)?.execute(values).map(drop);
    match change {
        GrantRow::Put { grant, unconfirmed_at } => put(db, &grant, unconfirmed_at),
        GrantRow::Issued { grant, at, sealed } => run(
            "UPDATE credential SET state = 1, sealed = ?2,
                    next_try_at = CASE WHEN revoked_at IS NULL THEN expires_at ELSE ?3 END
             WHERE id = ?1 AND state = 0",
            params![grant.as_bytes().as_slice(), sealed, at.millis()],
        ),
        GrantRow::Revoke { grant, at, reason, settled } => run(
            "UPDATE credential SET revoked_at = coalesce(revoked_at, ?2), reason = coalesce(reason, ?3),
                    next_try_at = CASE WHEN state = 0 AND NOT ?4 THEN next_try_at ELSE min(next_try_at, ?2) END
             WHERE id = ?1 AND next_try_at IS NOT NULL",
            params![grant.as_bytes().as_slice(), at.millis(), reason.as_str(), settled],
        ),
        GrantRow::RevokeOf { task, at } => run(
            "UPDATE credential SET revoked_at = ?2, reason = 'task_ended',
                    next_try_at = CASE WHEN state = 0 THEN next_try_at ELSE min(next_try_at, ?2) END
             WHERE task = ?1 AND revoked_at IS NULL AND next_try_at IS NOT NULL",
            params![task.as_bytes().as_slice(), at.millis()],
        ),
        GrantRow::Step { grant, state: GrantState::VerifiedDead, .. } => run(
            "UPDATE credential SET state = 5, tries = 0, next_try_at = NULL, sealed = NULL WHERE id = ?1",
            params![grant.as_bytes().as_slice()],
        ),
        GrantRow::Step { grant, state, at } => run(
            "UPDATE credential SET state = max(state, ?2), tries = 0, next_try_at = ?3 WHERE id = ?1 AND state < 5",
            params![grant.as_bytes().as_slice(), ordinal(state), at.millis()],
        ),
        GrantRow::Retry { grant, try_at, tries } => run(
            "UPDATE credential SET next_try_at = ?2, tries = ?3 WHERE id = ?1 AND state < 5",
            params![grant.as_bytes().as_slice(), try_at.millis(), tries],
        ),
        GrantRow::Forget { before, most } => forget(db, before, most),
    }
}

/// A grant's id begins with the instant at which it was made (RFC 9562 §5.7), so that the oldest are found by their key.
fn forget(db: &Connection, before: Timestamp, most: u32) -> rusqlite::Result<()> {
    let millis = u64::try_from(before.millis()).unwrap_or(0).to_be_bytes();
    let made_before = millis.get(2..).unwrap_or_default();
    db.prepare_cached(
        "DELETE FROM credential WHERE id IN
           (SELECT id FROM credential WHERE id < ?1 AND next_try_at IS NULL AND expires_at < ?2 ORDER BY id LIMIT ?3)",
    )?
    .execute(params![made_before, before.millis(), most])
    .map(drop)
}

fn put(db: &Connection, grant: &Grant, unconfirmed_at: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO credential (id, task, agent, target, offer, decision, handle, granted_at, expires_at, state,
                                 next_try_at, tries)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, 0)",
    )?
    .execute(params![
        grant.id.as_bytes().as_slice(),
        grant.task.as_bytes().as_slice(),
        grant.agent.as_str(),
        grant.target.as_str(),
        grant.offer.as_str(),
        grant.decision.as_bytes().as_slice(),
        grant.handle,
        grant.granted_at.millis(),
        grant.expires_at.millis(),
        unconfirmed_at.millis(),
    ])
    .map(drop)
}

/// One grant.
pub(crate) fn one(db: &Connection, id: GrantId) -> Result<Option<GrantRecord>, Failure> {
    let sql = format!("SELECT {COLUMNS} FROM credential WHERE id = ?1");
    Ok(read(db, &sql, params![id.as_bytes().as_slice()])?.pop())
}

/// Grants, newest first.
pub(crate) fn query(db: &Connection, query: &GrantQuery) -> Result<Vec<GrantRecord>, Failure> {
    let mut sql = format!("SELECT {COLUMNS} FROM credential WHERE id < ?1");
    // No id is as large as this one: it stands for "from the newest".
    let before = query.before.map_or([0xff; 17].to_vec(), |id| id.as_bytes().to_vec());
    if query.standing_only {
        sql.push_str(" AND next_try_at IS NOT NULL");
    }
    let task = query.task.map(|task| task.as_bytes().to_vec());
    let target = query.target.as_ref().map(TargetName::as_str);
    let state = query.state.map(ordinal);
    sql.push_str(if task.is_some() { " AND task = ?3" } else { " AND ?3 IS NULL" });
    sql.push_str(if target.is_some() { " AND target = ?4" } else { " AND ?4 IS NULL" });
    sql.push_str(if state.is_some() { " AND state = ?5" } else { " AND ?5 IS NULL" });
    sql.push_str(" ORDER BY id DESC LIMIT ?2");
    read(db, &sql, params![before, query.limit.min(GRANTS_MAX) as u64, task, target, state])
}

/// Grants that something is to be done about, the revoked ones first.
pub(crate) fn due(db: &Connection, target: &TargetName, now: Timestamp, limit: usize) -> Result<Vec<GrantRecord>, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM credential
         WHERE target = ?1 AND (revoked_at IS NULL) = ?2 AND next_try_at <= ?3 ORDER BY next_try_at LIMIT ?4"
    );
    let limit = limit.min(GRANTS_MAX);
    let mut found = read(db, &sql, params![target.as_str(), 0, now.millis(), limit as u64])?;
    let rest = limit.saturating_sub(found.len());
    if rest > 0 {
        found.extend(read(db, &sql, params![target.as_str(), 1, now.millis(), rest as u64])?);
    }
    Ok(found)
}

/// What stands at each target.
pub(crate) fn counts(db: &Connection, now: Timestamp) -> Result<Vec<(TargetName, GrantCounts)>, Failure> {
    let failed = || sqlite("count grants");
    // What nobody revoked is due when its time is over: that instant alone ends it, whenever its target is told. All of it
    // stands in the index.
    let sql = "SELECT target, (revoked_at IS NULL) AND next_try_at > ?1, count(*), min(next_try_at) FROM credential
               WHERE next_try_at IS NOT NULL GROUP BY 1, 2";
    let mut statement = db.prepare_cached(sql).map_err(failed())?;
    let rows = statement
        .query_map([now.millis()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, u64>(2)?, row.get::<_, i64>(3)?))
        })
        .map_err(failed())?;
    let mut counts: Vec<(TargetName, GrantCounts)> = Vec::new();
    for row in rows {
        let (target, held, count, oldest) = row.map_err(failed())?;
        let target: TargetName = target.parse().map_err(|_| Unreadable("grant"))?;
        if counts.last().is_none_or(|(last, _)| *last != target) {
            counts.push((target, GrantCounts::default()));
        }
        let Some((_, entry)) = counts.last_mut() else { continue };
        *(if held { &mut entry.held } else { &mut entry.ending }) = count;
        let oldest = Some(Timestamp::from_millis(oldest)).filter(|oldest| *oldest <= now);
        entry.oldest_due = entry.oldest_due.into_iter().chain(oldest).min();
    }
    Ok(counts)
}

fn read(db: &Connection, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<GrantRecord>, Failure> {
    let failed = || sqlite("read grants");
    let mut statement = db.prepare_cached(sql).map_err(failed())?;
    let rows = statement.query_map(values, record).map_err(failed())?;
    let mut found = Vec::new();
    for row in rows {
        found.push(row.map_err(failed())?.ok_or(Unreadable("grant"))?);
    }
    Ok(found)
}

/// The columns of [`COLUMNS`]; `None` if they hold what none could have written.
fn record(row: &Row<'_>) -> rusqlite::Result<Option<GrantRecord>> {
    let text = |column: usize| row.get::<_, String>(column);
    let at = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis));
    let (agent, target, offer, state) = (text(2)?, text(3)?, text(4)?, row.get::<_, usize>(9)?);
    let (Ok(agent), Ok(target), Ok(offer), Some(state)) =
        (agent.parse(), target.parse(), offer.parse(), GrantState::ALL.get(state).copied())
    else {
        return Ok(None);
    };
    let grant = Grant {
        id: GrantId::from_bytes(row.get(0)?),
        task: TaskId::from_bytes(row.get(1)?),
        agent,
        target,
        offer,
        decision: DecisionId::from_bytes(row.get(5)?),
        handle: text(6)?,
        granted_at: Timestamp::from_millis(row.get(7)?),
        expires_at: Timestamp::from_millis(row.get(8)?),
        state,
        revoked_at: at(10)?,
    };
    let (reason, next_try_at, tries, sealed) = (row.get(11)?, at(12)?, row.get(13)?, row.get(14)?);
    Ok(Some(GrantRecord { grant, reason, next_try_at, tries, sealed }))
}
