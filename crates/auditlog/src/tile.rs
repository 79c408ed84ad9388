//! Names and contents of the static resources of a log (C2SP tlog-tiles): hash tiles of height 8
//! and entry bundles. Pure: paths are strings relative to the log's prefix, never opened here.

use std::fmt::Write as _;

use crate::{
    Error,
    hash::Hash,
    tree::{Node, fold, perfect_subtrees},
};

/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: u64 = 256;
/// Height of a tile: each tile level spans eight levels of the tree.
pub const TILE_HEIGHT: u8 = 8;
/// The mutable resource; everything else is immutable.
pub const CHECKPOINT_PATH: &str = "checkpoint";
/// Largest entry that a bundle can hold (its length is a big-endian u16).
pub const ENTRY_LEN_MAX: usize = 65_535;
/// Largest entry that this log accepts: some room stays for what formats may add around it.
pub const LEAF_LEN_MAX: usize = 64_000;

/// An immutable resource of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// Entries `n * 256 .. n * 256 + width`.
    Bundle {
        /// Index among the bundles.
        n: u64,
        /// Entries in it, 1 to 256; below 256 it is partial.
        width: u16,
    },
    /// Hashes `n * 256 .. n * 256 + width` of a tile level.
    Tile {
        /// Tile level: its hashes are of tree height `8 * level`.
        level: u8,
        /// Index within the level.
        n: u64,
        /// Hashes in it, 1 to 256; below 256 it is partial.
        width: u16,
    },
}

impl Resource {
    /// The resource's width: 256 unless it is partial.
    #[must_use]
    pub const fn width(self) -> u16 {
        match self {
            Self::Bundle { width, .. } | Self::Tile { width, .. } => width,
        }
    }

    /// The same resource once it is full.
    #[must_use]
    pub const fn full(self) -> Self {
        match self {
            Self::Bundle { n, .. } => Self::Bundle { n, width: 256 },
            Self::Tile { level, n, .. } => Self::Tile { level, n, width: 256 },
        }
    }

    /// Path below the log's prefix, for example `tile/0/x001/067.p/8`.
    #[must_use]
    pub fn path(self) -> String {
        let mut path = self.full_path();
        if u64::from(self.width()) < TILE_WIDTH {
            // Writing to a string cannot fail.
            let _ = write!(path, ".p/{}", self.width());
        }
        path
    }

    /// Path of the directory that holds the partial forms, for example `tile/0/x001/067.p`.
    #[must_use]
    pub fn partials_path(self) -> String {
        format!("{}.p", self.full_path())
    }

    fn full_path(self) -> String {
        match self {
            Self::Bundle { n, .. } => format!("tile/entries/{}", index_path(n)),
            Self::Tile { level, n, .. } => format!("tile/{level}/{}", index_path(n)),
        }
    }

    /// Reads a path that [`Resource::path`] could have written.
    ///
    /// # Errors
    /// [`Error::PathMalformed`] for anything else: other spellings, too long numbers, widths 0 and 256.
    pub fn parse(path: &str) -> Result<Self, Error> {
        Self::parse_inner(path)
            .filter(|resource| resource.path() == path)
            .ok_or_else(|| Error::PathMalformed { path: path.to_owned() })
    }

    fn parse_inner(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/")?;
        let (kind, rest) = rest.split_once('/')?;
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok().filter(|w| (1..256).contains(w))?),
            None => (rest, 256),
        };
        let mut n = 0_u64;
        for group in number.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            n = n.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        match kind {
            "entries" => Some(Self::Bundle { n, width }),
            level => Some(Self::Tile { level: level.parse().ok().filter(|l| *l < 64)?, n, width }),
        }
    }

    /// The tile that holds `node` in a tree of `size` leaves, and where in it the node's hashes are.
    #[must_use]
    pub fn tile_of(node: Node, size: u64) -> Option<(Self, std::ops::Range<usize>)> {
        let level = node.level / TILE_HEIGHT;
        let below = node.level % TILE_HEIGHT;
        let first = node.index.checked_shl(u32::from(below))?;
        let n = first / TILE_WIDTH;
        let width = width_at(level, n, size)?;
        let start = usize::try_from(first % TILE_WIDTH).ok()?;
        let range = start..start + (1 << below);
        (range.end <= usize::from(width)).then_some((Self::Tile { level, n, width }, range))
    }

    /// The bundle that holds entry `index` in a tree of `size` leaves.
    #[must_use]
    pub fn bundle_of(index: u64, size: u64) -> Option<Self> {
        let n = index / TILE_WIDTH;
        let width = width_at(0, n, size)?;
        (index < size).then_some(Self::Bundle { n, width })
    }
}

