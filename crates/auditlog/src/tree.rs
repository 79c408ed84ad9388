//! The shape of an append-only Merkle tree (RFC 6962 §2.1), held in logarithmic space.
//!
//! [`Frontier`] is all that appending needs; [`Tail`] also remembers recent inner hashes, so that
//! proofs about entries that no tile file holds yet can be given. Neither ever reads the log.

use crate::{
    Error,
    hash::{HASH_LEN, Hash},
};

/// A perfect subtree: `2^level` leaves, the `index`-th of that size from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Height: 0 is a leaf.
    pub level: u8,
    /// Position among the subtrees of that height.
    pub index: u64,
}

impl Node {
    /// Whether every leaf under the node exists in a tree of `size` leaves.
    #[must_use]
    pub fn complete_at(self, size: u64) -> bool {
        size.checked_shr(u32::from(self.level)).unwrap_or(0) > self.index
    }
}

/// Visits the perfect subtrees that make up the leaves `start..end`, from left to right.
/// INVARIANT: `start` is a multiple of the largest power of two that is `<= end - start`, as it is
/// for each range that RFC 6962 proofs name.
pub(crate) fn perfect_subtrees(start: u64, end: u64) -> impl Iterator<Item = Node> {
    let mut at = start;
    std::iter::from_fn(move || {
        let level = end.checked_sub(at)?.checked_ilog2()?;
        let node = Node { level: u8::try_from(level).ok()?, index: at >> level };
        at += 1 << level;
        Some(node)
    })
}

/// Folds the hashes of neighbouring perfect subtrees, largest first, into one.
pub(crate) fn fold(hashes: impl DoubleEndedIterator<Item = Hash>) -> Hash {
    hashes.rev().reduce(|right, left| Hash::of_node(&left, &right)).unwrap_or_else(Hash::of_empty_tree)
}

/// The right edge of a tree: the hashes of its maximal perfect subtrees, at most 64 of them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// One hash for each set bit of `size`, largest subtree first.
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the tree without leaves.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// A frontier from its stored parts.
    ///
    /// # Errors
    /// [`Error::FrontierMalformed`] if the number of hashes does not fit the size.
    pub fn new(size: u64, nodes: Vec<Hash>) -> Result<Self, Error> {
        if nodes.len() == size.count_ones() as usize {
            Ok(Self { size, nodes })
        } else {
            Err(Error::FrontierMalformed { hashes: nodes.len(), size })
        }
    }

    /// Reads what [`Frontier::encode`] wrote.
    ///
    /// # Errors
    /// [`Error::FrontierMalformed`] or [`Error::HashLength`].
    pub fn decode(size: u64, bytes: &[u8]) -> Result<Self, Error> {
        Self::new(size, crate::hash::split_hashes(bytes)?)
    }

    /// The hashes, concatenated; the size is kept beside them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.nodes.len() * HASH_LEN);
        self.nodes.iter().for_each(|hash| out.extend_from_slice(hash.as_bytes()));
        out
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root hash.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(self.nodes.iter().copied())
    }

    /// Appends a leaf hash and reports each subtree that became complete, smallest first.
    pub fn push(&mut self, leaf: Hash, mut completed: impl FnMut(Node, Hash)) {
        let mut node = Node { level: 0, index: self.size };
        let mut hash = leaf;
        completed(node, hash);
        while node.index & 1 == 1 {
            // INVARIANT: an odd index has a complete left neighbour, and it is the last hash here.
            let Some(left) = self.nodes.pop() else { break };
            hash = Hash::of_node(&left, &hash);
            node = Node { level: node.level + 1, index: node.index >> 1 };
            completed(node, hash);
        }
        self.nodes.push(hash);
        self.size += 1;
    }

    /// The hash of `node`, if it is one of the frontier's.
    #[must_use]
    pub fn node(&self, node: Node) -> Option<Hash> {
        let above = self.size.checked_shr(u32::from(node.level))?;
        let mine = above & 1 == 1 && node.index == above - 1;
        let position = (above >> 1).count_ones() as usize;
        if mine { self.nodes.get(position).copied() } else { None }
    }
}

/// The inner hashes of the newest part of the tree, by level, above a base that tile files cover.
///
/// A proof for any leaf at or above the base, under any head at or above it, needs no file.
#[derive(Clone, Debug)]
pub struct Tail {
    base: Frontier,
    size: u64,
    /// `levels[l]` holds the nodes of height `l` from index `base.size >> l` on.
    levels: Vec<Vec<Hash>>,
}

