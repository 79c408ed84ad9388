//! Hostile and odd key documents (RFC 7517 §5, SPIFFE Trust Domain and Bundle §4).
//! Nothing is fetched: documents are built here.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::forge::{ISSUER, STRANGER, patched};

fn jwk(algorithm: Algorithm, patch: Value) -> Value {
    patched(Value::Object(ISSUER.jwk(algorithm)), &patch)
}

fn parse(keys: &[Value]) -> Result<KeySet, Error> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

#[test]
fn unusable_keys_are_skipped_and_counted() {
    let set = parse(&[
        jwk(Algorithm::Es256, json!({ "kid": "good" })),
        jwk(Algorithm::Es256, json!({ "kid": "enc", "use": "enc" })),
        jwk(Algorithm::Es256, json!({ "kid": "ops", "key_ops": ["sign"] })),
        jwk(Algorithm::Es256, json!({ "kid": "alg", "alg": "ES512" })),
        jwk(Algorithm::Es256, json!({ "kid": "odd", "alg": 7 })),
        jwk(Algorithm::Es256, json!({ "kid": "unfit", "alg": "RS256" })),
        jwk(Algorithm::Es256, json!({ "kid": "crv", "crv": "P-521" })),
        json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "pq" }),
        json!({}),
    ])
    .unwrap();
    assert_eq!((set.len(), set.skipped()), (1, 8));
    assert!(set.find(Some("good"), Algorithm::Es256).is_ok());
    for kid in ["enc", "ops", "alg", "unfit", "crv", "pq"] {
        assert_eq!(set.find(Some(kid), Algorithm::Es256).err(), Some(Error::KeyUnknown { kid: kid.to_owned() }));
    }
}

#[test]
fn secret_keys_refuse_the_whole_set_whatever_their_use() {
    let good = || jwk(Algorithm::Es256, json!({ "kid": "good" }));
    let symmetric = json!({ "kty": "oct", "k": "AAAA", "use": "enc" });
    assert_eq!(parse(&[good(), symmetric]).err(), Some(Error::KeySymmetric));
    let private = jwk(Algorithm::Rs256, json!({ "d": "AAAA", "use": "enc" }));
    assert_eq!(parse(&[good(), private]).err(), Some(Error::KeyPrivate));
}

#[test]
fn one_key_id_never_names_two_candidates() {
    let same = |algorithm, patch: Value| jwk(algorithm, patched(json!({ "kid": "k" }), &patch));
    let duplicate = Some(Error::KeyIdDuplicate { kid: "k".to_owned() });
    let es256 = || same(Algorithm::Es256, json!({}));
    assert_eq!(parse(&[es256(), es256()]).err(), duplicate);
    assert_eq!(parse(&[es256(), same(Algorithm::Rs256, json!({}))]).err(), None);
    let rsa = |alg: &str| same(Algorithm::Rs256, json!({ "alg": alg }));
    assert_eq!(parse(&[rsa("RS256"), rsa("PS256")]).err(), None);
    assert_eq!(parse(&[rsa("RS256"), same(Algorithm::Rs256, json!({}))]).err(), duplicate);
}

#[test]
fn a_declared_algorithm_binds_the_key() {
    let set = parse(&[jwk(Algorithm::Rs256, json!({ "kid": "k", "alg": "PS256" }))]).unwrap();
    assert!(set.find(Some("k"), Algorithm::Ps256).is_ok());
    assert_eq!(set.find(Some("k"), Algorithm::Rs256).err(), Some(Error::KeyUnfit { kid: "k".to_owned(), algorithm: "RS256" }));
}

#[test]
fn without_key_id_a_guess_is_refused() {
    let stranger = |kid: &str| patched(Value::Object(STRANGER.jwk(Algorithm::Es256)), &json!({ "kid": kid }));
    let set = parse(&[jwk(Algorithm::Es256, json!({ "kid": "a" })), stranger("b")]).unwrap();
    assert_eq!(set.find(None, Algorithm::Es256).err(), Some(Error::KeyIdMissing));
    assert_eq!(set.find(None, Algorithm::Rs256).err(), Some(Error::KeyUnknown { kid: String::new() }));
}

#[test]
fn hostile_documents_are_refused() {
    let malformed = Error::JsonMalformed { part: "key set" };
    let cases = [
        (String::new(), malformed.clone()),
        ("[]".to_owned(), malformed.clone()),
        ("{}".to_owned(), malformed.clone()),
        (r#"{"keys":{}}"#.to_owned(), malformed.clone()),
        (r#"{"keys":[1]}"#.to_owned(), malformed),
        (r#"{"keys":[],"keys":[]}"#.to_owned(), Error::MemberDuplicate { name: "keys".to_owned() }),
        (format!("{{\"keys\":{}{}}}", "[".repeat(50), "]".repeat(50)), Error::JsonTooDeep { limit: 16 }),
        (" ".repeat(KEY_DOCUMENT_BYTES_MAX + 1), Error::TooLarge { limit: KEY_DOCUMENT_BYTES_MAX }),
        (json!({ "keys": vec![json!({}); KEYS_MAX + 1] }).to_string(), Error::KeySetTooLong { limit: KEYS_MAX }),
    ];
    for (document, expected) in cases {
        assert_eq!(KeySet::parse(document.as_bytes()).err(), Some(expected));
    }
    let empty = parse(&[]).unwrap();
    assert!(empty.is_empty());
}

#[test]
fn bundles_hold_jwt_keys_with_id_and_single_certificates() {
    let trust_domain = || TrustDomain::parse("example.org").unwrap();
    let certificate = STANDARD.encode(svid::tests::root("example.org").der());
    let x509 = |x5c: Value| jwk(Algorithm::Es256, json!({ "use": "x509-svid", "x5c": x5c }));
    let document = json!({
        "spiffe_sequence": 7, "spiffe_refresh_hint": 300,
        "keys": [
            x509(json!([certificate])),
            x509(json!([certificate, certificate])),
            x509(json!([])),
            x509(json!(["AAAA"])),
            x509(json!(null)),
            jwk(Algorithm::Es256, json!({ "use": "jwt-svid", "kid": "j" })),
            jwk(Algorithm::Es384, json!({ "use": "jwt-svid" })),
            jwk(Algorithm::Es384, json!({ "use": "jwt-svid", "kid": "" })),
            jwk(Algorithm::Es384, json!({ "kid": "no-use" })),
            jwk(Algorithm::Es384, json!({ "use": "sig", "kid": "sig" })),
            jwk(Algorithm::Es384, json!({ "use": "future", "kid": "future" })),
        ],
    });
    let bundle = SpiffeBundle::parse(trust_domain(), document.to_string().as_bytes()).unwrap();
    assert_eq!((bundle.x509_authorities().len(), bundle.jwt_keys().len(), bundle.jwt_keys().skipped()), (1, 1, 9));
    assert_eq!((bundle.sequence(), bundle.refresh_hint_secs()), (Some(7), Some(300)));
    assert!(bundle.jwt_keys().find(Some("j"), Algorithm::Es256).is_ok());

    let revoked = SpiffeBundle::parse(trust_domain(), br#"{"keys":[]}"#).unwrap();
    assert!(revoked.jwt_keys().is_empty() && revoked.x509_authorities().is_empty());
    assert!(SpiffeBundle::of_x509(trust_domain(), vec![vec![1, 2, 3].into()]).is_err());
}
