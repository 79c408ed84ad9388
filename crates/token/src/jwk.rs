//! One public key as a JWK (RFC 7517, RFC 7518 §6, RFC 8037): strict parsing, RFC 7638 thumbprint,
//! emission, and the signature check itself. It holds public keys only and must never accept others.

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::algorithm::{Algorithm, KeyFamily};
use crate::jws::{decode, encode, sha256_base64url};

/// RSA moduli we verify with, in bits (RFC 7518 §3.3 sets the floor; the ceiling bounds our work).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Longest RSA exponent in bytes; practice is 3.
const RSA_EXPONENT_BYTES_MAX: usize = 4;
/// Members that only private or symmetric keys have (RFC 7518 §6.2.2, §6.3.2, §6.4.1, RFC 8037 §2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key that was checked when it was read: on its curve, or an RSA modulus of 2048–8192 bits.
#[derive(Debug, Clone)]
pub struct PublicKey {
    members: KeyMembers,
    /// Parsed once for the curves. RSA keys are not bound to one padding and hash, so not parsed here.
    parsed: Option<ParsedPublicKey>,
}

/// The decoded members of a JWK: enough for its thumbprint, not yet known to be a usable key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyMembers {
    P256 { x: Vec<u8>, y: Vec<u8> },
    P384 { x: Vec<u8>, y: Vec<u8> },
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ed25519 { x: Vec<u8> },
}

impl KeyMembers {
    /// Reads the members that the key type needs.
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, Error> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if text("kty") == Some("oct") {
            return Err(Error::KeySymmetric);
        }
        if PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
            return Err(Error::KeyPrivate);
        }
        let bytes = |name: &str, length: Option<usize>| {
            let malformed = Error::KeyMalformed { what: "a member is missing or of wrong length" };
            let bytes = decode(text(name).ok_or(malformed.clone())?, "key")?;
            if bytes.is_empty() || length.is_some_and(|length| bytes.len() != length) {
                return Err(malformed);
            }
            Ok(bytes)
        };
        match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => Ok(Self::P256 { x: bytes("x", Some(32))?, y: bytes("y", Some(32))? }),
            (Some("EC"), Some("P-384")) => Ok(Self::P384 { x: bytes("x", Some(48))?, y: bytes("y", Some(48))? }),
            (Some("OKP"), Some("Ed25519")) => Ok(Self::Ed25519 { x: bytes("x", Some(32))? }),
            (Some("RSA"), None) => {
                let (n, e) = (bytes("n", None)?, bytes("e", None)?);
                check_rsa(&n, &e)?;
                Ok(Self::Rsa { n, e })
            }
            _ => Err(Error::KeyMalformed { what: "its type or curve is unknown" }),
        }
    }

    /// RFC 7638 §3: SHA-256 over the required members, sorted, without white space. Encoding the decoded
    /// bytes again gives every key exactly one spelling.
    pub(crate) fn thumbprint(&self) -> String {
        let text = match self {
            Self::P256 { x, y } => ec_text("P-256", x, y),
            Self::P384 { x, y } => ec_text("P-384", x, y),
            Self::Rsa { n, e } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n))
            }
            Self::Ed25519 { x } => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x))
            }
        };
        sha256_base64url(text.as_bytes())
    }

    /// Checks that the members are a usable key: a point on its curve, a modulus the library accepts.
    pub(crate) fn into_key(self) -> Result<PublicKey, Error> {
        let rejected = |_| Error::KeyMalformed { what: "not a point on its curve" };
        let parsed = match &self {
            Self::P256 { x, y } => {
                let point = [&[4], x.as_slice(), y].concat();
                Some(ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).map_err(rejected)?)
            }
            Self::P384 { x, y } => {
                let point = [&[4], x.as_slice(), y].concat();
                Some(ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).map_err(rejected)?)
            }
            Self::Ed25519 { x } => Some(ParsedPublicKey::new(&signature::ED25519, x).map_err(rejected)?),
            Self::Rsa { .. } => None,
        };
        Ok(PublicKey { members: self, parsed })
    }
}

