//! `/http/{target}/…` on one page: who asks, what is asked, whether it may happen, the credential, the answer. A request is
//! read once and written anew; it leaves only with the permit of a logged decision, to the one host of the target, and
//! what comes back passes `answer.rs`. Knows no policy and shows no secret.

use super::answer::{ApiBody, Stop, Ties, pass};
use super::config::{HttpTarget, NO_ROUTE};
use super::connect::{Lookup, OriginClient, cause, client};
use super::handshake::{Opening, opening};
use super::inject::{Draft, Injector};
use super::path::{self, Segments};
use super::refuse::{Refusal, refuse};
use super::request::{self, Asked};
use super::route::{Route, alike};
use super::socket::{Decided, Reload, Reloads, Socket};
use super::usage::{Overdrawn, Spent, Usage};
use crate::admission::{self, Names};
use crate::config::{GatewayConfig, Limits};
use crate::listen::ConnectionInfo;
use crate::observe::{Observer, Stage, Stopwatch};
use crate::respond::Refusal as Admission;
use crate::room::{Part, Room, Rooms};
use crate::scrub::Needles;
use crate::slots::{Slot, Slots};
use arc_swap::ArcSwap;
use authority::{Authority, CallStatus, Caller, Decision, Over, Policy, Released};
use bytes::Bytes;
use domain::{OfferName, Operation, Outcome, Reason, TargetName, Timestamp};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HeaderName, HeaderValue, UPGRADE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::Map;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use token::dpop::TargetUri;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("writ/", env!("CARGO_PKG_VERSION")));
const TRACE: HeaderName = HeaderName::from_static("traceparent");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// One API, with everything about it that is the same for each request.
pub(crate) struct Api {
    pub(crate) target: HttpTarget,
    client: OriginClient,
    injector: Injector,
    /// Canonical resource URI: the audience of its tokens.
    resource: String,
    /// Where its protected-resource metadata are (RFC 9728).
    pub(crate) metadata: String,
    /// The scope that stands for it.
    pub(crate) scope: String,
    /// Cancelled when another description takes its place.
    pub(crate) replaced: CancellationToken,
    /// How often it was described, and the policy that knew its routes the last time.
    pub(crate) reloads: watch::Sender<Reload>,
}

/// What is served.
struct Table {
    apis: HashMap<TargetName, Arc<Api>>,
    /// The policy that knows these routes.
    policy: Arc<Policy>,
}

/// The HTTP half of the data plane. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct HttpApis(Arc<Inner>);

struct Inner {
    authority: Authority,
    observer: Arc<dyn Observer>,
    limits: Limits,
    /// The `traceparent` of the current span, if requests are traced.
    traceparent: Option<fn() -> Option<String>>,
    names: Names,
    slots: Slots,
    usage: Usage,
    rooms: Rooms,
    lookup: Arc<dyn Lookup>,
    stopping: CancellationToken,
    table: ArcSwap<Table>,
}

impl std::fmt::Debug for HttpApis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.table.load().apis.keys()).finish()
    }
}

/// A request that may be read: its caller is known and it has a place.
struct Admitted {
    caller: Caller,
    slot: Slot,
    spent: Arc<Spent>,
    parts: http::request::Parts,
    body: Bytes,
    /// The task's.
    room: Room,
    /// What the request takes of it.
    _weight: Part,
}

/// A request as it is decided and sent.
struct Wanted<'a> {
    route: &'a Route,
    path: String,
    asked: Asked,
    /// Of a WebSocket, with the policies that were in force before it was decided.
    opening: Option<(Opening, Reloads)>,
}

