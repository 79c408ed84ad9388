//! Discovery: authorization server (RFC 8414), protected resources (RFC 9728, one document per path, none for the
//! origin), keys (RFC 7517), AuthZEN (§9). Public and readable by browsers; every URI in its slash-less form.

use crate::App;
use crate::problem::Problem;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::{TargetName, UpstreamName};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use token::oauth::metadata::{AuthorizationServer, ProtectedResource};

/// `GET /.well-known/oauth-authorization-server`
pub(crate) async fn authorization_server(State(app): State<App>) -> Response {
    let document = AuthorizationServer {
        issuer: app.config.issuer(),
        authorization_path: "/oauth/authorize",
        token_path: "/oauth/token",
        introspection_path: "/oauth/introspect",
        revocation_path: "/oauth/revoke",
        jwks_path: "/oauth/jwks",
        scopes: &[],
        mtls_base: app.config.mtls_url.as_deref(),
    };
    public(&document.to_json())
}

/// `GET /.well-known/oauth-protected-resource/mcp/{upstream}`
pub(crate) async fn protected_resource(State(app): State<App>, Path(upstream): Path<String>) -> Result<Response, Problem> {
    let known = upstream.parse::<UpstreamName>().ok().filter(|name| app.authority.upstreams().contains_key(name));
    let name = known.ok_or_else(|| Problem::not_found("protected resource"))?;
    Ok(resource(&app, &app.authority.resource_uri(&name), &format!("mcp:{name}"), name.as_str()))
}

/// `GET /.well-known/oauth-protected-resource/http/{target}`
pub(crate) async fn protected_api(State(app): State<App>, Path(target): Path<String>) -> Result<Response, Problem> {
    let policy = app.authority.policy();
    let is_api = |name: &TargetName| policy.target(name).is_some_and(|target| target.is_http());
    let known = target.parse::<TargetName>().ok().filter(is_api);
    let name = known.ok_or_else(|| Problem::not_found("protected resource"))?;
    Ok(resource(&app, &app.authority.http_resource_uri(&name), &format!("http:{name}"), name.as_str()))
}

fn resource(app: &App, uri: &str, scope: &str, name: &str) -> Response {
    let document = ProtectedResource {
        resource: uri,
        authorization_server: app.config.issuer(),
        scopes: &[scope],
        name: Some(name),
        dpop_required: false,
        mtls: app.config.mtls_url.is_some(),
    };
    public(&document.to_json())
}

/// `GET /oauth/jwks`
pub(crate) async fn jwks(State(app): State<App>) -> Response {
    public(&app.authority.jwks())
}

/// `GET /.well-known/authzen-configuration`
pub(crate) async fn authzen(State(app): State<App>) -> Response {
    let base = app.config.issuer();
    public(&json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": format!("{base}/access/v1/evaluation"),
        "access_evaluations_endpoint": format!("{base}/access/v1/evaluations"),
    }))
}

/// `GET /openapi.json`
pub(crate) async fn openapi(State(app): State<App>) -> Response {
    public(&crate::openapi::document(app.config.issuer()))
}

/// Short enough that a rotated key or a new upstream is seen soon, long enough to spare repeated reads.
fn public(document: &Value) -> Response {
    let mut response = document.to_string().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}
