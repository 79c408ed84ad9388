//! All endpoints of the control plane in one table, and what every handler is given. The table is also what the API's
//! description is held against: an endpoint that is not described, or described and not there, fails a test.

use crate::edge::{self, Edge};
use crate::http::{
    agents, audit, authorize, credentials, health, intents, introspect, keys, log, metadata, policy, revocation, revoke, targets,
    tasks, token, upstreams,
};
use crate::ports::{KeyRotation, Observer, PolicySource, Probe, UpstreamCatalog};
use crate::problem::Problem;
use crate::{App, Control, ControlConfig, authzen};
use ::token::dpop::TargetUri;
use authority::Authority;
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on, options};
use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
};
use std::sync::Arc;

/// What every handler is given.
pub(crate) struct Served {
    pub(crate) authority: Authority,
    pub(crate) config: ControlConfig,
    pub(crate) upstreams: Box<dyn UpstreamCatalog>,
    pub(crate) policy: Box<dyn PolicySource>,
    pub(crate) keys: Box<dyn KeyRotation>,
    pub(crate) probes: Vec<Probe>,
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) verifiers: fn(&str) -> Option<&'static str>,
    pub(crate) proofs: ProofUris,
    pub(crate) edge: Edge,
}

/// URIs that proofs of possession are about, parsed once.
pub(crate) struct ProofUris {
    pub(crate) token: TargetUri,
    pub(crate) evaluation: TargetUri,
    pub(crate) evaluations: TargetUri,
}

/// The control plane as a service. Put a [`crate::Connection`] into the extensions of each request.
///
/// # Errors
/// `token::Error::UriMalformed`, which a [`ControlConfig`] excludes.
pub fn router(control: Control) -> Result<Router, ::token::Error> {
    let target = |path: &str| TargetUri::parse(&format!("{}{path}", control.config.issuer()));
    let proofs = ProofUris {
        token: target("/oauth/token")?,
        evaluation: target("/access/v1/evaluation")?,
        evaluations: target("/access/v1/evaluations")?,
    };
    let edge = Edge::new(control.config.issuer());
    let Control { authority, config, upstreams, policy, keys, probes, metrics, observer, verifiers } = control;
    let app: App =
        Arc::new(Served { authority, config, upstreams, policy, keys, probes, metrics, observer, verifiers, proofs, edge });
    let router = endpoints()
        .router
        .fallback(async || Problem::not_found("endpoint"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this endpoint does not have this method")
        })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), edge::around));
    Ok(router.with_state(app))
}

/// Routes, and what they are, for the test of the description.
pub(crate) struct Table {
    router: Router<App>,
    pub(crate) listed: Vec<(&'static str, &'static str)>,
}

impl Table {
    fn at<H, T>(mut self, method: &'static str, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = match method {
            "get" => MethodFilter::GET,
            "put" => MethodFilter::PUT,
            "delete" => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        self.router = self.router.route(path, on(filter, handler));
        self.listed.push((method, path));
        self
    }

    /// A public document that pages of any origin may read.
    fn public<H, T>(self, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let mut table = self.at("get", path, handler);
        table.router = table.router.route(path, options(preflight));
        table
    }
}

async fn preflight() -> impl axum::response::IntoResponse {
    let headers = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "mcp-protocol-version"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers)
}

/// Every endpoint.
pub(crate) fn endpoints() -> Table {
    let table = Table { router: Router::new(), listed: Vec::new() };
    let table = table
        .at("get", "/oauth/authorize", authorize::authorize)
        .at("post", "/oauth/token", token::issue)
        .at("post", "/oauth/introspect", introspect::introspect)
        .at("post", "/oauth/revoke", revoke::revoke)
        .public("/oauth/jwks", metadata::jwks)
        .public("/.well-known/oauth-authorization-server", metadata::authorization_server)
        .public("/.well-known/oauth-protected-resource/mcp/{upstream}", metadata::protected_resource)
        .public("/.well-known/oauth-protected-resource/http/{target}", metadata::protected_api)
        .public("/.well-known/authzen-configuration", metadata::authzen)
        .at("post", "/access/v1/evaluation", authzen::evaluation)
        .at("post", "/access/v1/evaluations", authzen::evaluations)
        .public("/targets/{target}/krl", revocation::krl)
        .public("/targets/{target}/crl", revocation::crl)
        .public("/log/checkpoint", log::checkpoint)
        .public("/log/tile/{*path}", log::tile)
        .at("get", "/healthz", health::healthz)
        .at("get", "/readyz", health::readyz)
        .at("get", "/metrics", health::metrics)
        .public("/openapi.json", metadata::openapi);
    operator_endpoints(table)
}

fn operator_endpoints(table: Table) -> Table {
    table
        .at("get", "/v1/agents", agents::list)
        .at("get", "/v1/agents/{agent}", agents::get)
        .at("put", "/v1/agents/{agent}", agents::put)
        .at("post", "/v1/agents/{agent}/suspend", agents::suspend)
        .at("post", "/v1/agents/{agent}/resume", agents::resume)
        .at("get", "/v1/owners", agents::owners)
        .at("get", "/v1/intents", intents::list)
        .at("get", "/v1/intents/{intent}", intents::get)
        .at("get", "/v1/upstreams", upstreams::list)
        .at("get", "/v1/upstreams/{upstream}", upstreams::get)
        .at("put", "/v1/upstreams/{upstream}", upstreams::put)
        .at("delete", "/v1/upstreams/{upstream}", upstreams::remove)
        .at("get", "/v1/upstreams/{upstream}/tools", upstreams::tools)
        .at("get", "/v1/upstreams/{upstream}/diff", upstreams::diff)
        .at("post", "/v1/upstreams/{upstream}/accept", upstreams::accept)
        .at("get", "/v1/tasks", tasks::list)
        .at("get", "/v1/tasks/{task}", tasks::get)
        .at("post", "/v1/tasks/{task}/end", tasks::end)
        .at("get", "/v1/tasks/{task}/offers", credentials::offers)
        .at("get", "/v1/tasks/{task}/credentials", credentials::of_one_task)
        .at("post", "/v1/tasks/{task}/credentials", credentials::request)
        .at("get", "/v1/tasks/{task}/credentials/{credential}", credentials::get_of_task)
        .at("delete", "/v1/tasks/{task}/credentials/{credential}", credentials::give_back)
        .at("get", "/v1/credentials", credentials::list)
        .at("get", "/v1/credentials/{credential}", credentials::get)
        .at("post", "/v1/credentials/{credential}/revoke", credentials::revoke)
        .at("get", "/v1/targets", targets::list)
        .at("get", "/v1/targets/{target}", targets::get)
        .at("post", "/v1/targets/{target}/doctor", targets::doctor)
        .at("post", "/v1/targets/{target}/probe", targets::probe)
        .at("post", "/v1/targets/{target}/scan", targets::scan)
        .at("get", "/v1/policy", policy::get)
        .at("post", "/v1/policy/reload", policy::reload)
        .at("post", "/v1/policy/explain", policy::explain)
        .at("get", "/v1/decisions/{decision}", policy::decision)
        .at("get", "/v1/audit/entries", audit::search)
        .at("get", "/v1/audit/entries/{index}", audit::get)
        .at("get", "/v1/audit/entries/{index}/proof", audit::prove)
        .at("post", "/v1/audit/entries/{index}/redact", audit::redact)
        .at("post", "/v1/keys/rotate", keys::rotate)
}
