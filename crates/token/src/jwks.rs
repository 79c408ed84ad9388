//! Key sets: JWKS documents (RFC 7517 §5), SPIFFE bundles (SPIFFE Trust Domain and Bundle §4), lookup by
//! `kid`, and our own published JWKS. It never fetches and never merges the sets of two issuers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::algorithm::Algorithm;
use crate::error::excerpt;
use crate::jwk::PublicKey;
use crate::sign::TokenSigner;
use crate::spiffe_id::TrustDomain;
use crate::{json as strict_json, svid};

/// Largest key document in bytes that is parsed at all.
pub const KEY_DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Most keys that a set may list.
pub const KEYS_MAX: usize = 128;

/// The keys of one issuer.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    entries: Vec<Entry>,
    skipped: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    key_id: Option<String>,
    algorithm: Option<Algorithm>,
    key: PublicKey,
}

impl Entry {
    /// The key's type fits, and so does its declared `alg` if it has one (RFC 8725 §3.1).
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.key.fits(algorithm) && self.algorithm.is_none_or(|declared| declared == algorithm)
    }
}

impl KeySet {
    /// Reads an issuer's JWKS. Keys that we cannot use (unknown `kty`, curve or `alg`, too small, not for
    /// signatures, malformed) are skipped as RFC 7517 §5 says and counted in [`KeySet::skipped`];
    /// symmetric or private keys refuse the whole document.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::JsonMalformed`], [`Error::JsonTooDeep`], [`Error::MemberDuplicate`],
    /// [`Error::KeySymmetric`], [`Error::KeyPrivate`], [`Error::KeyIdDuplicate`],
    /// [`Error::KeySetTooLong`].
    pub fn parse(document: &[u8]) -> Result<Self, Error> {
        let mut set = Self::default();
        for jwk in read_keys(&read_document(document)?)? {
            let for_signatures = jwk.get("use").is_none_or(|purpose| purpose == "sig");
            set.read(jwk, for_signatures)?;
        }
        Ok(set)
    }