/// Width of the `n`-th tile of a level at this tree size; `None` if it would be empty.
fn width_at(level: u8, n: u64, size: u64) -> Option<u16> {
    let hashes = size.checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0);
    let left = hashes.checked_sub(n.checked_mul(TILE_WIDTH)?)?;
    u16::try_from(left.min(TILE_WIDTH)).ok().filter(|width| *width > 0)
}

/// `1234067` as `x001/x234/067`.
fn index_path(n: u64) -> String {
    let mut path = format!("{:03}", n % 1000);
    let mut rest = n / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

/// The root over neighbouring hashes of one level, starting at an aligned position.
#[must_use]
pub fn subtree_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [one] => *one,
        [left, right] => Hash::of_node(left, right),
        more if more.len().is_power_of_two() => {
            let (left, right) = more.split_at(more.len() / 2);
            Hash::of_node(&subtree_root(left), &subtree_root(right))
        }
        more => {
            let parts: Vec<_> = perfect_subtrees(0, more.len() as u64)
                .filter_map(|node| {
                    let start = usize::try_from(node.index << node.level).ok()?;
                    more.get(start..start + (1 << node.level)).map(subtree_root)
                })
                .collect();
            fold(parts.into_iter())
        }
    }
}

/// Adds an entry to a bundle: big-endian u16 length, then the bytes.
///
/// # Errors
/// [`Error::LeafTooLarge`] above [`ENTRY_LEN_MAX`].
pub fn pack_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), Error> {
    let len = u16::try_from(entry.len()).map_err(|_| Error::LeafTooLarge { len: entry.len(), limit: ENTRY_LEN_MAX })?;
    bundle.extend_from_slice(&len.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle (or of any run of packed entries), in order.
#[derive(Clone, Debug)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// Walks packed entries.
    #[must_use]
    pub const fn new(packed: &'a [u8]) -> Self {
        Self(packed)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let split = self.0.split_first_chunk::<2>().and_then(|(len, rest)| {
            let len = usize::from(u16::from_be_bytes(*len));
            Some((rest.get(..len)?, rest.get(len..)?))
        });
        match split {
            Some((entry, rest)) => {
                self.0 = rest;
                Some(Ok(entry))
            }
            None => {
                self.0 = &[];
                Some(Err(Error::BundleMalformed { why: "it ends inside an entry" }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        for (resource, path) in [
            (Resource::Tile { level: 0, n: 1_234_067, width: 256 }, "tile/0/x001/x234/067"),
            (Resource::Tile { level: 3, n: 999, width: 1 }, "tile/3/999.p/1"),
            (Resource::Tile { level: 0, n: 1000, width: 256 }, "tile/0/x001/000"),
            (Resource::Bundle { n: 0, width: 255 }, "tile/entries/000.p/255"),
        ] {
            assert_eq!(resource.path(), path);
            assert_eq!(Resource::parse(path).unwrap(), resource);
        }
    }

    #[test]
    fn other_spellings_of_a_path_are_refused() {
        for path in [
            "",
            "tile/0",
            "tile/00/000",
            "tile/64/000",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/+01",
            "tile/entries/../000",
            "tile/-1/000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/999",
            "checkpoint",
            "/tile/0/000",
            "tile/0/000/",
        ] {
            assert!(Resource::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn widths_follow_the_example_of_the_specification() {
        // "a tree of size 70,000": 273 full and one partial of 112, one full and one of 17, one of 1.
        assert_eq!(width_at(0, 272, 70_000), Some(256));
        assert_eq!(width_at(0, 273, 70_000), Some(112));
        assert_eq!(width_at(0, 274, 70_000), None);
        assert_eq!(width_at(1, 1, 70_000), Some(17));
        assert_eq!(width_at(2, 0, 70_000), Some(1));
        assert_eq!(width_at(3, 0, 70_000), None);
        assert_eq!(width_at(1, 0, 256), Some(1));
    }

    #[test]
    fn a_cut_bundle_is_refused() {
        let mut bundle = Vec::new();
        pack_entry(&mut bundle, b"abc").unwrap();
        pack_entry(&mut bundle, b"").unwrap();
        let all: Result<Vec<_>, _> = Entries::new(&bundle).collect();
        assert_eq!(all.unwrap(), [b"abc".as_slice(), b""]);
        for cut in [1, 2, 3, 4, 6] {
            let got: Result<Vec<_>, _> = Entries::new(bundle.get(..cut).unwrap()).collect();
            assert!(got.is_err(), "cut at {cut}");
        }
        assert!(pack_entry(&mut bundle, &vec![0; 65_536]).is_err());
    }
}
