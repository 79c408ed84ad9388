//! The known attacks on JWTs as evidence, rule by rule (RFC 8725, JWT-SVID §§2-4).
//! Tokens are forged with real keys, so that only the rule under test can refuse them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::forge::{self, ISSUER, NOW, STRANGER, patched};

const US: &str = "https://writ.example";

fn oidc() -> EvidenceRules {
    EvidenceRules {
        profile: Profile::Oidc { issuer: "https://issuer.example".to_owned() },
        audience: US.to_owned(),
        algorithms: Algorithm::ALL.to_vec(),
        leeway_secs: 30,
        lifetime_secs_max: 900,
        age_secs_max: 300,
    }
}

fn svid() -> EvidenceRules {
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    EvidenceRules { profile: Profile::JwtSvid { trust_domain }, ..oidc() }
}

fn oidc_claims() -> Value {
    json!({
        "iss": "https://issuer.example", "sub": "repo:org/app", "aud": US, "jti": "id-1",
        "iat": NOW.0 - 10, "nbf": NOW.0 - 10, "exp": NOW.0 + 290,
    })
}

fn svid_claims() -> Value {
    json!({ "sub": "spiffe://example.org/agent/a", "aud": [US], "exp": NOW.0 + 290 })
}

fn header(algorithm: Algorithm) -> Value {
    json!({ "alg": algorithm.name(), "kid": forge::kid(algorithm), "typ": "JWT" })
}

fn verify(token: &str, rules: &EvidenceRules) -> Result<Evidence, Error> {
    UnverifiedToken::parse(token)?.verify(rules, &ISSUER.key_set(), NOW)
}

fn refused_because(token: &str, rules: &EvidenceRules) -> Option<Error> {
    verify(token, rules).err()
}

/// An ES256 token of the issuer, patched, and what the rules say to it.
fn outcome(rules: &EvidenceRules, claims: Value, header_patch: Value, claims_patch: Value) -> Option<Error> {
    let header = patched(header(Algorithm::Es256), &header_patch).to_string();
    let payload = patched(claims, &claims_patch).to_string();
    refused_because(&ISSUER.compact(Algorithm::Es256, &header, &payload), rules)
}

#[test]
fn valid_tokens_of_every_algorithm_are_evidence() {
    for algorithm in Algorithm::ALL {
        let header = header(algorithm).to_string();
        let token = ISSUER.compact(algorithm, &header, &oidc_claims().to_string());
        let evidence = verify(&token, &oidc()).unwrap();
        assert_eq!(evidence.issuer, "https://issuer.example");
        assert_eq!(evidence.subject, "repo:org/app");
        assert_eq!(evidence.replay_key, "jti:id-1");
        assert_eq!(evidence.expires_at, NOW.plus(290));
        assert_eq!(evidence.issued_at, Some(NOW.plus(-10)));
        assert_eq!(Value::Object(evidence.claims), oidc_claims());
    }
}

#[test]
fn jwt_svids_are_evidence_except_with_eddsa() {
    for algorithm in Algorithm::ALL {
        let token = ISSUER.compact(algorithm, &header(algorithm).to_string(), &svid_claims().to_string());
        let expected = match algorithm {
            Algorithm::EdDsa => Some(Error::AlgorithmRefused { name: "EdDSA" }),
            _ => None,
        };
        assert_eq!(refused_because(&token, &svid()), expected, "{algorithm:?}");
    }
}

#[test]
fn claimed_issuer_and_subject_are_readable_before_verification() {
    let token = STRANGER.compact(Algorithm::Es256, &header(Algorithm::Es256).to_string(), &oidc_claims().to_string());
    let parsed = UnverifiedToken::parse(&token).unwrap();
    assert_eq!(parsed.claimed_issuer(), Some("https://issuer.example"));
    assert_eq!(parsed.claimed_subject(), Some("repo:org/app"));
}

