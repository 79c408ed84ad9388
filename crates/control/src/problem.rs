//! What a request is answered when it cannot be served, apart from OAuth's own errors: problem details (RFC 9457) with a
//! stable code. Owns the shape; `respond` decides which problem an error is. The cause for operators goes to the log,
//! never into the answer.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

/// One thing that is wrong with the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where: a member path such as `identity[0].claims`, or a parameter name.
    pub(crate) at: String,
    /// What: lower case, no full stop.
    pub(crate) detail: String,
}

/// A refusal or failure on its way to the caller. Rendered by the edge, which knows the request's id.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {detail}")]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    faults: Vec<Fault>,
    members: Option<Box<Map<String, Value>>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<str>>,
}

impl Problem {
    /// A problem with a code that never changes and a sentence that may.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), faults: Vec::new(), members: None, headers: Vec::new(), cause: None }
    }

    /// 400: the request is malformed.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// 422: the request is well formed, and these things in it are wrong.
    pub(crate) fn faults(faults: Vec<Fault>) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", "some values are not acceptable");
        problem.faults = faults;
        problem
    }

    /// 404: there is no such thing, or not for this caller.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }

    /// 500 or 503 with a cause that only the log sees.
    pub(crate) fn failure(status: StatusCode, code: &'static str, detail: &str, cause: impl ToString) -> Self {
        let mut problem = Self::new(status, code, detail);
        problem.cause = Some(cause.to_string().into());
        problem
    }

    /// Its code.
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    /// The same with a further member (RFC 9457 §3.2).
    pub(crate) fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// The same with a header.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The answer, naming the request.
    pub(crate) fn render(self, request_id: &str) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(request_id, code = self.code, cause = &**cause, "request failed");
        }
        let mut body = json!({
            "type": format!("urn:writ:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
        });
        if let (false, Some(object)) = (self.faults.is_empty(), body.as_object_mut()) {
            let faults = self.faults.iter().map(|fault| json!({"at": fault.at, "detail": fault.detail}));
            object.insert("errors".to_owned(), Value::Array(faults.collect()));
        }
        if let (Some(members), Some(object)) = (self.members, body.as_object_mut()) {
            object.extend(*members);
        }
        let mut response = (self.status, body.to_string()).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// Marks a response that the edge has to render.
#[derive(Clone)]
pub(crate) struct Unrendered(pub(crate) Problem);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Unrendered(self));
        response
    }
}
