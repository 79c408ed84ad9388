//! Strict peers of platforms that cannot be had on this machine: each a server on loopback that checks what the platform
//! checks and enforces what it issued. What a peer was not written for is an error that the test sees. This module owns how
//! they are served and how assertions are verified; what a platform answers is in the module of its name.

pub mod entra;
pub mod github;
pub mod google;
pub mod kubernetes;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// What time it is at a peer, in Unix seconds.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A request as a peer saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Seen {
    /// The bearer token, or the password of HTTP Basic: platforms take either for the same.
    #[must_use]
    pub fn bearer(&self) -> String {
        let header = self.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        match header.split_once(' ') {
            Some((scheme, token)) if ["bearer", "token"].contains(&scheme.to_ascii_lowercase().as_str()) => token.to_owned(),
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => {
                let pair = STANDARD.decode(pair).ok().and_then(|pair| String::from_utf8(pair).ok()).unwrap_or_default();
                pair.split_once(':').map(|(_, password)| password.to_owned()).unwrap_or_default()
            }
            _ => String::new(),
        }
    }

    /// What was shown with it that nobody else may learn.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let form = self.form();
        let named = ["subject_token", "client_assertion", "access_token"].into_iter().filter_map(|name| form.get(name).cloned());
        named.chain([self.bearer()]).filter(|secret| !secret.is_empty()).collect()
    }

    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as a form.
    #[must_use]
    pub fn form(&self) -> BTreeMap<String, String> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// What a peer answers.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// A document.
    #[must_use]
    pub fn json(status: u16, document: &Value) -> Self {
        Self { status, headers: vec![("content-type", "application/json".into())], body: document.to_string().into_bytes() }
    }

    /// Bytes of some type.
    #[must_use]
    pub fn bytes(status: u16, kind: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type", kind.into())], body }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<(u16, String)> for Answer {
    fn from((status, body): (u16, String)) -> Self {
        Self { status, headers: Vec::new(), body: body.into_bytes() }
    }
}

/// A server on a free port of loopback; gone when it is dropped.
pub struct Peer {
    /// Where it is.
    pub url: String,
    /// The authority that signed its certificate, in PEM; empty for one without TLS.
    pub ca_pem: String,
    _stop: oneshot::Sender<()>,
}

impl Peer {
    /// Plain HTTP.
    pub fn plain<A: Into<Answer>>(answer: impl Fn(Seen) -> A + Send + Sync + 'static) -> Self {
        Self::serve(None, Arc::new(move |seen| answer(seen).into()))
    }

    /// HTTPS for `localhost`, as clients want it that send no token in clear.
    pub fn tls<A: Into<Answer>>(answer: impl Fn(Seen) -> A + Send + Sync + 'static) -> Self {
        Self::serve(Some(Certificates::make()), Arc::new(move |seen| answer(seen).into()))
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.split("//").nth(1).unwrap_or_default()
    }

    fn serve(certificates: Option<Certificates>, answer: Arc<Respond>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel::<()>();
        let (scheme, host) = if certificates.is_some() { ("https", "localhost") } else { ("http", "127.0.0.1") };
        let ca_pem = certificates.as_ref().map(|made| made.ca_pem.clone()).unwrap_or_default();
        // A thread of its own: tests of the whole product have no runtime.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, certificates.map(|made| made.acceptor), answer) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { url: format!("{scheme}://{host}:{port}"), ca_pem, _stop: stop }
    }
}

type Respond = dyn Fn(Seen) -> Answer + Send + Sync;

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, answer: Arc<Respond>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, answer) = (tls.clone(), Arc::clone(&answer));
        tokio::spawn(async move {
            match tls {
                None => connection(stream, answer).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, answer).await;
                    }
                }
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, answer: Arc<Respond>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let said = answer(Seen { method: parts.method, path, headers: parts.headers, body });
            let mut response = Response::builder().status(StatusCode::from_u16(said.status).unwrap());
            for (name, value) in said.headers {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(said.body))).unwrap())
        }
    });
    // A client that goes away is no fault of a peer.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An authority, and a certificate of it for `localhost`.
