//! Tokens, proofs, keys and names of strangers. Headers and claims are signed here, so that what lies behind the signature is
//! reached too.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{AgentId, GrantId, TaskId, ToolName};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use token::UnixSeconds;
use token::access::{Expected, SignedAccess};
use token::algorithm::Algorithm;
use token::claims::CanonicalClaims;
use token::dpop::{NonceKey, ProofRequest, ProofRules, TargetUri, verify_proof};
use token::jwks::{KeySet, SpiffeBundle};
use token::spiffe_id::{SpiffeId, TrustDomain};
use token::svid::{claimed_spiffe_id, verify_x509_svid};
use token::verify::{EvidenceRules, Profile, UnverifiedToken};

const NOW: UnixSeconds = UnixSeconds(1_000_000);

static PAIR: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key"));
static JWK: LazyLock<Value> =
    LazyLock::new(|| json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(PAIR.public_key().as_ref()) }));
static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let mut key = JWK.clone();
    key["kid"] = "1".into();
    KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).expect("keys")
});

fn signed(header: &str, claims: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(PAIR.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

fn object(text: &str) -> Map<String, Value> {
    let look = crate::scan::look(text.as_bytes()).expect("what is accepted is JSON");
    assert!(!look.doubled && !look.torn && look.depth <= 16, "{look:?}");
    serde_json::from_str(text).expect("what is accepted is an object")
}

/// What is accepted says what another reader of its claims sees, and holds here and now; without the signature nothing is.
pub fn claims(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert!(SignedAccess::verify(text, &KEYS).is_err(), "a token that nobody signed is accepted");
    if let Ok(token) = UnverifiedToken::parse(text) {
        assert_eq!(text.split('.').count(), 3);
        assert!(token.verify(&rules(), &KEYS, NOW).is_err(), "evidence that nobody signed is accepted");
    }
    let Some((header, claims)) = text.split_once('\n') else { return };
    let token = signed(header, claims);
    access(&token, header, claims);
    let Ok(unverified) = UnverifiedToken::parse(&token) else { return };
    let Ok(evidence) = unverified.verify(&rules(), &KEYS, NOW) else { return };
    let (header, claims) = (object(header), object(claims));
    assert!(
        header.get("alg") == Some(&json!("EdDSA"))
            && !["jwk", "jku", "x5u", "x5c", "crit", "b64"].iter().any(|name| header.contains_key(*name))
    );
    assert_eq!(evidence.claims, claims);
    assert_eq!(
        (claims.get("iss"), claims.get("sub").and_then(Value::as_str)),
        (Some(&json!("https://i.test")), Some(evidence.subject.as_str()))
    );
    assert!(claims.get("aud") == Some(&json!("https://w.test")) || claims.get("aud") == Some(&json!(["https://w.test"])));
    let time = |name: &str| claims.get(name).and_then(Value::as_f64);
    assert!(time("exp").is_some_and(|exp| exp > 1_000_000.0 - 10.0) && time("iat").is_some_and(|iat| iat <= 1_000_000.0 + 11.0));
    assert!(time("nbf").is_none_or(|nbf| nbf < 1_000_000.0 + 11.0));
}

fn rules() -> EvidenceRules {
    EvidenceRules {
        profile: Profile::Oidc { issuer: "https://i.test".to_owned() },
        algorithms: Algorithm::ALL.to_vec(),
        audience: "https://w.test".to_owned(),
        leeway_secs: 10,
        lifetime_secs_max: 3_600,
        age_secs_max: 3_600,
    }
}

fn access(token: &str, header: &str, claims: &str) {
    let Ok(access) = SignedAccess::verify(token, &KEYS) else { return };
    let (header, claims) = (object(header), object(claims));
    assert!(header.keys().all(|name| matches!(name.as_str(), "alg" | "kid" | "typ")));
    let typ = header.get("typ").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    assert!(typ == "at+jwt" || typ == "application/at+jwt");
    let read = access.claims();
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    assert_eq!((text("iss"), text("sub"), text("task")), (Some(&*read.issuer), Some(&*read.subject), Some(&*read.task)));
    assert_eq!(text("intent"), Some(&*read.intent));
    let audience = match claims.get("aud") {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    };
    assert_eq!(audience, read.audience);
    let expected = Expected { issuer: "https://w.test", audience: "https://w.test/mcp/x", leeway_secs: 0 };
    if access.check(&expected, NOW).is_ok() {
        assert!(text("iss") == Some("https://w.test") && audience.iter().any(|one| one == "https://w.test/mcp/x"));
        assert!(claims.get("exp").and_then(Value::as_f64).is_some_and(|exp| exp >= 1_000_001.0));
    }
    if let Ok(canonical) = read.canonical() {
        let (again, said) = CanonicalClaims::parse(canonical.as_bytes()).expect("what would be signed can be read");
        assert_eq!((again.as_bytes(), &said), (canonical.as_bytes(), read));
    }
}

static ENDPOINT: LazyLock<TargetUri> = LazyLock::new(|| TargetUri::parse("https://w.test/token").expect("a URI"));

/// A proof is of this request, now, by its own key; a URI has one normal form.
pub fn proof(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(uri) = TargetUri::parse(text) {
        let again = TargetUri::parse(uri.as_str()).expect("a normal form is a URI");
        assert_eq!(again, uri, "{text:?} has two normal forms");
        assert!(uri.as_str().starts_with("http") && !uri.as_str().contains(['?', '#', '\\']));
        assert!(!uri.as_str().split('/').skip(3).any(|segment| segment == "." || segment == ".."), "{text:?}");
    }
    let Some((header, claims)) = text.split_once('\n') else { return };
    let header = header.replace("\"JWK\"", &JWK.to_string());
    let token = signed(&header, claims);
    let nonces = NonceKey::new(&[7; 32], 60);
    let nonce = nonces.issue(NOW);
    let claims = claims.replace("NONCE", &nonce);
    let with_nonce = signed(&header, &claims);
    for (token, access_token, nonce) in [(&token, None, None), (&token, Some("t"), None), (&with_nonce, None, Some(&nonces))] {
        let request = ProofRequest { method: "POST", uri: &ENDPOINT, access_token, known_key: None };
        let rules = ProofRules { age_secs_max: 60, ahead_secs_max: 10, nonce, nonce_at: NOW };
        let Ok(proof) = verify_proof(token, &request, &rules, NOW) else { continue };
        let header = object(&header);
        let claims = object(
            &String::from_utf8(URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap_or_default()).expect("base64"))
                .expect("text"),
        );
        assert!(
            header
                .get("typ")
                .and_then(Value::as_str)
                .is_some_and(|typ| typ.to_ascii_lowercase().trim_start_matches("application/") == "dpop+jwt")
        );
        assert_eq!(header.get("alg"), Some(&json!("EdDSA")));
        assert!(header.get("jwk").is_some_and(|jwk| jwk.get("d").is_none()));
        let said = |name: &str| claims.get(name).and_then(Value::as_str);
        assert_eq!((said("htm"), said("jti")), (Some("POST"), Some(proof.jti.as_str())));
        assert!(said("htu").is_some_and(|htu| htu.to_ascii_lowercase().starts_with("https:")));
        assert!(claims.get("iat").and_then(Value::as_f64).is_some_and(|iat| (1_000_000.0 - iat).abs() <= 61.0));
        assert_eq!(access_token.is_some(), claims.contains_key("ath"));
        assert!(nonce.is_none() || said("nonce").is_some());
        let known = ProofRequest { known_key: Some(&proof.key), ..request };
        assert!(verify_proof(token, &known, &rules, NOW).is_ok());
        let other = ProofRequest { method: "GET", ..request };
        assert!(verify_proof(token, &other, &rules, NOW).is_err());
    }
}

/// A set of keys holds no secret, and what is published of it is read alike.
pub fn keys(data: &[u8]) {
    let domain = TrustDomain::parse("example.org").expect("a domain");
    let set = KeySet::parse(data);
    let bundle = SpiffeBundle::parse(domain, data);
    if set.is_err() && bundle.is_err() {
        return;
    }
    let document = object(std::str::from_utf8(data).expect("text"));
    let listed = document.get("keys").and_then(Value::as_array).expect("a list of keys");
    for key in listed {
        let secret = key.get("d").is_some();
        let kind = key.get("kty").and_then(Value::as_str);
        if set.is_ok() {
            assert!(kind != Some("oct") && !(secret && matches!(kind, Some("RSA" | "EC" | "OKP"))), "{key}");
        }
    }
    let Ok(set) = set else { return };
    assert_eq!(set.len() + set.skipped(), listed.len());
    let published = set.to_json();
    let again = KeySet::parse(published.to_string().as_bytes()).expect("what is published can be read");
    assert_eq!(again.to_json(), published);
    assert_eq!(again.skipped(), 0, "{published}");
}

/// A name is read in one spelling, and a certificate of anybody's making proves nobody.
pub fn identity(data: &[u8]) {
    let bundle = SpiffeBundle::parse(TrustDomain::parse("example.org").expect("a domain"), b"{\"keys\":[]}").expect("a bundle");
    let leaf = CertificateDer::from(data);
    if let Ok(id) = claimed_spiffe_id(&leaf) {
        assert_eq!(SpiffeId::parse(&id.to_string()).as_ref(), Ok(&id));
    }
    assert!(verify_x509_svid(&[leaf], &bundle, NOW).is_err(), "a certificate of nobody is believed");
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.to_string(), text, "another spelling of an id is accepted");
        assert_eq!(url::Url::parse(text).map(String::from).as_deref(), Ok(text), "another reader sees another id");
    }
    if let Ok(id) = text.parse::<TaskId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Some(id) = GrantId::from_digits(text) {
        assert_eq!(id.digits(), text);
    }
    if let Ok(name) = text.parse::<AgentId>() {
        assert!(name.as_str() == text && text.len() <= 64);
    }
    if let Ok(name) = text.parse::<ToolName>() {
        assert!(name.as_str() == text && text.len() <= 128 && text.is_ascii());
    }
}
