//! Search over the log, newest first: entries that are not indexed yet are read one by one, older ones by bundle
//! through the index. Every hit is checked on the entry itself; nothing is answered from the index alone.

use auditlog::{
    edge::read_or_full,
    tile::{Entries, Resource, TILE_WIDTH},
};
use authority::ports::{LogEntry, LogQuery};
use domain::DecisionId;
use rusqlite::Connection;

use crate::{
    batch::read_batches,
    error::Error,
    index::{Candidates, indexed, is_damage},
    shared::Shared,
    terms::Terms,
};

/// Most entries that one query may answer with.
const LIMIT_MAX: usize = 1000;
/// Most bundles that one query reads: about a million entries.
const BUNDLES_MAX: u64 = 4096;
/// The published size may move while it is read; it does not move often.
const ATTEMPTS: usize = 8;

/// The connections that a search reads through.
pub(crate) struct Readers<'a> {
    pub(crate) database: &'a Connection,
    pub(crate) index: &'a Connection,
}

/// Finds entries, newest first.
pub(crate) fn search(shared: &Shared, readers: &Readers<'_>, query: &LogQuery) -> Result<Vec<LogEntry>, Error> {
    let Some(mut hunt) = Hunt::new(query) else { return Ok(Vec::new()) };
    let (published, unpublished) = unpublished(shared, readers.database)?;
    hunt.take(unpublished);
    let distrust = |error: &Error| {
        if is_damage(error) {
            shared.distrust_index();
        }
    };
    let indexed = indexed(readers.index).inspect_err(distrust)?;
    let bundles = published.div_ceil(TILE_WIDTH);
    // What is not below `before` is not read at all.
    let end = query.before.map_or(bundles, |before| before.div_ceil(TILE_WIDTH).min(bundles));
    for n in (indexed.min(end)..end).rev() {
        if hunt.done() {
            return Ok(hunt.hits);
        }
        hunt.take(read_bundle(shared, n, published)?);
    }
    let mut below = indexed;
    loop {
        if hunt.done() {
            return Ok(hunt.hits);
        }
        let found = hunt.candidates(query, below).find(readers.index).inspect_err(distrust)?;
        let Some(last) = found.last().copied() else { return Ok(hunt.hits) };
        for n in found {
            if hunt.done() {
                return Ok(hunt.hits);
            }
            hunt.take(read_bundle(shared, n, published)?);
        }
        below = last;
    }
}

/// One query on its way down the log.
struct Hunt<'a> {
    query: &'a LogQuery,
    times: (i64, i64),
    limit: usize,
    bundles: u64,
    hits: Vec<LogEntry>,
}

impl<'a> Hunt<'a> {
    /// `None` if nothing can match.
    fn new(query: &'a LogQuery) -> Option<Self> {
        let times = (query.since.map_or(i64::MIN, |t| t.millis()), query.until.map_or(i64::MAX, |t| t.millis()));
        let is_none = |(field, value): &(String, String)| field == "decision" && value.parse::<DecisionId>().is_err();
        if query.terms.iter().any(is_none) {
            return None;
        }
        let limit = query.limit.min(LIMIT_MAX);
        (times.0 <= times.1 && limit > 0).then(|| Self { query, times, limit, bundles: 0, hits: Vec::new() })
    }

    fn done(&self) -> bool {
        self.hits.len() >= self.limit || self.bundles >= BUNDLES_MAX
    }

    fn candidates(&self, query: &'a LogQuery, below: u64) -> Candidates<'a> {
        let before = query.before.map_or(u64::MAX, |before| before.div_ceil(TILE_WIDTH));
        Candidates { terms: &query.terms, times: self.times, below: below.min(before), limit: 64 }
    }

    /// Takes the matching ones of some entries, the last first.
    fn take(&mut self, entries: Vec<LogEntry>) {
        self.bundles += 1;
        for entry in entries.into_iter().rev() {
            if self.hits.len() >= self.limit {
                return;
            }
            if self.query.before.is_none_or(|before| entry.index < before) && self.matches(&entry.leaf) {
                self.hits.push(entry);
            }
        }
    }

    fn matches(&self, leaf: &[u8]) -> bool {
        let terms = Terms::of_leaf(leaf);
        (self.times.0..=self.times.1).contains(&terms.at) && self.query.terms.iter().all(|(f, v)| terms.has(f, v))
    }
}

/// The published size, and the entries above it.
fn unpublished(shared: &Shared, database: &Connection) -> Result<(u64, Vec<LogEntry>), Error> {
    for _ in 0..ATTEMPTS {
        let published = shared.published();
        let batches = read_batches(database, shared, published, u64::MAX)?;
        // Batches are forgotten only after `published` moved on: if the first one is gone, so it has.
        if batches.first().is_some_and(|batch| batch.first != published) || published != shared.published() {
            continue;
        }
        let mut entries = Vec::new();
        for batch in batches {
            collect(batch.first, &batch.packed, u64::MAX, &mut entries)?;
        }
        return Ok((published, entries));
    }
    // The log moves faster than it is read. What is published is the answer; the newest moments are missing from it.
    Ok((shared.published(), Vec::new()))
}

fn read_bundle(shared: &Shared, n: u64, published: u64) -> Result<Vec<LogEntry>, Error> {
    let last = published.min((n + 1) * TILE_WIDTH).saturating_sub(1);
    let mut entries = Vec::new();
    if let Some(bundle) = Resource::bundle_of(last, published) {
        let (_, bytes) = read_or_full(shared.tiles.files(), bundle)?;
        collect(n * TILE_WIDTH, &bytes, published, &mut entries)?;
    }
    Ok(entries)
}

fn collect(first: u64, packed: &[u8], below: u64, entries: &mut Vec<LogEntry>) -> Result<(), Error> {
    for (index, leaf) in (first..below).zip(Entries::new(packed)) {
        entries.push(LogEntry { index, leaf: leaf?.to_vec() });
    }
    Ok(())
}
