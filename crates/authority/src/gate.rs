//! *No log, no key* (R16): whoever signs or creates something asks this gate first. It opens only for a log entry that
//! decided exactly this, included under a checkpoint of the log's key that extends the last one the gate saw. It knows
//! neither policy nor tasks nor what is signed, so that it can move into a process of its own with the keys.

use crate::event::hex;
use crate::ports::Inclusion;
use crate::target::{Plan, TargetError};
use auditlog::checkpoint::{Checkpoint, Head};
use auditlog::hash::Hash;
use auditlog::note::VerifierKey;
use auditlog::proof::{verify_consistency, verify_inclusion};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Why the gate stays shut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The gate has seen another checkpoint meanwhile, of so many leaves: show consistency with that one.
    #[error("the signer has seen a tree of {0} leaves meanwhile")]
    Moved(u64),
    /// What it was shown does not hold.
    #[error("the signer was shown {0}")]
    NotShown(&'static str),
    /// The key failed, or what it signed does not verify.
    #[error("the signature failed: {0}")]
    Key(String),
}

/// Consistency between two trees, as claimed by the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Consistency<'a> {
    /// Size of the older tree.
    pub old: u64,
    /// Size of the newer one.
    pub new: u64,
    /// The proof (RFC 6962 §2.1.2).
    pub proof: &'a [[u8; 32]],
}

/// What an entry must have decided, by SHA-256.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Decided {
    /// The canonical claims of a token.
    Claims([u8; 32]),
    /// The canonical plan of a credential.
    Plan([u8; 32]),
}

/// The proof that exactly one plan was decided and logged. Only the gate makes it, and a target's `issue` demands it.
#[derive(Debug)]
pub struct ShownPlan([u8; 32]);

impl ShownPlan {
    /// Whether this is the proof for `plan`.
    ///
    /// # Errors
    /// [`TargetError::NotShown`] if it is for another one.
    pub fn covers(&self, plan: &Plan) -> Result<(), TargetError> {
        // Neither side is secret: the digest stands in the log.
        if plan.digest() == self.0 { Ok(()) } else { Err(TargetError::NotShown("a decision about another plan")) }
    }
}

/// Accepted heads that are remembered, so that an entry which was overtaken while it was on its way can be shown under any
/// of them: the newest one moves with every batch.
const HEADS_MAX: usize = 1_024;

/// One gate, for one log.
pub struct LogGate {
    log_key: VerifierKey,
    /// The heads that it accepted last, by size: each is consistent with all others.
    seen: Mutex<BTreeMap<u64, Hash>>,
    /// The checkpoint that was verified last, byte for byte: what was decided in one batch is shown under one checkpoint.
    verified: Mutex<Option<(String, Head)>>,
}

/// The part of a decision entry that the gate reads.
#[derive(Deserialize)]
struct Leaf<'a> {
    #[serde(borrow)]
    event: LeafEvent<'a>,
}

#[derive(Deserialize)]
struct LeafEvent<'a> {
    r#type: &'a str,
    #[serde(default)]
    outcome: &'a str,
    #[serde(default)]
    claims_sha256: &'a str,
    #[serde(default)]
    plan_sha256: &'a str,
}

impl LogGate {
    /// A gate for the log with this verifier key, which has seen nothing yet.
    #[must_use]
    pub const fn new(log_key: VerifierKey) -> Self {
        Self { log_key, seen: Mutex::new(BTreeMap::new()), verified: Mutex::new(None) }
    }

    /// How large the last tree was that the gate saw.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).last_key_value().map_or(0, |(size, _)| *size)
    }

    /// Opens for a plan that `shown` decided.
    ///
    /// # Errors
    /// Why it stays shut.
    pub fn show_plan(&self, plan: &Plan, shown: &Inclusion, link: &Consistency<'_>) -> Result<ShownPlan, Refused> {
        let digest = plan.digest();
        self.check(Decided::Plan(digest), shown, link)?;
        Ok(ShownPlan(digest))
    }

    pub(crate) fn check(&self, decided: Decided, shown: &Inclusion, link: &Consistency<'_>) -> Result<(), Refused> {
        let head = self.open(&shown.checkpoint)?;
        let proof: Vec<_> = shown.proof.iter().copied().map(Hash::from_bytes).collect();
        verify_inclusion(&proof, Hash::of_leaf(&shown.leaf), shown.index, head.size, head.root)
            .map_err(|_| Refused::NotShown("an entry that is not in the log"))?;
        let leaf: Leaf<'_> =
            serde_json::from_slice(&shown.leaf).map_err(|_| Refused::NotShown("an entry that it cannot read"))?;
        if leaf.event.r#type != "decision" || leaf.event.outcome != "allow" {
            return Err(Refused::NotShown("an entry that allows nothing"));
        }
        match decided {
            Decided::Claims(digest) if leaf.event.claims_sha256 != hex(&digest) => {
                return Err(Refused::NotShown("a decision about other claims"));
            }
            Decided::Plan(digest) if leaf.event.plan_sha256 != hex(&digest) => {
                return Err(Refused::NotShown("a decision about another plan"));
            }
            Decided::Claims(_) | Decided::Plan(_) => {}
        }
        self.extend(head, link)
    }

    /// The head of a checkpoint that the log's key signed.
    fn open(&self, checkpoint: &str) -> Result<Head, Refused> {
        let verified = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, head)) = verified().as_ref().filter(|(text, _)| text == checkpoint) {
            return Ok(*head);
        }
        let opened = Checkpoint::open(checkpoint.as_bytes(), &self.log_key)
            .map_err(|_| Refused::NotShown("a checkpoint that is not signed by the log"))?;
        *verified() = Some((checkpoint.to_owned(), opened.head));
        Ok(opened.head)
    }

    /// INVARIANT(one-history): every checkpoint that the gate accepts is consistent with all that it accepted before. A
    /// larger tree must extend the newest one; a smaller one is part of the history if any later one of it extends it.
    fn extend(&self, head: Head, link: &Consistency<'_>) -> Result<(), Refused> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, last_root)) = seen.last_key_value().map(|(size, root)| (*size, *root)) {
            if let Some(root) = seen.get(&head.size) {
                return if *root == head.root { Ok(()) } else { Err(Refused::NotShown("two trees of one size")) };
            }
            let (old, new) = match seen.get(&link.new) {
                _ if head.size > last => ((last, last_root), (head.size, head.root)),
                Some(root) if link.new > head.size => ((head.size, head.root), (link.new, *root)),
                _ => return Err(Refused::Moved(last)),
            };
            if (link.old, link.new) != (old.0, new.0) {
                return Err(Refused::Moved(last));
            }
            let proof: Vec<_> = link.proof.iter().copied().map(Hash::from_bytes).collect();
            verify_consistency(&proof, old, new)
                .map_err(|_| Refused::NotShown("a log that is not an extension of what it saw"))?;
        }
        seen.insert(head.size, head.root);
        if seen.len() > HEADS_MAX {
            seen.pop_first();
        }
        Ok(())
    }
}

/// How large the tree of an inclusion's checkpoint says it is. Not verified: only for asking the right question.
pub(crate) fn tree_size(shown: &Inclusion) -> Result<u64, Refused> {
    let size = shown.checkpoint.lines().nth(1).and_then(|line| line.parse().ok());
    size.ok_or(Refused::NotShown("a checkpoint that it cannot read"))
}