#[test]
fn unsigned_and_symmetric_tokens_are_refused() {
    let payload = oidc_claims().to_string();
    for name in ["none", "None", "nOnE", "HS256", "HS384", "HS512", "", "RS1", "es256"] {
        let header = json!({ "alg": name, "kid": "rsa", "typ": "JWT" }).to_string();
        let expected = Some(Error::AlgorithmUnknown { name: name.to_owned() });
        let unsigned = format!("{}.", forge::signing_input(&header, &payload));
        assert_eq!(refused_because(&unsigned, &oidc()), expected, "{name} unsigned");
        // The public key as HMAC secret, in the spellings that attackers use.
        let jwk = serde_json::to_vec(&ISSUER.jwk(Algorithm::Rs256)).unwrap();
        for secret in [ISSUER.rsa_public_bytes(), jwk] {
            let token = forge::hmac_compact(&secret, &header, &payload);
            assert_eq!(refused_because(&token, &oidc()), expected, "{name} with the public key");
        }
    }
    let no_alg = forge::signing_input(r#"{"kid":"rsa"}"#, &payload) + ".";
    assert_eq!(refused_because(&no_alg, &oidc()), Some(Error::AlgorithmUnknown { name: String::new() }));
}

#[test]
fn headers_that_bring_their_own_key_are_refused() {
    let jwk = Value::Object(STRANGER.jwk(Algorithm::Es256));
    let cases = [
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/chain.pem")),
        ("x5c", json!(["MIIB"])),
        ("jwk", jwk),
        ("crit", json!(["b64"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
    ];
    for (name, value) in cases {
        for token in [&*ISSUER, &*STRANGER].map(|keys| {
            let header = patched(header(Algorithm::Es256), &json!({ name: value }));
            keys.compact(Algorithm::Es256, &header.to_string(), &oidc_claims().to_string())
        }) {
            let expected = Error::HeaderForbidden { name: name.to_owned() };
            assert_eq!(refused_because(&token, &oidc()), Some(expected), "{name}");
        }
    }
}

#[test]
fn key_ids_are_only_ever_compared() {
    let tricks = [
        "../../../../dev/null",
        "/proc/self/environ",
        "x' UNION SELECT 'secret' --",
        "https://evil.example/jwks.json",
        "p256\u{0}",
        "P256",
        " p256",
        "| sleep 10",
        "unknown",
    ];
    for kid in tricks {
        let found = outcome(&oidc(), oidc_claims(), json!({ "kid": kid }), json!({}));
        assert!(matches!(found, Some(Error::KeyUnknown { .. })), "{kid}: {found:?}");
    }
    let long = outcome(&oidc(), oidc_claims(), json!({ "kid": "k".repeat(600) }), json!({}));
    assert_eq!(long, Some(Error::TooLarge { limit: 512 }));
    for kid in [json!(1), json!(["p256"]), json!({}), json!(true)] {
        let found = outcome(&oidc(), oidc_claims(), json!({ "kid": kid }), json!({}));
        assert_eq!(found, Some(Error::JsonMalformed { part: "header" }));
    }
}

#[test]
fn a_key_is_used_with_its_own_algorithm_only() {
    let found = outcome(&oidc(), oidc_claims(), json!({ "kid": "rsa" }), json!({}));
    assert_eq!(found, Some(Error::KeyUnfit { kid: "rsa".to_owned(), algorithm: "ES256" }));
    let only_rs256 = EvidenceRules { algorithms: vec![Algorithm::Rs256], ..oidc() };
    let found = outcome(&only_rs256, oidc_claims(), json!({}), json!({}));
    assert_eq!(found, Some(Error::AlgorithmRefused { name: "ES256" }));
}

#[test]
fn a_token_without_key_id_is_taken_if_only_one_key_fits() {
    assert_eq!(outcome(&oidc(), oidc_claims(), json!({ "kid": null }), json!({})), None);
}

#[test]
fn signatures_of_strangers_and_changed_tokens_are_refused() {
    let header = header(Algorithm::Es256).to_string();
    let payload = oidc_claims().to_string();
    let foreign = STRANGER.compact(Algorithm::Es256, &header, &payload);
    assert_eq!(refused_because(&foreign, &oidc()), Some(Error::SignatureInvalid));

    let genuine = ISSUER.compact(Algorithm::Es256, &header, &payload);
    let signature = genuine.rsplit_once('.').unwrap().1;
    let other = patched(oidc_claims(), &json!({ "sub": "repo:org/other" })).to_string();
    let transplanted = format!("{}.{signature}", forge::signing_input(&header, &other));
    assert_eq!(refused_because(&transplanted, &oidc()), Some(Error::SignatureInvalid));

    let input = forge::signing_input(&header, &payload);
    for bytes in [vec![], vec![0; 64], vec![0; 63], vec![0xff; 64], vec![0; 500]] {
        let token = format!("{input}.{}", crate::jws::encode(&bytes));
        assert_eq!(refused_because(&token, &oidc()), Some(Error::SignatureInvalid), "{}", bytes.len());
    }
}

#[test]
fn anything_but_a_strict_compact_jws_is_refused() {
    let genuine = ISSUER.compact(Algorithm::Es256, &header(Algorithm::Es256).to_string(), &oidc_claims().to_string());
    let (input, signature) = genuine.rsplit_once('.').unwrap();
    let compact = Some(Error::NotCompactJws);
    let base64 = |part| Some(Error::Base64Malformed { part });
    let cases = [
        (String::new(), compact.clone()),
        (".".to_owned(), compact.clone()),
        (input.to_owned(), None),
        (format!("{genuine}.x"), compact.clone()),
        (format!("{genuine}.x.y"), compact),
        (format!("{genuine}="), base64("signature")),
        (format!("{genuine}\n"), base64("signature")),
        (format!("{genuine} "), base64("signature")),
        (format!(" {genuine}"), base64("header")),
        (format!("{input}=.{signature}"), base64("payload")),
        (genuine.replacen('.', "=.", 1), base64("header")),
        (format!("{input}.{}+", signature.get(1..).unwrap()), base64("signature")),
        (format!("{input}.{}/", signature.get(1..).unwrap()), base64("signature")),
        (json!({"payload": "", "signatures": []}).to_string(), None),
    ];
    for (token, expected) in cases {
        let found = refused_because(&token, &oidc());
        assert!(found.is_some(), "{token}");
        if expected.is_some() {
            assert_eq!(found, expected, "{token}");
        }
    }
}

#[test]
fn one_signature_has_one_spelling() {
    // 64 bytes end in a character with four unused bits; setting one must not give a second valid token.
    let genuine = ISSUER.compact(Algorithm::Es256, &header(Algorithm::Es256).to_string(), &oidc_claims().to_string());
    let (start, last) = genuine.split_at(genuine.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let accepted = alphabet.chars().filter(|c| verify(&format!("{start}{c}"), &oidc()).is_ok());
    assert_eq!(accepted.collect::<String>(), last);
}

#[test]
fn size_is_checked_before_anything_is_decoded() {
    let too_large = Some(Error::TooLarge { limit: EVIDENCE_BYTES_MAX });
    assert_eq!(refused_because(&"a".repeat(EVIDENCE_BYTES_MAX + 1), &oidc()), too_large);
    assert_eq!(refused_because(&".".repeat(10_000_000), &oidc()), too_large);
    let padded = outcome(&oidc(), oidc_claims(), json!({}), json!({ "x": "y".repeat(EVIDENCE_BYTES_MAX) }));
    assert_eq!(padded, too_large);
}

#[test]
fn duplicate_members_are_refused_in_header_and_claims_at_every_depth() {
    let good = header(Algorithm::Es256).to_string();
    let (iss, us, exp, iat) = ("https://issuer.example", US, NOW.0 + 100, NOW.0);
    let payload = |more: &str| format!(r#"{{"iss":"{iss}","aud":"{us}","exp":{exp},"iat":{iat},{more}}}"#);
    let cases = [
        (good.clone(), payload(r#""sub":"a","sub":"b""#), "sub"),
        (good.clone(), payload(r#""sub":"a","s\u0075b":"b""#), "sub"),
        (good.clone(), payload(r#""sub":"a","aud":"https://other.example""#), "aud"),
        (good.clone(), payload(r#""sub":"a","k8s":{"pod":{"uid":1,"uid":2}}"#), "uid"),
        (r#"{"alg":"ES256","alg":"none","kid":"p256"}"#.to_owned(), payload(r#""sub":"a""#), "alg"),
        (r#"{"alg":"ES256","kid":"p256","kid":"p384"}"#.to_owned(), payload(r#""sub":"a""#), "kid"),
    ];
    for (header, payload, name) in cases {
        let token = ISSUER.compact(Algorithm::Es256, &header, &payload);
        assert_eq!(refused_because(&token, &oidc()), Some(Error::MemberDuplicate { name: name.to_owned() }));
    }
    let token = ISSUER.compact(Algorithm::Es256, &good, &payload(r#""sub":"a""#));
    assert_eq!(refused_because(&token, &oidc()), None, "the same without the duplicate");
}

#[test]
fn deep_or_foreign_json_is_refused() {
    let good = header(Algorithm::Es256).to_string();
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    let token = ISSUER.compact(Algorithm::Es256, &good, &deep);
    assert!(matches!(refused_because(&token, &oidc()), Some(Error::JsonTooDeep { .. })));
    for payload in ["[]", "null", "\"x\"", "{", "", "{}x", "{'sub':1}", "\u{feff}{}"] {
        let token = ISSUER.compact(Algorithm::Es256, &good, payload);
        assert_eq!(refused_because(&token, &oidc()), Some(Error::JsonMalformed { part: "payload" }), "{payload}");
    }
}

#[test]
fn tokens_of_other_kinds_are_not_evidence() {
    for rules in [oidc(), svid()] {
        let claims = || patched(oidc_claims(), &json!({ "sub": "spiffe://example.org/agent/a" }));
        for typ in ["at+jwt", "application/at+jwt", "dpop+jwt", "logout+jwt", "secevent+jwt", "wit+jwt", "oauth-id-jag+jwt", ""] {
            let found = outcome(&rules, claims(), json!({ "typ": typ }), json!({}));
            assert!(matches!(found, Some(Error::TypeWrong { .. })), "{typ}: {found:?}");
        }
        for typ in [json!("JWT"), json!("jwt"), json!("JOSE"), json!("application/jwt"), json!(null)] {
            assert_eq!(outcome(&rules, claims(), json!({ "typ": typ }), json!({})), None, "{typ}");
        }
    }
}

#[test]
fn unknown_plain_headers_are_ignored_except_in_svids() {
    let more = json!({ "x5t": "abc" });
    assert_eq!(outcome(&oidc(), oidc_claims(), more.clone(), json!({})), None);
    let expected = Error::HeaderForbidden { name: "x5t".to_owned() };
    assert_eq!(outcome(&svid(), svid_claims(), more, json!({})), Some(expected));
}

#[test]
fn claims_decide_by_rule() {
    let missing = |claim| Some(Error::ClaimMissing { claim });
    let malformed = |claim| Some(Error::ClaimMalformed { claim });
    let wrong_issuer = |found: &str| Some(Error::IssuerWrong { found: found.to_owned() });
    let several = |count| Some(Error::AudienceNotSingle { count });
    let now = NOW.0;
    let cases = [
        (json!({ "iss": null }), missing("iss")),
        (json!({ "iss": "https://issuer.example/" }), wrong_issuer("https://issuer.example/")),
        (json!({ "iss": "https://issuer.example.evil" }), wrong_issuer("https://issuer.example.evil")),
        (json!({ "iss": "https://ISSUER.example" }), wrong_issuer("https://ISSUER.example")),
        (json!({ "iss": "https://issuer.exam\u{440}le" }), wrong_issuer("https://issuer.exam?le")),
        (json!({ "iss": ["https://issuer.example"] }), malformed("iss")),
        (json!({ "sub": null }), missing("sub")),
        (json!({ "sub": "" }), malformed("sub")),
        (json!({ "sub": 7 }), malformed("sub")),
        (json!({ "sub": "x".repeat(2049) }), malformed("sub")),
        (json!({ "aud": null }), missing("aud")),
        (json!({ "aud": "https://other.example" }), Some(Error::AudienceWrong)),
        (json!({ "aud": "https://writ.example/" }), Some(Error::AudienceWrong)),
        (json!({ "aud": "https://writ.exampl" }), Some(Error::AudienceWrong)),
        (json!({ "aud": "https://writ.example.evil" }), Some(Error::AudienceWrong)),
        (json!({ "aud": "" }), Some(Error::AudienceWrong)),
        (json!({ "aud": [US] }), None),
        (json!({ "aud": [] }), several(0)),
        (json!({ "aud": [US, "https://other.example"] }), several(2)),
        (json!({ "aud": [US, US] }), several(2)),
        (json!({ "aud": [[US]] }), malformed("aud")),
        (json!({ "aud": { "0": US } }), malformed("aud")),
        (json!({ "aud": true }), malformed("aud")),
        (json!({ "exp": null }), missing("exp")),
        (json!({ "exp": "never" }), malformed("exp")),
        (json!({ "exp": -1 }), malformed("exp")),
        (json!({ "exp": u64::MAX }), malformed("exp")),
        (json!({ "exp": 1e300 }), malformed("exp")),
        (json!({ "exp": now - 29 }), None),
        (json!({ "exp": now - 30 }), Some(Error::Expired { ago_secs: 30 })),
        (json!({ "nbf": now + 30 }), None),
        (json!({ "nbf": now + 31 }), Some(Error::NotYetValid { in_secs: 31 })),
        (json!({ "nbf": "soon" }), malformed("nbf")),
        (json!({ "iat": null }), missing("iat")),
        (json!({ "iat": now + 30 }), None),
        (json!({ "iat": now + 31 }), Some(Error::IssuedInFuture { in_secs: 31 })),
        (json!({ "iat": now - 330 }), None),
        (json!({ "iat": now - 331 }), Some(Error::TooOld { age_secs: 331, max_secs: 300 })),
        (json!({ "iat": now - 10, "exp": now + 890 }), None),
        (json!({ "iat": now - 10, "exp": now + 891 }), Some(Error::LifetimeTooLong { lifetime_secs: 901, max_secs: 900 })),
        (json!({ "jti": 5 }), malformed("jti")),
        (json!({ "jti": "" }), malformed("jti")),
        (json!({ "jti": "x".repeat(257) }), malformed("jti")),
    ];
    for (patch, expected) in cases {
        assert_eq!(outcome(&oidc(), oidc_claims(), json!({}), patch.clone()), expected, "{patch}");
    }
}

#[test]
fn svid_subjects_are_workloads_of_the_trust_domain() {
    let now = NOW.0;
    let foreign = Error::TrustDomainWrong { found: "evil.org".to_owned(), expected: "example.org".to_owned() };
    let cases = [
        (json!({ "sub": "spiffe://evil.org/agent/a" }), Some(foreign.reason())),
        (json!({ "sub": "spiffe://example.org/agent/../b" }), Some(crate::Reason::Claims)),
        (json!({ "sub": "spiffe://EXAMPLE.org/agent/a" }), Some(crate::Reason::Claims)),
        (json!({ "sub": "repo:org/app" }), Some(crate::Reason::Claims)),
        (json!({ "sub": "spiffe://example.org" }), Some(crate::Reason::Claims)),
        (json!({ "iss": "https://anything.example" }), None),
        (json!({ "aud": [US, "spiffe://example.org/b"] }), Some(crate::Reason::WrongParty)),
        (json!({ "exp": null }), Some(crate::Reason::Claims)),
        (json!({ "exp": now + 930 }), None),
        (json!({ "exp": now + 931 }), Some(crate::Reason::Time)),
    ];
    for (patch, expected) in cases {
        let found = outcome(&svid(), svid_claims(), json!({}), patch.clone());
        assert_eq!(found.map(|error| error.reason()), expected, "{patch}");
    }
}

#[test]
fn leeway_is_never_more_than_a_minute() {
    let generous = EvidenceRules { leeway_secs: 86_400, ..oidc() };
    let expired = json!({ "exp": NOW.0 - 61 });
    assert_eq!(outcome(&generous, oidc_claims(), json!({}), expired), Some(Error::Expired { ago_secs: 61 }));
    let negative = EvidenceRules { leeway_secs: -100, ..oidc() };
    assert_eq!(outcome(&negative, oidc_claims(), json!({}), json!({})), None);
}

#[test]
fn rules_without_audience_or_algorithms_match_nothing() {
    let no_audience = EvidenceRules { audience: String::new(), ..oidc() };
    assert_eq!(outcome(&no_audience, oidc_claims(), json!({}), json!({ "aud": "" })), Some(Error::AudienceWrong));
    let no_algorithms = EvidenceRules { algorithms: Vec::new(), ..oidc() };
    let found = outcome(&no_algorithms, oidc_claims(), json!({}), json!({}));
    assert_eq!(found, Some(Error::AlgorithmRefused { name: "ES256" }));
}

#[test]
fn malleated_signature_has_the_same_replay_key() {
    // (r, n - s) is a valid ECDSA signature of the same message: a copy that looks new.
    let claims = patched(oidc_claims(), &json!({ "jti": null })).to_string();
    let token = ISSUER.compact(Algorithm::Es256, &header(Algorithm::Es256).to_string(), &claims);
    let (input, signature) = token.rsplit_once('.').unwrap();
    let twin = format!("{input}.{}", crate::jws::encode(&mirrored(&crate::jws::decode(signature, "").unwrap())));
    assert_ne!(twin, token);
    let keys = [token.as_str(), &twin].map(|token| verify(token, &oidc()).unwrap().replay_key);
    assert_eq!(keys[0], keys[1]);
    assert!(keys[0].starts_with("sha256:"));
}

/// The P-256 signature `(r, n - s)` for `(r, s)`.
fn mirrored(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
        0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (r, s) = signature.split_at(32);
    let mut borrow = 0;
    let mut difference: Vec<u8> = (0..32)
        .rev()
        .map(|i| {
            let digit = i32::from(ORDER[i]) - i32::from(s[i]) - borrow;
            borrow = i32::from(digit < 0);
            u8::try_from(digit.rem_euclid(256)).unwrap()
        })
        .collect();
    difference.reverse();
    [r, &difference].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is wrong with a token, leaving a claim out does not make it right.
    #[test]
    fn removing_a_claim_never_turns_deny_into_allow(
        breakage in prop::sample::select(vec![
            json!({ "iss": "https://evil.example" }), json!({ "aud": "https://other.example" }),
            json!({ "aud": [US, "x"] }), json!({ "exp": 1 }), json!({ "iat": 1 }), json!({ "sub": 1 }),
            json!({ "exp": NOW.0 + 100_000 }), json!({ "iat": NOW.0 + 3600 }), json!({ "sub": "spiffe://evil.org/a" }),
        ]),
        removed in prop::sample::subsequence(vec!["iss", "sub", "aud", "exp", "iat", "nbf", "jti"], 0..7),
        svid_rules in any::<bool>(),
    ) {
        let rules = if svid_rules { svid() } else { oidc() };
        let sub = if svid_rules { json!({ "sub": "spiffe://example.org/agent/a" }) } else { json!({}) };
        let broken = patched(patched(oidc_claims(), &sub), &breakage);
        prop_assume!(outcome(&rules, broken.clone(), json!({}), json!({})).is_some());
        // `iat` is optional in SVIDs; a token without it is judged by its remaining life instead.
        prop_assume!(!(svid_rules && removed.contains(&"iat") && breakage.get("iat").is_some()));
        let mut less = broken;
        for claim in removed {
            less.as_object_mut().unwrap().remove(claim);
        }
        let found = outcome(&rules, less, json!({}), json!({}));
        prop_assert!(found.is_some());
    }

    /// No byte string panics or is accepted without the issuer's signature.
    #[test]
    fn arbitrary_text_is_refused(token in "[A-Za-z0-9_.=-]{0,200}|\\PC{0,60}") {
        prop_assert!(verify(&token, &oidc()).is_err());
    }
}
