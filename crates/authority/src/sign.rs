//! The signing port: *no log, no key* (R16). It signs claims only if it is shown a log entry that decided exactly these
//! claims, included under a checkpoint of the log's key that extends the last one it saw, and within its ceiling; then
//! it re-reads what it signed as a stranger would. It knows neither policy nor tasks, so that it can move into a process
//! of its own.

use crate::error::Error;
use crate::event::hex;
use crate::ports::Inclusion;
use arc_swap::ArcSwap;
use auditlog::checkpoint::Checkpoint;
use auditlog::hash::Hash;
use auditlog::note::VerifierKey;
use auditlog::proof::{verify_consistency, verify_inclusion};
use serde::Deserialize;
use std::sync::{Arc, Mutex, PoisonError};
use token::claims::CanonicalClaims;
use token::jwks::KeySet;
use token::sign::TokenSigner;

/// The keys that sign tokens: one signs, all are published.
pub struct TokenKeys {
    /// The one that signs.
    pub active: Arc<dyn TokenSigner>,
    /// Others that verifiers must know: the next one before it signs, earlier ones until their tokens have expired.
    pub published: Vec<Arc<dyn TokenSigner>>,
}

impl TokenKeys {
    fn key_set(&self) -> Result<KeySet, Error> {
        let signers = std::iter::once(&self.active).chain(&self.published).map(|signer| &**signer as &dyn TokenSigner);
        KeySet::of_signers(signers).map_err(|_| Error::Unacceptable("two signing keys have the same key id"))
    }
}

/// What the signer needs at start.
pub struct SignerConfig {
    /// The log's verifier key: whose checkpoints count.
    pub log_key: VerifierKey,
    /// Keys that sign tokens.
    pub keys: TokenKeys,
    /// Longest life of a token, in seconds, whatever was decided.
    pub token_lifetime_secs_max: i64,
}

/// Why the signer did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The signer has seen another checkpoint meanwhile, of so many leaves: show consistency with that one.
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
pub(crate) struct Consistency<'a> {
    pub old: u64,
    pub new: u64,
    pub proof: &'a [[u8; 32]],
}

#[derive(Clone, Copy)]
struct SeenHead {
    size: u64,
    root: Hash,
}

pub(crate) struct Signer {
    log_key: VerifierKey,
    keys: ArcSwap<TokenKeys>,
    key_set: ArcSwap<KeySet>,
    lifetime_secs_max: i64,
    seen: Mutex<Option<SeenHead>>,
}

/// The part of a decision entry that the signer reads.
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
}

impl Signer {
    pub(crate) fn new(config: SignerConfig) -> Result<Self, Error> {
        let key_set = config.keys.key_set()?;
        Ok(Self {
            log_key: config.log_key,
            keys: ArcSwap::from_pointee(config.keys),
            key_set: ArcSwap::from_pointee(key_set),
            lifetime_secs_max: config.token_lifetime_secs_max,
            seen: Mutex::new(None),
        })
    }

    /// How large the last tree was that the signer saw.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).map_or(0, |head| head.size)
    }

    pub(crate) fn key_set(&self) -> Arc<KeySet> {
        self.key_set.load_full()
    }

    /// Replaces the keys. Verifiers must have been given the new active one before (`published`), and keep the old.
    pub(crate) fn rotate(&self, keys: TokenKeys) -> Result<(), Error> {
        self.key_set.store(Arc::new(keys.key_set()?));
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Signs exactly these claims, if the inclusion shows that exactly they were decided and logged.
    pub(crate) fn sign(&self, claims: &CanonicalClaims, shown: &Inclusion, link: &Consistency<'_>) -> Result<String, Refused> {
        self.check_shown(claims, shown, link)?;
        let (_, read) = CanonicalClaims::parse(claims.as_bytes()).map_err(|error| Refused::Key(error.to_string()))?;
        if read.expires_at.since(read.issued_at) > self.lifetime_secs_max {
            return Err(Refused::NotShown("claims that live longer than its ceiling"));
        }
        let keys = self.keys.load();
        // `mint` re-verifies what it signed before it lets it out.
        token::sign::mint(claims, &*keys.active).map_err(|error| Refused::Key(error.to_string()))
    }

    fn check_shown(&self, claims: &CanonicalClaims, shown: &Inclusion, link: &Consistency<'_>) -> Result<(), Refused> {
        let head = Checkpoint::open(shown.checkpoint.as_bytes(), &self.log_key)
            .map_err(|_| Refused::NotShown("a checkpoint that is not signed by the log"))?
            .head;
        let proof: Vec<_> = shown.proof.iter().copied().map(Hash::from_bytes).collect();
        verify_inclusion(&proof, Hash::of_leaf(&shown.leaf), shown.index, head.size, head.root)
            .map_err(|_| Refused::NotShown("an entry that is not in the log"))?;
        let leaf: Leaf<'_> =
            serde_json::from_slice(&shown.leaf).map_err(|_| Refused::NotShown("an entry that it cannot read"))?;
        if leaf.event.r#type != "decision" || leaf.event.outcome != "allow" {
            return Err(Refused::NotShown("an entry that allows nothing"));
        }
        if leaf.event.claims_sha256 != hex(&claims.digest()) {
            return Err(Refused::NotShown("a decision about other claims"));
        }
        self.extend(SeenHead { size: head.size, root: head.root }, link)
    }

    /// INVARIANT(one-history): every checkpoint that the signer accepts is consistent with all that it accepted before.
    fn extend(&self, head: SeenHead, link: &Consistency<'_>) -> Result<(), Refused> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = *seen else {
            *seen = Some(head);
            return Ok(());
        };
        let (old, new) = if last.size <= head.size { (last, head) } else { (head, last) };
        if old.size == new.size {
            return if old.root == new.root { Ok(()) } else { Err(Refused::NotShown("two trees of one size")) };
        }
        if (link.old, link.new) != (old.size, new.size) {
            return Err(Refused::Moved(last.size));
        }
        let proof: Vec<_> = link.proof.iter().copied().map(Hash::from_bytes).collect();
        verify_consistency(&proof, (old.size, old.root), (new.size, new.root))
            .map_err(|_| Refused::NotShown("a log that is not an extension of what it saw"))?;
        *seen = Some(new);
        Ok(())
    }
}

/// How large the tree of an inclusion's checkpoint says it is. Not verified: only for asking the right question.
pub(crate) fn tree_size(shown: &Inclusion) -> Result<u64, Refused> {
    let size = shown.checkpoint.lines().nth(1).and_then(|line| line.parse().ok());
    size.ok_or(Refused::NotShown("a checkpoint that it cannot read"))
}

#[cfg(test)]
mod tests;
