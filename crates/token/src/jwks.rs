//! Key sets: JWKS documents (RFC 7517 §5), SPIFFE bundles (SPIFFE-Trust-Domain-and-Bundle §4), lookup by
//! `kid`, and our own published JWKS. It never fetches and never merges two sets.

use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::Error;
use crate::algorithm::Algorithm;
use crate::jwk::PublicKey;
use crate::sign::TokenSigner;
use crate::spiffe_id::TrustDomain;

/// Largest key document in bytes that is parsed at all.
pub const KEY_DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Most keys that a set may list.
pub const KEYS_MAX: usize = 128;

/// The keys of one issuer.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
}

impl KeySet {
    /// Reads an issuer's JWKS. Keys of unknown `kty` or curve, or not for signatures, are skipped (RFC
    /// 7517 §5); symmetric or private keys refuse the whole document.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::JsonMalformed`], [`Error::MemberDuplicate`], [`Error::KeySymmetric`],
    /// [`Error::KeyPrivate`], [`Error::KeyMalformed`], [`Error::KeyIdDuplicate`], [`Error::KeySetTooLong`].
    pub fn parse(document: &[u8]) -> Result<Self, Error> {
        todo!()
    }

    /// The set of our own verification keys: the current signer's and those that are being retired.
    #[must_use]
    pub fn of_signers<'a>(signers: impl IntoIterator<Item = &'a dyn TokenSigner>) -> Self {
        todo!()
    }

    /// The key for a token: by `kid`, or without one the only key that fits the algorithm.
    ///
    /// # Errors
    /// [`Error::KeyUnknown`] (the caller may refetch), [`Error::KeyUnfit`], [`Error::KeyIdMissing`].
    pub fn find(&self, key_id: Option<&str>, algorithm: Algorithm) -> Result<&PublicKey, Error> {
        todo!()
    }

    /// This set as a JWKS document, for publishing our own.
    #[must_use]
    pub fn to_json(&self) -> Value {
        todo!()
    }

    /// How many usable keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether no key is usable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The trust roots of one trust domain. Never merged with another's.
#[derive(Debug, Clone)]
pub struct SpiffeBundle {
    trust_domain: TrustDomain,
    jwt: KeySet,
    x509: Vec<CertificateDer<'static>>,
    sequence: Option<u64>,
    refresh_hint_secs: Option<u64>,
}

impl SpiffeBundle {
    /// Reads a SPIFFE bundle document: keys of `use: jwt-svid` (with `kid`) and `use: x509-svid` (exactly
    /// one certificate in `x5c`). An empty `keys` array is valid and revokes everything.
    ///
    /// # Errors
    /// As [`KeySet::parse`].
    pub fn parse(trust_domain: TrustDomain, document: &[u8]) -> Result<Self, Error> {
        todo!()
    }

    /// The trust domain that this bundle vouches for, and no other.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The keys for JWT-SVIDs.
    #[must_use]
    pub fn jwt_keys(&self) -> &KeySet {
        &self.jwt
    }

    /// The X.509 authorities.
    #[must_use]
    pub fn x509_authorities(&self) -> &[CertificateDer<'static>] {
        &self.x509
    }

    /// `spiffe_sequence`: must not go back between fetches (the caller remembers).
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `spiffe_refresh_hint` in seconds.
    #[must_use]
    pub fn refresh_hint_secs(&self) -> Option<u64> {
        self.refresh_hint_secs
    }
}
