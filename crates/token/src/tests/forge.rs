//! Test side only: keys of every kind, and tokens signed over any header and payload whatever, valid or
//! not. It bypasses every rule of this crate on purpose.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding};
use serde_json::{Map, Value, json};

use crate::UnixSeconds;
use crate::algorithm::Algorithm;
use crate::jwks::KeySet;
use crate::jws::encode;

/// The time at which every test takes place.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// One key of each kind.
pub(crate) struct Keys {
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    rsa: RsaKeyPair,
    ed25519: Ed25519KeyPair,
}

/// The issuer's keys, and those of somebody else.
pub(crate) static ISSUER: LazyLock<Keys> = LazyLock::new(Keys::generate);
pub(crate) static STRANGER: LazyLock<Keys> = LazyLock::new(Keys::generate);

impl Keys {
    fn generate() -> Self {
        let ec = |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::generate(algorithm).unwrap();
        Self {
            p256: ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        let rsa = |padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &rng, message, &mut signature).unwrap();
            signature
        };
        match algorithm {
            Algorithm::Es256 => self.p256.sign(&rng, message).unwrap().as_ref().to_vec(),
            Algorithm::Es384 => self.p384.sign(&rng, message).unwrap().as_ref().to_vec(),
            Algorithm::EdDsa => self.ed25519.sign(message).as_ref().to_vec(),
            Algorithm::Rs256 => rsa(&signature::RSA_PKCS1_SHA256),
            Algorithm::Rs384 => rsa(&signature::RSA_PKCS1_SHA384),
            Algorithm::Rs512 => rsa(&signature::RSA_PKCS1_SHA512),
            Algorithm::Ps256 => rsa(&signature::RSA_PSS_SHA256),
            Algorithm::Ps384 => rsa(&signature::RSA_PSS_SHA384),
            Algorithm::Ps512 => rsa(&signature::RSA_PSS_SHA512),
        }
    }

    /// The public JWK that goes with an algorithm, without `kid`, `use` and `alg`.
    pub(crate) fn jwk(&self, algorithm: Algorithm) -> Map<String, Value> {
        let point = |key: &EcdsaKeyPair, curve: &str, size: usize| {
            let (x, y) = key.public_key().as_ref()[1..].split_at(size);
            json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
        };
        let jwk = match algorithm {
            Algorithm::Es256 => point(&self.p256, "P-256", 32),
            Algorithm::Es384 => point(&self.p384, "P-384", 48),
            Algorithm::EdDsa => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(self.ed25519.public_key().as_ref())})
            }
            _ => {
                let public = self.rsa.public_key();
                let n = public.modulus().big_endian_without_leading_zero();
                let e = public.exponent().big_endian_without_leading_zero();
                json!({"kty": "RSA", "n": encode(n), "e": encode(e)})
            }
        };
        jwk.as_object().unwrap().clone()
    }

    /// A JWKS with one key per family, `kid`s `p256`, `p384`, `rsa`, `ed`, and that `use`.
    pub(crate) fn jwks(&self, purpose: &str) -> Value {
        let key = |kid: &str, algorithm| {
            let mut jwk = self.jwk(algorithm);
            jwk.insert("kid".to_owned(), kid.into());
            jwk.insert("use".to_owned(), purpose.into());
            jwk
        };
        let keys = [
            key("p256", Algorithm::Es256),
            key("p384", Algorithm::Es384),
            key("rsa", Algorithm::Rs256),
            key("ed", Algorithm::EdDsa),
        ];
        json!({ "keys": keys })
    }

    pub(crate) fn key_set(&self) -> KeySet {
        KeySet::parse(self.jwks("sig").to_string().as_bytes()).unwrap()
    }

    /// A compact JWS over the given texts, taken literally.
    pub(crate) fn compact(&self, algorithm: Algorithm, header: &str, payload: &str) -> String {
        let input = signing_input(header, payload);
        let signature = self.sign(algorithm, input.as_bytes());
        format!("{input}.{}", encode(&signature))
    }

    /// The RSA public key as PEM-like bytes: the classic HMAC secret of key confusion.
    pub(crate) fn rsa_public_bytes(&self) -> Vec<u8> {
        self.rsa.public_key().as_ref().to_vec()
    }
}

pub(crate) fn kid(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Es256 => "p256",
        Algorithm::Es384 => "p384",
        Algorithm::EdDsa => "ed",
        _ => "rsa",
    }
}

pub(crate) fn signing_input(header: &str, payload: &str) -> String {
    format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()))
}

/// A JWS "signed" with HMAC-SHA256 under `secret`.
pub(crate) fn hmac_compact(secret: &[u8], header: &str, payload: &str) -> String {
    let input = signing_input(header, payload);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    format!("{input}.{}", encode(tag.as_ref()))
}

/// `value` with the members of `patch`; `null` removes one (RFC 7396).
pub(crate) fn patched(mut value: Value, patch: &Value) -> Value {
    for (name, member) in patch.as_object().unwrap() {
        let target = value.as_object_mut().unwrap();
        match member {
            Value::Null => target.remove(name),
            _ => target.insert(name.clone(), member.clone()),
        };
    }
    value
}
