//! What a stranger with our published keys accepts as an access token, and every token that it must not:
//! other kinds, other parties, other times, forged, changed (RFC 9068 §4, RFC 8725).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::algorithm::Algorithm;
use crate::claims::CanonicalClaims;
use crate::claims::tests::claims;
use crate::forge::{self, ISSUER, NOW, STRANGER, patched};
use crate::sign::{Es256Signer, TokenSigner, mint};

static SIGNER: LazyLock<Es256Signer> =
    LazyLock::new(|| Es256Signer::from_pkcs8(&Es256Signer::generate_pkcs8().unwrap()).unwrap());

const EXPECTED: Expected<'static> =
    Expected { issuer: "https://writ.example", audience: "https://writ.example/mcp/orders", leeway_secs: 0 };

fn keys() -> KeySet {
    KeySet::of_signers([&*SIGNER as &dyn TokenSigner]).unwrap()
}

fn token() -> String {
    mint(&claims().canonical().unwrap(), &*SIGNER).unwrap()
}

fn refused_because(token: &str, keys: &KeySet) -> Option<Error> {
    verify_access_token(token, keys, &EXPECTED, NOW).err()
}

/// A token over patched header and claims, signed by the issuer's own (forging) key.
fn outcome(header_patch: Value, claims_patch: Value) -> Option<Error> {
    let header = json!({ "alg": "ES256", "kid": "p256", "typ": "at+jwt" });
    let payload = patched(Value::Object(claims().to_map()), &claims_patch).to_string();
    let token = ISSUER.compact(Algorithm::Es256, &patched(header, &header_patch).to_string(), &payload);
    refused_because(&token, &ISSUER.key_set())
}

#[test]
fn minted_tokens_are_accepted_by_a_stranger_who_has_only_the_published_keys() {
    let published = KeySet::parse(keys().to_json().to_string().as_bytes()).unwrap();
    assert_eq!(published.len(), 1);
    assert_eq!(verify_access_token(&token(), &published, &EXPECTED, NOW), Ok(claims()));
}

#[test]
fn minted_tokens_are_accepted_by_an_independent_implementation() {
    use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
    let set: JwkSet = serde_json::from_value(keys().to_json()).unwrap();
    let token = token();
    let header = decode_header(&token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&[EXPECTED.audience]);
    validation.set_issuer(&[EXPECTED.issuer]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    // It reads the real clock, which our fixed time need not agree with.
    validation.validate_exp = false;
    let decoded = decode::<Value>(&token, &key, &validation).unwrap();
    assert_eq!(decoded.claims["task"], "tsk_1");
    assert_eq!(decoded.claims["cnf"]["jkt"], "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
}

#[test]
fn other_kinds_of_tokens_are_never_access_tokens() {
    for typ in [
        json!("JWT"),
        json!(null),
        json!("dpop+jwt"),
        json!("logout+jwt"),
        json!("secevent+jwt"),
        json!("at"),
        json!("txntoken+jwt"),
    ] {
        let found = outcome(json!({ "typ": typ }), json!({}));
        assert!(matches!(found, Some(Error::TypeWrong { .. })), "{typ}: {found:?}");
    }
    for typ in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        assert_eq!(outcome(json!({ "typ": typ }), json!({})), None, "{typ}");
    }
}

#[test]
fn access_tokens_are_never_evidence() {
    use crate::verify::{EvidenceRules, Profile, UnverifiedToken};
    let rules = EvidenceRules {
        profile: Profile::Oidc { issuer: EXPECTED.issuer.to_owned() },
        audience: EXPECTED.audience.to_owned(),
        algorithms: Algorithm::ALL.to_vec(),
        leeway_secs: 60,
        lifetime_secs_max: 3600,
        age_secs_max: 3600,
    };
    let token = token();
    let found = UnverifiedToken::parse(&token).unwrap().verify(&rules, &keys(), NOW);
    assert!(matches!(found, Err(Error::TypeWrong { .. })), "{found:?}");
}

#[test]
fn headers_beyond_the_plain_three_are_refused() {
    for name in ["jku", "x5u", "jwk", "crit", "x5t", "cty", "anything"] {
        let found = outcome(json!({ name: "x" }), json!({}));
        assert_eq!(found, Some(Error::HeaderForbidden { name: name.to_owned() }));
    }
}

#[test]
fn claims_are_checked_against_place_and_time() {
    let now = NOW.0;
    let cases = [
        (json!({}), None),
        (json!({ "iss": "https://writ.example/" }), Some(Error::IssuerWrong { found: "https://writ.example/".to_owned() })),
        (json!({ "aud": "https://writ.example" }), Some(Error::AudienceWrong)),
        (json!({ "aud": "https://writ.example/mcp/orders/" }), Some(Error::AudienceWrong)),
        (json!({ "aud": "https://writ.example/mcp/orders2" }), Some(Error::AudienceWrong)),
        (json!({ "aud": ["https://a.example", "https://writ.example/mcp/orders"] }), None),
        (json!({ "aud": [] }), Some(Error::ClaimMalformed { claim: "aud" })),
        (json!({ "aud": ["https://writ.example/mcp/orders", 7] }), Some(Error::ClaimMalformed { claim: "aud" })),
        (json!({ "exp": now + 1 }), None),
        (json!({ "exp": now }), Some(Error::Expired { ago_secs: 0 })),
        (json!({ "iat": now + 1 }), Some(Error::IssuedInFuture { in_secs: 1 })),
        (json!({ "task": null }), Some(Error::ClaimMissing { claim: "task" })),
        (json!({ "jti": null }), Some(Error::ClaimMissing { claim: "jti" })),
        (json!({ "act": { "task": "x" } }), Some(Error::ClaimMalformed { claim: "act" })),
    ];
    for (patch, expected) in cases {
        assert_eq!(outcome(json!({}), patch.clone()), expected, "{patch}");
    }
}

#[test]
fn foreign_unsigned_and_symmetric_tokens_are_refused() {
    let header = json!({ "alg": "ES256", "kid": SIGNER.key_id(), "typ": "at+jwt" }).to_string();
    let payload = Value::Object(claims().to_map()).to_string();
    let foreign = STRANGER.compact(Algorithm::Es256, &header, &payload);
    assert_eq!(refused_because(&foreign, &keys()), Some(Error::SignatureInvalid));
    for name in ["none", "HS256"] {
        let header = json!({ "alg": name, "kid": SIGNER.key_id(), "typ": "at+jwt" }).to_string();
        let secret = keys().to_json().to_string();
        for token in [forge::signing_input(&header, &payload) + ".", forge::hmac_compact(secret.as_bytes(), &header, &payload)] {
            assert_eq!(refused_because(&token, &keys()), Some(Error::AlgorithmUnknown { name: name.to_owned() }));
        }
    }
    assert_eq!(refused_because(&token(), &KeySet::default()), Some(Error::KeyUnknown { kid: SIGNER.key_id().to_owned() }));
}

#[test]
fn a_cached_signature_check_still_expires() {
    let signed = SignedAccess::verify(&token(), &keys()).unwrap();
    assert!(signed.check(&EXPECTED, NOW).is_ok());
    assert_eq!(signed.expires_at(), NOW.plus(300));
    assert_eq!(signed.check(&EXPECTED, NOW.plus(300)), Err(Error::Expired { ago_secs: 0 }));
    let elsewhere = Expected { audience: "https://writ.example/mcp/other", ..EXPECTED };
    assert_eq!(signed.check(&elsewhere, NOW), Err(Error::AudienceWrong));
    let lenient = Expected { leeway_secs: 3600, ..EXPECTED };
    assert!(signed.check(&lenient, NOW.plus(359)).is_ok());
    assert_eq!(signed.check(&lenient, NOW.plus(360)), Err(Error::Expired { ago_secs: 60 }));
}

#[test]
fn a_signer_whose_signatures_do_not_verify_mints_nothing() {
    struct Faulty;
    impl TokenSigner for Faulty {
        fn key_id(&self) -> &str {
            SIGNER.key_id()
        }
        fn algorithm(&self) -> Algorithm {
            Algorithm::Es256
        }
        fn public_key(&self) -> &crate::jwk::PublicKey {
            SIGNER.public_key()
        }
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
            SIGNER.sign(&[message, b"x"].concat())
        }
    }
    assert_eq!(mint(&claims().canonical().unwrap(), &Faulty), Err(Error::SignatureInvalid));
}

