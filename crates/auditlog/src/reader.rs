//! Hashes for proofs: from tile files below, from the in-memory tail above.
//!
//! Tiles are immutable, so they may be cached without a thought; the cache is bounded and simply emptied when
//! full. What a tile says is not trusted here: proofs are verified before they are used (`Notary`), or by
//! whoever receives them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Error,
    hash::{Hash, split_hashes},
    port::{HashReader, LogFiles},
    tile::{Resource, subtree_root},
    tree::{Node, Tail},
};

/// Tiles kept in memory: 256 tiles are 2 MiB.
const TILES_CACHED_MAX: usize = 256;

/// Reads the tile files of a log, with a cache.
pub struct Tiles<F> {
    files: F,
    cache: Mutex<HashMap<Resource, Arc<Vec<Hash>>>>,
}

impl<F: LogFiles> Tiles<F> {
    /// A reader over these files.
    pub fn new(files: F) -> Self {
        Self { files, cache: Mutex::default() }
    }

    /// The files.
    pub const fn files(&self) -> &F {
        &self.files
    }

    /// The hashes of a tile. A partial tile that was removed is cut from the full one.
    ///
    /// # Errors
    /// [`Error::FileMissing`], [`Error::FileCorrupt`] if its length is wrong, or as the disk fails.
    pub fn tile(&self, tile: Resource) -> Result<Arc<Vec<Hash>>, Error> {
        let cached = |of: Resource| self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&of).cloned();
        if let Some(hashes) = cached(tile).or_else(|| cached(tile.full())) {
            return Ok(hashes);
        }
        let (found, bytes) = match self.files.read(&tile.path())? {
            Some(bytes) => (tile, bytes),
            None => match self.files.read(&tile.full().path())? {
                Some(bytes) => (tile.full(), bytes),
                None => return Err(Error::FileMissing { path: tile.path() }),
            },
        };
        let hashes = split_hashes(&bytes).map_err(|_| Error::FileCorrupt { path: found.path() })?;
        if hashes.len() != usize::from(found.width()) {
            return Err(Error::FileCorrupt { path: found.path() });
        }
        let hashes = Arc::new(hashes);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= TILES_CACHED_MAX {
            cache.clear();
        }
        cache.insert(found, Arc::clone(&hashes));
        Ok(hashes)
    }

    /// The hash of a node of the tree that these tiles cover up to `size`.
    ///
    /// # Errors
    /// [`Error::NodeMissing`] if the node is not complete at `size`, or as [`Tiles::tile`].
    pub fn node(&self, node: Node, size: u64) -> Result<Hash, Error> {
        let missing = || Error::NodeMissing { level: node.level, index: node.index };
        let (tile, range) = Resource::tile_of(node, size).ok_or_else(missing)?;
        let hashes = self.tile(tile)?;
        hashes.get(range).map(subtree_root).ok_or_else(missing)
    }
}

/// The tree that tiles cover up to a published size.
pub struct Published<'a, F> {
    tiles: &'a Tiles<F>,
    size: u64,
}

impl<'a, F> Published<'a, F> {
    /// The tree of `size` leaves.
    pub const fn new(tiles: &'a Tiles<F>, size: u64) -> Self {
        Self { tiles, size }
    }
}

impl<F: LogFiles> HashReader for Published<'_, F> {
    fn hash(&self, node: Node) -> Result<Hash, Error> {
        self.tiles.node(node, self.size)
    }
}

/// The whole committed tree: a tail over tiles that are published up to at least the tail's base.
pub struct Committed<'a, F> {
    tail: &'a Tail,
    tiles: &'a Tiles<F>,
    published: u64,
}

impl<'a, F> Committed<'a, F> {
    /// Layers the tail over the tiles of a tree that was published at exactly this size.
    pub const fn new(tail: &'a Tail, tiles: &'a Tiles<F>, published: u64) -> Self {
        Self { tail, tiles, published }
    }
}

impl<F: LogFiles> HashReader for Committed<'_, F> {
    fn hash(&self, node: Node) -> Result<Hash, Error> {
        match self.tail.node(node) {
            Some(hash) => Ok(hash),
            None => self.tiles.node(node, self.published),
        }
    }
}
