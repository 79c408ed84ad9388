//! The node's own chain around each event, and the node's signature over each batch (design §7).
//!
//! A leaf is canonical JSON `{"epoch":…,"event":{…},"node":…,"prev":…,"seq":…,"v":1}`: `prev` is the leaf hash of
//! the node's leaf before, `seq` counts its leaves from 0, `epoch` its starts from 1. Between commit and
//! publication a batch lies in the database; the signature over its last leaf and root shows if somebody else
//! wrote there. [`ChainCheck`] follows the chains of a published log.

use std::collections::HashMap;

use auditlog::{hash::Hash, note::VerifierKey, port::NoteSigner};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::shared::Made;

/// Where a node's chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// How often the node started.
    pub(crate) epoch: u64,
    /// Number of the next leaf.
    pub(crate) seq: u64,
    /// Hash of the leaf before it; zeroes before the first.
    pub(crate) last: Hash,
}

impl Chain {
    /// Before a node's first leaf, in its first epoch.
    pub(crate) const START: Self = Self { epoch: 1, seq: 0, last: Hash::from_bytes([0; 32]) };

    /// Wraps an event into the next leaf, and counts it.
    pub(crate) fn wrap(&mut self, node: &str, event: &[u8], leaf: &mut Vec<u8>) -> Hash {
        leaf.clear();
        leaf.reserve(event.len() + node.len() + 128);
        leaf.extend_from_slice(b"{\"epoch\":");
        leaf.extend_from_slice(self.epoch.to_string().as_bytes());
        leaf.extend_from_slice(b",\"event\":");
        leaf.extend_from_slice(event);
        leaf.extend_from_slice(b",\"node\":\"");
        // INVARIANT: a node name is a signed-note key name made of letters, digits, `.`, `-`, `_` and `/` only
        // (checked when the store opens), so it needs no escaping.
        leaf.extend_from_slice(node.as_bytes());
        leaf.extend_from_slice(b"\",\"prev\":\"");
        leaf.extend_from_slice(STANDARD.encode(self.last.as_bytes()).as_bytes());
        leaf.extend_from_slice(b"\",\"seq\":");
        leaf.extend_from_slice(self.seq.to_string().as_bytes());
        leaf.extend_from_slice(b",\"v\":1}");
        let hash = Hash::of_leaf(leaf);
        self.seq += 1;
        self.last = hash;
        hash
    }
}

/// Why a leaf does not continue its node's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFlaw {
    /// It is not of the form of a leaf, byte for byte.
    #[error("the entry is not wrapped as this log's entries are")]
    Form,
    /// Leaves of the node are missing before it, or it is there twice.
    #[error("the node's entries should go on with number {expected}, this is number {found}")]
    Gap {
        /// The number that should follow.
        expected: u64,
        /// The number that stands there.
        found: u64,
    },
    /// It names another leaf than the one before it.
    #[error("the entry does not follow the node's entry before it")]
    Broken,
    /// It claims to be older than the leaf before it.
    #[error("the entry is of start {found} of its node, after entries of start {after}")]
    Epoch {
        /// The epoch of the leaf before.
        after: u64,
        /// The epoch found.
        found: u64,
    },
}

/// Follows the chain of every node through a whole log, entry by entry.
#[derive(Debug, Default)]
pub struct ChainCheck {
    nodes: HashMap<String, Chain>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    epoch: u64,
    #[serde(borrow)]
    event: &'a RawValue,
    node: &'a str,
    prev: &'a str,
    seq: u64,
    v: u64,
}

impl ChainCheck {
    /// Number of nodes that were met.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Checks the next leaf of the log.
    ///
    /// # Errors
    /// [`ChainFlaw`]; the chain then goes on from this leaf, so that one flaw is reported once.
    pub fn entry(&mut self, leaf: &[u8]) -> Result<(), ChainFlaw> {
        let envelope: Envelope<'_> = serde_json::from_slice(leaf).map_err(|_| ChainFlaw::Form)?;
        let prev = Hash::from_base64(envelope.prev).map_err(|_| ChainFlaw::Form)?;
        if envelope.v != 1 || !is_node_name(envelope.node) {
            return Err(ChainFlaw::Form);
        }
        let mut chain = Chain { epoch: envelope.epoch, seq: envelope.seq, last: prev };
        let mut canonical = Vec::new();
        chain.wrap(envelope.node, envelope.event.get().as_bytes(), &mut canonical);
        if canonical != leaf {
            return Err(ChainFlaw::Form);
        }
        let before = match self.nodes.get_mut(envelope.node) {
            Some(known) => std::mem::replace(known, chain),
            None => {
                self.nodes.insert(envelope.node.to_owned(), chain);
                Chain::START
            }
        };
        if envelope.seq != before.seq {
            return Err(ChainFlaw::Gap { expected: before.seq, found: envelope.seq });
        }
        if prev != before.last {
            return Err(ChainFlaw::Broken);
        }
        if envelope.epoch < before.epoch {
            return Err(ChainFlaw::Epoch { after: before.epoch, found: envelope.epoch });
        }
        Ok(())
    }
}

