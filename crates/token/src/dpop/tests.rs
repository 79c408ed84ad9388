//! Proofs about another request, key, token or time, each refused by its own rule (RFC 9449 §4.3, §8).
//! Replay is absent: remembering is the caller's.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "tests")]

use serde_json::json;

use super::*;
use crate::algorithm::Algorithm;
use crate::forge::{self, ISSUER, NOW, STRANGER, patched};

const TOKEN: &str = "header.payload.signature";
const URI: &str = "https://writ.example/mcp/orders";

fn claims() -> Value {
    json!({ "jti": "p-1", "htm": "POST", "htu": URI, "iat": NOW.0, "ath": sha256_base64url(TOKEN.as_bytes()) })
}

fn header(algorithm: Algorithm) -> Value {
    json!({ "typ": "dpop+jwt", "alg": algorithm.name(), "jwk": ISSUER.jwk(algorithm) })
}

fn proof(algorithm: Algorithm, header_patch: Value, claims_patch: Value) -> String {
    let header = patched(header(algorithm), &header_patch).to_string();
    ISSUER.compact(algorithm, &header, &patched(claims(), &claims_patch).to_string())
}

const RULES: ProofRules<'static> = ProofRules { age_secs_max: 60, ahead_secs_max: 10, nonce: None, nonce_at: NOW };

fn verify(proof: &str, access_token: Option<&str>, rules: &ProofRules<'_>) -> Result<Proof, Error> {
    let uri = TargetUri::parse(URI).unwrap();
    let request = ProofRequest { method: "POST", uri: &uri, access_token, known_key: None };
    verify_proof(proof, &request, rules, NOW)
}

fn outcome(header_patch: Value, claims_patch: Value) -> Option<Error> {
    verify(&proof(Algorithm::Es256, header_patch, claims_patch), Some(TOKEN), &RULES).err()
}

#[test]
fn valid_proofs_of_every_algorithm_are_accepted() {
    for algorithm in Algorithm::ALL {
        let found = verify(&proof(algorithm, json!({}), json!({})), Some(TOKEN), &RULES).unwrap();
        let expected = PublicKey::from_jwk(&ISSUER.jwk(algorithm)).unwrap().thumbprint();
        assert_eq!((found.jkt.as_str(), found.jti.as_str(), found.issued_at), (expected.as_str(), "p-1", NOW));
        assert_eq!(found.key.jkt(), expected);
    }
}

#[test]
fn a_known_key_is_used_only_if_it_is_the_proofs_own() {
    let uri = TargetUri::parse(URI).unwrap();
    let known = verify(&proof(Algorithm::Es256, json!({}), json!({})), Some(TOKEN), &RULES).unwrap().key;
    let request = ProofRequest { method: "POST", uri: &uri, access_token: Some(TOKEN), known_key: Some(&known) };
    let again = proof(Algorithm::Es256, json!({}), json!({ "jti": "p-2" }));
    assert!(Arc::ptr_eq(&verify_proof(&again, &request, &RULES, NOW).unwrap().key.key, &known.key));

    // Another key's proof is judged by its own key and yields its own thumbprint, never the cached one.
    let jwk = json!({ "jwk": STRANGER.jwk(Algorithm::Es256) });
    let header = patched(header(Algorithm::Es256), &jwk).to_string();
    let other = STRANGER.compact(Algorithm::Es256, &header, &claims().to_string());
    assert_ne!(verify_proof(&other, &request, &RULES, NOW).unwrap().jkt, known.jkt());
    let mixed = ISSUER.compact(Algorithm::Es256, &header, &claims().to_string());
    assert_eq!(verify_proof(&mixed, &request, &RULES, NOW).err(), Some(Error::SignatureInvalid));
}