#[test]
fn retired_keys_still_verify_and_are_published() {
    let retired = Es256Signer::from_pkcs8(&Es256Signer::generate_pkcs8().unwrap()).unwrap();
    let old_token = mint(&claims().canonical().unwrap(), &retired).unwrap();
    let mut set = keys();
    assert!(matches!(refused_because(&old_token, &set), Some(Error::KeyUnknown { .. })));
    set.add(retired.key_id(), Algorithm::Es256, retired.public_key().clone()).unwrap();
    assert_eq!(refused_because(&old_token, &set), None);
    assert_eq!(set.to_json()["keys"].as_array().map(Vec::len), Some(2));
    assert!(set.add(retired.key_id(), Algorithm::Es256, retired.public_key().clone()).is_err());
}

#[test]
fn signing_keys_are_wiped_and_never_shown() {
    let pkcs8 = Es256Signer::generate_pkcs8().unwrap();
    let signer = Es256Signer::from_pkcs8(&pkcs8).unwrap();
    assert_eq!(format!("{signer:?}"), format!("Es256Signer {{ key_id: {:?}, .. }}", signer.key_id()));
    assert_eq!(Es256Signer::from_pkcs8(&pkcs8[1..]).err(), Some(Error::SigningKeyRejected));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn removing_a_claim_never_turns_deny_into_allow(
        breakage in prop::sample::select(vec![
            json!({ "iss": "https://evil.example" }), json!({ "aud": "https://other.example" }),
            json!({ "exp": 1 }), json!({ "iat": NOW.0 + 60 }), json!({ "sub": 1 }), json!({ "act": [] }),
        ]),
        removed in prop::sample::subsequence(
            vec!["iss", "sub", "client_id", "aud", "iat", "exp", "jti", "task", "intent", "cnf"], 0..10),
    ) {
        let mut patch = breakage;
        for claim in removed {
            patch.as_object_mut().unwrap().insert(claim.to_owned(), Value::Null);
        }
        let found = outcome(json!({}), patch);
        prop_assert!(found.is_some());
    }

    #[test]
    fn a_changed_byte_is_never_accepted(position in 0usize..600, flip in 1u8..=255) {
        let token = token();
        let mut bytes = token.clone().into_bytes();
        let position = position % bytes.len();
        bytes[position] ^= flip;
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert!(refused_because(&changed, &keys()).is_some());
        }
    }
}

#[test]
fn canonical_claims_are_exactly_the_payload() {
    let canonical: CanonicalClaims = claims().canonical().unwrap();
    let token = token();
    let payload = token.split('.').nth(1).unwrap();
    assert_eq!(crate::jws::decode(payload, "payload").unwrap(), canonical.as_bytes());
}
