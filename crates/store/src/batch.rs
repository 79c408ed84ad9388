//! The rows of committed, unpublished batches and the one row that says where log and chain stand.
//!
//! Rows are believed only if this node's signature is on them. [`Rows`] serves recovery and the publisher.

use auditlog::{checkpoint::Head, hash::Hash, note::VerifierKey, port::BatchLedger, sequence::StoredBatch};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    chain::{Chain, is_signed},
    error::{Error, sqlite},
    progress,
    shared::{Made, Shared},
};

/// Where log and chain stand, and the newest checkpoint that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) head: Head,
    pub(crate) chain: Chain,
    pub(crate) checkpoint: Option<Vec<u8>>,
}

/// Reads the position; `None` in a database that no node has used.
pub(crate) fn read_position(db: &Connection) -> Result<Option<Position>, Error> {
    let read = |row: &Row<'_>| -> rusqlite::Result<Position> {
        Ok(Position {
            head: Head { size: row.get(0)?, root: Hash::from_bytes(row.get(1)?) },
            chain: Chain { epoch: row.get(2)?, seq: row.get(3)?, last: Hash::from_bytes(row.get(4)?) },
            checkpoint: row.get(5)?,
        })
    };
    db.prepare_cached("SELECT size, root, epoch, seq, chain, checkpoint FROM log_head WHERE one = 1")
        .and_then(|mut statement| statement.query_row([], read).optional())
        .map_err(sqlite("read where the log stands"))
}

/// Writes where log and chain stand; leaves the checkpoint.
pub(crate) fn write_position(db: &Connection, head: Head, chain: &Chain) -> Result<(), Error> {
    db.prepare_cached(
        "INSERT INTO log_head (one, size, root, epoch, seq, chain) VALUES (1, ?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (one) DO UPDATE SET size = excluded.size, root = excluded.root, epoch = excluded.epoch,
                                         seq = excluded.seq, chain = excluded.chain",
    )
    .and_then(|mut statement| {
        let (root, last) = (head.root.as_bytes().as_slice(), chain.last.as_bytes().as_slice());
        statement.execute(params![head.size, root, chain.epoch, chain.seq, last])
    })
    .map(drop)
    .map_err(sqlite("record where the log stands"))
}

/// What goes with a batch in its row.
pub(crate) struct Sealed {
    /// The node's signature.
    pub(crate) signature: Vec<u8>,
    /// How far its tasks are ([`crate::progress`]).
    pub(crate) progress: Option<Vec<u8>>,
}

/// Writes a batch.
pub(crate) fn insert_batch(db: &Connection, batch: &StoredBatch, chain: &Chain, sealed: &Sealed) -> Result<(), Error> {
    db.prepare_cached(
        "INSERT INTO log_batch (first, count, size, root, frontier, epoch, chain, signature, progress, packed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            batch.first,
            batch.count,
            batch.head.size,
            batch.head.root.as_bytes().as_slice(),
            batch.frontier,
            chain.epoch,
            chain.last.as_bytes().as_slice(),
            sealed.signature,
            sealed.progress,
            batch.packed,
        ])
    })
    .map(drop)
    .map_err(sqlite("append to the log"))
}

/// Records a checkpoint that is about to be published.
pub(crate) fn record_checkpoint(db: &Connection, note: &[u8]) -> Result<(), Error> {
    db.prepare_cached("UPDATE log_head SET checkpoint = ?1 WHERE one = 1")
        .and_then(|mut statement| statement.execute(params![note]))
        .map(drop)
        .map_err(sqlite("record a checkpoint"))
}

/// Drops the batches that lie below `size`. How far their tasks are moves to the tasks.
pub(crate) fn forget_below(db: &Connection, size: u64) -> Result<(), Error> {
    progress::store(db, &progress::beside(db, size)?)?;
    db.prepare_cached("DELETE FROM log_batch WHERE size <= ?1 AND first < ?1")
        .and_then(|mut statement| statement.execute(params![size]))
        .map(drop)
        .map_err(sqlite("forget published batches"))
}

/// Why a row is believed.
pub(crate) trait Believe {
    /// Whether this node made the batch.
    fn believes(&self, batch: &Made, signature: &[u8]) -> bool;
}

/// By its signature alone.
impl Believe for VerifierKey {
    fn believes(&self, batch: &Made, signature: &[u8]) -> bool {
        is_signed(self, batch, signature)
    }
}

/// Because this process made it, else by its signature.
impl Believe for Shared {
    fn believes(&self, batch: &Made, signature: &[u8]) -> bool {
        self.is_own(batch) || is_signed(&self.node_key, batch, signature)
    }
}

/// Reads batches, checking that this node made each.
pub(crate) fn read_batches(
    db: &Connection,
    believe: &impl Believe,
    first: u64,
    leaves_max: u64,
) -> Result<Vec<StoredBatch>, Error> {
    let failed = || sqlite("read the log's batches");
    let mut statement = db
        .prepare_cached(
            "SELECT first, count, size, root, frontier, packed, epoch, chain, signature
             FROM log_batch WHERE first >= ?1 ORDER BY first",
        )
        .map_err(failed())?;
    let mut rows = statement.query(params![first]).map_err(failed())?;
    let (mut batches, mut leaves) = (Vec::new(), 0_u64);
    while let Some(row) = rows.next().map_err(failed())? {
        let (batch, signed) = read_batch(row, believe).map_err(failed())?;
        if !signed {
            return Err(Error::BatchUnsigned { first: batch.first });
        }
        leaves = leaves.saturating_add(batch.count);
        batches.push(batch);
        if leaves >= leaves_max {
            break;
        }
    }
    Ok(batches)
}

fn read_batch(row: &Row<'_>, believe: &impl Believe) -> rusqlite::Result<(StoredBatch, bool)> {
    let batch = StoredBatch {
        first: row.get(0)?,
        count: row.get(1)?,
        head: Head { size: row.get(2)?, root: Hash::from_bytes(row.get(3)?) },
        frontier: row.get(4)?,
        packed: row.get(5)?,
    };
    let made = Made { first: batch.first, head: batch.head, epoch: row.get(6)?, last: Hash::from_bytes(row.get(7)?) };
    let signature: Vec<u8> = row.get(8)?;
    let signed = believe.believes(&made, &signature);
    Ok((batch, signed))
}

/// The batches through one connection, for recovery: nothing else runs yet.
pub(crate) struct Rows<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) node_key: &'a VerifierKey,
}

impl BatchLedger for Rows<'_> {
    fn batches_from(&mut self, first: u64, leaves_max: u64) -> Result<Vec<StoredBatch>, auditlog::Error> {
        read_batches(self.db, self.node_key, first, leaves_max).map_err(ledger("read batches"))
    }

    fn record_checkpoint(&mut self, _: Head, note: &[u8]) -> Result<(), auditlog::Error> {
        record_checkpoint(self.db, note).map_err(ledger("record a checkpoint"))
    }

    fn forget_below(&mut self, size: u64) -> Result<(), auditlog::Error> {
        forget_below(self.db, size).map_err(ledger("forget batches"))
    }
}

/// Carries an error of the store through the log.
pub(crate) fn ledger(action: &'static str) -> impl FnOnce(Error) -> auditlog::Error {
    move |error| auditlog::Error::Ledger { action, source: Box::new(error) }
}
