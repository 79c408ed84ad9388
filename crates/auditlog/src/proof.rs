//! Inclusion and consistency proofs (RFC 6962 §2.1.1–2.1.2; verification after RFC 9162 §2.1.3–2.1.4).
//!
//! Proving reads O(log n) hashes through [`HashReader`]; verifying reads nothing and trusts only the roots
//! that it is given.

use crate::{
    Error,
    hash::Hash,
    port::HashReader,
    tree::{fold, perfect_subtrees},
};

/// More hashes than any proof in a tree of up to 2^64 leaves can have.
pub const PROOF_LEN_MAX: usize = 64;

/// The hash of the leaves `start..end`.
fn range_hash(reader: &impl HashReader, (start, end): (u64, u64)) -> Result<Hash, Error> {
    let hashes: Vec<_> = perfect_subtrees(start, end).map(|node| reader.hash(node)).collect::<Result<_, _>>()?;
    Ok(fold(hashes.into_iter()))
}

/// The root of the tree when it had `size` leaves.
///
/// # Errors
/// As the reader fails.
pub fn root_at(reader: &impl HashReader, size: u64) -> Result<Hash, Error> {
    range_hash(reader, (0, size))
}

/// Proves that leaf `index` is in the tree of `size` leaves; the leaf's sibling comes first.
///
/// # Errors
/// [`Error::OutsideTree`], or as the reader fails.
pub fn prove_inclusion(reader: &impl HashReader, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
    if index >= size {
        return Err(Error::OutsideTree { position: index, size });
    }
    let (mut lo, mut hi) = (0, size);
    let mut siblings = Vec::new();
    while hi - lo > 1 {
        let middle = lo + split(hi - lo);
        if index < middle {
            siblings.push((middle, hi));
            hi = middle;
        } else {
            siblings.push((lo, middle));
            lo = middle;
        }
    }
    siblings.into_iter().rev().map(|range| range_hash(reader, range)).collect()
}

/// Proves that the tree of `new` leaves extends the tree of `old` leaves.
///
/// # Errors
/// [`Error::OutsideTree`] if `old` is larger, or as the reader fails.
pub fn prove_consistency(reader: &impl HashReader, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
    if old > new {
        return Err(Error::OutsideTree { position: old, size: new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut lo, mut hi) = (0, new);
    let mut parts = Vec::new();
    while old != hi {
        let middle = lo + split(hi - lo);
        if old <= middle {
            parts.push((middle, hi));
            hi = middle;
        } else {
            parts.push((lo, middle));
            lo = middle;
        }
    }
    // The old root itself is known to the verifier, so it is only named when it lies deeper than a prefix.
    if lo > 0 {
        parts.push((lo, hi));
    }
    parts.into_iter().rev().map(|range| range_hash(reader, range)).collect()
}

/// The largest power of two below `n`, for `n >= 2` (RFC 6962 §2.1).
const fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Checks that `leaf` is entry `index` of the tree with this size and root (RFC 9162 §2.1.3.2).
///
/// # Errors
/// [`Error::OutsideTree`] or [`Error::ProofInvalid`].
pub fn verify_inclusion(path: &[Hash], leaf: Hash, index: u64, size: u64, root: Hash) -> Result<(), Error> {
    if index >= size {
        return Err(Error::OutsideTree { position: index, size });
    }
    let wrong = || Error::ProofInvalid { size };
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return Err(wrong());
        }
        if node & 1 == 1 || node == last {
            hash = Hash::of_node(sibling, &hash);
            skip_levels_without_sibling(&mut node, &mut last);
        } else {
            hash = Hash::of_node(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == root { Ok(()) } else { Err(wrong()) }
}

/// Checks that the tree `new` extends the tree `old`, each given as size and root (RFC 9162 §2.1.4.2).
///
/// # Errors
/// [`Error::OutsideTree`] if `old` is larger, or [`Error::ProofInvalid`].
pub fn verify_consistency(path: &[Hash], old: (u64, Hash), new: (u64, Hash)) -> Result<(), Error> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size {
        return Err(Error::OutsideTree { position: old_size, size: new_size });
    }
    let wrong = || Error::ProofInvalid { size: new_size };
    if old_size == 0 || old_size == new_size {
        // Every tree extends the empty one; but the empty one has one root only.
        let old_holds = if old_size == new_size { old_root == new_root } else { old_root == Hash::of_empty_tree() };
        return if path.is_empty() && old_holds { Ok(()) } else { Err(wrong()) };
    }
    let mut hashes = path.iter().copied();
    let start = if old_size.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let mut old_hash = start.ok_or_else(wrong)?;
    let mut new_hash = old_hash;
    let shift = (old_size - 1).trailing_ones();
    let mut node = (old_size - 1) >> shift;
    let mut last = (new_size - 1) >> shift;
    for hash in hashes {
        if last == 0 {
            return Err(wrong());
        }
        if node & 1 == 1 || node == last {
            old_hash = Hash::of_node(&hash, &old_hash);
            new_hash = Hash::of_node(&hash, &new_hash);
            skip_levels_without_sibling(&mut node, &mut last);
        } else {
            new_hash = Hash::of_node(&new_hash, &hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && old_hash == old_root && new_hash == new_root { Ok(()) } else { Err(wrong()) }
}

/// On the right edge a node may have no sibling for some levels: climb until it has.
const fn skip_levels_without_sibling(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}