impl PublicKey {
    /// Reads a JWK's key members. `kid`, `use` and `alg` are for [`crate::jwks::KeySet`].
    ///
    /// # Errors
    /// [`Error::KeySymmetric`], [`Error::KeyPrivate`], [`Error::KeyMalformed`],
    /// [`Error::Base64Malformed`].
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, Error> {
        KeyMembers::from_jwk(jwk)?.into_key()
    }

    /// The RFC 7638 SHA-256 thumbprint, base64url without padding (43 characters): the `jkt` of DPoP.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        self.members.thumbprint()
    }

    /// The key as a JWK with `kty`, its parameters, `kid`, `use: sig` and `alg`.
    #[must_use]
    pub fn to_jwk(&self, key_id: &str, algorithm: Algorithm) -> Value {
        let mut jwk = match &self.members {
            KeyMembers::P256 { x, y } => {
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
            KeyMembers::P384 { x, y } => {
                json!({"kty": "EC", "crv": "P-384", "x": encode(x), "y": encode(y)})
            }
            KeyMembers::Rsa { n, e } => json!({"kty": "RSA", "n": encode(n), "e": encode(e)}),
            KeyMembers::Ed25519 { x } => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(x)})
            }
        };
        if let Some(members) = jwk.as_object_mut() {
            members.insert("kid".to_owned(), key_id.into());
            members.insert("use".to_owned(), "sig".into());
            members.insert("alg".to_owned(), algorithm.name().into());
        }
        jwk
    }

    /// Whether the key is of the kind that the algorithm needs.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        let family = match self.members {
            KeyMembers::P256 { .. } => KeyFamily::P256,
            KeyMembers::P384 { .. } => KeyFamily::P384,
            KeyMembers::Rsa { .. } => KeyFamily::Rsa,
            KeyMembers::Ed25519 { .. } => KeyFamily::Ed25519,
        };
        family == algorithm.family()
    }

    /// Verifies a JWS signature over `message`.
    ///
    /// # Errors
    /// [`Error::SignatureInvalid`], also if the key does not fit the algorithm.
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        if !self.fits(algorithm) {
            return Err(Error::SignatureInvalid);
        }
        let verified = match (&self.members, &self.parsed, rsa_parameters(algorithm)) {
            (KeyMembers::Rsa { n, e }, None, Some(parameters)) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (_, Some(key), None) => key.verify_sig(message, signature),
            _ => return Err(Error::SignatureInvalid),
        };
        verified.map_err(|_| Error::SignatureInvalid)
    }
}

fn ec_text(curve: &str, x: &[u8], y: &[u8]) -> String {
    format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y))
}

