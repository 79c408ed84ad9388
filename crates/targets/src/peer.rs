//! For tests of kinds that speak to an HTTP API: a server on loopback whose answers a test writes as a function, and
//! surroundings with a clock that stands still. A peer is strict: what it was not written for is a 404 that the test sees.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use crate::config::{OfferConfig, Surroundings, TargetConfig};
use authority::target::{Asked, Plan, Target, Verifier};
use bytes::Bytes;
use domain::{AgentId, GrantId, IntentName, Offer, Params, SecretRef, TaskId, Timestamp, ToolTraits, Value};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A request as the peer saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn bearer(&self) -> &str {
        let header = self.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        header.strip_prefix("Bearer ").unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn form(&self) -> BTreeMap<String, String> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// Serves on a free port of loopback until the test ends; answers its URL.
pub(crate) async fn serve<F>(answer: F) -> String
where
    F: Fn(Seen) -> (u16, String) + Send + Sync + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = Arc::clone(&answer);
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let path = parts.uri.path_and_query().unwrap().to_string();
                    let (status, text) = answer(Seen { method: parts.method, path, headers: parts.headers, body });
                    let mut response = Response::new(Full::new(Bytes::from(text)));
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    url
}

/// Surroundings with secrets by name and a clock that is moved by hand.
pub(crate) struct Still {
    pub(crate) secrets: BTreeMap<&'static str, String>,
    pub(crate) now: Mutex<Timestamp>,
}

impl Still {
    pub(crate) fn new(secrets: impl IntoIterator<Item = (&'static str, String)>) -> Arc<Self> {
        Arc::new(Self { secrets: secrets.into_iter().collect(), now: Mutex::new(NOW) })
    }

    pub(crate) fn advance_secs(&self, secs: u64) {
        let mut now = self.now.lock().unwrap();
        *now = now.plus_secs(secs);
    }
}

impl Surroundings for Still {
    fn read(&self, reference: &SecretRef) -> Result<SecretString, String> {
        let (SecretRef::Env(name) | SecretRef::File(name)) = reference;
        self.secrets.get(name.as_str()).map(|secret| secret.as_str().into()).ok_or_else(|| format!("`{name}` is not set"))
    }

    fn locate(&self, path: &str) -> PathBuf {
        path.into()
    }

    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }
}

/// When the tests of kinds happen: 2026-11-22.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_795_305_600);

/// A target of this kind, from the text of its file. Parameters are declared by the names in `params`, all texts.
pub(crate) fn configured(kind: &str, text: &str, params: &[&str]) -> TargetConfig {
    let mut file: toml::Table = text.parse().unwrap();
    let table = |value: Option<toml::Value>| value.and_then(|value| value.try_into().ok()).unwrap_or_default();
    let connect = table(file.remove("connect"));
    let offers: toml::Table = table(file.remove("offers"));
    let offer = |name: &str| Offer {
        name: name.parse().unwrap(),
        description: String::new(),
        params: params.iter().map(|&name| (name.to_owned(), text_param())).collect(),
        traits: ToolTraits::default(),
        lifetime_secs: 900,
    };
    let offers = offers.into_iter().map(|(name, own)| {
        let config = OfferConfig { offer: offer(&name), own: table(Some(own)) };
        (name.parse().unwrap(), config)
    });
    TargetConfig { kind: kind.to_owned(), name: "probed".parse().unwrap(), connect, offers: offers.collect() }
}

fn text_param() -> domain::Param {
    domain::Param {
        kind: domain::ParamType::Text,
        description: String::new(),
        default: None,
        min: None,
        max: None,
        one_of: Vec::new(),
        sensitive: false,
    }
}

/// Opens it; its faults fail the test.
pub(crate) fn opened(config: &TargetConfig, surroundings: &Arc<Still>) -> Arc<dyn Target> {
    let surroundings: Arc<dyn Surroundings> = Arc::clone(surroundings) as _;
    crate::open(config, &surroundings).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A plan for 300 seconds of `offer` with these parameters.
pub(crate) fn planned(
    target: &dyn Target,
    config: &TargetConfig,
    offer: &str,
    params: &[(&str, &str)],
    verifier: Option<&Verifier>,
) -> Result<Plan, authority::target::TargetError> {
    let agent: AgentId = "support-bot".parse().unwrap();
    let intent: IntentName = "triage".parse().unwrap();
    let params = params.iter().map(|&(name, value)| (name.to_owned(), Value::Text(value.to_owned())));
    target.plan(&Asked {
        grant: GrantId::from_bytes([0x5a; 16]),
        task: TaskId::from_bytes([7; 16]),
        agent: &agent,
        intent: &intent,
        offer: &config.offers.get(offer).unwrap().offer,
        params: &Params(params.collect()),
        verifier,
        now: NOW,
        expires_at: NOW.plus_secs(300),
        entropy: [9; 32],
    })
}

/// An RSA key in PEM, made anew.
pub(crate) fn rsa_pem() -> String {
    use aws_lc_rs::encoding::AsDer;
    use base64::Engine;
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

/// Verifies an RS256 assertion with the key set that the other side was given, and answers its claims.
pub(crate) fn verified(assertion: &str, key_set: &str) -> Option<serde_json::Value> {
    use base64::Engine;
    let decode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok();
    let (signed, signature) = assertion.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: serde_json::Value = serde_json::from_slice(&decode(header)?).ok()?;
    let keys: serde_json::Value = serde_json::from_str(key_set).ok()?;
    let key = keys["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?;
    let components = aws_lc_rs::rsa::PublicKeyComponents { n: decode(key["n"].as_str()?)?, e: decode(key["e"].as_str()?)? };
    let algorithm = &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
    (header["alg"] == "RS256").then_some(())?;
    components.verify(algorithm, signed.as_bytes(), &decode(signature)?).ok()?;
    serde_json::from_slice(&decode(claims)?).ok()
}
