//! Signing: the port that holds a private key, its aws-lc-rs ES256 implementation, and the compact
//! serialisation (RFC 7515 §7.1). It signs [`CanonicalClaims`] only; whether it *may* sign them (no
//! log, no key) is the business of the port's owner.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::Error;
use crate::algorithm::Algorithm;
use crate::claims::CanonicalClaims;
use crate::jwk::{KeyMembers, PublicKey};
use crate::jws::encode;

/// The explicit type of our access tokens (RFC 9068 §2.1).
pub(crate) const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// A private key that signs tokens; in process, in a separate process, or in hardware.
pub trait TokenSigner: Send + Sync {
    /// The `kid` that goes into the header and into our JWKS.
    fn key_id(&self) -> &str;
    /// The algorithm of [`TokenSigner::sign`].
    fn algorithm(&self) -> Algorithm;
    /// The public half, for our JWKS and for re-checking what was signed.
    fn public_key(&self) -> &PublicKey;
    /// The raw JWS signature over `message` (for ES256: `r ‖ s`, 64 bytes, RFC 7518 §3.4).
    ///
    /// # Errors
    /// [`Error::SigningFailed`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error>;
}

/// An ES256 key in this process. Its `kid` is its RFC 7638 thumbprint. aws-lc-rs wipes the private
/// half when it is dropped.
pub struct Es256Signer {
    key: EcdsaKeyPair,
    key_id: String,
    public: PublicKey,
}

impl Es256Signer {
    /// Reads a P-256 key from PKCS#8 DER. The caller's buffer should be zeroized after.
    ///
    /// # Errors
    /// [`Error::SigningKeyRejected`].
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| Error::SigningKeyRejected)?;
        // An uncompressed point: 0x04, then x and y of 32 bytes each (SEC 1 §2.3.3).
        let Some(([4], coordinates)) = key.public_key().as_ref().split_at_checked(1) else {
            return Err(Error::SigningKeyRejected);
        };
        let (x, y) = coordinates.split_at_checked(32).ok_or(Error::SigningKeyRejected)?;
        let public = KeyMembers::P256 { x: x.to_vec(), y: y.to_vec() }.into_key()?;
        Ok(Self { key, key_id: public.thumbprint(), public })
    }

    /// A new P-256 key as PKCS#8 DER, from aws-lc-rs's own generator (it accepts no other).
    ///
    /// # Errors
    /// [`Error::SigningFailed`] if the generator fails.
    pub fn generate_pkcs8() -> Result<Zeroizing<Vec<u8>>, Error> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::SigningFailed)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }
}

impl fmt::Debug for Es256Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Es256Signer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl TokenSigner for Es256Signer {
    fn key_id(&self) -> &str {
        &self.key_id
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::Es256
    }

    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.key
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| Error::SigningFailed)
    }
}

/// Signs canonical claims as a compact `at+jwt` and verifies the signature before the token leaves: a
/// faulty computation can give the key away, a faulty key is noticed here and not by every gateway.
///
/// # Errors
/// [`Error::SigningFailed`], [`Error::SignatureInvalid`].
pub fn mint(claims: &CanonicalClaims, signer: &dyn TokenSigner) -> Result<String, Error> {
    let header = serde_json::json!({
        "alg": signer.algorithm().name(), "kid": signer.key_id(), "typ": ACCESS_TOKEN_TYPE,
    });
    let mut token = format!("{}.{}", encode(domain::json::canonical(&header).as_bytes()), encode(claims.as_bytes()));
    let signature = signer.sign(token.as_bytes())?;
    signer.public_key().verify(signer.algorithm(), token.as_bytes(), &signature)?;
    token.push('.');
    token.push_str(&encode(&signature));
    Ok(token)
}