/// A modulus of acceptable length, an odd exponent above one, both in their shortest form (RFC 7518
/// §2, `Base64urlUInt`: a leading zero would give one key two thumbprints).
fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), Error> {
    let malformed = |what| Err(Error::KeyMalformed { what });
    let (Some(first), Some(last)) = (n.first(), n.last()) else {
        return malformed("RSA modulus is empty");
    };
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if *first == 0 || e.first() == Some(&0) {
        return malformed("RSA member has leading zeros");
    }
    if !RSA_BITS.contains(&bits) || last % 2 == 0 {
        return malformed("RSA modulus is not odd and of 2048 to 8192 bits");
    }
    if e.len() > RSA_EXPONENT_BYTES_MAX || e == [1] || e.last().is_none_or(|low| low % 2 == 0) {
        return malformed("RSA exponent is not odd and above 1");
    }
    Ok(())
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::forge::{ISSUER, patched};

    #[test]
    fn thumbprints_are_those_of_the_specifications() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../testdata/thumbprints.json")).unwrap();
        for case in cases {
            let key = PublicKey::from_jwk(case["jwk"].as_object().unwrap()).unwrap();
            assert_eq!(key.thumbprint(), case["thumbprint"].as_str().unwrap(), "{}", case["source"]);
        }
    }

    #[test]
    fn members_beyond_the_key_do_not_change_the_thumbprint() {
        let jwk = ISSUER.jwk(Algorithm::Es256);
        let more = patched(Value::Object(jwk.clone()), &json!({"kid": "x", "use": "sig", "alg": "ES256", "n": "AQAB"}));
        let thumbprint = |jwk| PublicKey::from_jwk(jwk).unwrap().thumbprint();
        assert_eq!(thumbprint(&jwk), thumbprint(more.as_object().unwrap()));
    }

    #[test]
    fn a_published_key_reads_back_the_same() {
        for algorithm in Algorithm::ALL {
            let key = PublicKey::from_jwk(&ISSUER.jwk(algorithm)).unwrap();
            let published = key.to_jwk("k1", algorithm);
            assert_eq!(published["kid"], "k1");
            assert_eq!(published["alg"], algorithm.name());
            assert_eq!(PublicKey::from_jwk(published.as_object().unwrap()).unwrap().thumbprint(), key.thumbprint());
        }
    }

    #[test]
    fn keys_that_must_not_be_used_are_refused() {
        let ec = || Value::Object(ISSUER.jwk(Algorithm::Es256));
        let rsa = || Value::Object(ISSUER.jwk(Algorithm::Rs256));
        let modulus = |bytes: usize, last: u8| {
            let mut n = vec![0xc5; bytes];
            n[bytes - 1] = last;
            json!({ "n": encode(&n) })
        };
        let check = |jwk: Value, expected: fn(&Error) -> bool| {
            let found = PublicKey::from_jwk(jwk.as_object().unwrap()).map(|key| key.thumbprint());
            assert!(found.as_ref().is_err_and(expected), "{jwk}: {found:?}");
        };
        let malformed = |error: &Error| matches!(error, Error::KeyMalformed { .. });
        let private = |error: &Error| *error == Error::KeyPrivate;
        check(json!({ "kty": "oct", "k": "AAAA" }), |error| *error == Error::KeySymmetric);
        check(patched(rsa(), &json!({ "kty": "oct" })), |error| *error == Error::KeySymmetric);
        for member in PRIVATE_MEMBERS {
            check(patched(ec(), &json!({ member: "AA" })), private);
            check(patched(rsa(), &json!({ member: 1 })), private);
        }
        check(json!({}), malformed);
        check(patched(ec(), &json!({ "crv": "P-521" })), malformed);
        check(patched(ec(), &json!({ "crv": "secp256k1" })), malformed);
        check(patched(ec(), &json!({ "x": null })), malformed);
        check(patched(ec(), &json!({ "x": encode(&[1; 31]) })), malformed);
        check(patched(ec(), &json!({ "x": encode(&[0; 32]), "y": encode(&[0; 32]) })), malformed);
        check(patched(ec(), &json!({ "x": "+/" })), |error| matches!(error, Error::Base64Malformed { .. }));
        check(patched(rsa(), &modulus(128, 1)), malformed);
        check(patched(rsa(), &modulus(255, 1)), malformed);
        check(patched(rsa(), &modulus(1025, 1)), malformed);
        check(patched(rsa(), &modulus(256, 2)), malformed);
        check(patched(rsa(), &json!({ "e": encode(&[1]) })), malformed);
        check(patched(rsa(), &json!({ "e": encode(&[2]) })), malformed);
        check(patched(rsa(), &json!({ "e": encode(&[0, 3]) })), malformed);
        check(patched(rsa(), &json!({ "e": encode(&[1, 0, 0, 0, 1]) })), malformed);
        let padded = decode(rsa()["n"].as_str().unwrap(), "n").unwrap();
        check(patched(rsa(), &json!({ "n": encode(&[&[0], padded.as_slice()].concat()) })), malformed);
    }
}