/// Whether a name may stand in every leaf without escaping.
pub(crate) fn is_node_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/');
    !name.is_empty() && name.len() <= 128 && name.bytes().all(plain)
}

/// What the node signs for a batch. It is no checkpoint and cannot be read as one: its key has another name. The
/// sequence number is not in it: the last leaf, which it names by hash, holds that.
fn statement(batch: &Made) -> String {
    let Made { first, head, epoch, last } = batch;
    format!("writ-batch-v1\nepoch {epoch}\nentries {first} {}\nroot {}\nlast {last}\n", head.size, head.root)
}

/// Signs a batch.
pub(crate) fn sign(signer: &dyn NoteSigner, batch: &Made) -> Result<Vec<u8>, auditlog::Error> {
    signer.sign(statement(batch).as_bytes())
}

/// Whether the node signed this batch.
pub(crate) fn is_signed(key: &VerifierKey, batch: &Made, signature: &[u8]) -> bool {
    key.verifies(statement(batch).as_bytes(), signature)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn leaves(chain: &mut Chain, node: &str, count: u64) -> Vec<Vec<u8>> {
        let wrap = |i| {
            let mut leaf = Vec::new();
            chain.wrap(node, format!("{{\"i\":{i}}}").as_bytes(), &mut leaf);
            leaf
        };
        (0..count).map(wrap).collect()
    }

    fn check(leaves: &[Vec<u8>]) -> Result<(), ChainFlaw> {
        let mut check = ChainCheck::default();
        leaves.iter().try_for_each(|leaf| check.entry(leaf))
    }

    #[test]
    fn interleaved_chains_of_several_starts_hold() {
        let (mut one, mut two) = (Chain::START, Chain::START);
        let mut all = leaves(&mut one, "n1", 3);
        all.extend(leaves(&mut two, "n2", 2));
        one.epoch = 4;
        all.extend(leaves(&mut one, "n1", 2));
        assert_eq!(check(&all), Ok(()));
    }

    #[test]
    fn missing_doubled_swapped_forged_and_aged_leaves_are_found() {
        let mut chain = Chain::START;
        let good = leaves(&mut chain, "n1", 4);
        let flaw = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut all = good.clone();
            change(&mut all);
            check(&all).unwrap_err()
        };
        assert_eq!(flaw(&|all| drop(all.remove(0))), ChainFlaw::Gap { expected: 0, found: 1 });
        assert_eq!(flaw(&|all| drop(all.remove(2))), ChainFlaw::Gap { expected: 2, found: 3 });
        assert_eq!(flaw(&|all| all[2] = all[1].clone()), ChainFlaw::Gap { expected: 2, found: 1 });
        let other = leaves(&mut Chain { last: Hash::of_empty_tree(), seq: 2, epoch: 1 }, "n1", 1).remove(0);
        assert_eq!(flaw(&|all| all[2] = other.clone()), ChainFlaw::Broken);
        let mut late = Chain { epoch: 3, ..Chain::START };
        let mut aged = leaves(&mut late, "n1", 2);
        late.epoch = 2;
        aged.extend(leaves(&mut late, "n1", 1));
        assert_eq!(check(&aged), Err(ChainFlaw::Epoch { after: 3, found: 2 }));
        let text = String::from_utf8(good[0].clone()).unwrap();
        for bad in [
            text.replace("\"v\":1", "\"v\":2"),
            text.replace("\"v\":1", "\"v\": 1"),
            text.replace("\"epoch\":1,", ""),
            text.replace("{\"epoch\":1,", "{\"epoch\":1,\"epoch\":1,"),
            text.replace("}", ",\"x\":1}"),
            text.replace("\"n1\"", "\"n 1\""),
            "{}".to_owned(),
        ] {
            assert_eq!(check(&[bad.clone().into_bytes()]), Err(ChainFlaw::Form), "{bad}");
        }
    }
}
