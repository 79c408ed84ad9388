//! The few calls of the Kubernetes API that are needed: create, read, list and delete an object, ask for a token, ask
//! whether a token is good. Owns paths' answers and nothing of what the objects mean.

use crate::config::Secret;
use crate::https::{Answer, Https};
use authority::target::{Acceptance, TargetError};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) struct Api {
    https: Https,
    token: Secret,
}

/// What every object says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
    #[serde(default, rename = "roleRef")]
    pub(super) role: Option<RoleRef>,
    #[serde(default)]
    pub(super) subjects: Vec<Subject>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) creation_timestamp: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct RoleRef {
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Subject {
    pub(super) kind: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Object>,
}

/// What TokenRequest answers.
pub(super) struct Token {
    pub(super) token: SecretString,
    pub(super) expires_at: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    status: TokenStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    #[serde(deserialize_with = "crate::https::secret")]
    token: SecretString,
    expiration_timestamp: String,
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    allowed: bool,
}

/// How a deletion went.
pub(super) enum Outcome {
    Done,
    NotFound,
}

impl Api {
    pub(super) const fn new(https: Https, token: Secret) -> Self {
        Self { https, token }
    }

    /// The server's URL without the scheme.
    pub(super) fn server(&self) -> String {
        format!("{}{}", self.https.host(), self.https.base_path())
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, TargetError> {
        self.send_with(method, path, body, &self.token.read()?).await
    }

    async fn send_with(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: &SecretString,
    ) -> Result<Answer, TargetError> {
        let mut headers = HeaderMap::new();
        let unfit = |_| TargetError::Refused("the token cannot stand in a header".to_owned());
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(unfit)?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = body.map(Value::to_string).unwrap_or_default();
        self.https.send(method, path, headers, body).await
    }

    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<(), TargetError> {
        let answer = self.send(Method::POST, path, Some(object)).await?;
        if answer.status == StatusCode::CREATED { Ok(()) } else { Err(answer.unwanted("creating an object")) }
    }

    /// Whether the server would create the object: nothing is stored.
    pub(super) async fn would_create(&self, path: &str, object: &Value) -> Result<bool, TargetError> {
        let answer = self.send(Method::POST, &format!("{path}?dryRun=All"), Some(object)).await?;
        match answer.status {
            StatusCode::CREATED => Ok(true),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => Ok(false),
            _ => Err(answer.unwanted("asking what the server would create")),
        }
    }

    pub(super) async fn read(&self, path: &str) -> Result<Option<Object>, TargetError> {
        let answer = self.send(Method::GET, path, None).await?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.unwanted("reading an object")),
        }
    }

    pub(super) async fn list(&self, path: &str) -> Result<Vec<Object>, TargetError> {
        let answer = self.send(Method::GET, path, None).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unwanted("listing objects"));
        }
        answer.json().map(|list: List| list.items)
    }

    /// Deletes the object only if it is still the one with this uid.
    pub(super) async fn delete(&self, path: &str, uid: &str) -> Result<Outcome, TargetError> {
        let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
        let answer = self.send(Method::DELETE, path, Some(&options)).await?;
        match answer.status {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(Outcome::Done),
            StatusCode::NOT_FOUND => Ok(Outcome::NotFound),
            _ => Err(answer.unwanted("deleting an object")),
        }
    }

    pub(super) async fn token(&self, path: &str, request: &Value) -> Result<Token, TargetError> {
        let answer = self.send(Method::POST, path, Some(request)).await?;
        if answer.status != StatusCode::CREATED {
            return Err(answer.unwanted("asking for a token"));
        }
        let TokenAnswer { status } = answer.json()?;
        Ok(Token { token: status.token, expires_at: status.expiration_timestamp })
    }

    /// Whether the server takes this token for anybody: every authenticated caller may ask what it may do.
    pub(super) async fn accepts(&self, token: &SecretString) -> Result<Acceptance, TargetError> {
        let answer = self.review(&json!({ "verb": "get", "resource": "pods", "namespace": "default" }), Some(token)).await?;
        match answer.status {
            StatusCode::CREATED => Ok(Acceptance::Accepted),
            StatusCode::UNAUTHORIZED => Ok(Acceptance::Refused),
            _ => Err(answer.unwanted("asking whether the token is good")),
        }
    }

    /// Whether our own account may do this.
    pub(super) async fn may(&self, what: &Value) -> Result<bool, TargetError> {
        let answer = self.review(what, None).await?;
        if answer.status != StatusCode::CREATED {
            return Err(answer.unwanted("asking what our account may do"));
        }
        answer.json().map(|review: Review| review.status.allowed)
    }

    async fn review(&self, what: &Value, token: Option<&SecretString>) -> Result<Answer, TargetError> {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": { "resourceAttributes": what },
        });
        match token {
            Some(token) => self.send_with(Method::POST, path, Some(&body), token).await,
            None => self.send(Method::POST, path, Some(&body)).await,
        }
    }
}
