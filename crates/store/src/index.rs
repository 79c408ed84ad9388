//! The search index: which bundles of 256 entries hold a term. A rebuildable projection of the published log in
//! a database file of its own, so that it costs the writer nothing and may be deleted at any time.
//!
//! Terms are stored as 64-bit hashes: a collision costs a bundle read in vain, never a wrong answer, because
//! every hit is checked against the entry itself.

use std::{
    collections::{BTreeSet, HashSet},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use auditlog::{
    edge::read_or_full,
    hash::Hash,
    port::LogFiles,
    tile::{Entries, Resource, TILE_WIDTH},
};
use domain::DecisionId;
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, params_from_iter};

use crate::{
    connection::make_private,
    error::{Error, io, sqlite},
    terms::Terms,
};

/// Changes when the terms of an entry are read differently: the index is then built anew.
const FORMAT: i64 = 2;
/// How far before the time in its decision's id an entry's time may be, in milliseconds, and how far after it: what most
/// calls take. An entry outside is found by a posting of its own: the outcome of a long call, or of one while the clock was set.
const DECISION_BEFORE: i64 = 5_000;
const DECISION_AFTER: i64 = 20_000;
/// Most terms of one query; more are checked on the entries only.
const QUERY_TERMS_MAX: usize = 8;

/// The index as the publisher holds it: the only one that writes there.
pub(crate) struct Index {
    path: PathBuf,
    connection: Connection,
}

/// Opens the index for the publisher; makes it anew if it is missing, of another format, or not to be opened.
pub(crate) fn open_index(path: &Path) -> Result<Index, Error> {
    let connection = try_open(path).or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the search index is unusable and will be built anew");
        remove(path)?;
        try_open(path)
    })?;
    Ok(Index { path: path.to_owned(), connection })
}

/// Opens the index for a search. One that is not there is not made: an empty file would have no tables.
pub(crate) fn open_to_search(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(sqlite("open the search index"))
}

/// Whether an error of the index says that it holds something else than it should: it cannot get well by waiting.
pub(crate) fn is_damage(error: &Error) -> bool {
    let Error::Sqlite { source, .. } = error else { return false };
    match source.sqlite_error_code() {
        // `Unknown` is the code of a statement that does not fit the tables: they are not those of an index.
        Some(code) => {
            use ErrorCode::{ConstraintViolation, DatabaseCorrupt, NotADatabase, Unknown};
            matches!(code, DatabaseCorrupt | NotADatabase | Unknown | ConstraintViolation)
        }
        // A row that does not read as what was written.
        None => true,
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        match std::fs::remove_file(&file) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", file)(source)),
            _ => {}
        }
    }
    Ok(())
}

impl Index {
    /// Throws it away and begins anew. Who has the old one open reads that to its end, and finds the rest in the log.
    pub(crate) fn renew(&mut self) -> Result<(), Error> {
        remove(&self.path)?;
        self.connection = try_open(&self.path)?;
        Ok(())
    }

    /// Indexes the full bundles below `published` that are not indexed yet, at most `bundles_max`. Gives how many.
    pub(crate) fn catch_up(&mut self, files: &impl LogFiles, published: u64, bundles_max: u64) -> Result<u64, Error> {
        let start = indexed(&self.connection)?;
        if start > published / TILE_WIDTH {
            // Of another log, or of this one before it was set back: what it says of the next bundles is not theirs.
            tracing::warn!("the search index knows more than this log holds, and will be built anew");
            self.renew()?;
            return self.catch_up_from(0, files, published, bundles_max);
        }
        self.catch_up_from(start, files, published, bundles_max)
    }

    fn catch_up_from(&mut self, start: u64, files: &impl LogFiles, published: u64, bundles_max: u64) -> Result<u64, Error> {
        let end = (published / TILE_WIDTH).min(start.saturating_add(bundles_max));
        if end <= start {
            return Ok(0);
        }
        let failed = || sqlite("extend the search index");
        let step = self.connection.transaction().map_err(failed())?;
        for n in start..end {
            insert(&step, files, n)?;
        }
        step.commit().map_err(failed())?;
        Ok(end - start)
    }
}

fn try_open(path: &Path) -> Result<Connection, Error> {
    make_private(path)?;
    let connection = Connection::open(path).map_err(sqlite("open the search index"))?;
    let setup = || -> rusqlite::Result<i64> {
        // A lost end is indexed again, so no sync is needed.
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS posting (term INTEGER, bundle INTEGER, PRIMARY KEY (term, bundle)) STRICT, WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS bundle (n INTEGER PRIMARY KEY, at_min INTEGER NOT NULL, at_max INTEGER NOT NULL) STRICT;",
        )?;
        connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    };
    let found = setup().map_err(sqlite("prepare the search index"))?;
    if found != FORMAT {
        let rebuild = format!("DELETE FROM posting; DELETE FROM bundle; PRAGMA user_version = {FORMAT}");
        connection.execute_batch(&rebuild).map_err(sqlite("prepare the search index"))?;
    }
    Ok(connection)
}

