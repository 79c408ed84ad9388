//! Access tokens by OAuth 2.0 client credentials: asked for at the configured token endpoint, for each task its own and by
//! one request at a time, and kept until shortly before they expire: no two tasks share one, and what an API refuses of one
//! disturbs no other. Client secret and token stay here and in the request that they go on.
//! RFC 6749 §2.3.1, §4.4, §5.1.

use super::config::{Auth, ClientAuth, HttpTarget};
use super::connect::{Lookup, OriginClient, cause, client};
use crate::mcp::message::strict_value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{TaskId, Timestamp};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::form_urlencoded::{Serializer, byte_serialize};

/// Largest answer of a token endpoint, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;
/// Longest time for it.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Life of a token whose server does not say, and longest that one is kept, in seconds.
const LIFETIME_SECS: i64 = 300;
const KEPT_SECS_MAX: i64 = 3_600;
/// So long before it expires a token is not used any more, in seconds.
const EARLY_SECS: i64 = 30;

/// Why there is no token. Never holds what the endpoint said: it may have said the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFault {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("did not answer in time")]
    Slow,
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("gave an answer that is no bearer token")]
    Malformed,
}

/// Most tasks whose tokens are kept; the token of another one is asked for again.
const TASKS_MAX: u64 = 100_000;

/// The token of one task.
#[derive(Default)]
struct Held {
    token: Mutex<Option<(SecretString, Timestamp)>>,
    asking: tokio::sync::Mutex<()>,
}

impl Held {
    fn valid(&self, now: Timestamp) -> Option<SecretString> {
        let held = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|(_, until)| now < *until).map(|(token, _)| token.clone())
    }

    fn keep(&self, token: Option<(SecretString, Timestamp)>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

/// Asks for tokens, and keeps the last of each task.
pub(crate) struct TokenClient {
    client: OriginClient,
    url: String,
    client_id: String,
    scope: Option<String>,
    client_auth: ClientAuth,
    held: moka::sync::Cache<TaskId, Arc<Held>>,
}

impl TokenClient {
    /// For the API, if it wants such tokens.
    pub(crate) fn of(target: &HttpTarget, lookup: Arc<dyn Lookup>) -> Result<Option<Self>, rustls::Error> {
        let Auth::Oauth { token, token_path, client_id, scope, client_auth, .. } = &target.auth else { return Ok(None) };
        Ok(Some(Self {
            client: client(token, &target.addresses, &target.roots, lookup)?,
            url: format!("{}{token_path}", token.url()),
            client_id: client_id.clone(),
            scope: scope.clone(),
            client_auth: *client_auth,
            held: moka::sync::Cache::builder()
                .max_capacity(TASKS_MAX)
                .time_to_idle(Duration::from_secs(KEPT_SECS_MAX.unsigned_abs()))
                .build(),
        }))
    }

    /// A token of this task that is valid now.
    pub(crate) async fn token(
        &self,
        task: TaskId,
        client_secret: &SecretString,
        now: Timestamp,
    ) -> Result<SecretString, TokenFault> {
        let held = self.held.get_with(task, Arc::default);
        if let Some(token) = held.valid(now) {
            return Ok(token);
        }
        let _one = held.asking.lock().await;
        if let Some(token) = held.valid(now) {
            return Ok(token);
        }
        let (token, lifetime_secs) =
            tokio::time::timeout(ANSWER_MAX, self.ask(client_secret)).await.map_err(|_| TokenFault::Slow)??;
        let until = Timestamp::from_secs(now.secs() + lifetime_secs.saturating_sub(EARLY_SECS).clamp(0, KEPT_SECS_MAX));
        held.keep(Some((token.clone(), until)));
        Ok(token)
    }

    /// Forgets the token of a task.
    pub(crate) fn forget(&self, task: TaskId) {
        if let Some(held) = self.held.get(&task) {
            held.keep(None);
        }
    }

    async fn ask(&self, client_secret: &SecretString) -> Result<(SecretString, i64), TokenFault> {
        let request = self.request(client_secret).ok_or(TokenFault::Malformed)?;
        let response = self.client.request(request).await.map_err(|error| TokenFault::Unreachable(cause(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(TokenFault::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|_| TokenFault::Malformed)?;
        let body = body.to_bytes();
        let answer = std::str::from_utf8(&body).ok().and_then(|text| strict_value(text).ok()).ok_or(TokenFault::Malformed)?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let token = text("access_token").filter(|token| token.len() >= crate::scrub::SECRET_BYTES_MIN);
        match (token, text("token_type")) {
            (Some(token), Some(kind)) if kind.eq_ignore_ascii_case("bearer") => {
                let lifetime_secs = answer.get("expires_in").and_then(Value::as_i64).unwrap_or(LIFETIME_SECS);
                Ok((SecretString::from(token), lifetime_secs))
            }
            _ => Err(TokenFault::Malformed),
        }
    }

    fn request(&self, client_secret: &SecretString) -> Option<Request<Full<bytes::Bytes>>> {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        form.extend_pairs(self.scope.iter().map(|scope| ("scope", scope)));
        if self.client_auth == ClientAuth::Body {
            form.append_pair("client_id", &self.client_id).append_pair("client_secret", client_secret.expose_secret());
        }
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity");
        let mut request = request.body(Full::from(form.finish())).ok()?;
        if self.client_auth == ClientAuth::Basic {
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(&self.client_id), encoded(client_secret.expose_secret()));
            let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Some(request)
    }
}
