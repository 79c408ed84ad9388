//! Project Wycheproof's signature vectors through our own key parsing and signature check, as JWKs.
//! It knows the public API only.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use token::algorithm::Algorithm;
use token::jwk::PublicKey;
use wycheproof::{ecdsa, eddsa, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Big-endian without the sign byte that the vectors write.
fn integer(value: &Value) -> String {
    let bytes = hex(value);
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    URL_SAFE_NO_PAD.encode(&bytes[start..])
}

/// The group's public key as a JWK. Coordinates are cut from the uncompressed point.
fn jwk(key: &Value) -> Value {
    if key.get("modulus").is_some() {
        return json!({"kty": "RSA", "n": integer(&key["modulus"]), "e": integer(&key["publicExponent"])});
    }
    if key.get("pk").is_some() {
        return json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(hex(&key["pk"]))});
    }
    let point = hex(&key["uncompressed"]);
    let (x, y) = point[1..].split_at(point.len() / 2);
    let curve = if x.len() == 32 { "P-256" } else { "P-384" };
    json!({"kty": "EC", "crv": curve, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

/// Runs one file; returns how many valid vectors were accepted and how many invalid ones refused.
fn run(data: &str, algorithm: Algorithm, accepts: fn(&Value, &Value) -> bool) -> (usize, usize) {
    let file: Value = serde_json::from_str(data).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        let jwk = jwk(&group["publicKey"]);
        let key = PublicKey::from_jwk(jwk.as_object().unwrap()).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let found = key.verify(algorithm, &hex(&test["msg"]), &hex(&test["sig"])).is_ok();
            assert_eq!(found, accepts(group, test), "{algorithm:?} {test}");
            if found { accepted += 1 } else { refused += 1 }
        }
    }
    (accepted, refused)
}

/// What the vectors call valid, and nothing else: `acceptable` ones are refused.
fn valid(_: &Value, test: &Value) -> bool {
    test["result"] == "valid"
}

/// RFC 7518 §3.5 fixes the salt to the hash's length. In a file for empty salts the one signature with 32
/// bytes of salt counts as modified, but is the only one that JOSE may accept.
fn has_salt_of_hash_length(_: &Value, test: &Value) -> bool {
    test["comment"] == "s_len changed to 32"
}

fn check(data: &str, algorithm: Algorithm, accepts: fn(&Value, &Value) -> bool) {
    let (accepted, refused) = run(data, algorithm, accepts);
    assert!(accepted > 0 && refused > 0, "{algorithm:?}: {accepted} accepted, {refused} refused");
}

#[test]
fn ecdsa_signatures_are_judged_as_the_vectors_say() {
    check(ecdsa::TestName::EcdsaSecp256r1Sha256P1363.json_data(), Algorithm::Es256, valid);
    check(ecdsa::TestName::EcdsaSecp384r1Sha384P1363.json_data(), Algorithm::Es384, valid);
}

#[test]
fn der_encoded_ecdsa_signatures_are_refused() {
    let (accepted, refused) = run(ecdsa::TestName::EcdsaSecp256r1Sha256.json_data(), Algorithm::Es256, |_, _| false);
    assert!(accepted == 0 && refused > 100);
}

#[test]
fn ed25519_signatures_are_judged_as_the_vectors_say() {
    check(eddsa::TestName::Ed25519.json_data(), Algorithm::EdDsa, valid);
}

#[test]
fn rsa_pkcs1_signatures_are_judged_as_the_vectors_say() {
    for name in [pkcs1::TestName::Rsa2048Sha256, pkcs1::TestName::Rsa3072Sha256, pkcs1::TestName::Rsa4096Sha256] {
        check(name.json_data(), Algorithm::Rs256, valid);
    }
    check(pkcs1::TestName::Rsa2048Sha384.json_data(), Algorithm::Rs384, valid);
    check(pkcs1::TestName::Rsa2048Sha512.json_data(), Algorithm::Rs512, valid);
}

#[test]
fn rsa_pss_signatures_are_judged_as_the_vectors_say() {
    for name in [pss::TestName::RsaPss2048Sha256Mgf1SaltLen32, pss::TestName::RsaPss3072Sha256Mgf1SaltLen32] {
        check(name.json_data(), Algorithm::Ps256, valid);
    }
    check(pss::TestName::RsaPss2048Sha384Mgf1SaltLen48.json_data(), Algorithm::Ps384, valid);
    check(pss::TestName::RsaPss4096Sha512Mgf1SaltLen64.json_data(), Algorithm::Ps512, valid);
}

#[test]
fn rsa_pss_with_another_salt_is_refused() {
    let data = pss::TestName::RsaPss2048Sha256Mgf1SaltLen0.json_data();
    check(data, Algorithm::Ps256, has_salt_of_hash_length);
}
