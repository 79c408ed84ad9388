//! One public key as a JWK (RFC 7517, RFC 7518 §6, RFC 8037): strict parsing, RFC 7638 thumbprint,
//! emission, and the signature check itself. It holds public keys only and must never accept others.

use serde_json::{Map, Value};

use crate::Error;
use crate::algorithm::Algorithm;

/// A public key that was checked when it was read: on its curve, or an RSA modulus of 2048–8192 bits.
#[derive(Debug, Clone)]
pub struct PublicKey {
}

impl PublicKey {
    /// Reads a JWK's key members. Ignores `kid`, `use`, `alg` (see [`crate::jwks::KeySet`]).
    ///
    /// # Errors
    /// [`Error::KeySymmetric`], [`Error::KeyPrivate`], [`Error::KeyMalformed`].
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, Error> {
        todo!()
    }

    /// The RFC 7638 SHA-256 thumbprint, base64url without padding (43 characters): the `jkt` of DPoP.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        todo!()
    }

    /// The key as a JWK with `kty`, its parameters, `kid`, `use: sig` and `alg`.
    #[must_use]
    pub fn to_jwk(&self, key_id: &str, algorithm: Algorithm) -> Value {
        todo!()
    }

    /// Verifies a JWS signature over `message`.
    ///
    /// # Errors
    /// [`Error::SignatureInvalid`], also if the key does not fit the algorithm.
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        todo!()
    }
}
