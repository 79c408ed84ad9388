//! The canonical bytes of access token claims, and that no binding is lost between writing and reading
//! (RFC 9068, RFC 7800).
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::forge::{NOW, patched};

pub(crate) fn claims() -> AccessClaims {
    AccessClaims {
        issuer: "https://writ.example".to_owned(),
        subject: "agt_refunds".to_owned(),
        client_id: "agt_refunds".to_owned(),
        audience: vec!["https://writ.example/mcp/orders".to_owned()],
        issued_at: NOW,
        expires_at: NOW.plus(300),
        token_id: "tok_1".to_owned(),
        task: "tsk_1".to_owned(),
        intent: "RefundOrder".to_owned(),
        act: None,
        confirmation: Some(Confirmation::Jkt("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".to_owned())),
        scope: None,
        authorization_details: Vec::new(),
    }
}

fn chain(depth: usize) -> Option<Actor> {
    (0..depth).fold(None, |act, link| Some(Actor { subject: format!("agt_{link}"), task: None, act: act.map(Box::new) }))
}

#[test]
fn canonical_bytes_are_what_the_log_decides() {
    let full = AccessClaims {
        audience: vec!["https://b.example".to_owned(), "https://a.example".to_owned()],
        act: Some(Actor { subject: "agt_parent".to_owned(), task: Some("tsk_0".to_owned()), act: None }),
        scope: Some("mcp".to_owned()),
        authorization_details: vec![json!({"type": "writ_task", "parameters": {"z": 1, "a": "x"}})],
        ..claims()
    };
    let expected = concat!(
        r#"{"act":{"sub":"agt_parent","task":"tsk_0"},"aud":["https://b.example","https://a.example"],"#,
        r#""authorization_details":[{"parameters":{"a":"x","z":1},"type":"writ_task"}],"client_id":"agt_refunds","#,
        r#""cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},"exp":1800000300,"iat":1800000000,"#,
        r#""intent":"RefundOrder","iss":"https://writ.example","jti":"tok_1","scope":"mcp","sub":"agt_refunds","#,
        r#""task":"tsk_1"}"#
    );
    let canonical = full.canonical().unwrap();
    assert_eq!(std::str::from_utf8(canonical.as_bytes()), Ok(expected));
    let (read, values) = CanonicalClaims::parse(canonical.as_bytes()).unwrap();
    assert_eq!((read.digest(), values), (canonical.digest(), full));
}

