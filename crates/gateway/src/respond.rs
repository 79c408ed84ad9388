//! The one map from what went wrong, or was refused, to an HTTP response. Two messages: what the caller may know stands
//! in the response, the rest in the operator's log. Never reveals that something hidden exists.
//! RFC 6750 §3, RFC 9449 §7.1, RFC 9728 §5.1, MCP "Authorization", JSON-RPC 2.0 §5.1.

use crate::listen::Endpoint;
use crate::mcp::message::{Id, Malformed, Raw};
use crate::mcp::stream;
use crate::mcp::version::code;
use crate::room::Room;
use crate::tied::Tied;
use authority::{Caller, Denial, Over, Unauthenticated};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body::Frame;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use token::oauth::challenge::{Challenge, Scheme};
use token::oauth::error::ErrorCode;

/// Codes of our own, outside of what JSON-RPC and MCP reserve (MCP 2026-07-28 "Error Codes").
pub(crate) mod own_code {
    /// Policy refused.
    pub(crate) const DENIED: i64 = 40_300;
    /// The task ended while the request was under way.
    pub(crate) const TASK_ENDED: i64 = 40_100;
    /// The upstream failed.
    pub(crate) const UPSTREAM: i64 = 50_200;
}

/// The `_meta` member under which a denial stands as data.
pub(crate) const DENIAL_META: &str = "dev.writ/denial";

/// A response body: whole, or a stream of pieces that never fails (it is cut instead).
pub struct Body(Content);

enum Content {
    Whole(Option<Bytes>),
    Stream(BoxStream<'static, Bytes>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

impl Body {
    /// Nothing.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Content::Whole(None))
    }

    /// These bytes.
    #[must_use]
    pub const fn whole(bytes: Bytes) -> Self {
        Self(Content::Whole(Some(bytes)))
    }

    pub(crate) fn stream(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Content::Stream(Box::pin(pieces)))
    }