impl HttpApis {
    /// The endpoints of these targets.
    ///
    /// # Errors
    /// A trusted certificate of a target is none.
    pub fn new(
        config: &GatewayConfig,
        authority: Authority,
        targets: Vec<HttpTarget>,
        lookup: Arc<dyn Lookup>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, rustls::Error> {
        let limits = config.limits;
        let apis = Self(Arc::new(Inner {
            names: Names::new(authority.issuer(), config),
            slots: Slots::new(limits.concurrent_max, limits.concurrent_per_task_max),
            usage: Usage::default(),
            rooms: Rooms::default(),
            stopping: CancellationToken::new(),
            table: ArcSwap::from_pointee(Table { apis: HashMap::new(), policy: authority.policy() }),
            traceparent: config.traceparent,
            observer,
            limits,
            lookup,
            authority,
        }));
        apis.replace(targets)?;
        Ok(apis)
    }

    /// Serves these targets from now on instead of those before, under policies that may be new as well. A target that is
    /// described as before keeps its connections and tokens, and its open WebSockets are decided again; those of any other
    /// end. Other requests that were sent go on as they were decided; one that was not must be asked for again, and so must
    /// all that are decided by a policy which came into force since this was last called: it may mean other routes by the
    /// same names.
    ///
    /// # Errors
    /// A trusted certificate of a target is none: then nothing changes.
    pub fn replace(&self, targets: Vec<HttpTarget>) -> Result<(), rustls::Error> {
        let policy = self.0.authority.policy();
        let before = self.0.table.load_full();
        let describe = |target: HttpTarget| {
            let api = match before.apis.get(&target.name).filter(|api| api.target == target) {
                Some(same) => Arc::clone(same),
                None => Arc::new(Api::new(target, Arc::clone(&policy), &self.0)?),
            };
            Ok((api.target.name.clone(), api))
        };
        let apis = targets.into_iter().map(describe).collect::<Result<_, rustls::Error>>()?;
        let described = Arc::new(Table { apis, policy });
        self.0.table.store(Arc::clone(&described));
        for (name, api) in &before.apis {
            match described.apis.get(name) {
                Some(now) if Arc::ptr_eq(now, api) => {
                    let policy = Arc::clone(&described.policy);
                    api.reloads.send_modify(|last| *last = Reload { number: last.number + 1, policy });
                }
                _ => api.replaced.cancel(),
            }
        }
        Ok(())
    }

    /// Answers one request below `/http/`. Never fails: what goes wrong is an answer, too. Dropping the future cancels the
    /// request.
    pub async fn handle<B>(&self, request: Request<B>, connection: ConnectionInfo) -> Response<ApiBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let named = parts.uri.path().strip_prefix("/http/").unwrap_or_default();
        let named = named.split('/').next().and_then(|name| name.parse::<TargetName>().ok());
        let api = named.and_then(|name| self.0.table.load().apis.get(&name).cloned());
        let answered = self.0.answer(parts, body, api.as_deref(), connection).await;
        answered.unwrap_or_else(|refusal| {
            let response = refuse(&refusal, api.as_deref());
            self.0.observer.refused(response.status().as_u16());
            tracing::debug!(?refusal, remote = %connection.remote, "request refused");
            response
        })
    }

    /// Stops: new requests are refused, streams end, and this resolves when what is under way was answered, or when
    /// `patience` is over.
    pub async fn stop(&self, patience: Duration) {
        self.0.stopping.cancel();
        if tokio::time::timeout(patience, self.0.slots.idle()).await.is_err() {
            tracing::warn!("some requests to HTTP APIs were still under way when the gateway stopped");
        }
    }
}

