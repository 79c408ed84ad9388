//! The agent-facing service for `/mcp/{upstream}`: admits a request, finds its caller, reads its message, and hands it to
//! the era that it speaks. Owns the order of the checks and the bounds of what is under way; decides nothing itself.
//! Mounted by the binary on its listener, at the level of hyper. MCP "Streamable HTTP".

use crate::admission::{self, Names};
use crate::config::{GatewayConfig, Limits};
use crate::envelope::Envelope;
use crate::handles::Handles;
use crate::held::HeldRequests;
use crate::mcp::message::Payload;
use crate::observe::{Observer, Stage, Stopwatch};
use crate::respond::{self, Body, Refusal, refuse};
use crate::room::Part;
use crate::serve::{legacy, modern};
use crate::session::Sessions;
use crate::slots::{Slot, Slots};
use crate::upstream::Upstreams;
use arc_swap::ArcSwap;
use authority::{Authority, Caller};
use bytes::Bytes;
use domain::{Upstream, UpstreamName};
use http::header::{HeaderName, HeaderValue, VARY};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use token::dpop::TargetUri;
use tokio_util::sync::CancellationToken;

/// What is known of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionInfo {
    /// SHA-256 of the client's certificate, if it showed one and proved its key.
    pub certificate: Option<[u8; 32]>,
    /// Where it came from: for the operator's log only, nothing hangs on it.
    pub remote: SocketAddr,
}

/// The endpoint of one upstream, with everything about it that is the same for each request.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) upstream: UpstreamName,
    /// Canonical resource URI: the audience of its tokens.
    pub(crate) resource: String,
    /// The same as DPoP proofs name it.
    uri: TargetUri,
    /// Where its protected-resource metadata are.
    pub(crate) metadata: String,
    /// The scope that stands for it.
    pub(crate) scope: String,
}

/// The agent-facing half of the data plane. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Inner>);

type Registered = Arc<HashMap<UpstreamName, Arc<Upstream>>>;

pub(crate) struct Inner {
    pub(crate) authority: Authority,
    pub(crate) upstreams: Upstreams,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) limits: Limits,
    pub(crate) sessions: Sessions,
    pub(crate) held: HeldRequests,
    pub(crate) handles: Handles,
    pub(crate) envelope: Envelope,
    /// How many progress tokens of clients travelled under a name of ours.
    renamed: AtomicU64,
    /// Cancelled when the gateway stops: what waits for nothing in particular ends then.
    pub(crate) stopping: CancellationToken,
    names: Names,
    pub(crate) slots: Slots,
    endpoints: ArcSwap<(Registered, HashMap<UpstreamName, Arc<Endpoint>>)>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gateway({})", self.0.authority.issuer())
    }
}

/// A request whose caller is known, with its place among those under way.
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) headers: HeaderMap,
    pub(crate) slot: Option<Slot>,
    /// The room that the request takes.
    pub(crate) weight: Arc<Part>,
}

impl Inner {
    /// A progress token that no other request has, for one of a client that is words.
    pub(crate) fn progress_token(&self) -> String {
        format!("writ-p{}", self.renamed.fetch_add(1, Ordering::Relaxed))
    }

    /// Resolves when the caller's token expires. Streams without an end of their own end then: whoever still holds a
    /// valid token opens them again, and a token that was revoked meanwhile does not.
    pub(crate) async fn expiry(&self, caller: &Caller) {
        let left = caller.claims().expires_at.0.saturating_sub(self.authority.now().secs());
        tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap_or(0))).await;
    }
}

impl Gateway {
    /// A gateway over these parts. Must be called within a Tokio runtime: it watches for ended tasks from now on.
    #[must_use]
    pub fn new(config: &GatewayConfig, authority: Authority, upstreams: Upstreams, observer: Arc<dyn Observer>) -> Self {
        let limits = config.limits;
        let gateway = Self(Arc::new(Inner {
            names: Names::new(authority.issuer(), config),
            slots: Slots::new(limits.concurrent_max, limits.concurrent_per_task_max),
            sessions: Sessions::new(&limits),
            held: HeldRequests::new(&limits),
            handles: Handles::default(),
            envelope: Envelope::new(&authority, limits.held_secs),
            renamed: AtomicU64::new(0),
            stopping: CancellationToken::new(),
            endpoints: ArcSwap::from_pointee((Arc::default(), HashMap::new())),
            upstreams,
            observer,
            limits,
            authority,
        }));
        tokio::spawn(crate::session::keep(Arc::downgrade(&gateway.0), gateway.0.authority.subscribe_ends()));
        gateway
    }

