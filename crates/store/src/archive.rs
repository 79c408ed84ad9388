//! The read ports: state, search, openings, and the published log's files and proofs. All of it runs on the
//! blocking pool over a few connections of its own; nothing here can hold up the writer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use auditlog::{
    checkpoint::Checkpoint,
    port::LogFiles,
    proof::prove_inclusion,
    reader::Published,
    receipt::Receipt,
    tile::{CHECKPOINT_PATH, Resource},
};
use authority::ports::{
    Archive, ArchiveError, GrantArchive, GrantCounts, GrantQuery, GrantRecord, Loaded, LogEntry, LogPage, LogQuery, PublishedLog,
    TaskQuery,
};
use domain::{DecisionId, GrantId, Progress, TargetName, Task, TaskId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use crate::{
    Store,
    connection::open_reader,
    error::{Error, sqlite},
    index::open_to_search,
    progress::{StoredProgress, beside},
    record::{TaskRow, Unreadable, decode_agent, decode_task, decode_upstream},
    search::{Readers, search},
    shared::Shared,
};

/// Most reads of the database at a time.
const READERS_MAX: usize = 4;
/// Most reads of published files at a time. Anybody may ask for those, so they have places of their own: however many
/// wait, no operator's read waits behind them.
const FILE_READERS_MAX: usize = 4;
/// Most tasks that one query may answer with.
const TASKS_MAX: usize = 1000;
const TASK_COLUMNS: &str = "id, agent, record, workload, calls_used, read_untrusted, read_sensitivity,
                            seen_at, attested_at, ended_at, end_reason";

/// A pair of connections: state, and search index.
struct Pair {
    database: Connection,
    index: Connection,
    /// Of which index ([`Shared::index_generation`]).
    generation: u64,
}

/// Connections that are open and not in use.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    idle: Mutex<Vec<Pair>>,
    permits: Semaphore,
    file_permits: Semaphore,
}

impl Pool {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            idle: Mutex::default(),
            permits: Semaphore::new(READERS_MAX),
            file_permits: Semaphore::new(FILE_READERS_MAX),
        }
    }

    fn take(&self) -> Result<Pair, Error> {
        let generation = self.shared.index_generation();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|pair| pair.generation == generation);
        if let Some(pair) = idle.pop() {
            return Ok(pair);
        }
        drop(idle);
        let path = self.shared.index();
        let index = open_to_search(&path).inspect_err(|_| {
            // It may be deleted at any time; any other trouble is no reason to begin anew.
            if !path.exists() {
                self.shared.distrust_index();
            }
        })?;
        Ok(Pair { database: open_reader(&self.shared.database())?, index, generation })
    }

    fn give_back(&self, pair: Pair) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(pair);
    }
}

impl Store {
    /// Runs a read on the blocking pool.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared, &Readers<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let pool = Arc::clone(self.pool());
        let unavailable = |what: &str| ArchiveError::Unavailable(what.to_owned());
        let _permit = self.pool().permits.acquire().await.map_err(|_| unavailable("the store has stopped"))?;
        let work = move || {
            let pair = pool.take()?;
            let readers = Readers { database: &pair.database, index: &pair.index };
            let result = read(&pool.shared, &readers);
            // After an error the connection may be the cause: a new one is opened next time.
            if result.is_ok() {
                pool.give_back(pair);
            }
            result
        };
        let result = tokio::task::spawn_blocking(work).await.map_err(|_| unavailable("a read did not finish"))?;
        result.map_err(ArchiveError::from)
    }
}

/// Why a read failed.
pub(crate) enum Failure {
    Store(Error),
    Record(Unreadable),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        Self::Record(error)
    }
}