#[test]
fn other_bytes_for_the_same_claims_are_not_canonical() {
    let canonical = claims().canonical().unwrap();
    let text = std::str::from_utf8(canonical.as_bytes()).unwrap();
    let spaced = text.replacen(':', ": ", 1);
    let unknown = text.replacen('{', r#"{"admin":true,"#, 1);
    let escaped = text.replacen("agt", r"\u0061gt", 1);
    for other in [spaced, unknown, escaped] {
        assert_eq!(CanonicalClaims::parse(other.as_bytes()).err(), Some(Error::ClaimsNotCanonical), "{other}");
    }
    let repeated = text.replacen('{', r#"{"sub":"agt_admin","#, 1);
    assert!(matches!(CanonicalClaims::parse(repeated.as_bytes()), Err(Error::MemberDuplicate { .. })));
}

#[test]
fn claims_that_must_never_be_signed_are_refused() {
    let cases = [
        AccessClaims { expires_at: NOW, ..claims() },
        AccessClaims { audience: Vec::new(), ..claims() },
        AccessClaims { audience: vec![String::new()], ..claims() },
        AccessClaims { subject: String::new(), ..claims() },
        AccessClaims { task: String::new(), ..claims() },
        AccessClaims { scope: Some(String::new()), ..claims() },
        AccessClaims { confirmation: Some(Confirmation::Jkt(String::new())), ..claims() },
        AccessClaims { act: chain(ACT_DEPTH_MAX + 1), ..claims() },
        AccessClaims { issued_at: UnixSeconds(-1), ..claims() },
        AccessClaims { authorization_details: vec![json!("x")], ..claims() },
    ];
    for case in cases {
        assert!(matches!(case.canonical(), Err(Error::ClaimsUnfit { .. })), "{case:?}");
    }
    let huge = AccessClaims { authorization_details: vec![json!({ "x": "y".repeat(6000) })], ..claims() };
    assert_eq!(huge.canonical(), Err(Error::TooLarge { limit: CLAIMS_BYTES_MAX }));
    assert!(AccessClaims { act: chain(ACT_DEPTH_MAX), ..claims() }.canonical().is_ok());
}

#[test]
fn every_required_claim_is_required() {
    let map = Value::Object(claims().to_map());
    for claim in ["iss", "sub", "client_id", "aud", "iat", "exp", "jti", "task", "intent"] {
        let less = patched(map.clone(), &json!({ claim: null }));
        let found = AccessClaims::from_map(less.as_object().unwrap());
        assert_eq!(found, Err(Error::ClaimMissing { claim }));
        for wrong in [json!({}), json!(true), json!([1])] {
            let odd = patched(map.clone(), &json!({ claim: wrong }));
            assert_eq!(AccessClaims::from_map(odd.as_object().unwrap()), Err(Error::ClaimMalformed { claim }));
        }
    }
}

#[test]
fn a_binding_that_is_not_understood_never_becomes_a_bearer_token() {
    let map = Value::Object(claims().to_map());
    let thumbprint = "x".repeat(43);
    for cnf in [
        json!({}),
        json!(null),
        json!("jkt"),
        json!({ "jwk": {} }),
        json!({ "jkt": 1 }),
        json!({ "jkt": "" }),
        json!({ "jkt": thumbprint, "x5t#S256": thumbprint }),
        json!({ "jkt": thumbprint, "kid": "x" }),
    ] {
        // `patched` removes on null, so set the member directly.
        let mut odd = map.clone();
        odd.as_object_mut().unwrap().insert("cnf".to_owned(), cnf.clone());
        let found = AccessClaims::from_map(odd.as_object().unwrap());
        assert_eq!(found, Err(Error::ClaimMalformed { claim: "cnf" }), "{cnf}");
    }
}

#[test]
fn bound_tokens_need_their_own_key_and_method() {
    let (jkt, x5t) = ("j".repeat(43), "c".repeat(43));
    let proof = |jkt| Presented { proof_jkt: Some(jkt), certificate_thumbprint: None };
    let certificate = |x5t| Presented { proof_jkt: None, certificate_thumbprint: Some(x5t) };
    let by_proof = Some(Confirmation::Jkt(jkt.clone()));
    let by_certificate = Some(Confirmation::X5tS256(x5t.clone()));
    let (missing, wrong) = (Err(Error::BindingMissing), Err(Error::BindingWrong));
    let cases = [
        (&by_proof, proof(&jkt), Ok(())),
        (&by_proof, proof("other"), wrong.clone()),
        (&by_proof, Presented::default(), missing.clone()),
        (&by_proof, certificate(&jkt), missing.clone()),
        (&by_certificate, certificate(&x5t), Ok(())),
        (&by_certificate, certificate("other"), wrong),
        (&by_certificate, Presented::default(), missing.clone()),
        (&by_certificate, proof(&x5t), missing.clone()),
        (&None, Presented::default(), Ok(())),
        (&None, certificate(&x5t), Ok(())),
        (&None, proof(&jkt), missing),
    ];
    for (confirmation, presented, expected) in cases {
        let token = AccessClaims { confirmation: confirmation.clone(), ..claims() };
        assert_eq!(token.check_binding(&presented), expected, "{confirmation:?} {presented:?}");
    }
}

proptest! {
    #[test]
    fn what_is_signed_reads_back_the_same(
        subject in "\\PC{1,40}",
        audience in prop::collection::vec("[a-z]{1,12}", 1..4),
        lifetime in 1i64..4000,
        depth in 0usize..=ACT_DEPTH_MAX,
        scope in prop::option::of("[a-z ]{1,20}"),
        bound in any::<bool>(),
    ) {
        let confirmation = bound.then(|| Confirmation::X5tS256("t".repeat(43)));
        let expires_at = NOW.plus(lifetime);
        let written = AccessClaims { subject, audience, expires_at, act: chain(depth), scope, confirmation, ..claims() };
        let canonical = written.canonical().unwrap();
        let (again, read) = CanonicalClaims::parse(canonical.as_bytes()).unwrap();
        prop_assert_eq!(&read, &written);
        prop_assert_eq!(again, canonical);
    }
}