impl Inner {
    async fn answer<B>(
        &self,
        parts: http::request::Parts,
        body: B,
        api: Option<&Api>,
        connection: ConnectionInfo,
    ) -> Result<Response<ApiBody>, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.names.check_host(&parts.headers, &parts.uri)?;
        self.names.check_origin(&parts.headers)?;
        let api = api.ok_or(Refusal::NoApi)?;
        if self.stopping.is_cancelled() {
            return Err(Admission::Stopping.into());
        }
        if !matches!(parts.method, Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
            return Err(Refusal::Method);
        }
        // 1. Who asks.
        let admitted = self.admit(parts, body, api, connection).await?;
        // 2. What is asked, read once and strictly; what cannot be read is refused in the log as well.
        let wanted = match self.read(&admitted, api) {
            Ok(wanted) => wanted,
            Err((refusal, offer)) => return Err(self.refuse_logged(&admitted, api, offer, refusal).await),
        };
        // 3. The decision, with these arguments, durable in the log before it is known here.
        let operation =
            Operation::SendHttp { target: &api.target.name, offer: &wanted.route.offer, arguments: &wanted.asked.arguments };
        let watch = Stopwatch::start();
        let decision = self.authority.decide(&admitted.caller, operation).instrument(tracing::debug_span!("decide")).await;
        watch.stop(&*self.observer, Stage::Decide);
        let permit = match decision {
            Decision::Allow(permit) => permit,
            Decision::Deny(denial) => return Err(self.denied(Outcome::Deny, denial)),
            Decision::Ask(denial) => return Err(self.denied(Outcome::Ask, denial)),
            Decision::Failed(denial) => return Err(self.denied(Outcome::Failed, denial)),
        };
        self.observer.decided(Outcome::Allow, None);
        // 4. The last look before it leaves: the task may have ended while the decision was written.
        let released = permit.release().map_err(Admission::Over)?;
        // 5. The credential, the request, the answer.
        let span = tracing::debug_span!("forward", otel.kind = "client", writ.target = %api.target.name);
        self.forward(admitted, api, wanted, released).instrument(span).await
    }

    async fn admit<B>(
        &self,
        parts: http::request::Parts,
        body: B,
        api: &Api,
        connection: ConnectionInfo,
    ) -> Result<Admitted, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let watch = Stopwatch::start();
        let caller = tracing::debug_span!("verify").in_scope(|| self.authenticate(&parts, api, connection))?;
        watch.stop(&*self.observer, Stage::Authenticate);
        let slot = self.slots.take(caller.task())?;
        let spent = self.usage.take(caller.task(), &api.target.name, api.target.limits, std::time::Instant::now());
        let spent = spent.map_err(Refusal::from)?;
        let room = self.rooms.of(caller.task());
        let limits = (api.target.limits.request_bytes, Duration::from_secs(self.limits.body_secs_max));
        let (body, weight) = admission::read(body, &parts.headers, limits, &room).await?;
        spent.bytes(body.len())?;
        Ok(Admitted { caller, slot, spent, parts, body, room, _weight: weight })
    }

    fn authenticate(&self, parts: &http::request::Parts, api: &Api, connection: ConnectionInfo) -> Result<Caller, Refusal> {
        let credential = admission::credential_of(&parts.headers)?.ok_or(Admission::NoCredential)?;
        // The proof names the whole path (RFC 9449 §4.3), the token the API.
        let uri = format!("{}{}", self.authority.issuer(), parts.uri.path());
        let uri = TargetUri::parse(&uri).map_err(|_| Refusal::Request("the path cannot be read".into()))?;
        let presented = authority::Presented {
            scheme: match credential.scheme {
                token::oauth::challenge::Scheme::Bearer => authority::Scheme::Bearer,
                token::oauth::challenge::Scheme::Dpop => authority::Scheme::Dpop,
            },
            token: credential.token,
            dpop: credential.dpop,
            method: parts.method.as_str(),
            uri: &uri,
            certificate: connection.certificate,
            audience: &api.resource,
        };
        Ok(self.authority.authenticate(&presented).map_err(Admission::Unauthenticated)?)
    }

    /// What the request means. If nothing, the refusal and the route that it would have been of.
    fn read<'a>(&self, admitted: &Admitted, api: &'a Api) -> Result<Wanted<'a>, (Refusal, Option<&'a OfferName>)> {
        let parts = &admitted.parts;
        let below = parts.uri.path().strip_prefix("/http/").and_then(|path| path.strip_prefix(api.target.name.as_str()));
        let segments = Segments::read(below.unwrap_or_default()).map_err(|fault| (Refusal::Request(fault.to_string()), None))?;
        let Some((route, in_path)) = request::route(&api.target, &parts.method, &segments) else {
            return Err((Refusal::NoRoute, None));
        };
        let refused = |refusal| (refusal, Some(&route.offer));
        if request::is_nearly_another(&api.target, route, &segments) {
            return Err(refused(Refusal::Request(
                "the path is nearly that of a more exact route, for which servers that fold letters or cut endings would take it"
                    .into(),
            )));
        }
        check_headers(&parts.headers, api, route).map_err(refused)?;
        if let Some(field) = api.injector.query_field().filter(|field| names_field(parts.uri.query(), field)) {
            return Err(refused(Refusal::Foreign(format!(
                "query field `{field}` carries the gateway's credential; do not send it"
            ))));
        }
        let asked = request::read(route, in_path, parts.uri.query(), &parts.headers, &admitted.body);
        let asked = asked.map_err(|fault| refused(Refusal::Fields(fault.to_string())))?;
        let opening = opening(parts, route, |key| self.authority.random(key)).map_err(refused)?;
        let opening = opening.map(|opening| (opening, Reloads::of(api)));
        Ok(Wanted { route, path: format!("{}{}", api.target.base, path::write(&segments)), asked, opening })
    }

    /// Refuses what could not be read, in the log as well: a task that tries what is not offered must be seen.
    async fn refuse_logged(&self, admitted: &Admitted, api: &Api, offer: Option<&OfferName>, refusal: Refusal) -> Refusal {
        let none = NO_ROUTE.parse::<OfferName>();
        let Some(offer) = offer.or(none.as_ref().ok()) else { return refusal };
        let (reason, text) = match &refusal {
            Refusal::NoRoute => (Reason::OutOfReach, "no route of this API has this method and path"),
            Refusal::Foreign(text) | Refusal::Fields(text) | Refusal::Request(text) => (Reason::UnknownArgument, text.as_str()),
            _ => return refusal,
        };
        let mut arguments = Map::new();
        arguments.insert("method".into(), admitted.parts.method.as_str().into());
        arguments.insert("path".into(), admitted.parts.uri.path().chars().take(1_024).collect::<String>().into());
        let operation = Operation::SendHttp { target: &api.target.name, offer, arguments: &arguments };
        self.observer.decided(Outcome::Deny, Some(reason));
        match self.authority.refuse(&admitted.caller, operation, reason, text).await {
            // If not even that could be logged, say so rather than answer as if it had been.
            Decision::Failed(denial) => Refusal::Denied(Box::new(denial)),
            _ => refusal,
        }
    }

    fn denied(&self, outcome: Outcome, denial: authority::Denial) -> Refusal {
        self.observer.decided(outcome, Some(denial.reason));
        Refusal::Denied(Box::new(denial))
    }

    async fn forward(
        &self,
        admitted: Admitted,
        api: &Api,
        wanted: Wanted<'_>,
        released: Released,
    ) -> Result<Response<ApiBody>, Refusal> {
        let Admitted { caller, slot, spent, parts, room, _weight, .. } = admitted;
        let Wanted { route, path, mut asked, opening } = wanted;
        let arguments = std::mem::take(&mut asked.arguments);
        let deadline = Instant::now() + Duration::from_secs(api.target.limits.timeout_secs);
        let draft = api.draft(parts.method.clone(), path, asked, self.traceparent.filter(|_| api.target.trace));
        let now = self.authority.now();
        let watch = Stopwatch::start();
        let exchanged = tokio::select! {
            biased;
            over = caller.wait_over() => Err((CallStatus::Withheld, Refusal::Late(Stop::Over(over).words()))),
            () = tokio::time::sleep_until(deadline) => Err((CallStatus::Timeout, Refusal::Timeout)),
            exchanged = self.exchange(api, draft, opening.as_ref().map(|(opening, _)| opening), (&released, now)) => exchanged,
        };
        let (needles, response) = match exchanged {
            Ok(exchanged) => exchanged,
            Err((status, refusal)) => {
                released.record(status.into());
                return Err(refusal);
            }
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            api.injector.refused(caller.task());
        }
        let left = u64::try_from(caller.claims().expires_at.0.saturating_sub(now.secs())).unwrap_or(0);
        let expires = Instant::now() + Duration::from_secs(left);
        let ties = Ties { caller, released, spent, slot, room, stopping: self.stopping.clone(), expires, deadline, needles };
        let method = parts.method.clone();
        let passed = match opening.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
            Some((opening, reloads)) => {
                let (authority, observer) = (self.authority.clone(), Arc::clone(&self.observer));
                let socket = Socket { authority, observer, ties, arguments, reloads, decided: Decided::of(api, route) };
                socket.open(&opening, Request::from_parts(parts, ()), response)
            }
            None => pass(response, (api, route, &method), ties).await,
        };
        watch.stop(&*self.observer, Stage::Upstream);
        match passed {
            Ok(response) => Ok(response),
            Err(stop @ Stop::Over(_)) => Err(Refusal::Late(stop.words())),
            Err(Stop::Timeout) => Err(Refusal::Timeout),
            Err(stop) => {
                tracing::warn!(target = %api.target.name, why = stop.words(), "the answer of an API was withheld");
                Err(Refusal::Withheld(stop.words()))
            }
        }
    }
}