impl From<auditlog::Error> for Failure {
    fn from(error: auditlog::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<Failure> for ArchiveError {
    fn from(failure: Failure) -> Self {
        let error = match failure {
            Failure::Record(unreadable) => return Self::Damaged(unreadable.to_string()),
            Failure::Store(error) => error,
        };
        tracing::error!(error = &error as &dyn std::error::Error, "the store cannot be read");
        match &error {
            Error::Damaged { .. } | Error::BatchUnsigned { .. } => Self::Damaged(error.brief().to_owned()),
            Error::Log(auditlog::Error::FileMissing { .. } | auditlog::Error::FileCorrupt { .. }) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Unavailable(error.brief().to_owned()),
        }
    }
}

#[async_trait]
impl Archive for Store {
    async fn load(&self) -> Result<Loaded, ArchiveError> {
        let now = self.shared().clock.now();
        self.read(move |_, readers| load(readers.database, now)).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, ArchiveError> {
        let read = move |_: &Shared, readers: &Readers<'_>| {
            let sql = format!("SELECT {TASK_COLUMNS} FROM task WHERE id = ?1");
            let tasks = tasks(readers.database, &sql, params![id.as_bytes().as_slice()])?;
            Ok(tasks.into_iter().next())
        };
        self.read(read).await
    }

    async fn tasks(&self, query: TaskQuery) -> Result<Vec<Task>, ArchiveError> {
        let read = move |_: &Shared, readers: &Readers<'_>| {
            let mut sql = format!("SELECT {TASK_COLUMNS} FROM task WHERE id < ?1");
            // No id is as large as this one: it stands for "from the newest".
            let before = query.before.map_or([0xff; 17].to_vec(), |id| id.as_bytes().to_vec());
            if query.open_only {
                sql.push_str(" AND ended_at IS NULL");
            }
            let agent = query.agent.map(|agent| agent.as_str().to_owned());
            sql.push_str(if agent.is_some() { " AND agent = ?3" } else { " AND ?3 IS NULL" });
            sql.push_str(" ORDER BY id DESC LIMIT ?2");
            tasks(readers.database, &sql, params![before, query.limit.min(TASKS_MAX) as u64, agent])
        };
        self.read(read).await
    }

    async fn search(&self, query: LogQuery) -> Result<LogPage, ArchiveError> {
        self.read(move |shared, readers| Ok(search(shared, readers, &query)?)).await
    }

    async fn opening(&self, index: u64) -> Result<Option<(Vec<u8>, Vec<u8>)>, ArchiveError> {
        let read = move |_: &Shared, readers: &Readers<'_>| {
            let sql = "SELECT o.sealed, t.wrapped_key FROM opening o JOIN task t ON t.id = o.task
                       WHERE o.entry = ?1 AND t.wrapped_key IS NOT NULL";
            let opening = readers
                .database
                .prepare_cached(sql)
                .and_then(|mut statement| statement.query_row([index], |row| Ok((row.get(0)?, row.get(1)?))).optional());
            Ok(opening.map_err(sqlite("read an opening"))?)
        };
        self.read(read).await
    }

    async fn decision(&self, id: DecisionId) -> Result<Option<LogEntry>, ArchiveError> {
        let terms = vec![("decision".to_owned(), id.to_string()), ("type".to_owned(), "decision".to_owned())];
        let found = self.search(LogQuery { terms, limit: 1, ..LogQuery::default() }).await?;
        Ok(found.entries.into_iter().next())
    }
}

#[async_trait]
impl GrantArchive for Store {
    async fn grant(&self, id: GrantId) -> Result<Option<GrantRecord>, ArchiveError> {
        self.read(move |_, readers| crate::grant::one(readers.database, id)).await
    }

    async fn grants(&self, query: GrantQuery) -> Result<Vec<GrantRecord>, ArchiveError> {
        self.read(move |_, readers| crate::grant::query(readers.database, &query)).await
    }

    async fn due_grants(&self, target: &TargetName, now: Timestamp, limit: usize) -> Result<Vec<GrantRecord>, ArchiveError> {
        let target = target.clone();
        self.read(move |_, readers| crate::grant::due(readers.database, &target, now, limit)).await
    }

    async fn grant_counts(&self, now: Timestamp) -> Result<Vec<(TargetName, GrantCounts)>, ArchiveError> {
        self.read(move |_, readers| crate::grant::counts(readers.database, now)).await
    }
}

