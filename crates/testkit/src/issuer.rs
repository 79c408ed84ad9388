//! An identity issuer and a key holder for tests: real ES256 keys and real JWTs, made the way outsiders would make them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// A P-256 key that signs JWTs.
struct Es256(EcdsaKeyPair);

impl Es256 {
    fn generate() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let (x, y) = point.split_at(1).1.split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
    }

    fn jws(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// An OIDC issuer with one ES256 key.
pub struct TestIssuer {
    key: Es256,
    /// Its `iss`.
    pub issuer: String,
    counter: AtomicU64,
}

impl TestIssuer {
    /// A new issuer with a fresh key.
    #[must_use]
    pub fn new(issuer: &str) -> Self {
        Self { key: Es256::generate(), issuer: issuer.into(), counter: AtomicU64::new(0) }
    }

    /// Its JWKS document.
    #[must_use]
    pub fn jwks(&self) -> String {
        let mut jwk = self.key.jwk();
        let members = jwk.as_object_mut().unwrap();
        members.extend([("kid".into(), "test-1".into()), ("alg".into(), "ES256".into()), ("use".into(), "sig".into())]);
        json!({ "keys": [jwk] }).to_string()
    }

    /// A token for `subject`, issued at `now` (Unix seconds) for five minutes, with a fresh `jti`.
    #[must_use]
    pub fn token(&self, subject: &str, audience: &str, now: i64) -> String {
        self.token_with(subject, audience, now, json!({}))
    }

    /// The same with more claims, or others in place of the usual ones.
    #[must_use]
    pub fn token_with(&self, subject: &str, audience: &str, now: i64, more: Value) -> String {
        let jti = format!("jti-{}", self.counter.fetch_add(1, Ordering::Relaxed));
        let mut claims = json!({ "iss": self.issuer, "sub": subject, "aud": audience, "iat": now, "exp": now + 300, "jti": jti });
        if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
            claims.extend(more);
        }
        self.key.jws(&json!({ "alg": "ES256", "kid": "test-1", "typ": "JWT" }), &claims)
    }
}

/// Somebody who holds a DPoP key.
pub struct Holder {
    key: Es256,
    counter: AtomicU64,
}

impl Default for Holder {
    fn default() -> Self {
        Self { key: Es256::generate(), counter: AtomicU64::new(0) }
    }
}

impl Holder {
    /// A fresh proof for a request, and for an access token if one goes with it (RFC 9449 §4.2).
    #[must_use]
    pub fn proof(&self, method: &str, uri: &str, now: i64, token: Option<&str>) -> String {
        self.proof_with(method, uri, now, token, json!({}))
    }

    /// The same with more claims, for example `nonce`.
    #[must_use]
    pub fn proof_with(&self, method: &str, uri: &str, now: i64, token: Option<&str>, more: Value) -> String {
        let jti = format!("proof-{}", self.counter.fetch_add(1, Ordering::Relaxed));
        let mut claims = json!({ "jti": jti, "htm": method, "htu": uri, "iat": now });
        if let (Some(claims), Some(token)) = (claims.as_object_mut(), token) {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
            claims.insert("ath".into(), URL_SAFE_NO_PAD.encode(hash).into());
        }
        if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
            claims.extend(more);
        }
        self.key.jws(&json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": self.key.jwk() }), &claims)
    }
}