impl Inner {
    /// Puts the credential on and sends. Gives the answer, and what must not be in it.
    async fn exchange(
        &self,
        api: &Api,
        mut draft: Draft,
        opening: Option<&Opening>,
        (released, now): (&Released, Timestamp),
    ) -> Result<(Arc<Needles>, Response<Incoming>), (CallStatus, Refusal)> {
        let needles = api.injector.inject(&mut draft, released.live().task().id, now).await.map_err(|fault| {
            tracing::error!(target = %api.target.name, %fault, "the credential of an API cannot be had");
            (CallStatus::UpstreamError, Refusal::NoCredential)
        })?;
        // A token may have had to be fetched first. INVARIANT(policy-stands)
        if !released.stands() || !self.describes(api) {
            return Err((CallStatus::NotReleased, Admission::Over(Over::PolicyChanged).into()));
        }
        opening.into_iter().for_each(|opening| opening.ask(&mut draft.headers));
        let response = api.send(draft).await.map_err(|why| {
            tracing::warn!(target = %api.target.name, %why, "an API cannot be reached");
            (CallStatus::UpstreamError, Refusal::Unreachable)
        })?;
        Ok((needles, response))
    }

    /// Whether the policy in force means this description by its names. A request is read by the one that there was when it
    /// arrived, and its body may take its time.
    fn describes(&self, api: &Api) -> bool {
        !api.replaced.is_cancelled() && Arc::ptr_eq(&self.table.load().policy, &self.authority.policy())
    }
}