fn load(db: &Connection, now: Timestamp) -> Result<Loaded, Failure> {
    let failed = || sqlite("load its records");
    let pairs = |sql: &str| -> Result<Vec<(String, String)>, Error> {
        let mut statement = db.prepare(sql).map_err(failed())?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed())?;
        rows.collect::<Result<_, _>>().map_err(failed())
    };
    let known = beside(db, u64::MAX)?;
    let agents = pairs("SELECT id, record FROM agent")?;
    let upstreams = pairs("SELECT name, record FROM upstream")?;
    let sql = format!("SELECT {TASK_COLUMNS}, wrapped_key FROM task WHERE ended_at IS NULL ORDER BY id");
    let mut statement = db.prepare(&sql).map_err(failed())?;
    let rows = statement.query_map([], |row| Ok((task_row(row)?, row.get(11)?))).map_err(failed())?;
    let mut open = Vec::new();
    for row in rows {
        let (row, key): (Option<TaskRow>, Option<Vec<u8>>) = row.map_err(failed())?;
        open.push((task_of(row, &known)?, key.unwrap_or_default()));
    }
    let mut statement = db.prepare("SELECT jti, expires FROM revoked_token WHERE expires > ?1").map_err(failed())?;
    let tokens = statement
        .query_map([now.millis()], |row| Ok((row.get(0)?, Timestamp::from_millis(row.get(1)?))))
        .and_then(Iterator::collect)
        .map_err(failed())?;
    Ok(Loaded {
        agents: agents.iter().map(|(id, record)| decode_agent(id, record)).collect::<Result<_, _>>()?,
        upstreams: upstreams.iter().map(|(name, record)| decode_upstream(name, record)).collect::<Result<_, _>>()?,
        tasks: open,
        revoked_tokens: tokens,
    })
}

fn tasks(db: &Connection, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Task>, Failure> {
    let failed = || sqlite("read tasks");
    // First: what is forgotten in between is in the rows by then.
    let known = beside(db, u64::MAX)?;
    let mut statement = db.prepare_cached(sql).map_err(failed())?;
    let rows = statement.query_map(values, task_row).map_err(failed())?;
    let mut tasks = Vec::new();
    for row in rows {
        tasks.push(task_of(row.map_err(failed())?, &known)?);
    }
    Ok(tasks)
}

fn task_of(row: Option<TaskRow>, known: &HashMap<TaskId, Progress>) -> Result<Task, Unreadable> {
    let mut task = decode_task(row.ok_or(Unreadable("task"))?)?;
    task.progress = known.get(&task.id).map_or(task.progress, |beside| task.progress.joined(*beside));
    Ok(task)
}

/// The columns of [`TASK_COLUMNS`]; `None` if they hold what none could have written.
fn task_row(row: &Row<'_>) -> rusqlite::Result<Option<TaskRow>> {
    let progress = StoredProgress {
        calls_used: row.get(4)?,
        read_untrusted: row.get(5)?,
        read_sensitivity: row.get(6)?,
        seen_at: row.get(7)?,
        attested_at: row.get(8)?,
        ended_at: row.get(9)?,
        end_reason: row.get(10)?,
    };
    let Some(progress) = progress.decode() else { return Ok(None) };
    let (id, agent, record, workload) = (TaskId::from_bytes(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(Some(TaskRow { id, agent, record, workload, progress }))
}

#[async_trait]
impl PublishedLog for Store {
    async fn file(&self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        if path != CHECKPOINT_PATH && Resource::parse(path).is_err() {
            return Ok(None);
        }
        let (path, pool) = (path.to_owned(), Arc::clone(self.pool()));
        let unavailable = |what: &str| ArchiveError::Unavailable(what.to_owned());
        let _permit = self.pool().file_permits.acquire().await.map_err(|_| unavailable("the store has stopped"))?;
        let read = tokio::task::spawn_blocking(move || pool.shared.tiles.files().read(&path));
        let read = read.await.map_err(|_| unavailable("a read did not finish"))?;
        read.map_err(|error| Failure::from(error).into())
    }

    async fn proof(&self, index: u64) -> Result<Option<String>, ArchiveError> {
        self.read(move |shared, _| proof(shared, index)).await
    }

    fn sizes(&self) -> (u64, u64) {
        (self.shared().committed(), self.shared().published())
    }
}

fn proof(shared: &Shared, index: u64) -> Result<Option<String>, Failure> {
    let Some(checkpoint) = shared.tiles.files().read(CHECKPOINT_PATH)? else { return Ok(None) };
    let head = Checkpoint::open(&checkpoint, &shared.log_key)?.head;
    if index >= head.size {
        return Ok(None);
    }
    let path = prove_inclusion(&Published::new(&shared.tiles, head.size), index, head.size)?;
    let receipt = Receipt { extra: None, index, path, checkpoint };
    Ok(Some(String::from_utf8_lossy(&receipt.encode()).into_owned()))
}
