//! The agent's side of Writ: proves the workload, opens a task, holds its token and the key that binds it, renews both
//! in time, and ends the task. Everything goes over HTTP, as any other client would (RFC 8693, RFC 9396, RFC 9449).
//! The key lives in memory only and dies with the process.

pub(crate) mod bridge;
pub(crate) mod evidence;
mod repeated;
pub(crate) mod stdio;
#[cfg(test)]
mod tests;

use crate::cli::Failure;
use crate::client::{refused, unreached};
use crate::dev_issuer::sign;
use crate::web::{Answer, Connector, Web};
use arc_swap::ArcSwap;
use bytes::Bytes;
use evidence::Evidence;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use token::algorithm::Algorithm;
use token::sign::{Es256Signer, TokenSigner};
use tokio::time::Instant;

const DPOP: HeaderName = HeaderName::from_static("dpop");
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// Largest answer of the token endpoint or the task API.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How often the server hears that the task is alive, at least and at most; a third of its liveness limit between them.
const HEARTBEAT: Duration = Duration::from_secs(15);
const HEARTBEAT_MIN: Duration = Duration::from_millis(300);
/// After a failed renewal, how long to wait before the next try.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// How often the end of the task is tried before liveness must end it.
const END_TRIES: u32 = 4;

/// What is declared.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// The intent.
    pub(crate) intent: String,
    /// Its parameters.
    pub(crate) parameters: Map<String, Value>,
    /// How long the task shall live at most.
    pub(crate) lifetime_secs: Option<u64>,
    /// Upstreams that it needs; empty means all that the intent reaches.
    pub(crate) upstreams: Vec<String>,
}

/// An open task and the means to act for it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Agent(Arc<Inner>);

struct Inner {
    server: String,
    web: Web,
    key: Es256Signer,
    evidence: Arc<Evidence>,
    declared: Declared,
    held: ArcSwap<Held>,
    nonce: Mutex<Option<String>>,
    renewing: tokio::sync::Mutex<()>,
}

/// The token that is held now.
struct Held {
    token: SecretString,
    task: String,
    upstreams: Vec<String>,
    apis: Vec<String>,
    renew_at: Instant,
}

impl Agent {
    /// Proves the workload and opens a task.
    ///
    /// # Errors
    /// What the server said, or why it was not reached.
    pub(crate) async fn open(
        server: String,
        connector: Connector,
        evidence: Evidence,
        declared: Declared,
    ) -> Result<Self, Failure> {
        let key = new_key()?;
        let nothing = Held {
            token: String::new().into(),
            task: String::new(),
            upstreams: Vec::new(),
            apis: Vec::new(),
            renew_at: Instant::now(),
        };
        let agent = Self(Arc::new(Inner {
            server,
            web: Web::over(connector),
            key,
            evidence: Arc::new(evidence),
            declared,
            held: ArcSwap::from_pointee(nothing),
            nonce: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
        }));
        let declared = &agent.0.declared;
        let detail = json!({
            "type": "writ_task", "intent": declared.intent, "parameters": declared.parameters,
        });
        let detail = match (detail, declared.lifetime_secs) {
            (Value::Object(mut detail), Some(secs)) => {
                detail.insert("lifetime_secs".to_owned(), secs.into());
                Value::Object(detail)
            }
            (detail, _) => detail,
        };
        agent.obtain(&detail).await?;
        Ok(agent)
    }

    /// Somebody who got hold of the token, but has a key of its own.
    pub(crate) fn thief(&self) -> Result<Self, Failure> {
        let Inner { server, web, evidence, declared, held, .. } = &*self.0;
        Ok(Self(Arc::new(Inner {
            server: server.clone(),
            web: web.clone(),
            key: new_key()?,
            evidence: Arc::clone(evidence),
            declared: declared.clone(),
            held: ArcSwap::new(held.load_full()),
            nonce: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
        })))
    }

    /// The task's id.
    pub(crate) fn task(&self) -> String {
        self.0.held.load().task.clone()
    }

    /// The upstreams that the token is for.
    pub(crate) fn upstreams(&self) -> Vec<String> {
        self.0.held.load().upstreams.clone()
    }

    /// The HTTP APIs that the token is for.
    pub(crate) fn apis(&self) -> Vec<String> {
        self.0.held.load().apis.clone()
    }

