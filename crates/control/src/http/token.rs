//! The token endpoint: evidence in, task-bound access token out (RFC 6749 §5, RFC 8693, RFC 7523, RFC 9396, RFC 9449).
//! Owns which part of the request is the evidence; whether it proves anything is the authority's to say.

use crate::authenticate::{has_authorization, single};
use crate::http::form;
use crate::respond::{self, DPOP_NONCE, OAuthAnswer};
use crate::{App, Connection};
use authority::{EvidenceInput, Holder, IssueRequest, Issued, TaskRequest};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use secrecy::{ExposeSecret, SecretString};
use std::time::Instant;
use token::UnixSeconds;
use token::oauth::error::{ErrorCode, OAuthError};
use token::oauth::request::{FORM_BYTES_MAX, Grant, TokenRequest, WritTask};
use token::oauth::response::token_response;
use token::verify::UnverifiedToken;

/// `POST /oauth/token`
pub(crate) async fn issue(State(app): State<App>, request: Request) -> Response {
    let since = Instant::now();
    let outcome = issued(&app, request).await;
    app.observer.issued(outcome.as_ref().map_or_else(|answer| answer.code().as_str(), |_| "issued"), since.elapsed());
    let mut response = match outcome {
        Ok(issued) => {
            let now = UnixSeconds(app.authority.now().secs());
            let body = token_response(issued.token.expose_secret(), &issued.claims, now);
            respond::no_store(StatusCode::OK, body.to_string())
        }
        Err(answer) => answer.into_response(),
    };
    // A fresh nonce on every answer spares the client a round trip (RFC 9449 §8.2).
    if let (false, Ok(nonce)) = (response.headers().contains_key(DPOP_NONCE), HeaderValue::from_str(&app.authority.dpop_nonce()))
    {
        response.headers_mut().insert(DPOP_NONCE, nonce);
    }
    response
}

