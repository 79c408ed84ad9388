//! The signing port: *no log, no key* (R16). It signs claims only if it is shown a log entry that decided exactly these
//! claims, included under a checkpoint of the log's key that extends the last one it saw, and within its ceiling; then
//! it re-reads what it signed as a stranger would. It knows neither policy nor tasks, so that it can move into a process
//! of its own.

use crate::error::Error;
use crate::gate::{Consistency, Decided, LogGate, Refused};
use crate::ports::Inclusion;
use arc_swap::ArcSwap;
use auditlog::note::VerifierKey;
use std::sync::Arc;
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

pub(crate) struct Signer {
    gate: LogGate,
    keys: ArcSwap<TokenKeys>,
    key_set: ArcSwap<KeySet>,
    lifetime_secs_max: i64,
}

impl Signer {
    pub(crate) fn new(config: SignerConfig) -> Result<Self, Error> {
        let key_set = config.keys.key_set()?;
        Ok(Self {
            gate: LogGate::new(config.log_key),
            keys: ArcSwap::from_pointee(config.keys),
            key_set: ArcSwap::from_pointee(key_set),
            lifetime_secs_max: config.token_lifetime_secs_max,
        })
    }

    /// How large the last tree was that the signer saw.
    pub(crate) fn seen(&self) -> u64 {
        self.gate.seen()
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
        self.gate.check(Decided::Claims(claims.digest()), shown, link)?;
        let (_, read) = CanonicalClaims::parse(claims.as_bytes()).map_err(|error| Refused::Key(error.to_string()))?;
        if read.expires_at.since(read.issued_at) > self.lifetime_secs_max {
            return Err(Refused::NotShown("claims that live longer than its ceiling"));
        }
        let keys = self.keys.load();
        // `mint` re-verifies what it signed before it lets it out.
        token::sign::mint(claims, &*keys.active).map_err(|error| Refused::Key(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
