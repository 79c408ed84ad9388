//! DPoP proofs (RFC 9449 §4.3, checks 1–12) and stateless nonces (§8). The replay cache is the caller's:
//! remember [`Proof::jti`] under [`Proof::jkt`] for the whole acceptance window.

use std::sync::Arc;

use crate::jwk::PublicKey;
use crate::{Error, UnixSeconds};

/// Longest proof in bytes.
pub const PROOF_BYTES_MAX: usize = 4 * 1024;
/// Longest `jti` in bytes: it goes into the caller's replay cache.
pub const JTI_BYTES_MAX: usize = 128;

/// The normalised target URI of a request: no query, no fragment, lower-case scheme and host, no default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUri(String);

impl TargetUri {
    /// Normalises an absolute http(s) URI (RFC 9449 §4.3 check 9, RFC 3986 §6.2.2–3). Precompute it per endpoint.
    ///
    /// # Errors
    /// [`Error::UriMalformed`].
    pub fn parse(uri: &str) -> Result<Self, Error> {
        todo!()
    }
}

/// A parsed proof key and its thumbprint; cheap to clone, meant to be cached per `jkt`.
#[derive(Debug, Clone)]
pub struct ProofKey {
    jkt: Arc<str>,
    key: Arc<PublicKey>,
}

impl ProofKey {
    /// The RFC 7638 thumbprint.
    #[must_use]
    pub fn jkt(&self) -> &str {
        &self.jkt
    }
}

/// What the proof must be about.
#[derive(Debug, Clone, Copy)]
pub struct ProofRequest<'a> {
    /// The request's method, e.g. `POST`.
    pub method: &'a str,
    /// The request's URI as the client sees it.
    pub uri: &'a TargetUri,
    /// The access token presented with it; `None` at the token endpoint.
    pub access_token: Option<&'a str>,
    /// A key parsed from an earlier proof of the same holder, to save parsing it again.
    pub known_key: Option<&'a ProofKey>,
}

/// How fresh a proof must be.
#[derive(Debug, Clone, Copy)]
pub struct ProofRules<'a> {
    /// Seconds that `iat` may lie in the past.
    pub age_secs_max: i64,
    /// Seconds that `iat` may lie in the future.
    pub ahead_secs_max: i64,
    /// If set, a nonce of this key is demanded.
    pub nonce: Option<&'a NonceKey>,
}

/// A proof that passed all checks except replay.
#[derive(Debug, Clone)]
pub struct Proof {
    /// Thumbprint of the proof key; compare with the token's `cnf.jkt`.
    pub jkt: String,
    /// To be remembered by the caller.
    pub jti: String,
    /// When the holder made it.
    pub issued_at: UnixSeconds,
    /// The parsed key, for `known_key` next time.
    pub key: ProofKey,
}

/// Checks a proof.
///
/// # Errors
/// The rule that refused it; [`Error::NonceMissing`]/[`Error::NonceRefused`] are answered `use_dpop_nonce`.
pub fn verify_proof(
    proof: &str,
    request: &ProofRequest<'_>,
    rules: &ProofRules<'_>,
    now: UnixSeconds,
) -> Result<Proof, Error> {
    todo!()
}

/// The key of stateless nonces.
pub struct NonceKey {
}

impl std::fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NonceKey(..)")
    }
}

impl NonceKey {
    /// From 32 random bytes. Nonces last between one and two `bucket_secs`.
    #[must_use]
    pub fn new(secret: [u8; 32], bucket_secs: u32) -> Self {
        todo!()
    }

    /// The nonce to hand out now.
    #[must_use]
    pub fn issue(&self, now: UnixSeconds) -> String {
        todo!()
    }

    /// Whether a nonce is of the current or the previous bucket; constant time.
    #[must_use]
    pub fn accepts(&self, nonce: &str, now: UnixSeconds) -> bool {
        todo!()
    }
}
