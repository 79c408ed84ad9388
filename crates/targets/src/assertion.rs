//! RS256 assertions (RFC 7515 §3, RFC 7523) that kinds without a password show to a token endpoint: a GitHub App's JWT,
//! the subject token of a workload identity federation, a client assertion. Owns the key's format and the signature;
//! what the claims say is the kind's business. The key is read each time and never kept.

use crate::config::Secret;
use authority::target::TargetError;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;

/// A key that signs assertions: RSA, in PEM, PKCS #1 or PKCS #8.
#[derive(Debug, Clone)]
pub(crate) struct AssertionKey(Secret);

/// The public half, as others verify with it.
struct Public {
    modulus: String,
    exponent: String,
}

impl Public {
    fn of(pair: &KeyPair) -> Self {
        let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        Self { modulus: URL_SAFE_NO_PAD.encode(&parts.n), exponent: URL_SAFE_NO_PAD.encode(&parts.e) }
    }

    /// RFC 7638 §3: the required members in lexicographic order.
    fn thumbprint(&self) -> String {
        let text = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, self.exponent, self.modulus);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
    }
}

impl AssertionKey {
    /// The key behind this secret.
    pub(crate) const fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// A compact JWS over the claims. Its `kid` is the key's RFC 7638 thumbprint.
    ///
    /// # Errors
    /// The key cannot be read, or is none.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<SecretString, TargetError> {
        let pair = self.pair()?;
        let header = json!({ "alg": "RS256", "kid": Public::of(&pair).thumbprint(), "typ": "JWT" });
        let unwritable = |_| TargetError::Unacceptable("the assertion cannot be written as JSON".to_owned());
        let claims = serde_json::to_vec(claims).map_err(unwritable)?;
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| TargetError::Refused("the assertion key does not sign".to_owned()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }

    /// The key set (RFC 7517 §5) that the other side is given once.
    ///
    /// # Errors
    /// The key cannot be read, or is none.
    pub(crate) fn key_set(&self) -> Result<String, TargetError> {
        let public = Public::of(&self.pair()?);
        let key = json!({
            "alg": "RS256", "e": public.exponent, "kid": public.thumbprint(), "kty": "RSA", "n": public.modulus, "use": "sig",
        });
        Ok(json!({ "keys": [key] }).to_string())
    }

    fn pair(&self) -> Result<KeyPair, TargetError> {
        let unfit = |what: &str| {
            TargetError::Unacceptable(format!("the assertion key is {what}; give an RSA key of 2048 bits or more in PEM"))
        };
        let pem = self.0.read()?;
        let pair = match PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| unfit("no private key"))? {
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(unfit("of another kind")),
        };
        pair.map_err(|_| unfit("not acceptable"))
    }
}
