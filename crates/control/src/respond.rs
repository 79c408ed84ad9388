//! The maps from errors to answers: one for OAuth, one for requests without a valid caller, one for everything of the
//! REST API. What an answer may say is decided here; causes that only operators may see go to the log.

use crate::ports::PortError;
use crate::problem::{Fault, Problem};
use authority::ports::{ArchiveError, LedgerError};
use authority::target::TargetError;
use authority::{CredentialError, Denial, Error, IssueError, Scheme, Unauthenticated};
use axum::response::{IntoResponse, Response};
use domain::ParamFault;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use token::oauth::challenge::{self, Challenge};
use token::oauth::error::{ErrorCode, OAuthError};

/// The header that hands out nonces (RFC 9449 §8).
pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// An error answer of an OAuth endpoint.
#[derive(Debug)]
pub(crate) struct OAuthAnswer {
    error: OAuthError,
    status: StatusCode,
    /// What is wrong with which parameter, as problem details have it.
    faults: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl OAuthAnswer {
    pub(crate) fn new(code: ErrorCode, description: &str) -> Self {
        Self::from(OAuthError::new(code, description))
    }

    /// The code of the error.
    pub(crate) fn code(&self) -> ErrorCode {
        self.error.code
    }

    /// The same with another status: 413 and 408 say more than 400 to a client that did not read the body.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }
}

impl From<OAuthError> for OAuthAnswer {
    fn from(error: OAuthError) -> Self {
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self { error, status, faults: Vec::new(), headers: Vec::new() }
    }
}

impl IntoResponse for OAuthAnswer {
    fn into_response(self) -> Response {
        let mut body = self.error.to_json();
        if let (Value::Object(members), false) = (&mut body, self.faults.is_empty()) {
            members.insert("errors".to_owned(), self.faults.into());
        }
        let mut response = no_store(self.status, body.to_string());
        response.headers_mut().extend(self.headers);
        response
    }
}

/// A JSON answer that nobody may keep (RFC 6749 §5.1).
pub(crate) fn no_store(status: StatusCode, body: String) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The client did not authenticate, whatever the reason (RFC 6749 §5.2).
pub(crate) fn invalid_client() -> OAuthAnswer {
    OAuthAnswer::new(ErrorCode::InvalidClient, "authenticate with client_secret_basic as an operator with role introspect")
        .with(WWW_AUTHENTICATE, r#"Basic realm="writ""#)
}

/// The OAuth map: why no token was issued. `evidence` is the code that the grant's RFC demands for refused evidence.
pub(crate) fn oauth(error: &IssueError, evidence: ErrorCode) -> OAuthAnswer {
    let code = match error {
        IssueError::Evidence(_) | IssueError::EvidenceReplayed => evidence,
        IssueError::Unregistered | IssueError::NotEligible(_) => ErrorCode::UnauthorizedClient,
        IssueError::Intent { .. } | IssueError::Params(_) | IssueError::TooLong => ErrorCode::InvalidAuthorizationDetails,
        IssueError::Target(_) => ErrorCode::InvalidTarget,
        IssueError::Denied { .. } | IssueError::TooManyTasks => ErrorCode::AccessDenied,
        IssueError::Task(_) => ErrorCode::InvalidGrant,
        IssueError::BindingRequired | IssueError::Proof(_) => ErrorCode::InvalidDpopProof,
        IssueError::UseNonce(_) => ErrorCode::UseDpopNonce,
        IssueError::ProviderUnavailable(_) | IssueError::Unavailable(_) => ErrorCode::TemporarilyUnavailable,
    };
    match error {
        IssueError::UseNonce(nonce) => OAuthAnswer::new(code, &error.to_string()).with(DPOP_NONCE, nonce),
        IssueError::Unavailable(cause) => {
            tracing::error!(cause, "token not issued");
            OAuthAnswer::new(code, "no token can be issued at the moment; nothing was issued, so it is safe to try again")
                .with(RETRY_AFTER, "1")
        }
        IssueError::ProviderUnavailable(_) => OAuthAnswer::new(code, &error.to_string()).with(RETRY_AFTER, "5"),
        IssueError::Params(faults) => {
            OAuthAnswer { faults: faults.iter().map(parameter).collect(), ..OAuthAnswer::new(code, &error.to_string()) }
        }
        _ => OAuthAnswer::new(code, &error.to_string()),
    }
}

/// One wrong parameter, for programs: its name, what is wrong, and of which type it must be if it is of another.
fn parameter(fault: &ParamFault) -> Value {
    let (at, expected) = match fault {
        ParamFault::Type { name, expected } => (name, Some(*expected)),
        ParamFault::Unknown(name) | ParamFault::Missing(name) | ParamFault::Range { name, .. } => (name, None),
    };
    let mut told = json!({ "at": at, "detail": fault.to_string() });
    if let (Value::Object(members), Some(expected)) = (&mut told, expected) {
        members.insert("expected".to_owned(), expected.into());
    }
    told
}

/// A request to an agent's endpoint without a token (RFC 6750 §3: no error code then).
pub(crate) fn no_token() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthenticated",
        "send a task token or an operator secret in the `authorization` header",
    )
    .with(WWW_AUTHENTICATE, r#"Bearer realm="writ""#)
    .with(WWW_AUTHENTICATE, &challenge(challenge::Scheme::Dpop, None))
}

/// The map for requests whose token does not make a caller (RFC 6750 §3.1, RFC 9449 §7.1, §9).
pub(crate) fn unauthenticated(scheme: Scheme, why: Unauthenticated) -> Problem {
    let text = why.to_string();
    let code = match why {
        Unauthenticated::Proof(_) => ErrorCode::InvalidDpopProof,
        Unauthenticated::UseNonce(_) => ErrorCode::UseDpopNonce,
        _ => ErrorCode::InvalidToken,
    };
    let scheme = match (&why, scheme) {
        (Unauthenticated::NotProved(_), _) | (_, Scheme::Dpop) => challenge::Scheme::Dpop,
        (_, Scheme::Bearer) => challenge::Scheme::Bearer,
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, code.as_str(), text.clone())
        .with(WWW_AUTHENTICATE, &challenge(scheme, Some((code, &text))));
    match why {
        Unauthenticated::UseNonce(nonce) => problem.with(DPOP_NONCE, &nonce),
        // Whoever held the token may know how its task ended; it saves them a renewal that cannot be.
        Unauthenticated::TaskEnded(reason) => problem.member("end_reason", reason.as_str()),
        _ => problem,
    }
}

fn challenge(scheme: challenge::Scheme, error: Option<(ErrorCode, &str)>) -> String {
    Challenge { scheme, resource_metadata: None, scope: None, error }.to_header()
}

/// The REST map: why a use case did not do what was asked.
pub(crate) fn problem(error: Error) -> Problem {
    let text = error.to_string();
    match error {
        Error::NotFound { .. } => Problem::new(StatusCode::NOT_FOUND, "not_found", text),
        Error::SharedIdentity { .. } => Problem::new(StatusCode::CONFLICT, "shared_identity", text),
        Error::Unacceptable(_) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unacceptable", text),
        Error::Forbidden(_) => Problem::new(StatusCode::FORBIDDEN, "forbidden", text),
        Error::TaskEnded(_) => Problem::new(StatusCode::CONFLICT, "task_ended", text),
        Error::TargetInUse { .. } | Error::TargetLeftOut { .. } => Problem::new(StatusCode::CONFLICT, "target_in_use", text),
        // Only operators ask for what can fail like this.
        Error::Target(_) => Problem::new(StatusCode::BAD_GATEWAY, "target_failed", text),
        Error::Ledger(error) => ledger(&error),
        Error::Archive(error) => archive(&error),
        Error::OpeningDamaged => failure("opening_damaged", "the sealed values of this entry cannot be read", text),
    }
}

/// The map for agents that asked for a credential. What a target said is for operators: it may name hosts and accounts.
pub(crate) fn credential(error: CredentialError) -> Problem {
    let text = error.to_string();
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match error {
        CredentialError::Denied(denial) => denied(Problem::new(StatusCode::FORBIDDEN, "denied", text), denial),
        CredentialError::Ask(denial) => {
            let approvers = denial.approvers.clone();
            denied(Problem::new(StatusCode::FORBIDDEN, "approval_required", text), denial).member("approvers", approvers)
        }
        CredentialError::Failed(denial) => denied(Problem::new(unavailable, "undecided", text), denial).with(RETRY_AFTER, "1"),
        CredentialError::Unavailable { denial, retry_after_secs } => {
            denied(Problem::new(unavailable, "target_unavailable", text), denial)
                .with(RETRY_AFTER, &retry_after_secs.to_string())
        }
        CredentialError::Target(TargetError::Unacceptable(why)) => {
            Problem::faults(vec![Fault { at: "parameters".to_owned(), detail: why }])
        }
        CredentialError::Target(cause @ (TargetError::Unreachable(_) | TargetError::Refused(_))) => Problem::failure(
            StatusCode::BAD_GATEWAY,
            "target_failed",
            "the credential was allowed, but its target did not issue it; what may have been made is taken back, so it is safe to ask again",
            cause,
        )
        .with(RETRY_AFTER, "5"),
        CredentialError::Target(TargetError::NotShown(_)) => {
            failure("not_shown", "the signer was not shown that this was decided; nothing was issued", text)
        }
        CredentialError::TaskEnded(_) => Problem::new(StatusCode::CONFLICT, "task_ended", text),
        CredentialError::Revoked => Problem::new(StatusCode::CONFLICT, "revoked", text),
        CredentialError::Interrupted(_) => Problem::failure(
            unavailable,
            "interrupted",
            "the credential could not be issued; what may have been made is taken back, so it is safe to ask again",
            text,
        )
        .with(RETRY_AFTER, "1"),
    }
}

/// What is known of a refusal, for the one who was refused.
fn denied(problem: Problem, denial: Denial) -> Problem {
    problem
        .member("decision", denial.decision.map(|id| id.to_string()))
        .member("reason", denial.reason.as_str())
        .member("policies", denial.policies)
}

/// The REST map for a supposed task that could not be.
pub(crate) fn impossible(error: IssueError) -> Problem {
    let fault = |at: &str, detail: String| Fault { at: at.to_owned(), detail };
    match error {
        IssueError::Unregistered => Problem::not_found("agent"),
        IssueError::Params(faults) => {
            Problem::faults(faults.iter().map(|wrong| fault("parameters", wrong.to_string())).collect())
        }
        other => Problem::faults(vec![fault("intent", other.to_string())]),
    }
}

fn ledger(error: &LedgerError) -> Problem {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match error {
        LedgerError::Replayed => Problem::new(StatusCode::CONFLICT, "replayed", error.to_string()),
        LedgerError::TooLarge(_) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error.to_string()),
        LedgerError::Overloaded => {
            Problem::new(unavailable, "overloaded", "too much is waiting to be logged; nothing was done, try again")
                .with(RETRY_AFTER, "1")
        }
        LedgerError::Unavailable(_) => {
            Problem::failure(unavailable, "log_unavailable", "the log cannot be written, so nothing was done", error)
        }
        LedgerError::Uncertain(_) => Problem::failure(
            unavailable,
            "log_unavailable",
            "the log failed while this was written: it may count as done once the log is back; look then, before you repeat it",
            error,
        ),
    }
}