impl Tail {
    /// An empty tail above `base`.
    #[must_use]
    pub fn new(base: Frontier) -> Self {
        Self { size: base.size, base, levels: Vec::new() }
    }

    /// Number of leaves in the tree, base included.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Size of the base: what lies below it must be read from tiles.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base.size
    }

    /// Takes over the nodes that an append completed, in the order in which they were reported.
    pub fn extend(&mut self, nodes: &[(Node, Hash)]) {
        for (node, hash) in nodes {
            let level = usize::from(node.level);
            while self.levels.len() <= level {
                self.levels.push(Vec::new());
            }
            if let Some(row) = self.levels.get_mut(level) {
                row.push(*hash);
            }
            if node.level == 0 {
                self.size = node.index + 1;
            }
        }
    }

    /// The hash of `node`, if it lies in the tail or on the base's frontier.
    #[must_use]
    pub fn node(&self, node: Node) -> Option<Hash> {
        let first = self.base.size.checked_shr(u32::from(node.level))?;
        match node.index.checked_sub(first) {
            Some(offset) => {
                let row = self.levels.get(usize::from(node.level))?;
                row.get(usize::try_from(offset).ok()?).copied()
            }
            None => self.base.node(node),
        }
    }

    /// The frontier at `size`, if that lies between base and head.
    #[must_use]
    pub fn frontier_at(&self, size: u64) -> Option<Frontier> {
        if size < self.base.size || size > self.size {
            return None;
        }
        let nodes = perfect_subtrees(0, size).map(|node| self.node(node)).collect::<Option<_>>()?;
        Some(Frontier { size, nodes })
    }

    /// Forgets what lies below `size`; sizes outside base and head change nothing.
    pub fn advance(&mut self, size: u64) {
        let Some(base) = self.frontier_at(size) else { return };
        for (level, row) in self.levels.iter_mut().enumerate() {
            let dropped = (size >> level) - (self.base.size >> level);
            row.drain(..usize::try_from(dropped).unwrap_or(0).min(row.len()));
        }
        self.base = base;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn leaf(i: u64) -> Hash {
        Hash::of_leaf(&i.to_be_bytes())
    }

    /// RFC 6962 §2.1, written as the RFC does: the reference for everything here.
    fn root_by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of_empty_tree(),
            [one] => *one,
            more => {
                let k = 1 << (more.len() - 1).ilog2();
                let (left, right) = more.split_at(k);
                Hash::of_node(&root_by_definition(left), &root_by_definition(right))
            }
        }
    }

    #[test]
    fn frontier_root_equals_the_definition_at_every_size() {
        let leaves: Vec<_> = (0..300).map(leaf).collect();
        let mut frontier = Frontier::empty();
        for (i, hash) in leaves.iter().enumerate() {
            assert_eq!(frontier.root(), root_by_definition(leaves.get(..i).unwrap()));
            frontier.push(*hash, |_, _| {});
        }
    }

    #[test]
    fn frontier_survives_storage_and_refuses_a_wrong_count() {
        let mut frontier = Frontier::empty();
        (0..77).for_each(|i| frontier.push(leaf(i), |_, _| {}));
        assert_eq!(Frontier::decode(77, &frontier.encode()).unwrap(), frontier);
        assert!(matches!(Frontier::decode(78, &frontier.encode()[..]), Err(Error::FrontierMalformed { .. }) | Ok(_)));
        assert!(matches!(Frontier::decode(79, &frontier.encode()), Err(Error::FrontierMalformed { .. })));
    }

    #[test]
    fn tail_knows_every_later_frontier_after_advancing() {
        let mut all = vec![Frontier::empty()];
        let mut tail = Tail::new(Frontier::empty());
        let mut frontier = Frontier::empty();
        for i in 0..600 {
            let mut nodes = Vec::new();
            frontier.push(leaf(i), |node, hash| nodes.push((node, hash)));
            tail.extend(&nodes);
            all.push(frontier.clone());
            if i % 97 == 0 {
                tail.advance(i / 2);
            }
        }
        assert_eq!(tail.base(), 291);
        for (size, expected) in all.iter().enumerate() {
            let known = tail.frontier_at(size as u64);
            assert_eq!(known.as_ref(), (size >= 291).then_some(expected), "size {size}");
        }
    }
}
