//! Search over the log, newest first: entries that are not indexed yet are read one by one, older ones by bundle
//! through the index. Every hit is checked on the entry itself; nothing is answered from the index alone.

use auditlog::{
    edge::read_or_full,
    tile::{Entries, Resource, TILE_WIDTH},
};
use authority::ports::{LogEntry, LogPage, LogQuery};
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
pub(crate) fn search(shared: &Shared, readers: &Readers<'_>, query: &LogQuery) -> Result<LogPage, Error> {
    search_within(BUNDLES_MAX, shared, readers, query)
}

fn search_within(bundles_max: u64, shared: &Shared, readers: &Readers<'_>, query: &LogQuery) -> Result<LogPage, Error> {
    let Some(mut hunt) = Hunt::new(query, bundles_max) else { return Ok(LogPage::default()) };
    let (published, unpublished) = unpublished(shared, readers.database)?;
    hunt.take(published, unpublished);
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
            return Ok(hunt.broken_off());
        }
        hunt.take(n * TILE_WIDTH, read_bundle(shared, n, published)?);
    }
    let mut below = indexed;
    loop {
        if hunt.done() {
            return Ok(hunt.broken_off());
        }
        let found = hunt.candidates(query, below).find(readers.index).inspect_err(distrust)?;
        let Some(last) = found.last().copied() else { return Ok(LogPage { entries: hunt.hits, rest: None }) };
        for n in found {
            if hunt.done() {
                return Ok(hunt.broken_off());
            }
            hunt.take(n * TILE_WIDTH, read_bundle(shared, n, published)?);
        }
        below = last;
    }
}

/// One query on its way down the log.
struct Hunt<'a> {
    query: &'a LogQuery,
    times: (i64, i64),
    limit: usize,
    /// How many bundles it may still read.
    bundles: u64,
    /// Nothing below this was looked at.
    floor: u64,
    hits: Vec<LogEntry>,
}

impl<'a> Hunt<'a> {
    /// `None` if nothing can match.
    fn new(query: &'a LogQuery, bundles: u64) -> Option<Self> {
        let times = (query.since.map_or(i64::MIN, |t| t.millis()), query.until.map_or(i64::MAX, |t| t.millis()));
        let is_none = |(field, value): &(String, String)| field == "decision" && value.parse::<DecisionId>().is_err();
        if query.terms.iter().any(is_none) {
            return None;
        }
        let limit = query.limit.min(LIMIT_MAX);
        (times.0 <= times.1 && limit > 0).then(|| Self { query, times, limit, bundles, floor: u64::MAX, hits: Vec::new() })
    }

    fn done(&self) -> bool {
        self.hits.len() >= self.limit || self.bundles == 0
    }

    /// What was found, and where to go on.
    fn broken_off(self) -> LogPage {
        let last = self.hits.last().filter(|_| self.hits.len() >= self.limit).map(|hit| hit.index);
        LogPage { rest: Some(last.unwrap_or(self.floor)).filter(|rest| *rest > 0), entries: self.hits }
    }

    fn candidates(&self, query: &'a LogQuery, below: u64) -> Candidates<'a> {
        let before = query.before.map_or(u64::MAX, |before| before.div_ceil(TILE_WIDTH));
        Candidates { terms: &query.terms, times: self.times, below: below.min(before), limit: 64 }
    }

    /// Takes the matching ones of some entries that begin at `first`, the last first.
    fn take(&mut self, first: u64, entries: Vec<LogEntry>) {
        self.bundles = self.bundles.saturating_sub(1);
        self.floor = first;
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{Store, connection::open_reader, index::open_to_search, rig};
    use authority::ports::{Ledger, Write};

    /// A published and indexed log in which every hundredth entry is of a rare agent.
    async fn log(dir: &std::path::Path) -> Store {
        let store = rig::try_open(dir).unwrap();
        let event = |number: u64| {
            let agent = if number.is_multiple_of(100) { "rare" } else { "bot" };
            format!("{{\"agent\":\"{agent}\",\"at\":{number},\"outcome\":\"o{}\",\"type\":\"test\"}}", number % 2000).into_bytes()
        };
        for first in (0..3000).step_by(500) {
            store.commit(Write { events: (first..first + 500).map(event).collect(), changes: Vec::new() }).await.unwrap();
        }
        store.close();
        drop(store);
        rig::try_open_idle(dir).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_search_that_reads_only_so_much_says_where_to_go_on() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = log(dir.path()).await;
        let database = open_reader(&store.shared().database()).unwrap();
        let index = open_to_search(&store.shared().index()).unwrap();
        let readers = Readers { database: &database, index: &index };
        let pages = |bundles_max: u64, limit: usize, term: (&str, &str)| {
            let (mut found, mut empty, mut before) = (Vec::new(), 0, None);
            loop {
                let terms = vec![(term.0.to_owned(), term.1.to_owned())];
                let query = LogQuery { terms, before, limit, ..LogQuery::default() };
                let page = search_within(bundles_max, store.shared(), &readers, &query).unwrap();
                assert!(page.rest.is_none_or(|rest| before.is_none_or(|before| rest < before)), "it gets on");
                empty += usize::from(page.entries.is_empty() && page.rest.is_some());
                found.extend(page.entries.iter().map(|entry| entry.index));
                match page.rest {
                    Some(rest) => before = Some(rest),
                    None => return (found, empty),
                }
            }
        };
        let rare: Vec<u64> = (0..30).rev().map(|n| n * 100).collect();
        for (bundles_max, limit) in [(4096, 100), (4096, 7), (3, 100), (2, 4), (2, 1)] {
            assert_eq!(pages(bundles_max, limit, ("agent", "rare")).0, rare, "{bundles_max} bundles, {limit} entries");
        }
        // Nothing on the first pages is not nothing at all.
        let (found, empty) = pages(2, 10, ("outcome", "o44"));
        assert_eq!(found, [2044, 44]);
        assert!(empty > 0);
    }
}