pub(crate) struct Certificates {
    /// The authority, in PEM.
    pub(crate) ca_pem: String,
    /// The certificate, in PEM.
    pub(crate) certificate_pem: String,
    /// Its key, in PEM.
    pub(crate) key_pem: String,
    acceptor: TlsAcceptor,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of the same name as its server it would count as the server's own signature.
        params.distinguished_name.push(DnType::CommonName, "authority of a peer");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        Self { ca_pem: authority.pem(), certificate_pem, key_pem, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

/// An RSA key in PEM, made anew.
#[must_use]
pub fn rsa_pem() -> String {
    use aws_lc_rs::encoding::AsDer;
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

fn pair(pem: &str) -> aws_lc_rs::rsa::KeyPair {
    let text: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    aws_lc_rs::rsa::KeyPair::from_pkcs8(&STANDARD.decode(text).unwrap()).unwrap()
}

/// An RS256 assertion, as anybody makes it who has such a key.
#[must_use]
pub fn signed(pem: &str, key_set: &str, claims: &Value) -> String {
    let pair = pair(pem);
    let keys: Value = serde_json::from_str(key_set).unwrap_or_default();
    let header = serde_json::json!({ "alg": "RS256", "kid": keys.pointer("/keys/0/kid") });
    let text = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let mut signature = vec![0; pair.public_modulus_len()];
    let (algorithm, random) = (&aws_lc_rs::signature::RSA_PKCS1_SHA256, aws_lc_rs::rand::SystemRandom::new());
    pair.sign(algorithm, &random, text.as_bytes(), &mut signature).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The public half of such a key, as a key set.
fn key_set(pem: &str) -> String {
    use aws_lc_rs::signature::KeyPair as _;
    let pair = pair(pem);
    let public = aws_lc_rs::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let [n, e] = [public.n, public.e].map(|number| URL_SAFE_NO_PAD.encode(number));
    serde_json::json!({ "keys": [{ "kty": "RSA", "n": n, "e": e }] }).to_string()
}

/// Verifies an RS256 assertion with the key set that the other side was given, and answers its claims.
#[must_use]
pub fn verified(assertion: &str, key_set: &str) -> Option<Value> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let (signed, signature) = assertion.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
    let keys: Value = serde_json::from_str(key_set).ok()?;
    // A platform that was given one key by hand knows no id of it.
    let fits = |key: &&Value| key.get("kid").is_none_or(|kid| Some(kid) == header.get("kid"));
    let key = keys.get("keys")?.as_array()?.iter().find(fits)?;
    let part = |name: &str| decode(key.get(name)?.as_str()?);
    let components = aws_lc_rs::rsa::PublicKeyComponents { n: part("n")?, e: part("e")? };
    let algorithm = &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
    (header.get("alg")? == "RS256").then_some(())?;
    components.verify(algorithm, signed.as_bytes(), &decode(signature)?).ok()?;
    serde_json::from_slice(&decode(claims)?).ok()
}

/// Whether claims say of themselves that they hold now, and for at most `secs_max`.
fn in_time(claims: &Value, now: i64, secs_max: i64) -> bool {
    let moment = |name: &str| claims.get(name).and_then(Value::as_i64);
    let (Some(from), Some(until)) = (moment("iat"), moment("exp")) else { return false };
    from <= now && now < until && until - from <= secs_max
}

/// A token that nobody guesses: this and 40 random digits.
fn token(prefix: &str) -> String {
    let mut random = [0_u8; 20];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    random.iter().fold(prefix.to_owned(), |token, byte| format!("{token}{byte:02x}"))
}

/// A time as platforms write it.
fn rfc3339(secs: i64) -> String {
    jiff::Timestamp::from_second(secs).unwrap().to_string()
}
