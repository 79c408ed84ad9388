//! The node's own chain around each event, and the node's signature over each batch (design §7).
//!
//! A leaf is canonical JSON `{"epoch":…,"event":{…},"node":…,"prev":…,"seq":…,"v":1}`: `prev` is the leaf hash of
//! the node's leaf before, `seq` counts its leaves from 0, `epoch` its starts from 1. Between commit and
//! publication a batch lies in the database; the signature over its last leaf and root shows if somebody else
//! wrote there.

use auditlog::{checkpoint::Head, hash::Hash, note::VerifierKey, port::NoteSigner};
use base64::{Engine, engine::general_purpose::STANDARD};

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

/// Whether a name may stand in every leaf without escaping.
pub(crate) fn is_node_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/');
    !name.is_empty() && name.len() <= 128 && name.bytes().all(plain)
}

/// What the node signs for a batch. It is no checkpoint and cannot be read as one: its key has another name.
fn statement(first: u64, head: Head, chain: &Chain) -> String {
    format!("writ-batch-v1\nepoch {}\nentries {first} {}\nroot {}\nlast {}\n", chain.epoch, head.size, head.root, chain.last)
}

/// Signs a batch that begins at `first`, after which tree and chain stand here.
pub(crate) fn sign(signer: &dyn NoteSigner, first: u64, head: Head, chain: &Chain) -> Result<Vec<u8>, auditlog::Error> {
    signer.sign(statement(first, head, chain).as_bytes())
}

/// Whether the node signed this batch.
pub(crate) fn is_signed(key: &VerifierKey, first: u64, head: Head, chain: &Chain, signature: &[u8]) -> bool {
    key.verifies(statement(first, head, chain).as_bytes(), signature)
}
