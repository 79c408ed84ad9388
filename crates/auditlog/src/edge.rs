//! The right edge of the published log: the partial bundle and the partial tile of each level.
//!
//! Feeding it entries yields, in order, each file that becomes full, and on demand the partial ones. The
//! publisher writes what it yields; the verifier compares what it yields. So the two cannot disagree.

use crate::{
    Error,
    checkpoint::Head,
    hash::{Hash, join_hashes},
    port::LogFiles,
    reader::Tiles,
    tile::{Entries, Resource, TILE_WIDTH, pack_entry, subtree_root},
    tree::{Frontier, Node},
};

/// The unfinished bundle and tiles of a tree.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    size: u64,
    /// Packed entries of the unfinished bundle.
    bundle: Vec<u8>,
    /// Hashes of the unfinished tile of each level; between 0 and 255 each.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of the empty log.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads the edge of a published log: at most one file for each level and one bundle.
    ///
    /// # Errors
    /// [`Error::FileMissing`] or [`Error::FileCorrupt`] if the files do not give the root of `head`.
    pub fn load(files: &impl LogFiles, head: Head) -> Result<Self, Error> {
        let tiles = Tiles::new(files);
        let mut edge = Self { size: head.size, ..Self::default() };
        let mut hashes = head.size;
        while hashes > 0 {
            let level = u8::try_from(edge.levels.len()).unwrap_or(u8::MAX);
            let width = hashes % TILE_WIDTH;
            let row = match u16::try_from(width) {
                Ok(0) | Err(_) => Vec::new(),
                Ok(w) => {
                    let tile = tiles.tile(Resource::Tile { level, n: hashes / TILE_WIDTH, width: w })?;
                    tile.iter().copied().take(usize::from(w)).collect()
                }
            };
            edge.levels.push(row);
            hashes /= TILE_WIDTH;
        }
        let top = || Resource::Tile { level: 0, n: head.size / TILE_WIDTH, width: 1 }.partials_path();
        if edge.frontier()?.root() != head.root {
            return Err(Error::FileCorrupt { path: top() });
        }
        edge.bundle = edge.load_bundle(files)?;
        Ok(edge)
    }

    fn load_bundle(&self, files: &impl LogFiles) -> Result<Vec<u8>, Error> {
        let mut packed = Vec::new();
        let Some(last) = self.size.checked_sub(1) else { return Ok(packed) };
        let (Some(resource), Some(row)) = (Resource::bundle_of(last, self.size), self.levels.first()) else {
            return Ok(packed);
        };
        if row.is_empty() {
            return Ok(packed);
        }
        let (path, bytes) = read_or_full(files, resource)?;
        let corrupt = || Error::FileCorrupt { path: path.clone() };
        let mut entries = Entries::new(&bytes);
        for hash in row {
            let entry = entries.next().ok_or_else(corrupt)?.map_err(|_| corrupt())?;
            if Hash::of_leaf(entry) != *hash {
                return Err(corrupt());
            }
            pack_entry(&mut packed, entry)?;
        }
        Ok(packed)
    }

    /// Number of entries.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The frontier at this size.
    ///
    /// # Errors
    /// [`Error::FrontierMalformed`] never happens for an edge that was built here.
    pub fn frontier(&self) -> Result<Frontier, Error> {
        let mut nodes = Vec::new();
        for row in self.levels.iter().rev() {
            let mut rest = row.as_slice();
            while let Some(level) = rest.len().checked_ilog2() {
                let (subtree, after) = rest.split_at(1 << level);
                nodes.push(subtree_root(subtree));
                rest = after;
            }
        }
        Frontier::new(self.size, nodes)
    }

    /// Size and root.
    ///
    /// # Errors
    /// As [`Edge::frontier`].
    pub fn head(&self) -> Result<Head, Error> {
        Ok(Head { size: self.size, root: self.frontier()?.root() })
    }

    /// Appends an entry whose leaf hash the caller computed; `full` receives each file that is finished.
    ///
    /// # Errors
    /// [`Error::LeafTooLarge`], or what `full` returns.
    pub fn push(
        &mut self,
        entry: &[u8],
        leaf: Hash,
        mut full: impl FnMut(Resource, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        pack_entry(&mut self.bundle, entry)?;
        let mut node = Node { level: 0, index: self.size };
        let mut hash = leaf;
        self.size += 1;
        for position in 0.. {
            if self.levels.len() <= position {
                self.levels.push(Vec::with_capacity(TILE_WIDTH as usize));
            }
            let Some(row) = self.levels.get_mut(position) else { break };
            row.push(hash);
            if (row.len() as u64) < TILE_WIDTH {
                break;
            }
            let n = node.index / TILE_WIDTH;
            if position == 0 {
                full(Resource::Bundle { n, width: 256 }, &self.bundle)?;
                self.bundle.clear();
            }
            full(Resource::Tile { level: node.level, n, width: 256 }, &join_hashes(row))?;
            hash = subtree_root(row);
            row.clear();
            node = Node { level: node.level + 1, index: n };
        }
        Ok(())
    }

    /// The partial files that a checkpoint of this size needs.
    #[must_use]
    pub fn partials(&self) -> Vec<(Resource, Vec<u8>)> {
        let mut out = Vec::new();
        let mut hashes = self.size;
        for (level, row) in (0_u8..).zip(&self.levels) {
            let n = hashes / TILE_WIDTH;
            if let Some(width) = u16::try_from(row.len()).ok().filter(|w| *w > 0) {
                if level == 0 {
                    out.push((Resource::Bundle { n, width }, self.bundle.clone()));
                }
                out.push((Resource::Tile { level, n, width }, join_hashes(row)));
            }
            hashes = n;
        }
        out
    }
}

/// Reads a resource; a partial one that was removed is answered by the full one, as tlog-tiles allows. Gives
/// the path that was read.
///
/// # Errors
/// [`Error::FileMissing`], or as the disk fails.
pub fn read_or_full(files: &impl LogFiles, resource: Resource) -> Result<(String, Vec<u8>), Error> {
    for path in [resource.path(), resource.full().path()] {
        if let Some(bytes) = files.read(&path)? {
            return Ok((path, bytes));
        }
    }
    Err(Error::FileMissing { path: resource.path() })
}