    /// Answers one request. Never fails: what goes wrong is an answer, too. Dropping the future cancels the request.
    pub async fn handle<B>(&self, request: Request<B>, connection: ConnectionInfo) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let names = &self.0.names;
        let origin = match names.check_host(&parts.headers, &parts.uri).and_then(|()| names.check_origin(&parts.headers)) {
            Ok(origin) => origin.map(str::to_owned),
            Err(refusal) => return self.refused(&refusal, None, connection),
        };
        let Some(endpoint) = self.endpoint(parts.uri.path()) else {
            return self.refused(&Refusal::NoEndpoint, None, connection);
        };
        let answered = if parts.method == Method::OPTIONS && origin.is_some() {
            Ok(preflight())
        } else {
            self.admitted(parts, body, &endpoint, connection).await
        };
        let response = answered.unwrap_or_else(|refusal| self.refused(&refusal, Some(&endpoint), connection));
        match origin {
            Some(origin) => readable_by(response, &origin),
            None => response,
        }
    }

    fn refused(&self, refusal: &Refusal, endpoint: Option<&Endpoint>, connection: ConnectionInfo) -> Response<Body> {
        let response = refuse(refusal, endpoint);
        self.0.observer.refused(response.status().as_u16());
        tracing::debug!(?refusal, remote = %connection.remote, "request refused");
        response
    }

    async fn admitted<B>(
        &self,
        parts: http::request::Parts,
        body: B,
        endpoint: &Arc<Endpoint>,
        connection: ConnectionInfo,
    ) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.0.stopping.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        if !matches!(parts.method, Method::POST | Method::GET | Method::DELETE) {
            return Err(Refusal::Method);
        }
        let watch = Stopwatch::start();
        let caller = tracing::debug_span!("verify").in_scope(|| self.authenticate(&parts, endpoint, connection))?;
        watch.stop(&*self.0.observer, Stage::Authenticate);
        if !self.0.authority.reaches(&caller, &endpoint.upstream) {
            return Err(Refusal::InsufficientScope);
        }
        let slot = Some(self.0.slots.take(caller.task())?);
        let reader = caller.clone();
        let room = self.0.upstreams.room(caller.task());
        let weight = Arc::new(room.empty());
        let mut admitted = Admitted { caller, endpoint: Arc::clone(endpoint), headers: parts.headers, slot, weight };
        let response = match parts.method {
            Method::POST => {
                admission::check_post(&admitted.headers)?;
                let limits = &self.0.limits;
                let read = (limits.body_bytes_max, Duration::from_secs(limits.body_secs_max));
                let (body, weight) = admission::read(body, &admitted.headers, read, &room).await?;
                admitted.weight = Arc::new(weight);
                let payload = Payload::parse(&body).map_err(Refusal::Malformed)?;
                match modern::opens(&admitted.headers, &payload) {
                    true => modern::serve(&self.0, admitted, payload).await?,
                    false => legacy::serve(&self.0, admitted, payload).await?,
                }
            }
            Method::GET => legacy::listen(&self.0, admitted)?,
            _ => legacy::end(&self.0, &admitted).await?,
        };
        Ok(response.map(|body| body.tied(|| reader, &room)))
    }

    fn authenticate(
        &self,
        parts: &http::request::Parts,
        endpoint: &Endpoint,
        connection: ConnectionInfo,
    ) -> Result<Caller, Refusal> {
        let credential = admission::credential(&parts.headers, &parts.uri)?.ok_or(Refusal::NoCredential)?;
        let presented = authority::Presented {
            scheme: match credential.scheme {
                token::oauth::challenge::Scheme::Bearer => authority::Scheme::Bearer,
                token::oauth::challenge::Scheme::Dpop => authority::Scheme::Dpop,
            },
            token: credential.token,
            dpop: credential.dpop,
            method: parts.method.as_str(),
            uri: &endpoint.uri,
            certificate: connection.certificate,
            audience: &endpoint.resource,
        };
        self.0.authority.authenticate(&presented).map_err(Refusal::Unauthenticated)
    }

    /// The endpoint at a path: exactly `/mcp/{upstream}`, spelled in one way.
    fn endpoint(&self, path: &str) -> Option<Arc<Endpoint>> {
        let name = path.strip_prefix("/mcp/")?;
        let registered = self.0.authority.upstreams();
        let known = self.0.endpoints.load();
        if Arc::ptr_eq(&known.0, &registered) {
            return known.1.get(name).cloned();
        }
        let endpoints = registered.keys().filter_map(|name| Some((name.clone(), Arc::new(self.describe(name)?)))).collect();
        self.0.endpoints.store(Arc::new((registered, endpoints)));
        self.0.endpoints.load().1.get(name).cloned()
    }

    fn describe(&self, upstream: &UpstreamName) -> Option<Endpoint> {
        let resource = self.0.authority.resource_uri(upstream);
        Some(Endpoint {
            upstream: upstream.clone(),
            uri: TargetUri::parse(&resource).ok()?,
            metadata: token::oauth::metadata::resource_metadata_url(&resource)?,
            scope: format!("mcp:{upstream}"),
            resource,
        })
    }

    /// Stops: new requests are refused, streams that wait for nothing in particular end, and this resolves when the
    /// calls in flight have been answered and their outcomes recorded, or when `patience` is over.
    pub async fn stop(&self, patience: Duration) {
        self.0.stopping.cancel();
        if tokio::time::timeout(patience, self.0.slots.idle()).await.is_err() {
            tracing::warn!("some requests were still under way when the gateway stopped; their outcomes read as cancelled");
        }
        self.0.upstreams.close().await;
    }
}

/// The answer to a browser that asks whether its page may send a request.
fn preflight() -> Response<Body> {
    let mut response = respond::bare(StatusCode::NO_CONTENT);
    for (name, value) in [
        ("access-control-allow-methods", "GET, POST, DELETE"),
        (
            "access-control-allow-headers",
            "authorization, dpop, content-type, accept, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name, last-event-id",
        ),
        ("access-control-max-age", "600"),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Lets the page at an accepted origin read the answer, with the headers that MCP and OAuth clients need.
fn readable_by(response: Response<Body>, origin: &str) -> Response<Body> {
    let response = respond::with(response, HeaderName::from_static("access-control-allow-origin"), origin);
    let exposed = "www-authenticate, mcp-session-id, mcp-protocol-version, dpop-nonce";
    respond::with(respond::with(response, HeaderName::from_static("access-control-expose-headers"), exposed), VARY, "origin")
}