/// The REST map for reads.
pub(crate) fn archive(error: &ArchiveError) -> Problem {
    match error {
        ArchiveError::Unavailable(_) => Problem::failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "the store cannot be read at the moment",
            error,
        ),
        ArchiveError::Damaged(_) => {
            failure("store_damaged", "the store is damaged; ask an operator to run `writ audit verify`", error)
        }
    }
}

/// The REST map for ports of the binary.
pub(crate) fn port(error: PortError) -> Problem {
    match error {
        PortError::NotFound(what) => Problem::not_found(what),
        PortError::Conflict(text) => Problem::new(StatusCode::CONFLICT, "conflict", text),
        PortError::Invalid(problems) => {
            Problem::faults(problems.into_iter().map(|detail| Fault { at: "policy".to_owned(), detail }).collect())
        }
        PortError::Upstream(text) => Problem::new(StatusCode::BAD_GATEWAY, "upstream_failed", text),
        PortError::Failed(cause) => failure("failed", "it could not be done; the cause is in the operator's log", cause),
    }
}

fn failure(code: &'static str, detail: &str, cause: impl ToString) -> Problem {
    Problem::failure(StatusCode::INTERNAL_SERVER_ERROR, code, detail, cause)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_wanted_nonce_is_handed_out_with_the_refusal() {
        let token = oauth(&IssueError::UseNonce("n-1".into()), ErrorCode::InvalidRequest).into_response();
        assert_eq!((token.status().as_u16(), token.headers().get(&DPOP_NONCE).unwrap().as_bytes()), (400, &b"n-1"[..]));
        let resource = unauthenticated(Scheme::Dpop, Unauthenticated::UseNonce("n-2".into())).render("req_1");
        assert_eq!((resource.status().as_u16(), resource.headers().get(&DPOP_NONCE).unwrap().as_bytes()), (401, &b"n-2"[..]));
        let challenge = resource.headers().get(WWW_AUTHENTICATE).unwrap().to_str().unwrap();
        assert!(challenge.starts_with("DPoP ") && challenge.contains("error=\"use_dpop_nonce\""), "{challenge}");
    }

    #[tokio::test]
    async fn what_is_wrong_with_parameters_is_told_to_programs_too() {
        let faults = vec![
            ParamFault::Type { name: "order_id".into(), expected: "string" },
            ParamFault::Range { name: "amount".into(), rule: "from 1 to 9".into() },
        ];
        let answer = oauth(&IssueError::Params(faults), ErrorCode::InvalidRequest).into_response();
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.get("error").unwrap(), "invalid_authorization_details");
        let expected = json!([
            { "at": "order_id", "detail": "parameter `order_id` must be of type string", "expected": "string" },
            { "at": "amount", "detail": "parameter `amount` is out of range: from 1 to 9" },
        ]);
        assert_eq!(body.get("errors"), Some(&expected));
    }

    #[test]
    fn what_a_port_says_for_the_log_stays_there() {
        let response = port(PortError::Failed("cannot read /srv/keys".into()));
        assert!(!response.to_string().contains("keys"));
    }
}
