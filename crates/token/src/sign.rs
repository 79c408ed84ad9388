//! Signing: the port that holds a private key, its aws-lc-rs ES256 implementation, and the compact
//! serialisation (RFC 7515 §7.1). It signs [`CanonicalClaims`] only; whether it *may* sign them (no
//! log, no key) is the business of the port's owner.

use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::claims::CanonicalClaims;
use crate::jwk::PublicKey;
use crate::{Error, UnixSeconds};

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

/// An ES256 key in this process. Its `kid` is its RFC 7638 thumbprint.
pub struct Es256Signer {
    key: aws_lc_rs::signature::EcdsaKeyPair,
    public: PublicKey,
}

impl Es256Signer {
    /// Reads a P-256 key from PKCS#8 DER. The caller's buffer should be zeroized after.
    ///
    /// # Errors
    /// [`Error::SigningKeyRejected`].
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        todo!()
    }

    /// A new P-256 key as PKCS#8 DER, from aws-lc-rs's own generator (it accepts no other).
    ///
    /// # Errors
    /// [`Error::SigningFailed`] if the generator fails.
    pub fn generate_pkcs8() -> Result<Zeroizing<Vec<u8>>, Error> {
        todo!()
    }
}

/// A signed access token and what re-reading it says.
pub fn mint(claims: &CanonicalClaims, signer: &dyn TokenSigner) -> Result<String, Error> {
    todo!()
}