async fn issued(app: &App, request: Request) -> Result<Issued, OAuthAnswer> {
    let (parts, body) = request.into_parts();
    if has_authorization(&parts.headers) {
        let text =
            "there are no client secrets here: send evidence of the workload's identity in the body, or a client certificate";
        return Err(OAuthAnswer::new(ErrorCode::InvalidClient, text).with(WWW_AUTHENTICATE, r#"Basic realm="writ""#));
    }
    let proof = single(&parts.headers, &HeaderName::from_static("dpop"))
        .map_err(|fault| OAuthAnswer::new(ErrorCode::InvalidDpopProof, &fault))?;
    let form = form::read(&parts, body, FORM_BYTES_MAX).await?;
    let request = TokenRequest::parse(&form)?;
    let connection = parts.extensions.get::<Connection>();
    let evidence = evidence(&request, connection)?;
    let refused = request.grant.evidence_error();
    let holder = Holder {
        dpop: proof.map(|proof| (proof, parts.method.as_str(), &app.proofs.token)),
        certificate: connection.and_then(|connection| connection.thumbprint),
    };
    let resources = resources(app.config.issuer(), request.resources, &request.scope)?;
    let request = IssueRequest { evidence, task: wanted(request.task)?, resources, holder };
    app.authority.issue(request).await.map_err(|error| respond::oauth(&error, refused))
}

/// The one piece of evidence in the request.
fn evidence(request: &TokenRequest, connection: Option<&Connection>) -> Result<EvidenceInput, OAuthError> {
    match (&request.grant, &request.client_assertion) {
        (Grant::TokenExchange { subject_token, .. }, None) => Ok(EvidenceInput::Jwt(subject_token.clone())),
        (Grant::JwtBearer { assertion }, None) => Ok(EvidenceInput::Jwt(assertion.clone())),
        (Grant::ClientCredentials, Some(client)) => asserted(request.client_id.as_deref(), &client.assertion),
        (Grant::ClientCredentials, None) => certificate(request, connection),
        (Grant::TokenExchange { .. } | Grant::JwtBearer { .. }, Some(_)) => Err(OAuthError::new(
            ErrorCode::InvalidRequest,
            "send one piece of evidence: a subject_token or assertion, or a client_assertion, not both",
        )),
    }
}

/// The client assertion as evidence; a `client_id` beside it must be the client that it is about (RFC 7521 §4.2).
fn asserted(client_id: Option<&str>, assertion: &SecretString) -> Result<EvidenceInput, OAuthError> {
    let about = |jwt: &str| Some(UnverifiedToken::parse(jwt).ok()?.claimed_subject()?.to_owned());
    if client_id.is_some_and(|client_id| about(assertion.expose_secret()).as_deref() != Some(client_id)) {
        return Err(OAuthError::new(ErrorCode::InvalidClient, "client_id must be the subject of the client assertion"));
    }
    Ok(EvidenceInput::Jwt(assertion.clone()))
}

/// The client certificate as evidence; a `client_id` must then be its SPIFFE ID (draft-ietf-oauth-spiffe-client-auth-02).
fn certificate(request: &TokenRequest, connection: Option<&Connection>) -> Result<EvidenceInput, OAuthError> {
    let invalid = |text: &str| OAuthError::new(ErrorCode::InvalidClient, text);
    let chain = connection.map(|connection| connection.certificates.as_ref()).unwrap_or_default();
    let leaf =
        chain.first().ok_or_else(|| invalid("send a client_assertion, or connect with an X.509-SVID as client certificate"))?;
    if let Some(client_id) = &request.client_id {
        let refused = |reason: token::Reason| invalid(&format!("{}; {}", reason.message(), reason.next()));
        let claimed = token::svid::claimed_spiffe_id(leaf).map_err(|error| refused(error.reason()))?;
        if claimed.to_string() != *client_id {
            return Err(invalid("client_id must be the SPIFFE ID of the client certificate"));
        }
    }
    Ok(EvidenceInput::Certificate(chain.to_vec()))
}

/// The resources asked for: by `resource` (RFC 8707), narrowed or else named by `scope` (`mcp:NAME` is the upstream NAME,
/// `http:NAME` the HTTP API NAME).
fn resources(issuer: &str, named: Vec<String>, scopes: &[String]) -> Result<Vec<String>, OAuthError> {
    let unknown = |scope: &str| {
        let shown: String = scope.chars().take(80).collect();
        OAuthError::new(ErrorCode::InvalidScope, &format!("unknown scope `{shown}`: expected `mcp:UPSTREAM` or `http:API`"))
    };
    let scoped = scopes.iter().map(|scope| match scope.split_once(':') {
        Some((kind @ ("mcp" | "http"), name)) => Ok(format!("{issuer}/{kind}/{name}")),
        _ => Err(unknown(scope)),
    });
    let scoped: Vec<String> = scoped.collect::<Result<_, _>>()?;
    if named.is_empty() || scoped.is_empty() {
        return Ok(if named.is_empty() { scoped } else { named });
    }
    let both: Vec<String> = named.into_iter().filter(|uri| scoped.contains(uri)).collect();
    if both.is_empty() {
        Err(OAuthError::new(ErrorCode::InvalidScope, "scope and resource have nothing in common"))
    } else {
        Ok(both)
    }
}

/// Which task is asked for.
fn wanted(task: Option<WritTask>) -> Result<TaskRequest, OAuthError> {
    let invalid = |text: &str| OAuthError::new(ErrorCode::InvalidAuthorizationDetails, text);
    let Some(task) = task else {
        let text = "authorization_details is missing: say what for, as [{'type':'writ_task','intent':'...','parameters':{...}}]";
        return Err(OAuthError::new(ErrorCode::InvalidRequest, text));
    };
    let id = |text: &str| text.parse().map_err(|error: domain::Error| invalid(&error.to_string()));
    match task {
        WritTask::Renew { task } => Ok(TaskRequest::Renew(id(&task)?)),
        WritTask::Open { intent, parameters, lifetime_secs, replaces } => {
            Ok(TaskRequest::Open { intent, parameters, lifetime_secs, replaces: replaces.as_deref().map(id).transpose()? })
        }
    }
}
