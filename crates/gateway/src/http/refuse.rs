//! The one map from what went wrong, or was refused, to an answer. What the caller may know stands in the answer, the rest
//! in the operator's log; no answer holds anything that an API said.
//! RFC 9457 (problem details), RFC 6750 §3, RFC 9449 §7.1, RFC 9728 §5.1.

use super::answer::ApiBody;
use super::serve::Api;
use crate::respond::{denial_data, denial_text};
use authority::{Denial, Over, Unauthenticated};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use token::oauth::challenge::{Challenge, Scheme};
use token::oauth::error::ErrorCode;

/// Why there is no answer of the API.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Of admission: the same for all endpoints.
    Admission(crate::respond::Refusal),
    /// No API at this path.
    NoApi,
    /// A method that no route can have.
    Method,
    /// The request itself, in words.
    Request(String),
    /// The client sent a credential of its own.
    Foreign(String),
    /// No route of the API.
    NoRoute,
    /// A route of the API, but not its fields.
    Fields(String),
    /// Too many requests of this task.
    TooMany(u64),
    /// The task has used up its bytes.
    Bytes,
    /// Refused by policy, or not decided.
    Denied(Box<Denial>),
    /// The credential of the API cannot be had.
    NoCredential,
    /// The API cannot be reached.
    Unreachable,
    /// The API did not answer in time.
    Timeout,
    /// The answer is not given.
    Withheld(&'static str),
    /// The task ended, or its token was revoked, after the request left. No 401: clients would prove themselves anew, in a task
    /// of their own even, and do again what may have been done.
    Late(&'static str),
}

impl From<crate::respond::Refusal> for Refusal {
    fn from(refusal: crate::respond::Refusal) -> Self {
        Self::Admission(refusal)
    }
}

/// The answer to a refused request.
pub(crate) fn refuse(refusal: &Refusal, api: Option<&Api>) -> Response<ApiBody> {
    use StatusCode as S;
    match refusal {
        Refusal::Admission(refusal) => admission(refusal, api),
        Refusal::NoApi => problem(S::NOT_FOUND, "no_api", "there is no HTTP API at this path"),
        Refusal::Method => problem(S::METHOD_NOT_ALLOWED, "method", "no route has this method"),
        Refusal::Request(text) => problem(S::BAD_REQUEST, "request", text),
        Refusal::Foreign(text) => problem(S::BAD_REQUEST, "foreign_credential", text),
        Refusal::NoRoute => problem(S::NOT_FOUND, "no_route", "no route of this API has this method and path; nothing was sent"),
        Refusal::Fields(text) => problem(S::BAD_REQUEST, "unknown_argument", text),
        Refusal::TooMany(secs) => {
            let text = "this task may not send more requests to this API in a minute";
            with(problem(S::TOO_MANY_REQUESTS, "rate", text), RETRY_AFTER, &secs.to_string())
        }
        Refusal::Bytes => problem(S::TOO_MANY_REQUESTS, "bytes", "this task has moved all the bytes that it may at this API"),
        Refusal::Denied(denial) => denied(denial, api),
        Refusal::NoCredential => {
            problem(S::BAD_GATEWAY, "credential", "the gateway has no credential for this API at the moment")
        }
        Refusal::Unreachable => problem(S::BAD_GATEWAY, "unreachable", "the API cannot be reached"),
        Refusal::Timeout => problem(S::GATEWAY_TIMEOUT, "timeout", "the API did not answer in time"),
        Refusal::Late(why) => {
            let text = format!(
                "{why}; the answer is withheld. The request was sent and may have been carried out: do not repeat it blindly"
            );
            problem(S::FORBIDDEN, "task_over", &text)
        }
        Refusal::Withheld(why) => problem(S::BAD_GATEWAY, "withheld", &format!("the API's answer is withheld: {why}")),
    }
}

fn admission(refusal: &crate::respond::Refusal, api: Option<&Api>) -> Response<ApiBody> {
    use crate::respond::Refusal as R;
    use StatusCode as S;
    let invalid = |text: &str| challenge(S::BAD_REQUEST, api, Some(ErrorCode::InvalidRequest), text);
    match refusal {
        R::Host => problem(S::FORBIDDEN, "host", "the Host header does not name this server"),
        R::Origin => problem(S::FORBIDDEN, "origin", "the Origin header names a page that may not use this server"),
        R::TokenInQuery => invalid("a token must never stand in a URL; consider this one leaked"),
        R::SeveralCredentials => invalid("send one Authorization header and at most one DPoP header"),
        R::CredentialMalformed => invalid("the Authorization header cannot be read"),
        R::NoCredential => challenge(S::UNAUTHORIZED, api, None, "send the task's access token"),
        R::Unauthenticated(why) => unauthenticated(why, api),
        R::Over(gone) => over(*gone, api),
        R::BodyTooLarge => problem(S::PAYLOAD_TOO_LARGE, "body", "the body is too large"),
        R::BodyTooSlow => problem(S::REQUEST_TIMEOUT, "body", "the body did not arrive in time"),
        R::BodyBroken => problem(S::BAD_REQUEST, "body", "the body broke off"),
        R::Busy(what) => {
            let status = if *what == "requests of this task" { S::TOO_MANY_REQUESTS } else { S::SERVICE_UNAVAILABLE };
            with(problem(status, "busy", &format!("too many {what} at once; try again later")), RETRY_AFTER, "1")
        }
        R::Stopping => with(problem(S::SERVICE_UNAVAILABLE, "stopping", "the gateway is stopping"), RETRY_AFTER, "5"),
        _ => problem(S::BAD_REQUEST, "request", "the request cannot be read"),
    }
}

/// What the caller stands on went away while the request was under way.
fn over(over: Over, api: Option<&Api>) -> Response<ApiBody> {
    match over {
        Over::TaskEnded(reason) => unauthenticated(&Unauthenticated::TaskEnded(reason), api),
        Over::TokenRevoked => unauthenticated(&Unauthenticated::Invalid, api),
        Over::PolicyChanged => {
            let text = "the policy changed while the request was decided; nothing was sent: send it again";
            with(problem(StatusCode::SERVICE_UNAVAILABLE, "policy_changed", text), RETRY_AFTER, "0")
        }
    }
}

fn unauthenticated(why: &Unauthenticated, api: Option<&Api>) -> Response<ApiBody> {
    let error = match why {
        Unauthenticated::Proof(_) => ErrorCode::InvalidDpopProof,
        Unauthenticated::UseNonce(_) => ErrorCode::UseDpopNonce,
        _ => ErrorCode::InvalidToken,
    };
    let response = challenge(StatusCode::UNAUTHORIZED, api, Some(error), &why.to_string());
    match why {
        Unauthenticated::UseNonce(nonce) => with(response, HeaderName::from_static("dpop-nonce"), nonce),
        _ => response,
    }
}

fn denied(denial: &Denial, api: Option<&Api>) -> Response<ApiBody> {
    use domain::Reason as R;
    let mut response = match denial.reason {
        R::OutOfReach => challenge(StatusCode::FORBIDDEN, api, Some(ErrorCode::InsufficientScope), &denial.explanation),
        _ => Response::new(ApiBody::default()),
    };
    *response.status_mut() = match denial.reason {
        R::LogUnavailable | R::PolicyError => StatusCode::SERVICE_UNAVAILABLE,
        R::BudgetExhausted => StatusCode::TOO_MANY_REQUESTS,
        R::UnknownArgument => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    };
    let mut data = denial_data(denial);
    if let Some(members) = data.as_object_mut() {
        members.insert("title".into(), "the request was refused".into());
        members.insert("status".into(), response.status().as_u16().into());
        members.insert("detail".into(), denial_text(denial).into());
    }
    body(response, &data)
}

/// An answer with the challenges of both schemes that are taken here.
fn challenge(status: StatusCode, api: Option<&Api>, error: Option<ErrorCode>, text: &str) -> Response<ApiBody> {
    let mut response = problem(status, error.map_or("unauthenticated", |error| error.as_str()), text);
    for scheme in [Scheme::Bearer, Scheme::Dpop] {
        let value = Challenge {
            scheme,
            resource_metadata: api.map(|api| api.metadata.as_str()),
            scope: api.map(|api| api.scope.as_str()),
            error: error.map(|code| (code, text)),
        };
        if let Ok(value) = HeaderValue::from_str(&value.to_header()) {
            response.headers_mut().append(WWW_AUTHENTICATE, value);
        }
    }
    response
}

fn problem(status: StatusCode, reason: &str, text: &str) -> Response<ApiBody> {
    let mut response = Response::new(ApiBody::default());
    *response.status_mut() = status;
    body(response, &json!({ "title": "the request was refused", "status": status.as_u16(), "detail": text, "reason": reason }))
}

fn body(response: Response<ApiBody>, problem: &Value) -> Response<ApiBody> {
    let text = Bytes::from(problem.to_string());
    let mut response = response.map(|_| Full::new(text).map_err(|never| match never {}).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn with(mut response: Response<ApiBody>, name: HeaderName, value: &str) -> Response<ApiBody> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