impl From<Overdrawn> for Refusal {
    fn from(overdrawn: Overdrawn) -> Self {
        match overdrawn {
            Overdrawn::Requests(secs) => Self::TooMany(secs),
            Overdrawn::Bytes => Self::Bytes,
        }
    }
}

impl Api {
    fn new(target: HttpTarget, policy: Arc<Policy>, inner: &Inner) -> Result<Self, rustls::Error> {
        let resource = inner.authority.http_resource_uri(&target.name);
        Ok(Self {
            client: client(&target.origin, &target.addresses, &target.roots, Arc::clone(&inner.lookup))?,
            injector: Injector::new(&target, Arc::clone(&inner.lookup))?,
            metadata: token::oauth::metadata::resource_metadata_url(&resource).unwrap_or_default(),
            scope: format!("http:{}", target.name),
            replaced: CancellationToken::new(),
            reloads: watch::Sender::new(Reload { number: 0, policy }),
            resource,
            target,
        })
    }

    fn draft(&self, method: Method, path: String, asked: Asked, trace: Option<fn() -> Option<String>>) -> Draft {
        let Asked { query, mut headers, body, .. } = asked;
        // Only ours, and only if the operator wants it there: one that the task chose would be text that no policy sees.
        if let Some(trace) = trace.and_then(|current| HeaderValue::try_from(current()?).ok()) {
            headers.insert(TRACE, trace);
        }
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        headers.insert(USER_AGENT, AGENT);
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let origin = &self.target.origin;
        Draft { method, https: origin.https, authority: origin.authority(), path, query, headers, body }
    }