    /// The set of our own verification keys, in the order given.
    ///
    /// # Errors
    /// [`Error::KeyIdDuplicate`].
    pub fn of_signers<'a>(signers: impl IntoIterator<Item = &'a dyn TokenSigner>) -> Result<Self, Error> {
        let mut set = Self::default();
        for signer in signers {
            set.add(signer.key_id(), signer.algorithm(), signer.public_key().clone())?;
        }
        Ok(set)
    }

    /// Adds one of our own keys, such as one whose private half is retired but whose tokens still live.
    ///
    /// # Errors
    /// [`Error::KeyIdDuplicate`].
    pub fn add(&mut self, key_id: &str, algorithm: Algorithm, key: PublicKey) -> Result<(), Error> {
        self.insert(Entry { key_id: Some(key_id.to_owned()), algorithm: Some(algorithm), key })
    }

    /// The key for a token: by `kid`, or without one the only key that fits the algorithm.
    ///
    /// # Errors
    /// [`Error::KeyUnknown`] (the caller may refetch), [`Error::KeyUnfit`], [`Error::KeyIdMissing`].
    pub fn find(&self, key_id: Option<&str>, algorithm: Algorithm) -> Result<&PublicKey, Error> {
        let kid = || key_id.map(excerpt).unwrap_or_default();
        let named = || self.entries.iter().filter(|e| key_id.is_none() || e.key_id.as_deref() == key_id);
        let mut fitting = named().filter(|entry| entry.fits(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(entry), None) => Ok(&entry.key),
            (Some(_), Some(_)) => Err(Error::KeyIdMissing),
            (None, _) if key_id.is_some() && named().next().is_some() => {
                Err(Error::KeyUnfit { kid: kid(), algorithm: algorithm.name() })
            }
            (None, _) => Err(Error::KeyUnknown { kid: kid() }),
        }
    }

    /// Our own set (every key has `kid` and `alg`) as a JWKS document to publish.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let keys = self.entries.iter().filter_map(|entry| Some(entry.key.to_jwk(entry.key_id.as_deref()?, entry.algorithm?)));
        json!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// How many usable keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is usable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many listed keys we cannot use; worth a line in the operator's log.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Reads one JWK; `wanted` says whether its purpose is the one this set is for. Secret material is
    /// refused whatever its purpose.
    fn read(&mut self, jwk: &Map<String, Value>, wanted: bool) -> Result<(), Error> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let verifies = jwk.get("key_ops").is_none_or(|ops| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify")));
        let algorithm = jwk.get("alg").map(|_| Algorithm::parse(text("alg").unwrap_or_default()));
        match (PublicKey::from_jwk(jwk), algorithm.transpose()) {
            (Err(fault @ (Error::KeySymmetric | Error::KeyPrivate)), _) => Err(fault),
            (Ok(key), Ok(algorithm)) if wanted && verifies && algorithm.is_none_or(|algorithm| key.fits(algorithm)) => {
                self.insert(Entry { key_id: text("kid").map(str::to_owned), algorithm, key })
            }
            _ => {
                self.skipped += 1;
                Ok(())
            }
        }
    }

    /// One `kid` may name keys of different kinds (RFC 7517 §4.5), but never two candidates for one
    /// algorithm.
    fn insert(&mut self, entry: Entry) -> Result<(), Error> {
        let clashes = |other: &Entry| {
            other.key_id.is_some()
                && other.key_id == entry.key_id
                && Algorithm::ALL.into_iter().any(|alg| other.fits(alg) && entry.fits(alg))
        };
        if self.entries.iter().any(clashes) {
            return Err(Error::KeyIdDuplicate { kid: excerpt(entry.key_id.as_deref().unwrap_or_default()) });
        }
        self.entries.push(entry);
        Ok(())
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
    /// one certificate in `x5c`). Other and malformed entries are skipped. An empty `keys` array is valid
    /// and revokes everything.
    ///
    /// # Errors
    /// As [`KeySet::parse`].
    pub fn parse(trust_domain: TrustDomain, document: &[u8]) -> Result<Self, Error> {
        let document = read_document(document)?;
        let (mut jwt, mut x509) = (KeySet::default(), Vec::new());
        for jwk in read_keys(&document)? {
            if jwk.get("use").is_some_and(|purpose| purpose == "x509-svid") {
                match read_authority(jwk) {
                    Some(certificate) => x509.push(certificate),
                    None => jwt.skipped += 1,
                }
            } else {
                let named = jwk.get("kid").is_some_and(|kid| kid.as_str() != Some(""));
                jwt.read(jwk, named && jwk.get("use").is_some_and(|purpose| purpose == "jwt-svid"))?;
            }
        }
        let number = |name: &str| document.get(name).and_then(Value::as_u64);
        let (sequence, refresh_hint_secs) = (number("spiffe_sequence"), number("spiffe_refresh_hint"));
        Ok(Self { trust_domain, jwt, x509, sequence, refresh_hint_secs })
    }

    /// A bundle of X.509 authorities alone, such as those of a PEM file that an operator configured.
    ///
    /// # Errors
    /// [`Error::CertificateMalformed`] if one is not a certificate.
    pub fn of_x509(trust_domain: TrustDomain, authorities: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        if !authorities.iter().all(svid::is_certificate) {
            return Err(Error::CertificateMalformed);
        }
        Ok(Self { trust_domain, jwt: KeySet::default(), x509: authorities, sequence: None, refresh_hint_secs: None })
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

fn read_document(document: &[u8]) -> Result<Map<String, Value>, Error> {
    if document.len() > KEY_DOCUMENT_BYTES_MAX {
        return Err(Error::TooLarge { limit: KEY_DOCUMENT_BYTES_MAX });
    }
    strict_json::parse_object(document, "key set")
}

fn read_keys(document: &Map<String, Value>) -> Result<Vec<&Map<String, Value>>, Error> {
    let malformed = Error::JsonMalformed { part: "key set" };
    let keys = document.get("keys").and_then(Value::as_array).ok_or(malformed.clone())?;
    if keys.len() > KEYS_MAX {
        return Err(Error::KeySetTooLong { limit: KEYS_MAX });
    }
    keys.iter().map(|key| key.as_object().ok_or(malformed.clone())).collect()
}

/// The authority of an `x509-svid` entry. `x5c` is standard base64 (RFC 7517 §4.7), one certificate.
fn read_authority(jwk: &Map<String, Value>) -> Option<CertificateDer<'static>> {
    let chain = jwk.get("x5c")?.as_array()?;
    let [Value::String(text)] = chain.as_slice() else {
        return None;
    };
    let certificate = CertificateDer::from(STANDARD.decode(text).ok()?);
    svid::is_certificate(&certificate).then_some(certificate)
}

#[cfg(test)]
mod tests;