    /// The access token itself, for whoever shows what a thief could do with it.
    pub(crate) fn token(&self) -> SecretString {
        self.0.held.load().token.clone()
    }

    /// The endpoint of an upstream.
    pub(crate) fn endpoint(&self, upstream: &str) -> String {
        format!("{}/mcp/{upstream}", self.0.server)
    }

    /// A place of an HTTP API; `below` begins with `/` or is empty.
    pub(crate) fn api_endpoint(&self, target: &str, below: &str) -> String {
        format!("{}/http/{target}{below}", self.0.server)
    }

    /// The API of the task.
    pub(crate) fn task_endpoint(&self) -> String {
        format!("{}/v1/tasks/{}", self.0.server, self.task())
    }

    /// Proves the workload anew and gets a fresh token for the same task. One renewal at a time.
    ///
    /// # Errors
    /// As [`Agent::open`].
    pub(crate) async fn renew(&self) -> Result<(), Failure> {
        let before = self.0.held.load_full();
        let _one = self.0.renewing.lock().await;
        if !Arc::ptr_eq(&before, &self.0.held.load()) {
            return Ok(());
        }
        self.obtain(&json!({ "type": "writ_task", "task": before.task })).await
    }

    /// Keeps the token fresh and the server informed that the task is alive, until dropped.
    pub(crate) async fn keep_alive(self) {
        let mut renew_at = self.0.held.load().renew_at;
        let pause = self.beat().await.map_or(HEARTBEAT, |idle| (idle / 3).clamp(HEARTBEAT_MIN, HEARTBEAT));
        loop {
            let beat = Instant::now() + pause;
            tokio::time::sleep_until(beat.min(renew_at)).await;
            if Instant::now() >= renew_at {
                renew_at = match self.renew().await {
                    Ok(()) => self.0.held.load().renew_at,
                    Err(failure) => {
                        tracing::warn!("the task's token could not be renewed: {failure}");
                        Instant::now() + RENEW_AGAIN
                    }
                };
            } else {
                let _ = self.beat().await;
            }
        }
    }

    /// Asks how the task stands, which is a sign of life; gives how long it may be silent.
    async fn beat(&self) -> Option<Duration> {
        let uri = format!("{}/v1/tasks/{}", self.0.server, self.task());
        let answer = self.request(Method::GET, &uri, HeaderMap::new(), Bytes::new()).await.ok()?;
        let task: Value = serde_json::from_slice(&answer.body).ok()?;
        task.get("idle_secs")?.as_u64().map(Duration::from_secs)
    }

