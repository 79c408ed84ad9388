//! Streamable HTTP towards upstreams: one POST per message, the answer as JSON or as a stream of events. Owns which
//! headers travel, which answers count, and the limits; knows neither eras nor sessions beyond the headers that it is
//! given. Redirects are never followed: a credential goes to the registered URL only.
//! MCP 2025-11-25 and 2026-07-28 "Streamable HTTP".

use super::credential::{self, Shown};
use super::error::UpstreamError;
use super::pool::Settings;
use crate::mcp::leaving::is_trace;
use crate::mcp::message::{Id, Message, Raw};
use crate::room::Room;
use bytes::{Bytes, BytesMut};
use domain::{Injection, Transport, Upstream};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Largest answer that is buffered, and largest event of a stream: room for embedded images, not for a disk image.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Largest body of an answer with an error status: it holds one JSON-RPC error.
const REFUSAL_BYTES_MAX: usize = 256 * 1_024;
/// How long a TCP connection may take to come about.
const CONNECT_SECS_MAX: u64 = 10;
/// How long an idle connection is kept.
const IDLE_SECS_MAX: u64 = 60;
/// Most idle connections to one upstream.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// Both forms of answer (MCP "Sending Messages").
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("writ/", env!("CARGO_PKG_VERSION")));

/// The one header of a client that an upstream sees: the ids of its trace (W3C Trace Context). Everything else stays, its
/// token first of all, and `tracestate` and `baggage` too: they are free text that no policy sees.
const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// The pool of TCP and TLS connections of all upstreams. They carry no state of a session, so tasks share them.
#[derive(Clone)]
pub(super) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    /// Trusts the public roots, and these (DER).
    pub(super) fn new(extra_roots: &[Vec<u8>]) -> Result<Self, UpstreamError> {
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for der in extra_roots {
            roots.add(CertificateDer::from(der.clone())).map_err(|_| UpstreamError::Url("an extra root is not a certificate"))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| UpstreamError::Url("TLS cannot be set up"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(CONNECT_SECS_MAX)));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(IDLE_SECS_MAX))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Ok(Self(client))
    }
}

/// One upstream's URL and what is added to each request to it.
pub(super) struct Endpoint {
    client: HttpClient,
    uri: Uri,
    injection: Option<Injection>,
    /// What it must not repeat.
    shown: Shown,
}

/// What a POST was answered with.
pub(super) enum Reply {
    /// One JSON-RPC response, complete.
    Message(Result<Raw, Raw>),
    /// A stream of events.
    Stream(Incoming),
    /// Accepted, without a body that matters.
    Accepted,
    /// A JSON-RPC error in an answer with this error status.
    Refused(StatusCode, Raw),
    /// An error status without a JSON-RPC error.
    Status(StatusCode),
}

impl Endpoint {
    /// The endpoint of an upstream that is reached over HTTP.
    pub(super) fn new(client: HttpClient, upstream: &Upstream, settings: &Settings) -> Result<Self, UpstreamError> {
        let Transport::Http { url } = &upstream.transport else {
            return Err(UpstreamError::Url("it is not reached over HTTP"));
        };
        let uri: Uri = url.parse().map_err(|_| UpstreamError::Url("it does not parse"))?;
        let host = uri.host().ok_or(UpstreamError::Url("it has no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(UpstreamError::Url("it must not hold credentials"));
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) || settings.plain_http_hosts.iter().any(|allowed| allowed == host) => {}
            Some("http") => {
                return Err(UpstreamError::Url(
                    "`http` is only allowed to loopback and hosts of `plain_http_hosts`; use `https`",
                ));
            }
            _ => return Err(UpstreamError::Url("only `https` and `http` URLs are possible")),
        }
        Ok(Self { client, uri, injection: upstream.injection.clone(), shown: Shown::default() })
    }

    /// Whether a text from the upstream holds a secret that it was sent.
    ///
    /// # Errors
    /// [`UpstreamError::SecretEchoed`].
    pub(super) fn check(&self, text: &[u8]) -> Result<(), UpstreamError> {
        if self.shown.is_in(text) { Err(UpstreamError::SecretEchoed) } else { Ok(()) }
    }

    /// Sends one message.
    pub(super) async fn post(
        &self,
        mut headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Response<Incoming>, UpstreamError> {
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, ACCEPTED);
        self.send(Method::POST, headers, body, deadline).await
    }

    /// Opens a stream of events. `None`: the upstream offers none here.
    pub(super) async fn get(&self, mut headers: HeaderMap, deadline: Instant) -> Result<Option<Incoming>, UpstreamError> {
        headers.insert(ACCEPT, EVENTS);
        let response = self.send(Method::GET, headers, Bytes::new(), deadline).await?;
        match response.status() {
            status if status.is_success() && content_is(&response, "text/event-stream") => Ok(Some(response.into_body())),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Ok(None),
            status => Err(status_error(status)),
        }
    }

