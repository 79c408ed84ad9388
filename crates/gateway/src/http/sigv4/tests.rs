//! The vectors are of the AWS Common Runtime signing test suite (Apache-2.0): those whose requests this gateway can write.
#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    name: String,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: String,
    token: Option<String>,
    sign_body: bool,
    header_signature: String,
    query_signature: String,
}

/// 2015-08-30T12:36:00Z, the time of all vectors.
const AT: u64 = 1_440_938_160;

fn draft(vector: &Vector) -> Draft {
    let (path, query) = vector.uri.split_once('?').unwrap_or((&vector.uri, ""));
    let headers = vector.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host"));
    let header =
        |(name, value): &(String, String)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap());
    Draft {
        method: vector.method.parse().unwrap(),
        https: true,
        authority: "example.amazonaws.com".into(),
        path: path.into(),
        query: query.into(),
        headers: headers.map(header).collect(),
        body: vector.body.clone().into(),
    }
}

#[test]
fn the_signatures_are_those_of_the_public_vectors() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert_eq!(vectors.len(), 18);
    let secret = SecretString::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    for vector in &vectors {
        let token = vector.token.clone().map(SecretString::from);
        for (place, expected) in [(SignatureIn::Header, &vector.header_signature), (SignatureIn::Query, &vector.query_signature)]
        {
            let signing = Signing {
                access_key_id: "AKIDEXAMPLE",
                secret_access_key: &secret,
                session_token: token.as_ref(),
                region: "us-east-1",
                service: "service",
                signature: place,
            };
            let mut settings = signing.settings();
            settings.expires_in = settings.expires_in.map(|_| Duration::from_secs(3_600));
            if vector.sign_body {
                settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            }
            let mut draft = draft(vector);
            let signature = signing.apply_with(&mut draft, SystemTime::UNIX_EPOCH + Duration::from_secs(AT), settings).unwrap();
            assert_eq!(&signature, expected, "{} {place:?}", vector.name);
            let authorization = draft.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
            match place {
                SignatureIn::Header => assert!(authorization.unwrap().ends_with(&format!("Signature={signature}"))),
                SignatureIn::Query => {
                    assert_eq!(authorization, None);
                    assert!(draft.query.contains(&format!("&X-Amz-Signature={signature}")), "{}", draft.query);
                    assert_eq!(draft.query.contains("X-Amz-Security-Token="), token.is_some());
                }
            }
        }
    }
}

#[test]
fn what_is_signed_is_the_body_and_the_path_as_sent() {
    let secret = SecretString::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    let signing = Signing {
        access_key_id: "AKIDEXAMPLE",
        secret_access_key: &secret,
        session_token: None,
        region: "us-east-1",
        service: "s3",
        signature: SignatureIn::Header,
    };
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(AT);
    let sign = |path: &str, body: &'static str| {
        let vector = Vector {
            name: String::new(),
            method: "PUT".into(),
            uri: path.into(),
            headers: Vec::new(),
            body: body.into(),
            token: None,
            sign_body: true,
            header_signature: String::new(),
            query_signature: String::new(),
        };
        let mut draft = draft(&vector);
        let signature = signing.apply(&mut draft, at).unwrap();
        (signature, draft.headers.get("x-amz-content-sha256").cloned())
    };
    let (one, digest) = sign("/bucket/key", "a");
    assert!(digest.is_some_and(|digest| digest.to_str().unwrap().len() == 64), "S3 wants the digest of the body");
    for (path, body) in [("/bucket/key", "b"), ("/bucket/kez", "a"), ("/bucket/key?x=1", "a")] {
        assert_ne!(sign(path, body).0, one);
    }
}

/// The example of "Authenticating Requests: Using Query Parameters" in the API reference of S3.
#[test]
fn a_signature_in_the_query_is_the_one_that_s3_expects() {
    let secret = SecretString::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let signing = Signing {
        access_key_id: "AKIAIOSFODNN7EXAMPLE",
        secret_access_key: &secret,
        session_token: None,
        region: "us-east-1",
        service: "s3",
        signature: SignatureIn::Query,
    };
    let mut draft = Draft {
        method: http::Method::GET,
        https: true,
        authority: "examplebucket.s3.amazonaws.com".into(),
        path: "/test.txt".into(),
        query: String::new(),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    let mut settings = signing.settings();
    settings.expires_in = Some(Duration::from_secs(86_400));
    // 2013-05-24T00:00:00Z.
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
    let signature = signing.apply_with(&mut draft, at, settings).unwrap();
    assert_eq!(signature, "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", "{}", draft.query);
}