    /// The same, for as long as this caller may have it and somebody reads it. What is made for a stream is counted until it was
    /// read; what is whole was counted when it was made.
    pub(crate) fn tied(self, caller: impl FnOnce() -> Caller, room: &Room) -> Self {
        match self.0 {
            Content::Stream(pieces) => {
                let room = room.clone();
                let pieces = pieces.map(move |piece| room.carry(piece));
                Self::stream(Tied::new(pieces.boxed(), caller(), None))
            }
            whole @ Content::Whole(_) => Self(whole),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(pieces) => pieces.as_mut().poll_next(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Content::Whole(None))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.0 {
            Content::Whole(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

/// Why a request gets no answer of an upstream.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// `Host` is missing, doubled or not ours.
    Host,
    /// `Origin` is not one of ours.
    Origin,
    /// No upstream at this path.
    NoEndpoint,
    /// Not GET, POST or DELETE, or not here.
    Method,
    /// Not JSON.
    MediaType,
    /// The client does not take what may be sent.
    NotAcceptable,
    /// The body is too large.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The body broke off.
    BodyBroken,
    /// A token stands in the query.
    TokenInQuery,
    /// More than one credential or proof.
    SeveralCredentials,
    /// The credential cannot be read.
    CredentialMalformed,
    /// No credential.
    NoCredential,
    /// The credential was refused.
    Unauthenticated(Unauthenticated),
    /// What the caller stands on went away between authentication and now.
    Over(Over),
    /// The task's intent does not reach this upstream.
    InsufficientScope,
    /// Too much at once, of all or of this task.
    Busy(&'static str),
    /// The gateway is stopping.
    Stopping,
    /// The body is no message.
    Malformed(Malformed),
    /// A legacy request without its session.
    SessionMissing,
    /// A session that is not, or not any more, or somebody else's: all the same from outside.
    SessionUnknown,
    /// A fault of the protocol, with its status.
    Fault(Box<Fault>),
}

/// A JSON-RPC error and the HTTP status that goes with it.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) id: Option<Id>,
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, id: Option<&Id>, code: i64, message: impl Into<String>) -> Self {
        Self { status, id: id.cloned(), code, message: message.into(), data: None }
    }

    /// The frame of the error response.
    pub(crate) fn frame(&self) -> Bytes {
        stream::error(self.id.as_ref(), &Raw::from_value(&error_object(self.code, &self.message, self.data.clone())))
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

/// An error object.
pub(crate) fn error_object(code: i64, message: &str, data: Option<Value>) -> Value {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(data), Some(object)) = (data, error.as_object_mut()) {
        object.insert("data".into(), data);
    }
    error
}

/// The response to a refused request.
pub(crate) fn refuse(refusal: &Refusal, endpoint: Option<&Endpoint>) -> Response<Body> {
    use StatusCode as S;
    let plain = |status: S, text: &str| json_error(status, &Fault::new(status, None, code::INVALID_REQUEST, text));
    match refusal {
        Refusal::Host => plain(S::FORBIDDEN, "the Host header does not name this server"),
        Refusal::Origin => plain(S::FORBIDDEN, "the Origin header names a page that may not use this server"),
        Refusal::NoEndpoint => plain(S::NOT_FOUND, "there is no MCP endpoint at this path"),
        Refusal::Method => with(plain(S::METHOD_NOT_ALLOWED, "use POST"), ALLOW, "GET, POST, DELETE"),
        Refusal::MediaType => plain(S::UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json"),
        Refusal::NotAcceptable => plain(S::NOT_ACCEPTABLE, "accept both application/json and text/event-stream"),
        Refusal::BodyTooLarge => plain(S::PAYLOAD_TOO_LARGE, "the body is too large"),
        Refusal::BodyTooSlow => plain(S::REQUEST_TIMEOUT, "the body did not arrive in time"),
        Refusal::BodyBroken => plain(S::BAD_REQUEST, "the body broke off"),
        Refusal::TokenInQuery => invalid_request(endpoint, "a token must never stand in a URL; consider this one leaked"),
        Refusal::SeveralCredentials => invalid_request(endpoint, "send one Authorization header and at most one DPoP header"),
        Refusal::CredentialMalformed => invalid_request(endpoint, "the Authorization header cannot be read"),
        Refusal::NoCredential => challenge(S::UNAUTHORIZED, endpoint, None, "send an access token"),
        Refusal::Unauthenticated(why) => unauthenticated(why, endpoint),
        Refusal::Over(Over::TaskEnded(reason)) => unauthenticated(&Unauthenticated::TaskEnded(*reason), endpoint),
        Refusal::Over(Over::TokenRevoked) => unauthenticated(&Unauthenticated::Invalid, endpoint),
        Refusal::Over(Over::PolicyChanged) => {
            let text = "the policy changed while the request was decided; nothing was sent: send it again";
            with(plain(S::SERVICE_UNAVAILABLE, text), RETRY_AFTER, "0")
        }
        Refusal::InsufficientScope => {
            let text = "the intent of this task does not reach this upstream; open a task whose intent does";
            challenge(S::FORBIDDEN, endpoint, Some(ErrorCode::InsufficientScope), text)
        }
        Refusal::Busy(what) => {
            let status = if *what == "requests of this task" { S::TOO_MANY_REQUESTS } else { S::SERVICE_UNAVAILABLE };
            with(plain(status, &format!("too many {what} at once; try again later")), RETRY_AFTER, "1")
        }
        Refusal::Stopping => with(plain(S::SERVICE_UNAVAILABLE, "the gateway is stopping"), RETRY_AFTER, "5"),
        Refusal::Malformed(why) => json_error(S::BAD_REQUEST, &Fault::new(S::BAD_REQUEST, None, why.code(), why.to_string())),
        Refusal::SessionMissing => plain(S::BAD_REQUEST, "send the Mcp-Session-Id header, or start with `initialize`"),
        Refusal::SessionUnknown => plain(S::NOT_FOUND, "there is no such session; start with `initialize`"),
        Refusal::Fault(fault) => json_error(fault.status, fault),
    }
}

fn invalid_request(endpoint: Option<&Endpoint>, text: &str) -> Response<Body> {
    challenge(StatusCode::BAD_REQUEST, endpoint, Some(ErrorCode::InvalidRequest), text)
}

fn unauthenticated(why: &Unauthenticated, endpoint: Option<&Endpoint>) -> Response<Body> {
    let error = match why {
        Unauthenticated::Proof(_) => ErrorCode::InvalidDpopProof,
        Unauthenticated::UseNonce(_) => ErrorCode::UseDpopNonce,
        Unauthenticated::Invalid
        | Unauthenticated::Expired
        | Unauthenticated::WrongAudience
        | Unauthenticated::TaskEnded(_)
        | Unauthenticated::AgentNotEligible(_)
        | Unauthenticated::NotProved(_) => ErrorCode::InvalidToken,
    };
    let response = challenge(StatusCode::UNAUTHORIZED, endpoint, Some(error), &why.to_string());
    match why {
        Unauthenticated::UseNonce(nonce) => with(response, HeaderName::from_static("dpop-nonce"), nonce),
        _ => response,
    }
}

/// A response with the challenges of both schemes that are taken here.
fn challenge(status: StatusCode, endpoint: Option<&Endpoint>, error: Option<ErrorCode>, text: &str) -> Response<Body> {
    let mut response = json_error(status, &Fault::new(status, None, code::INVALID_REQUEST, text));
    for scheme in [Scheme::Bearer, Scheme::Dpop] {
        let value = Challenge {
            scheme,
            resource_metadata: endpoint.map(|endpoint| endpoint.metadata.as_str()),
            scope: endpoint.map(|endpoint| endpoint.scope.as_str()),
            error: error.map(|code| (code, text)),
        };
        if let Ok(value) = HeaderValue::from_str(&value.to_header()) {
            response.headers_mut().append(WWW_AUTHENTICATE, value);
        }
    }
    response
}

fn json_error(status: StatusCode, fault: &Fault) -> Response<Body> {
    message(status, fault.frame())
}

/// One message as the whole response.
pub(crate) fn message(status: StatusCode, frame: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::whole(frame));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A stream of events as the response.
pub(crate) fn events(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A response without a body.
pub(crate) fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// `response` with one more header, if the value can be one.
pub(crate) fn with(mut response: Response<Body>, name: HeaderName, value: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// A denial as data.
pub(crate) fn denial_data(denial: &Denial) -> Value {
    let mut data = json!({ "reason": denial.reason.as_str(), "policies": denial.policies });
    if let Some(object) = data.as_object_mut() {
        if let Some(decision) = denial.decision {
            object.insert("decision".into(), decision.to_string().into());
        }
        if !denial.approvers.is_empty() {
            object.insert("approvers".into(), denial.approvers.clone().into());
        }
    }
    data
}

/// A denial as words: what was refused, by which policy, what would be allowed, how to ask.
pub(crate) fn denial_text(denial: &Denial) -> String {
    let mut text = denial.explanation.clone();
    if !denial.policies.is_empty() {
        text.push_str(&format!(" (policy: {})", denial.policies.join(", ")));
    }
    if !denial.approvers.is_empty() {
        text.push_str(&format!("; it could be approved by: {}", denial.approvers.join(", ")));
    }
    if let Some(decision) = denial.decision {
        text.push_str(&format!("; decision {decision}"));
    }
    text
}