    async fn send(&self, draft: Draft) -> Result<Response<Incoming>, String> {
        let uri = draft.url().parse().map_err(|_| "its URL cannot be written".to_owned())?;
        let mut request = Request::new(Full::new(draft.body));
        *request.method_mut() = draft.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = draft.headers;
        self.client.request(request).await.map_err(|error| cause(&error))
    }

    /// Where an answer sends the task: a place of this API becomes the endpoint's own path, another one stays as it is, for
    /// the task to reach by itself, without the credential.
    pub(crate) fn relocated(&self, location: &HeaderValue) -> HeaderValue {
        let text = location.to_str().unwrap_or_default();
        let path = text.strip_prefix(self.target.origin.url().as_str()).unwrap_or(text);
        let ours = path.starts_with('/') && !path.starts_with("//");
        let below = path.strip_prefix(self.target.base.as_str()).filter(|below| ours && below.starts_with('/'));
        let own = below.map(|below| format!("/http/{}{below}", self.target.name));
        own.and_then(|own| HeaderValue::from_str(&own).ok()).unwrap_or_else(|| location.clone())
    }
}

/// What no request may carry, whatever the route says.
fn check_headers(headers: &HeaderMap, api: &Api, route: &Route) -> Result<(), Refusal> {
    for name in headers.keys() {
        let declared = route.headers.contains_key(name) || route.pass_headers.contains(name);
        if api.injector.header() == Some(name) && name != http::header::AUTHORIZATION {
            return Err(Refusal::Foreign(format!("header `{name}` carries the gateway's credential; do not send it")));
        }
        if is_credential(name) && !declared {
            return Err(Refusal::Foreign(format!(
                "header `{name}` carries a credential that is not this task's; do not send it"
            )));
        }
    }
    let text = |name: HeaderName| {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase()).collect::<Vec<_>>()
    };
    let socket = route.websocket.is_some();
    let harmless = |word: &str| matches!(word.trim(), "" | "close" | "keep-alive" | "te") || (socket && word.trim() == "upgrade");
    if !text(CONNECTION).iter().all(|value| value.split(',').all(harmless)) {
        return Err(Refusal::Request("the Connection header lists headers of the request".into()));
    }
    if headers.contains_key(UPGRADE) && !socket {
        return Err(Refusal::Request("this route does not change the protocol".into()));
    }
    if !text(CONTENT_ENCODING).iter().all(|value| value == "identity") {
        return Err(Refusal::Request("the body must not be encoded".into()));
    }
    Ok(())
}

/// Whether a header is one in which clients send credentials.
fn is_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    if matches!(name, "authorization" | "dpop") {
        return false;
    }
    let words = ["authorization", "cookie", "api-key", "apikey", "access-key", "secret", "token", "password", "credential"];
    words.iter().any(|word| name.contains(word)) || name.ends_with("-auth") || name.ends_with("-session") || name == "x-auth"
}

/// Whether a query holds a field of this name, in any spelling.
fn names_field(query: Option<&str>, field: &str) -> bool {
    let fields = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    fields.into_iter().any(|(name, _)| alike(&name, field))
}
