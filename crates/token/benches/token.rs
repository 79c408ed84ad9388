//! What checking and minting cost, beside the raw signature primitive in the same run: the ratio counts,
//! since absolute figures move with the machine. Run with `cargo bench -p token`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{BatchSize, Criterion};
use serde_json::{Value, json};
use token::UnixSeconds;
use token::access::{Expected, SignedAccess, token_hash};
use token::algorithm::Algorithm;
use token::claims::{AccessClaims, Confirmation};
use token::dpop::{NonceKey, ProofKey, ProofRequest, ProofRules, TargetUri, verify_proof};
use token::jwks::KeySet;
use token::sign::{Es256Signer, TokenSigner, mint};
use token::verify::{EvidenceRules, Profile, UnverifiedToken};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const ISSUER: &str = "https://writ.example";
const RESOURCE: &str = "https://writ.example/mcp/orders";

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn compact(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let input = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let signature = sign(input.as_bytes());
    format!("{input}.{}", encode(&signature))
}

fn ec_pair() -> (EcdsaKeyPair, Value) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = key.public_key().as_ref().get(1..).unwrap().split_at(32);
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)});
    (key, jwk)
}

fn ec_sign(key: &EcdsaKeyPair) -> impl Fn(&[u8]) -> Vec<u8> + '_ {
    |message| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

fn claims() -> AccessClaims {
    AccessClaims {
        issuer: ISSUER.to_owned(),
        subject: "agt_01k0zq5x3v8e7w9m2n4p6r8t0a".to_owned(),
        client_id: "agt_01k0zq5x3v8e7w9m2n4p6r8t0a".to_owned(),
        audience: vec![RESOURCE.to_owned()],
        issued_at: NOW,
        expires_at: NOW.plus(300),
        token_id: "tok_01k0zq5x3v8e7w9m2n4p6r8t0a".to_owned(),
        task: "tsk_01k0zq5x3v8e7w9m2n4p6r8t0a".to_owned(),
        intent: "RefundOrder".to_owned(),
        act: None,
        confirmation: Some(Confirmation::Jkt("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".to_owned())),
        scope: None,
        authorization_details: Vec::new(),
    }
}

/// The best of many runs in nanoseconds: the figure that a busy machine disturbs least.
fn best(mut work: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..3000 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed());
    }
    best.as_secs_f64() * 1e9
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().without_plots();
    criterion = criterion.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    let mut report: Vec<(&str, f64)> = Vec::new();
    let mut measure = |name: &'static str, work: &mut dyn FnMut()| {
        criterion.bench_function(name, |bencher| bencher.iter_batched(|| (), |()| work(), BatchSize::SmallInput));
        report.push((name, best(work)));
    };

    // The yardstick: one raw ES256 verification over a message of a token's size.
    let signer = Es256Signer::from_pkcs8(&Es256Signer::generate_pkcs8().unwrap()).unwrap();
    let canonical = claims().canonical().unwrap();
    let token = mint(&canonical, &signer).unwrap();
    let (raw_key, raw_jwk) = ec_pair();
    let message = vec![7_u8; token.len()];
    let raw_signature = ec_sign(&raw_key)(&message);
    let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, raw_key.public_key().as_ref()).unwrap();
    measure("raw ES256 verify", &mut || parsed.verify_sig(black_box(&message), &raw_signature).unwrap());
    let sign = ec_sign(&raw_key);
    measure("raw ES256 sign", &mut || drop(black_box(sign(&message))));

    let keys = KeySet::of_signers([&signer as &dyn TokenSigner]).unwrap();
    let expected = Expected { issuer: ISSUER, audience: RESOURCE, leeway_secs: 0 };
    measure("access token: canonical claims", &mut || drop(black_box(claims().canonical())));
    measure("access token: mint (sign and re-verify)", &mut || drop(black_box(mint(&canonical, &signer))));
    measure("access token: verify", &mut || {
        black_box(SignedAccess::verify(&token, &keys).unwrap().check(&expected, NOW).unwrap());
    });
    let cached = SignedAccess::verify(&token, &keys).unwrap();
    measure("access token: cached (hash and claims)", &mut || {
        black_box((token_hash(&token), cached.check(&expected, NOW).unwrap()));
    });

    let uri = TargetUri::parse(RESOURCE).unwrap();
    let ath = encode(&token_hash(&token));
    let proof_claims = json!({"jti": "u7Xk2mVvTqe1Yx0c", "htm": "POST", "htu": RESOURCE, "iat": NOW.0, "ath": ath});
    let header = |alg: &str, jwk: &Value| json!({"typ": "dpop+jwt", "alg": alg, "jwk": jwk});
    let ec_proof = compact(&header("ES256", &raw_jwk), &proof_claims, ec_sign(&raw_key));
    let ed_key = Ed25519KeyPair::generate().unwrap();
    let ed_jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(ed_key.public_key().as_ref())});
    let ed_proof = compact(&header("EdDSA", &ed_jwk), &proof_claims, |message| ed_key.sign(message).as_ref().to_vec());
    let rules = ProofRules { age_secs_max: 60, ahead_secs_max: 10, nonce: None, nonce_at: UnixSeconds(0) };
    let check = |proof: &str, known_key: Option<&ProofKey>| {
        let request = ProofRequest { method: "POST", uri: &uri, access_token: Some(&token), known_key };
        verify_proof(proof, &request, &rules, NOW).unwrap()
    };
    measure("DPoP proof ES256", &mut || drop(black_box(check(&ec_proof, None))));
    let known = check(&ec_proof, None).key;
    measure("DPoP proof ES256, key known", &mut || drop(black_box(check(&ec_proof, Some(&known)))));
    measure("DPoP proof EdDSA", &mut || drop(black_box(check(&ed_proof, None))));
    let nonces = NonceKey::new(&[7; 32], 60);
    let nonce = nonces.issue(NOW);
    measure("DPoP nonce accept", &mut || assert!(nonces.accepts(black_box(&nonce), NOW)));

    let mut jwk = raw_jwk.clone();
    jwk.as_object_mut().unwrap().insert("kid".to_owned(), "k1".into());
    let issuer_keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let evidence = compact(
        &json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}),
        &json!({"iss": "https://issuer.example", "sub": "repo:org/app", "aud": ISSUER, "jti": "1", "iat": NOW.0, "exp": NOW.0 + 300}),
        ec_sign(&raw_key),
    );
    let rules = EvidenceRules {
        profile: Profile::Oidc { issuer: "https://issuer.example".to_owned() },
        audience: ISSUER.to_owned(),
        algorithms: vec![Algorithm::Es256],
        leeway_secs: 30,
        lifetime_secs_max: 900,
        age_secs_max: 300,
    };
    measure("evidence ES256", &mut || {
        drop(black_box(UnverifiedToken::parse(&evidence).unwrap().verify(&rules, &issuer_keys, NOW).unwrap()));
    });

    let yardstick = report.first().map_or(f64::NAN, |(_, nanos)| *nanos);
    println!("\n{:<42} {:>10} {:>18}", "best of 3000", "us", "x raw ES256 verify");
    for (name, nanos) in &report {
        println!("{name:<42} {:>10.2} {:>18.2}", nanos / 1e3, nanos / yardstick);
    }
}
