//! Puts the credential of an API on a request that was decided, logged and released, and says what must be looked for in the
//! answer. Secrets are read when they are needed and kept no longer than the request; the one exception is a token that an
//! OAuth server gave out, until it expires. Never shows a secret in an error or in `Debug`.
//! RFC 6750, RFC 7617, RFC 6749 §4.4, AWS SigV4.

use super::config::{Auth, HttpTarget};
use super::connect::Lookup;
use super::oauth::TokenClient;
use super::request::push_field;
use super::sigv4::Signing;
use crate::scrub::{Needles, SECRET_BYTES_MIN};
use crate::upstream::credential::resolve;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::{SecretRef, TaskId, Timestamp};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A request before it is sent.
pub(crate) struct Draft {
    pub(crate) method: Method,
    pub(crate) https: bool,
    /// Host and port, as they are connected to.
    pub(crate) authority: String,
    pub(crate) path: String,
    /// Without `?`.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the query: a secret may stand in it.
        write!(f, "Draft({} {}{})", self.method, self.authority, self.path)
    }
}

impl Draft {
    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let (mark, query) = if self.query.is_empty() { ("", "") } else { ("?", self.query.as_str()) };
        format!("{scheme}://{}{}{mark}{query}", self.authority, self.path)
    }

    fn set(&mut self, name: HeaderName, text: &SecretString) -> Result<(), InjectFault> {
        let mut value = HeaderValue::from_str(text.expose_secret()).map_err(|_| InjectFault::Unfit)?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(())
    }
}

/// Why a credential could not be put on a request. For the operator; names places, never what was found there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InjectFault {
    #[error("{0}")]
    Unreadable(String),
    #[error("a secret is shorter than {SECRET_BYTES_MIN} bytes: it could not be recognised in an answer")]
    TooShort,
    #[error("a secret has characters that no HTTP header can carry")]
    Unfit,
    #[error("{0}")]
    Unsignable(#[from] super::sigv4::Unsignable),
    #[error("the token endpoint {0}")]
    Token(String),
}

/// Puts credentials on the requests to one API.
pub(crate) struct Injector {
    auth: Auth,
    tokens: Option<TokenClient>,
}

impl Injector {
    pub(crate) fn new(target: &HttpTarget, lookup: Arc<dyn Lookup>) -> Result<Self, rustls::Error> {
        let tokens = TokenClient::of(target, lookup)?;
        Ok(Self { auth: target.auth.clone(), tokens })
    }

    /// The header that carries the credential, if one does: nobody else may send it.
    pub(crate) fn header(&self) -> Option<&HeaderName> {
        match &self.auth {
            Auth::Header { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The field of the query that carries the credential, if one does.
    pub(crate) fn query_field(&self) -> Option<&str> {
        match &self.auth {
            Auth::Query { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Puts the credential on. Gives what must not come back.
    pub(crate) async fn inject(&self, draft: &mut Draft, task: TaskId, now: Timestamp) -> Result<Arc<Needles>, InjectFault> {
        match &self.auth {
            Auth::None => Ok(Needles::of([])),
            Auth::Header { name, prefix, secret } => {
                let secret = read(secret)?;
                draft.set(name.clone(), &SecretString::from(format!("{prefix}{}", secret.expose_secret())))?;
                Ok(Needles::of([secret.expose_secret()]))
            }
            Auth::Query { name, secret } => {
                let secret = read(secret)?;
                push_field(&mut draft.query, name, secret.expose_secret());
                Ok(Needles::of([secret.expose_secret()]))
            }
            Auth::Basic { user, password } => {
                let password = read(password)?;
                let pair = SecretString::from(STANDARD.encode(format!("{user}:{}", password.expose_secret())));
                draft.set(AUTHORIZATION, &SecretString::from(format!("Basic {}", pair.expose_secret())))?;
                Ok(Needles::of([password.expose_secret(), pair.expose_secret()]))
            }
            Auth::Oauth { client_secret, .. } => {
                let client_secret = read(client_secret)?;
                let tokens = self.tokens.as_ref().ok_or_else(|| InjectFault::Token("is not configured".into()))?;
                let token =
                    tokens.token(task, &client_secret, now).await.map_err(|fault| InjectFault::Token(fault.to_string()))?;
                draft.set(AUTHORIZATION, &SecretString::from(format!("Bearer {}", token.expose_secret())))?;
                Ok(Needles::of([token.expose_secret(), client_secret.expose_secret()]))
            }
            Auth::Sigv4 { access_key_id, secret_access_key, session_token, region, service, signature } => {
                let secret = read(secret_access_key)?;
                let session = session_token.as_ref().map(read).transpose()?;
                let signing = Signing {
                    access_key_id,
                    secret_access_key: &secret,
                    session_token: session.as_ref(),
                    region,
                    service,
                    signature: *signature,
                };
                let secs = Duration::from_secs(u64::try_from(now.secs()).unwrap_or(0));
                let signature = signing.apply(draft, SystemTime::UNIX_EPOCH + secs)?;
                let session = session.as_ref().map(ExposeSecret::expose_secret);
                Ok(Needles::of([secret.expose_secret(), &signature].into_iter().chain(session)))
            }
        }
    }

    /// The API did not take the credential of a task: one that was fetched is fetched anew next time.
    pub(crate) fn refused(&self, task: TaskId) {
        if let Some(tokens) = &self.tokens {
            tokens.forget(task);
        }
    }
}

fn read(reference: &SecretRef) -> Result<SecretString, InjectFault> {
    let secret = resolve(reference).map_err(|error| InjectFault::Unreadable(error.to_string()))?;
    if secret.expose_secret().len() < SECRET_BYTES_MIN { Err(InjectFault::TooShort) } else { Ok(secret) }
}
