//! The REST API as the command line uses it: an operator's secret from a file, one request, one JSON answer, and what
//! went wrong in words. Owns no command; knows paths only as text.

use crate::cli::{Common, Exit, Failure};
use crate::config::Client as Settings;
use crate::web::{Answer, Web, WebError, connector};
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Most items of one page.
const PAGE: usize = 500;

/// A server that an operator talks to.
pub(crate) struct Operator {
    base: String,
    secret: SecretString,
    web: Web,
}

impl Operator {
    /// The server and the secret that the configuration names.
    pub(crate) fn configured(common: &Common) -> Result<Self, Failure> {
        let config = common.load()?;
        let Settings { server, operator_secret_file, ca_file } = &config.client;
        let path = operator_secret_file.as_ref().ok_or_else(|| {
            Failure::usage("this command needs an operator's secret")
                .why("the configuration has no `operator_secret_file` in [client]")
                .next("add it, or set WRIT_OPERATOR_SECRET_FILE to the path of the secret")
        })?;
        let secret = crate::key_file::read(path)
            .map_err(|error| Failure::usage("the operator's secret cannot be used").why(error.to_string()))?;
        let secret =
            String::from_utf8(secret.to_vec()).map_err(|_| Failure::usage(format!("`{}` is not text", path.display())))?;
        Ok(Self {
            base: server.clone().unwrap_or(config.server.public_url),
            secret: secret.into(),
            web: Web::over(connector(ca_file.as_deref())?),
        })
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        parsed(&self.exchange(Method::GET, path, None).await?)
    }

    /// All pages of `GET path` as one.
    pub(crate) async fn all(&self, path: &str) -> Result<Value, Failure> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let mut page = self.query(path, &[("limit", Some(PAGE.to_string())), ("after", after)]).await?;
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                all.extend(items);
            }
            after = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if after.is_none() {
                return Ok(json!({ "items": all, "next": null }));
            }
        }
    }

    /// `GET path` with the pairs as query; pairs without a value are left out.
    pub(crate) async fn query(&self, path: &str, pairs: &[(&str, Option<String>)]) -> Result<Value, Failure> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in pairs {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        self.get(&format!("{path}?{}", query.finish())).await
    }

    /// `GET path` as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Failure> {
        let answer = self.exchange(Method::GET, path, None).await?;
        String::from_utf8(answer.body.to_vec()).map_err(|_| Failure::new("the server's answer is not text"))
    }

    /// Any method, with a JSON body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        parsed(&self.exchange(method, path, Some(body.to_string())).await?)
    }

    /// `POST path` without a body.
    pub(crate) async fn post(&self, path: &str) -> Result<Value, Failure> {
        parsed(&self.exchange(Method::POST, path, None).await?)
    }

    /// `DELETE path`.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        parsed(&self.exchange(Method::DELETE, path, None).await?)
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer, Failure> {
        let url = format!("{}{path}", self.base);
        let bearer = format!("Bearer {}", self.secret.expose_secret());
        let mut request = Request::builder().method(method).uri(&url).header(header::AUTHORIZATION, bearer);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default())).map_err(|error| Failure::usage(error.to_string()))?;
        let answer = self.web.send(request, ANSWER_BYTES_MAX).await.map_err(|error| unreached(&self.base, &error))?;
        match answer.status {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => {
                Err(refused(&answer).next("check that the secret is the one whose SHA-256 stands in [[operator]] of the server"))
            }
            _ => Err(refused(&answer)),
        }
    }
}

/// One segment of a path, escaped.
pub(crate) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// No answer from a server.
pub(crate) fn unreached(base: &str, error: &WebError) -> Failure {
    Failure::new(format!("the server at `{base}` cannot be reached"))
        .why(error.to_string())
        .next("start it with `writ serve`, or set `server` in [client] (or WRIT_SERVER) to where it is")
}

/// The answer's JSON.
fn parsed(answer: &Answer) -> Result<Value, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| Failure::new("the server's answer is not JSON").why(error.to_string()))
}

/// A refusal in the server's own words: problem details (RFC 9457) or an OAuth error.
pub(crate) fn refused(answer: &Answer) -> Failure {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(crate::cli::output::tame);
    let what = text("detail").or_else(|| text("error_description")).or_else(|| text("error"));
    let mut failure = Failure::new(what.unwrap_or_else(|| format!("the server answered {}", answer.status)));
    // An OAuth error says all of them in its description already.
    let faults = body.get("errors").filter(|_| body.get("error_description").is_none());
    for fault in faults.and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| fault.get(name).and_then(Value::as_str).map(crate::cli::output::tame).unwrap_or_default();
        failure = failure.why(format!("{}: {}", part("at"), part("detail")));
    }
    if let Some(id) = text("request_id") {
        failure = failure.why(format!("request {id}, status {}", answer.status.as_u16()));
    }
    match answer.status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => failure.exit(Exit::Usage),
        _ => failure,
    }
}