#[test]
fn proofs_about_another_request_are_refused() {
    let now = NOW.0;
    let malformed = |claim| Some(Error::ClaimMalformed { claim });
    let missing = |claim| Some(Error::ClaimMissing { claim });
    let cases = [
        (json!({ "htm": "GET" }), Some(Error::ProofMethodWrong)),
        (json!({ "htm": "post" }), Some(Error::ProofMethodWrong)),
        (json!({ "htm": null }), missing("htm")),
        (json!({ "htm": 1 }), malformed("htm")),
        (json!({ "htu": null }), missing("htu")),
        (json!({ "htu": "https://writ.example/mcp/other" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "https://evil.example/mcp/orders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "http://writ.example/mcp/orders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "https://writ.example:8443/mcp/orders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "https://writ.example/mcp/orders/" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "https://writ.example/MCP/orders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "https://writ.example/mcp%2Forders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "https://u@writ.example/mcp/orders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "/mcp/orders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "https:\\\\writ.example\\mcp\\orders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": " https://writ.example/mcp/orders" }), Some(Error::ProofUriWrong)),
        (json!({ "htu": "HTTPS://WRIT.example:443/mcp/orders?x=1#y" }), None),
        (json!({ "htu": "https://writ.example/a/../mcp/%6Frders" }), None),
        (json!({ "iat": null }), missing("iat")),
        (json!({ "iat": "now" }), malformed("iat")),
        (json!({ "iat": now - 60 }), None),
        (json!({ "iat": now - 61 }), Some(Error::TooOld { age_secs: 61, max_secs: 60 })),
        (json!({ "iat": now + 10 }), None),
        (json!({ "iat": now + 11 }), Some(Error::IssuedInFuture { in_secs: 11 })),
        (json!({ "jti": null }), missing("jti")),
        (json!({ "jti": "" }), malformed("jti")),
        (json!({ "jti": "x".repeat(JTI_BYTES_MAX) }), None),
        (json!({ "jti": "x".repeat(JTI_BYTES_MAX + 1) }), malformed("jti")),
        (json!({ "ath": null }), missing("ath")),
        (json!({ "ath": sha256_base64url(b"another token") }), Some(Error::ProofTokenWrong)),
        (json!({ "ath": TOKEN }), Some(Error::ProofTokenWrong)),
    ];
    for (patch, expected) in cases {
        assert_eq!(outcome(json!({}), patch.clone()), expected, "{patch}");
    }
}

#[test]
fn a_resource_proof_is_no_token_endpoint_proof() {
    let token_request = proof(Algorithm::Es256, json!({}), json!({ "ath": null }));
    assert!(verify(&token_request, None, &RULES).is_ok());
    let resource_request = proof(Algorithm::Es256, json!({}), json!({}));
    assert_eq!(verify(&resource_request, None, &RULES).err(), Some(Error::ProofTokenUnexpected));
}

#[test]
fn headers_decide_by_rule() {
    let private = {
        let mut jwk = ISSUER.jwk(Algorithm::Es256);
        jwk.insert("d".to_owned(), encode(&[1; 32]).into());
        Value::Object(jwk)
    };
    let off_curve = {
        let mut jwk = ISSUER.jwk(Algorithm::Es256);
        jwk.insert("y".to_owned(), encode(&[1; 32]).into());
        Value::Object(jwk)
    };
    let malformed = |what| Some(Error::KeyMalformed { what });
    let typed = |found: &str| Some(Error::TypeWrong { found: found.to_owned(), expected: "dpop+jwt" });
    let cases = [
        (json!({ "typ": "JWT" }), typed("JWT")),
        (json!({ "typ": "at+jwt" }), typed("at+jwt")),
        (json!({ "typ": null }), typed("")),
        (json!({ "jwk": null }), malformed("proof has no `jwk`")),
        (json!({ "jwk": "x" }), malformed("proof has no `jwk`")),
        (json!({ "jwk": { "kty": "oct", "k": "AAAA" } }), Some(Error::KeySymmetric)),
        (json!({ "jwk": { "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" } }), malformed("its type or curve is unknown")),
        (json!({ "jwk": private }), Some(Error::KeyPrivate)),
        (json!({ "jwk": off_curve }), malformed("not a point on its curve")),
        (json!({ "jwk": STRANGER.jwk(Algorithm::Es256) }), Some(Error::SignatureInvalid)),
        (json!({ "jwk": ISSUER.jwk(Algorithm::EdDsa) }), Some(Error::SignatureInvalid)),
        (json!({ "crit": ["x"] }), Some(Error::HeaderForbidden { name: "crit".to_owned() })),
        (json!({ "jku": "https://evil.example" }), Some(Error::HeaderForbidden { name: "jku".to_owned() })),
        (json!({ "kid": "x" }), None),
    ];
    for (patch, expected) in cases {
        assert_eq!(outcome(patch.clone(), json!({})), expected, "{patch}");
    }
}

#[test]
fn the_named_algorithm_is_the_one_of_the_key() {
    // A P-256 signature under a header that names another algorithm: what was announced must be what was done.
    for name in ["ES384", "EdDSA", "RS256"] {
        let found = outcome(json!({ "alg": name }), json!({}));
        assert_eq!(found, Some(Error::SignatureInvalid), "{name}");
    }
}

#[test]
fn symmetric_and_unsigned_proofs_are_refused() {
    let payload = claims().to_string();
    for name in ["none", "HS256"] {
        let header = patched(header(Algorithm::Es256), &json!({ "alg": name })).to_string();
        let secret = serde_json::to_vec(&ISSUER.jwk(Algorithm::Es256)).unwrap();
        for proof in [forge::hmac_compact(&secret, &header, &payload), forge::signing_input(&header, &payload) + "."] {
            let found = verify(&proof, Some(TOKEN), &RULES).err();
            assert_eq!(found, Some(Error::AlgorithmUnknown { name: name.to_owned() }));
        }
    }
    let huge = proof(Algorithm::Es256, json!({ "x": "y".repeat(PROOF_BYTES_MAX) }), json!({}));
    assert_eq!(verify(&huge, Some(TOKEN), &RULES).err(), Some(Error::TooLarge { limit: PROOF_BYTES_MAX }));
    let duplicate = claims().to_string().replacen('{', r#"{"htm":"GET","#, 1);
    let token = ISSUER.compact(Algorithm::Es256, &header(Algorithm::Es256).to_string(), &duplicate);
    assert!(matches!(verify(&token, Some(TOKEN), &RULES), Err(Error::MemberDuplicate { .. })));
}

#[test]
fn nonces_last_at_least_one_and_less_than_two_buckets() {
    let key = NonceKey::new(&[7; 32], 60);
    let start = UnixSeconds(NOW.0 - NOW.0 % 60);
    let nonce = key.issue(start);
    for (at, expected) in [(0, true), (59, true), (60, true), (119, true), (120, false), (-1, false)] {
        assert_eq!(key.accepts(&nonce, start.plus(at)), expected, "{at} s later");
    }
    assert!(!NonceKey::new(&[8; 32], 60).accepts(&nonce, start), "another key's nonce");
    for foreign in ["", "x", &nonce[1..], &format!("{nonce}x"), &nonce.to_lowercase()] {
        assert!(!key.accepts(foreign, start), "{foreign}");
    }
    assert_eq!(format!("{key:?}"), "NonceKey(..)");
}

#[test]
fn a_demanded_nonce_must_be_there_and_fresh() {
    let key = NonceKey::new(&[7; 32], 60);
    let rules = ProofRules { nonce: Some(&key), ..RULES };
    let cases = [
        (json!({}), Some(Error::NonceMissing)),
        (json!({ "nonce": key.issue(NOW) }), None),
        (json!({ "nonce": key.issue(NOW.plus(-120)) }), Some(Error::NonceRefused)),
        (json!({ "nonce": "made-up" }), Some(Error::NonceRefused)),
        (json!({ "nonce": 7 }), Some(Error::NonceRefused)),
        (json!({ "nonce": "x".repeat(10_000 / 8) }), Some(Error::NonceRefused)),
    ];
    for (patch, expected) in cases {
        let found = verify(&proof(Algorithm::Es256, json!({}), patch.clone()), Some(TOKEN), &rules).err();
        assert_eq!(found, expected, "{patch}");
    }
}

#[test]
fn request_uris_must_be_absolute_http_uris() {
    for uri in ["", "/mcp", "ftp://h/x", "https://", "https://u:p@h/x", "https://h/\u{e9}", "https://h/a b", "mailto:a@b"] {
        assert_eq!(TargetUri::parse(uri), Err(Error::UriMalformed), "{uri}");
    }
    // The URL parser would take each for `https://h/a`.
    for uri in ["https:///h/a", "https:////h/a", "https:/h/a", "https:h/a", "https:/h/a://b"] {
        assert_eq!(TargetUri::parse(uri), Err(Error::UriMalformed), "{uri}");
    }
    // What is no escape could become one, a dot segment for example, once the escapes around it are decoded.
    for uri in ["https://h/%", "https://h/%zz", "https://h/a/%%32e%%32e/b", "https://h/%2"] {
        assert_eq!(TargetUri::parse(uri), Err(Error::UriMalformed), "{uri}");
    }
    let cases = [
        ("https://h.example", "https://h.example/"),
        ("http://H.example:80/a?b#c", "http://h.example/a"),
        ("https://h.example/%7euser/%2f%c3%bc", "https://h.example/~user/%2F%C3%BC"),
        ("http://127.0.0.1:8080/mcp", "http://127.0.0.1:8080/mcp"),
    ];
    for (uri, expected) in cases {
        assert_eq!(TargetUri::parse(uri).unwrap().as_str(), expected);
    }
}

/// The proof of RFC 9449 §7.1 (figure 12), with the key of its figure 5.
#[test]
fn the_proof_of_the_specification_verifies() {
    let vector: Value = serde_json::from_str(include_str!("../../testdata/rfc9449.json")).unwrap();
    let text = |name: &str| vector[name].as_str().unwrap();
    let uri = TargetUri::parse(text("uri")).unwrap();
    let request = ProofRequest { method: "GET", uri: &uri, access_token: Some(text("access_token")), known_key: None };
    let now = UnixSeconds(vector["iat"].as_i64().unwrap());
    let proof = verify_proof(text("proof"), &request, &RULES, now).unwrap();
    assert_eq!(proof.jkt, text("jkt"));
    assert_eq!(proof.jti, "e1j3V_bKic8-LAEB");
}

/// A bounded fuzzer of the whole way from bytes to a proof: a valid one with pieces cut out, repeated and exchanged.
mod hostile {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    fn pieces() -> impl Strategy<Value = Vec<(u16, u8, String)>> {
        let own = [".", "..", "=", "e30", "eyJ9", "AA", "-", "_", "+", "/", " ", "\0", "\u{e9}", "bnVsbA", "W10", ""];
        vec((any::<u16>(), 0_u8..12, select(own.to_vec()).prop_map(str::to_owned)), 1..4)
    }

    fn edited(text: &str, edits: &[(u16, u8, String)]) -> String {
        let mut letters: Vec<char> = text.chars().collect();
        for (at, cut, put) in edits {
            let at = usize::from(*at) % (letters.len() + 1);
            let end = (at + usize::from(*cut)).min(letters.len());
            letters.splice(at..end, put.chars());
        }
        letters.into_iter().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_500))]

        #[test]
        fn no_altered_proof_is_accepted(edits in pieces()) {
            let honest = proof(Algorithm::EdDsa, json!({}), json!({}));
            let altered = edited(&honest, &edits);
            if altered != honest {
                prop_assert!(verify(&altered, Some(TOKEN), &RULES).is_err(), "{altered}");
            }
        }

        /// What the signature covers is altered before it is signed: it is refused, or it is a proof of this very request.
        #[test]
        fn a_header_or_claims_that_were_altered_before_signing_prove_no_other_request(edits in pieces(), of_header in any::<bool>()) {
            let (mut head, mut body) = (header(Algorithm::EdDsa).to_string(), claims().to_string());
            let part = if of_header { &mut head } else { &mut body };
            *part = edited(part, &edits);
            if let Ok(found) = verify(&ISSUER.compact(Algorithm::EdDsa, &head, &body), Some(TOKEN), &RULES) {
                let claims: Value = serde_json::from_str(&body).unwrap();
                // Of what names a request there are other spellings, and query and fragment do not count (RFC 9449 §4.3).
                let named = TargetUri::parse(claims["htu"].as_str().unwrap()).unwrap();
                prop_assert_eq!(named.as_str(), URI);
                prop_assert_eq!(&claims["htm"], "POST");
                prop_assert_eq!(found.jkt, PublicKey::from_jwk(&ISSUER.jwk(Algorithm::EdDsa)).unwrap().thumbprint());
            }
        }

        #[test]
        fn anything_panics_nowhere(text in "\\PC{0,200}", bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(verify(&text, Some(TOKEN), &RULES).is_err());
            prop_assert!(verify(&String::from_utf8_lossy(&bytes), None, &RULES).is_err());
            let _ = TargetUri::parse(&text);
        }
    }
}