    /// Ends the task. That it has ended meanwhile (by an operator, its deadline, an earlier try) is as good.
    ///
    /// # Errors
    /// The server could not be told, or did not want to: then the task ends by its own limits.
    pub(crate) async fn end(&self) -> Result<(), Failure> {
        let uri = format!("{}/v1/tasks/{}/end", self.0.server, self.task());
        let mut renewed = false;
        for attempt in 0..END_TRIES {
            let last = match self.request(Method::POST, &uri, HeaderMap::new(), Bytes::new()).await {
                Ok(answer) if answer.status.is_success() || has_ended(&answer) => return Ok(()),
                // The token is too old, or dead with its task: fresh evidence tells which.
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && !renewed => match self.still_open().await {
                    Ok(false) => return Ok(()),
                    Ok(true) => {
                        renewed = true;
                        continue;
                    }
                    Err(failure) => failure,
                },
                Ok(answer) if answer.status.is_client_error() => return Err(refused(&answer)),
                Ok(answer) => refused(&answer),
                Err(failure) => failure,
            };
            if attempt + 1 == END_TRIES {
                return Err(last);
            }
            tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(attempt)).await;
        }
        Err(Failure::new("the task could not be ended"))
    }

    /// Renews the token. `false` if the server says that there is no such open task.
    async fn still_open(&self) -> Result<bool, Failure> {
        let _one = self.0.renewing.lock().await;
        let answer = self.ask_for_token(&json!({ "type": "writ_task", "task": self.task() })).await?;
        // RFC 6749 §5.2 by way of `docs/api.md`: what is to be renewed is not there any more.
        if answer.status == StatusCode::BAD_REQUEST && member(&answer, "error").as_deref() == Some("invalid_grant") {
            return Ok(false);
        }
        self.hold(&answer).map(|()| true)
    }

    /// One exchange with the API of the task; `path` begins with `/` or is empty. Renews the token once if it is refused.
    ///
    /// # Errors
    /// What the server said, or why it was not reached.
    pub(crate) async fn api(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let uri = format!("{}{path}", self.task_endpoint());
        let mut headers = HeaderMap::new();
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let body = Bytes::from(body.map(Value::to_string).unwrap_or_default());
        let mut answer = self.request(method.clone(), &uri, headers.clone(), body.clone()).await?;
        if answer.status == StatusCode::UNAUTHORIZED && self.renew().await.is_ok() {
            answer = self.request(method, &uri, headers, body).await?;
        }
        if !answer.status.is_success() {
            return Err(refused(&answer));
        }
        let malformed = |_| Failure::new("the server's answer is not JSON");
        if answer.body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&answer.body).map_err(malformed) }
    }

    /// One proved exchange whose answer is read as a whole; repeated once with a nonce if the server wants one.
    pub(crate) async fn request(&self, method: Method, uri: &str, headers: HeaderMap, body: Bytes) -> Result<Answer, Failure> {
        let mut repeated = false;
        loop {
            let request = Request::builder().method(method.clone()).uri(uri).body(Full::new(body.clone()));
            let mut request = request.map_err(|error| Failure::usage(error.to_string()))?;
            *request.headers_mut() = headers.clone();
            self.prove(request.headers_mut(), &method, uri)?;
            let answer = self.0.web.send(request, ANSWER_BYTES_MAX).await.map_err(|error| unreached(&self.0.server, &error))?;
            if !self.learn(answer.status, &answer.headers) || repeated {
                return Ok(answer);
            }
            repeated = true;
        }
    }

    /// Puts the token and a fresh proof of the key into the headers of a request.
    pub(crate) fn prove(&self, headers: &mut HeaderMap, method: &Method, uri: &str) -> Result<(), Failure> {
        let held = self.0.held.load();
        let unfit = |_| Failure::new("the token does not fit into a header");
        let mut authorization = HeaderValue::from_str(&format!("DPoP {}", held.token.expose_secret())).map_err(unfit)?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(DPOP, HeaderValue::from_str(&self.proof(method, uri, Some(&held.token))?).map_err(unfit)?);
        Ok(())
    }

    /// Remembers the server's nonce. Answers whether it refused the request for want of it.
    pub(crate) fn learn(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let Some(nonce) = headers.get(DPOP_NONCE).and_then(|nonce| nonce.to_str().ok()) else { return false };
        *self.0.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some(nonce.to_owned());
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        status == StatusCode::UNAUTHORIZED && challenges.into_iter().any(|challenge| challenge.contains("use_dpop_nonce"))
    }

    /// A proof of possession (RFC 9449 §4.2) for one request.
    fn proof(&self, method: &Method, uri: &str, token: Option<&SecretString>) -> Result<String, Failure> {
        let key = &self.0.key;
        let mut jwk = key.public_key().to_jwk(key.key_id(), Algorithm::Es256);
        if let Some(members) = jwk.as_object_mut() {
            members.retain(|name, _| matches!(name.as_str(), "kty" | "crv" | "x" | "y"));
        }
        let target = uri.split(['?', '#']).next().unwrap_or(uri);
        let mut claims = json!({
            "jti": crate::system::random_text::<16>(), "htm": method.as_str(), "htu": target, "iat": crate::system::now().secs(),
        });
        if let Some(claims) = claims.as_object_mut() {
            claims.extend(token.map(|token| ("ath".to_owned(), hash(token).into())));
            let nonce = self.0.nonce.lock().unwrap_or_else(PoisonError::into_inner).clone();
            claims.extend(nonce.map(|nonce| ("nonce".to_owned(), nonce.into())));
        }
        Ok(sign(key, json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": jwk }), &claims)?)
    }

    /// Exchanges fresh evidence for a token, and holds it.
    async fn obtain(&self, detail: &Value) -> Result<(), Failure> {
        self.hold(&self.ask_for_token(detail).await?)
    }

    /// Takes over the token of an answer.
    fn hold(&self, answer: &Answer) -> Result<(), Failure> {
        if !answer.status.is_success() {
            return Err(match self.taken_for_json(answer) {
                Some(pair) => refused(answer)
                    .next(format!("a value that is JSON counts as such; for text put it in quotes: --param '{pair}'")),
                None => refused(answer),
            });
        }
        self.0.held.store(Arc::new(held(&answer.body)?));
        Ok(())
    }

    /// A declared parameter that should have been text, according to the server, and was none; as it would be text.
    fn taken_for_json(&self, answer: &Answer) -> Option<String> {
        let body: Value = serde_json::from_slice(&answer.body).ok()?;
        let wrong =
            body.get("errors")?.as_array()?.iter().filter(|fault| fault.get("expected").is_some_and(|kind| kind == "string"));
        let name = wrong
            .filter_map(|fault| fault.get("at")?.as_str())
            .find(|name| self.0.declared.parameters.get(*name).is_some_and(|value| !value.is_string()))?;
        Some(format!("{name}={}", Value::String(self.0.declared.parameters.get(name)?.to_string())))
    }

    /// What the token endpoint answers to fresh evidence.
    async fn ask_for_token(&self, detail: &Value) -> Result<Answer, Failure> {
        let uri = format!("{}/oauth/token", self.0.server);
        let evidence = self.0.evidence.fresh(&self.0.web).await?;
        let form = self.form(detail, evidence.expose_secret());
        let mut answer = self.exchange(&uri, &form).await?;
        if answer.status == StatusCode::BAD_REQUEST && String::from_utf8_lossy(&answer.body).contains("use_dpop_nonce") {
            answer = self.exchange(&uri, &form).await?;
        }
        Ok(answer)
    }

    fn form(&self, detail: &Value, evidence: &str) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("subject_token", evidence)
            .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
            .append_pair("authorization_details", &json!([detail]).to_string());
        for upstream in &self.0.declared.upstreams {
            form.append_pair("resource", &self.endpoint(upstream));
        }
        form.finish()
    }

    async fn exchange(&self, uri: &str, form: &str) -> Result<Answer, Failure> {
        let request = Request::post(uri)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(DPOP, self.proof(&Method::POST, uri, None)?)
            .body(Full::from(form.to_owned()))
            .map_err(|error| Failure::usage(error.to_string()))?;
        let answer = self.0.web.send(request, ANSWER_BYTES_MAX).await.map_err(|error| unreached(&self.0.server, &error))?;
        self.learn(answer.status, &answer.headers);
        Ok(answer)
    }
}

