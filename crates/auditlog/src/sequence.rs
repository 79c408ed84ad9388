//! Where entries get their index: a batch is appended to the frontier, and the result is one value that a
//! database stores in one row, in the same transaction as the state changes that the entries tell of.
//!
//! On one node assigning and integrating are therefore the same moment: once the row is committed, each
//! entry has its index and the tree its new root, for good. Normal run and recovery share [`integrate`].
//! Pure; knows no database. Published tiles and checkpoints follow behind (`publish`).

use crate::{
    Error,
    checkpoint::Head,
    hash::Hash,
    tile::{Entries, LEAF_LEN_MAX, pack_entry},
    tree::{Frontier, Node},
};

/// A committed batch as the database holds it until durable tiles cover it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Index of the first entry.
    pub first: u64,
    /// Number of entries.
    pub count: u64,
    /// The entries, each with its big-endian u16 length before it, as bundles hold them.
    pub packed: Vec<u8>,
    /// The tree after the batch.
    pub head: Head,
    /// The frontier after the batch, as [`Frontier::encode`] gives it: a start needs nothing older.
    pub frontier: Vec<u8>,
}

impl StoredBatch {
    /// Index after the last entry.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// The effect of appending a batch, not yet stored.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Index of the first entry.
    pub first: u64,
    /// Hash of each entry, in order.
    pub leaves: Vec<Hash>,
    /// The tree after the batch.
    pub head: Head,
    /// The right edge after the batch.
    pub frontier: Frontier,
    /// Each subtree that the batch completed, for [`crate::tree::Tail::extend`] once the batch is durable.
    pub nodes: Vec<(Node, Hash)>,
}

impl Appended {
    /// The row to store, given the packed entries of this batch.
    #[must_use]
    pub fn to_stored(&self, packed: Vec<u8>) -> StoredBatch {
        StoredBatch {
            first: self.first,
            count: self.leaves.len() as u64,
            packed,
            head: self.head,
            frontier: self.frontier.encode(),
        }
    }
}

/// Packs entries for [`integrate`] and for the stored row.
///
/// # Errors
/// [`Error::LeafTooLarge`] above [`LEAF_LEN_MAX`].
pub fn pack<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, Error> {
    let mut packed = Vec::new();
    for entry in entries {
        if entry.len() > LEAF_LEN_MAX {
            return Err(Error::LeafTooLarge { len: entry.len(), limit: LEAF_LEN_MAX });
        }
        pack_entry(&mut packed, entry)?;
    }
    Ok(packed)
}

/// Appends packed entries to a tree. Changes nothing: the caller takes over the result once it is durable.
///
/// # Errors
/// [`Error::BatchEmpty`] or [`Error::BundleMalformed`].
pub fn integrate(before: &Frontier, packed: &[u8]) -> Result<Appended, Error> {
    let leaves = Entries::new(packed).map(|entry| entry.map(Hash::of_leaf)).collect::<Result<_, _>>()?;
    integrate_hashed(before, leaves)
}

/// Like [`integrate`], for a caller that has computed the leaf hashes already.
///
/// # Errors
/// [`Error::BatchEmpty`].
pub fn integrate_hashed(before: &Frontier, leaves: Vec<Hash>) -> Result<Appended, Error> {
    if leaves.is_empty() {
        return Err(Error::BatchEmpty);
    }
    let mut frontier = before.clone();
    let mut nodes = Vec::with_capacity(2 * leaves.len());
    for leaf in &leaves {
        frontier.push(*leaf, |node, hash| nodes.push((node, hash)));
    }
    let head = Head { size: frontier.size(), root: frontier.root() };
    Ok(Appended { first: before.size(), leaves, head, frontier, nodes })
}

/// Appends a stored batch again and checks that it is what was committed.
///
/// # Errors
/// [`Error::BatchGap`] if it does not begin where the tree ends, [`Error::BatchChanged`] if its entries do not
/// give the head and frontier that were stored with it.
pub fn replay(before: &Frontier, batch: &StoredBatch) -> Result<Appended, Error> {
    if batch.first != before.size() {
        return Err(Error::BatchGap { expected: before.size(), found: batch.first });
    }
    let changed = || Error::BatchChanged { first: batch.first };
    let appended = integrate(before, &batch.packed).map_err(|_| changed())?;
    let same = appended.leaves.len() as u64 == batch.count
        && appended.head == batch.head
        && appended.frontier.encode() == batch.frontier;
    if same { Ok(appended) } else { Err(changed()) }
}
