//! A batch on its way into the transaction: indices, leaves and joined progress of its writes. Decides nothing about when
//! a batch is committed, and answers nobody.

use std::collections::HashMap;

use auditlog::hash::Hash;
use authority::ports::LedgerError;
use domain::{Progress, TaskId, Timestamp};
use rusqlite::Connection;

use crate::{
    chain::Chain,
    change::{Prepared, apply, is_replay},
    error::Error,
};

/// A batch that is being put together.
pub(super) struct Batch {
    next: u64,
    pub(super) chain: Chain,
    pub(super) leaves: Vec<Vec<u8>>,
    pub(super) hashes: Vec<Hash>,
    pub(super) progress: HashMap<TaskId, Progress>,
    pub(super) results: Vec<Result<u64, LedgerError>>,
    /// Position of a write that wants its leaf, and of that leaf.
    pub(super) wanted: Vec<(usize, usize)>,
}

impl Batch {
    pub(super) fn new(next: u64, chain: Chain) -> Self {
        Self {
            next,
            chain,
            leaves: Vec::new(),
            hashes: Vec::new(),
            progress: HashMap::new(),
            results: Vec::new(),
            wanted: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        db: &Connection,
        node: &str,
        write: Prepared,
        now: Timestamp,
        wants_leaf: Option<usize>,
    ) -> Result<(), Error> {
        if is_replay(db, &write.rows, now)? {
            self.results.push(Err(LedgerError::Replayed));
            return Ok(());
        }
        let first = self.next;
        if let Some(position) = wants_leaf {
            self.wanted.push((position, self.leaves.len()));
        }
        for event in &write.events {
            let mut leaf = Vec::new();
            self.hashes.push(self.chain.wrap(node, event, &mut leaf));
            self.leaves.push(leaf);
            self.next += 1;
        }
        apply(db, write.rows, first, &mut self.progress)?;
        self.results.push(Ok(first));
        Ok(())
    }
}