/// Whether an answer says that the task is over: it is not there, it had ended, or the token died with it.
fn has_ended(answer: &Answer) -> bool {
    match answer.status {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => true,
        StatusCode::UNAUTHORIZED => member(answer, "end_reason").is_some(),
        _ => false,
    }
}

/// A member of the answer's JSON that is text.
fn member(answer: &Answer, name: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    body.get(name)?.as_str().map(str::to_owned)
}

/// A key that exists in memory only.
fn new_key() -> anyhow::Result<Es256Signer> {
    Ok(Es256Signer::from_pkcs8(&Es256Signer::generate_pkcs8()?)?)
}

/// What the token endpoint answered.
fn held(body: &[u8]) -> Result<Held, Failure> {
    let malformed = || Failure::new("the token endpoint's answer is malformed");
    let body: Value = serde_json::from_slice(body).map_err(|_| malformed())?;
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let lasts = Duration::from_secs(body.get("expires_in").and_then(Value::as_u64).ok_or_else(malformed)?);
    let scope = text("/scope").unwrap_or_default();
    let within = |kind: &str| scope.split(' ').filter_map(|scope| scope.strip_prefix(kind)).map(str::to_owned).collect();
    Ok(Held {
        token: text("/access_token").ok_or_else(malformed)?.into(),
        task: text("/authorization_details/0/task").ok_or_else(malformed)?,
        upstreams: within("mcp:"),
        apis: within("http:"),
        renew_at: Instant::now() + lasts * 2 / 3,
    })
}

/// `ath` (RFC 9449 §4.2): the token's SHA-256 in base64url.
fn hash(token: &SecretString) -> String {
    use base64::Engine;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.expose_secret().as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
}
