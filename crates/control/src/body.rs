//! Reading hostile request bodies: size before parse, a deadline for slow senders, the declared media type, strict JSON,
//! and queries without surprises. Knows no endpoint.

use crate::problem::{Fault, Problem};
use axum::body::{Body, Bytes};
use domain::json::{self, Limits};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;

/// Largest JSON body of the REST API: the largest record, an agent with its identity rules, is far smaller.
pub(crate) const REST_BYTES_MAX: usize = 256 * 1024;
/// Largest AuthZEN body: a batch of requests with their arguments.
pub(crate) const AUTHZEN_BYTES_MAX: usize = 1024 * 1024;
/// How long a sender may take to deliver its body.
const RECEIVE_MAX: Duration = Duration::from_secs(10);

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is larger than the limit.
    TooLarge(usize),
    /// It did not arrive in time.
    Slow,
    /// The connection broke or the framing is wrong.
    Broken,
}

/// All bytes of the body, if there are at most `limit`.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, Unread> {
    let collected = tokio::time::timeout(RECEIVE_MAX, Limited::new(body, limit).collect()).await;
    match collected.map_err(|_| Unread::Slow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unread::TooLarge(limit)),
        Err(_) => Err(Unread::Broken),
    }
}

/// Whether the declared media type is this one; parameters such as `charset` do not matter.
pub(crate) fn is_type(headers: &HeaderMap, expected: &str) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().ok().and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
}

/// The JSON value of a body.
pub(crate) async fn json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Value, Problem> {
    if !is_type(headers, "application/json") {
        return Err(Problem::invalid("send the body as `content-type: application/json`"));
    }
    let bytes = read(body, limit).await.map_err(unread)?;
    json::read(&bytes, Limits::RECORD).map_err(|fault| Problem::invalid(format!("the body is not acceptable JSON: {fault}")))
}

/// A record of the REST API from a body. Unknown members are refused by the record's type.
pub(crate) async fn record<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let value = json(headers, body, REST_BYTES_MAX).await?;
    serde_json::from_value(value).map_err(|error| Problem::invalid(format!("the body is not acceptable: {error}")))
}

/// Like [`record`] for endpoints whose body may be absent.
pub(crate) async fn record_or_default<T: DeserializeOwned + Default>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    if headers.contains_key(CONTENT_TYPE) {
        return record(headers, body).await;
    }
    match read(body, REST_BYTES_MAX).await.map_err(unread)? {
        bytes if bytes.is_empty() => Ok(T::default()),
        _ => Err(Problem::invalid("send the body as `content-type: application/json`")),
    }
}

fn unread(why: Unread) -> Problem {
    match why {
        Unread::TooLarge(limit) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("the body has more than {limit} bytes"))
        }
        Unread::Slow => Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time"),
        Unread::Broken => Problem::invalid("the body could not be read"),
    }
}

/// The parameters of a query, each at most once unless it is listed as repeatable.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query that may have these parameters once, and `repeatable` often.
    pub(crate) fn read(raw: Option<&str>, once: &[&str], repeatable: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut faults = Vec::new();
        for (name, value) in url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
            let twice = once.contains(&&*name) && pairs.iter().any(|(seen, _)| *seen == *name);
            let detail = match (once.contains(&&*name) || repeatable.contains(&&*name), twice) {
                (true, false) => {
                    pairs.push((name.into_owned(), value.into_owned()));
                    continue;
                }
                (true, true) => "occurs twice".to_owned(),
                (false, _) => format!("unknown query parameter; known: `{}`", [once, repeatable].concat().join("`, `")),
            };
            faults.push(Fault { at: name.chars().take(64).collect(), detail });
        }
        if faults.is_empty() { Ok(Self(pairs)) } else { Err(Problem::faults(faults)) }
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(seen, _)| seen == name).map(|(_, value)| value.as_str())
    }

    /// All values of a repeatable parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(seen, _)| seen == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter, read as a `T`.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let fault = || Problem::faults(vec![Fault { at: name.to_owned(), detail: format!("expected {expected}") }]);
        text.parse().map(Some).map_err(|_| fault())
    }
}

/// The object of a JSON value.
pub(crate) fn object(value: Value, what: &str) -> Result<Map<String, Value>, Problem> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Problem::invalid(format!("{what} must be a JSON object"))),
    }
}