    /// Ends a session.
    pub(super) async fn delete(&self, headers: HeaderMap, deadline: Instant) -> Result<(), UpstreamError> {
        self.send(Method::DELETE, headers, Bytes::new(), deadline).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        mut headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Response<Incoming>, UpstreamError> {
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        headers.insert(USER_AGENT, AGENT);
        if let Some(injection) = &self.injection {
            let (name, value) = credential::header(injection, &self.shown)?;
            headers.insert(name, value);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let response = timeout_at(deadline, self.client.0.request(request)).await.map_err(|_| UpstreamError::Timeout)?;
        response.map_err(|error| UpstreamError::Unreachable(cause(&error)))
    }
}

/// The last words of an error: the chain above them only repeats that there was one.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Whether `host` names this machine.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What an upstream may see of a client's headers: the ids of its trace, or those of `ours`, which is within it.
pub(super) fn forwarded(from: &HeaderMap, ours: Option<String>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    let ours = ours.and_then(|trace| HeaderValue::try_from(trace).ok());
    let trace = ours.or_else(|| from.get(TRACE).cloned());
    headers.extend(trace.filter(|value| is_trace(value.as_bytes())).map(|value| (TRACE, value)));
    headers
}

fn content_is(response: &Response<Incoming>, expected: &str) -> bool {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(expected)
}

fn status_error(status: StatusCode) -> UpstreamError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UpstreamError::Unauthorized(status.as_u16()),
        status if status.is_redirection() => UpstreamError::Redirected,
        status => UpstreamError::Status(status.as_u16()),
    }
}

impl Reply {
    /// Reads the answer to the request `id` (or to a notification, if `None`), for which there must be room.
    pub(super) async fn read(
        endpoint: &Endpoint,
        response: Response<Incoming>,
        id: Option<&Id>,
        (room, deadline): (&Room, Instant),
    ) -> Result<Self, UpstreamError> {
        let status = response.status();
        if status.is_redirection() || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(status_error(status));
        }
        if !status.is_success() {
            return Self::read_refusal(endpoint, response, (room, deadline)).await;
        }
        let Some(id) = id else { return Ok(Self::Accepted) };
        if content_is(&response, "text/event-stream") {
            return Ok(Self::Stream(response.into_body()));
        }
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Err(UpstreamError::Protocol("a request was accepted without an answer"));
        }
        if !content_is(&response, "application/json") {
            return Err(UpstreamError::Protocol("the answer is neither JSON nor a stream of events"));
        }
        let body = collect(response.into_body(), ANSWER_BYTES_MAX, (room, deadline)).await?;
        endpoint.check(&body)?;
        match Message::parse(&body) {
            Ok(Message::Response(answer)) if answer.id.as_ref() == Some(id) => Ok(Self::Message(answer.outcome)),
            Ok(Message::Response(answer)) if answer.id.is_none() && answer.outcome.is_err() => Ok(Self::Message(answer.outcome)),
            Ok(Message::Response(_)) => Err(UpstreamError::Protocol("the answer is to another request")),
            Ok(_) => Err(UpstreamError::Protocol("the answer is not a JSON-RPC response")),
            Err(_) => Err(UpstreamError::Protocol("the answer is not a valid JSON-RPC message")),
        }
    }

    async fn read_refusal(
        endpoint: &Endpoint,
        response: Response<Incoming>,
        limits: (&Room, Instant),
    ) -> Result<Self, UpstreamError> {
        let status = response.status();
        if !content_is(&response, "application/json") {
            return Ok(Self::Status(status));
        }
        let body = match collect(response.into_body(), REFUSAL_BYTES_MAX, limits).await {
            Ok(body) => body,
            Err(UpstreamError::TooLarge(_)) => return Ok(Self::Status(status)),
            Err(error) => return Err(error),
        };
        endpoint.check(&body)?;
        match Message::parse(&body) {
            Ok(Message::Response(answer)) => {
                Ok(answer.outcome.map_or_else(|error| Self::Refused(status, error), |_| Self::Status(status)))
            }
            _ => Ok(Self::Status(status)),
        }
    }
}

/// Reads a whole body, up to `bytes_max` and `deadline`, as far as there is room.
async fn collect(mut body: Incoming, bytes_max: usize, (room, deadline): (&Room, Instant)) -> Result<Bytes, UpstreamError> {
    if body.size_hint().lower() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        return Err(UpstreamError::TooLarge(bytes_max));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut part = room.empty();
    while let Some(chunk) = next_chunk(&mut body, deadline).await? {
        if first.len() + rest.len() + chunk.len() > bytes_max {
            return Err(UpstreamError::TooLarge(bytes_max));
        }
        if !part.cover(first.len() + rest.len() + chunk.len()) {
            return Err(UpstreamError::NoRoom);
        }
        if first.is_empty() {
            // Small answers come in one piece: no copy.
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if rest.is_empty() {
        return Ok(part.hold(first));
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(part.hold(whole.freeze()))
}

/// The next piece of a body; `None` at its end.
pub(super) async fn next_chunk(body: &mut Incoming, deadline: Instant) -> Result<Option<Bytes>, UpstreamError> {
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| UpstreamError::Timeout)?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(UpstreamError::Unreachable(cause(&error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}