/// Number of bundles that are indexed: all below this.
pub(crate) fn indexed(index: &Connection) -> Result<u64, Error> {
    index.query_row("SELECT coalesce(max(n) + 1, 0) FROM bundle", [], |row| row.get(0)).map_err(sqlite("read the search index"))
}

/// Indexes one full bundle.
fn insert(index: &Connection, files: &impl LogFiles, n: u64) -> Result<(), Error> {
    let failed = || sqlite("extend the search index");
    let (_, bytes) = read_or_full(files, Resource::Bundle { n, width: 256 })?;
    let (mut distinct, mut at_min, mut at_max) = (HashSet::new(), i64::MAX, i64::MIN);
    for entry in Entries::new(&bytes) {
        let terms = Terms::of_leaf(entry?);
        at_min = at_min.min(terms.at);
        at_max = at_max.max(terms.at);
        // Decisions are found by the time in their id: a posting for each would be as large as the log.
        let at = terms.at;
        let in_time = |value: &str| value.parse().is_ok_and(|id| told_of(id).contains(&at));
        distinct.extend(terms.terms.into_iter().filter(|(field, value)| *field != "decision" || !in_time(value)));
    }
    // In order, as the table keeps them.
    let postings: BTreeSet<i64> = distinct.iter().map(|(field, value)| term_hash(field, value)).collect();
    for term in postings {
        index
            .prepare_cached("INSERT OR IGNORE INTO posting (term, bundle) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute((term, n)))
            .map_err(failed())?;
    }
    index
        .prepare_cached("INSERT INTO bundle (n, at_min, at_max) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute((n, at_min, at_max)))
        .map(drop)
        .map_err(failed())
}

/// Which bundles may hold what is looked for.
pub(crate) struct Candidates<'a> {
    /// Terms that the bundle must hold.
    pub(crate) terms: &'a [(String, String)],
    /// Times of which the bundle must hold one, inclusive.
    pub(crate) times: (i64, i64),
    /// Only bundles below this.
    pub(crate) below: u64,
    /// At most so many.
    pub(crate) limit: u64,
}

impl Candidates<'_> {
    /// The indexed bundles in question, newest first.
    pub(crate) fn find(&self, index: &Connection) -> Result<Vec<u64>, Error> {
        let mut sql = "SELECT b.n FROM bundle b".to_owned();
        let indexed_terms = self.terms.iter().filter(|(field, _)| field != "decision").take(QUERY_TERMS_MAX);
        let hashes: Vec<i64> = indexed_terms.map(|(field, value)| term_hash(field, value)).collect();
        for number in 0..hashes.len() {
            sql.push_str(&format!(" JOIN posting p{number} ON p{number}.bundle = b.n AND p{number}.term = ?{}", number + 1));
        }
        let next = hashes.len() + 1;
        sql.push_str(&format!(" WHERE b.n < ?{next} AND b.at_max >= ?{} AND b.at_min <= ?{}", next + 1, next + 2));
        for (_, value) in self.terms.iter().filter(|(field, _)| field == "decision") {
            let Ok(id) = value.parse() else { return Ok(Vec::new()) };
            let (times, hash) = (told_of(id), term_hash("decision", value));
            sql.push_str(&format!(
                " AND (b.at_max >= {} AND b.at_min <= {} OR EXISTS (SELECT 1 FROM posting WHERE term = {hash} AND bundle = b.n))",
                times.start(),
                times.end()
            ));
        }
        sql.push_str(&format!(" ORDER BY b.n DESC LIMIT ?{}", next + 3));
        let bounds = [clamp(self.below), self.times.0, self.times.1, clamp(self.limit)];
        let values = hashes.iter().chain(&bounds).map(|value| value as &dyn ToSql);
        let failed = || sqlite("search the index");
        let mut statement = index.prepare_cached(&sql).map_err(failed())?;
        let rows = statement.query_map(params_from_iter(values), |row| row.get(0)).map_err(failed())?;
        rows.collect::<Result<_, _>>().map_err(failed())
    }
}

fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The times of most entries that speak of a decision. Its id is a UUIDv7: the first 48 bits are milliseconds.
fn told_of(id: DecisionId) -> RangeInclusive<i64> {
    let bytes = id.as_bytes().iter().take(6);
    let at = bytes.fold(0, |millis, byte| (millis << 8) | i64::from(*byte));
    at - DECISION_BEFORE..=at + DECISION_AFTER
}

fn term_hash(field: &str, value: &str) -> i64 {
    let mut input = field.as_bytes().to_vec();
    input.push(0);
    input.extend_from_slice(value.as_bytes());
    let hash = Hash::of_leaf(&input);
    hash.as_bytes().first_chunk::<8>().map_or(0, |first| i64::from_be_bytes(*first))
}
