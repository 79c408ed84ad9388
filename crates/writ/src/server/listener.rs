//! The one listener: accepts connections, speaks TLS if it is configured, and hands each request to the data plane
//! (`/mcp/*`, `/http/*`) or the control plane (all else). Owns limits of connections and the graceful end; decides nothing.

use super::metrics::Metrics;
use super::patience::{Answer, Limits, Over, Patience, Taken};
use crate::config::{Server, Tls};
use anyhow::Context;
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use control::Connection;
use gateway::http::HttpApis;
use gateway::{ConnectionInfo, Gateway};
use http::header::HOST;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::Instrument;

/// Longest time for a TLS handshake, and for the head of a request. The first one is counted from the beginning of the
/// connection, whatever it speaks.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEAD_MAX: Duration = Duration::from_secs(15);
/// Longest time that an HTTP/2 connection is kept without any stream: answering our pings is no use of it. Longer than
/// clients keep what they may use again.
const IDLE_MAX: Duration = Duration::from_secs(180);
/// Largest head of a request, in bytes: a token, a proof and a few headers.
const HEAD_BYTES_MAX: usize = 64 * 1_024;
/// Requests at one time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// After a failed accept (no file descriptors left), how long to wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where requests go.
#[derive(Clone)]
pub(crate) struct Planes {
    /// `/mcp/*`.
    pub(crate) gateway: Gateway,
    /// `/http/*`.
    pub(crate) apis: HttpApis,
    /// All else.
    pub(crate) control: Router,
    /// The names under which the control plane answers.
    pub(crate) names: Arc<Names>,
}

/// Values of `Host` under which the control plane answers: a page that rebound its own name to our address is not meant
/// for us. The data plane checks its own.
#[derive(Debug)]
pub(crate) struct Names {
    /// Known values, lower case, with the port if there is one.
    hosts: Vec<String>,
    /// Whether loopback names count, because we listen there only.
    loopback: bool,
}

impl Names {
    /// The names of a configured server.
    pub(crate) fn of(server: &Server) -> Self {
        let mut hosts: Vec<String> = server.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        if let Some((_, authority)) = server.public_url.split_once("://") {
            hosts.push(authority.to_ascii_lowercase());
        }
        Self { hosts, loopback: server.listen.ip().is_loopback() }
    }

    fn include(&self, request: &Request<Incoming>) -> bool {
        let path = request.uri().path();
        // What is public anyway may be asked by address, as probes and scrapers do.
        if matches!(path, "/healthz" | "/readyz" | "/metrics") || path.starts_with("/log/") {
            return true;
        }
        let mut given = request.headers().get_all(HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, None) => request.uri().authority().map(http::uri::Authority::as_str),
            _ => None,
        };
        host.is_some_and(|host| self.knows(&host.to_ascii_lowercase()))
    }

    fn knows(&self, host: &str) -> bool {
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(host, |(name, _)| name);
        self.hosts.iter().any(|known| known == host) || (self.loopback && matches!(name, "localhost" | "127.0.0.1" | "[::1]"))
    }
}

/// The listener, ready to accept.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<Certificates>>,
    slots: Arc<Semaphore>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// Over a bound socket.
    pub(crate) fn new(tcp: TcpListener, tls: Option<Arc<Certificates>>, settings: &Server, metrics: Arc<Metrics>) -> Self {
        let stalled = Duration::from_secs(settings.stalled_secs);
        let limits = Limits { first: HEAD_MAX, idle: IDLE_MAX, stalled };
        Self { tcp, tls, slots: Arc::new(Semaphore::new(settings.connections_max)), limits, metrics }
    }

    /// Accepts until `stopping`, then lets open connections finish what they do for at most `patience`.
    pub(crate) async fn serve(self, planes: Planes, stopping: CancellationToken, patience: Duration) {
        let connections = TaskTracker::new();
        let Self { tls, limits, metrics, .. } = self;
        let opened = Arc::new(Opened { tls, planes, builder: builder(), limits, stopping: stopping.clone(), metrics });
        loop {
            let slot = tokio::select! {
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
                () = stopping.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                () = stopping.cancelled() => break,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let opened = Arc::clone(&opened);
            connections.spawn(async move {
                let _slot = slot;
                opened.metrics.connections.inc();
                opened.connection(stream, remote).await;
                opened.metrics.connections.dec();
            });
        }
        drop(self.tcp);
        connections.close();
        if tokio::time::timeout(patience, connections.wait()).await.is_err() {
            tracing::warn!("some connections were still open when the server stopped");
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// What every connection needs.
struct Opened {
    tls: Option<Arc<Certificates>>,
    planes: Planes,
    builder: Builder<TokioExecutor>,
    limits: Limits,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Opened {
    async fn connection(&self, stream: TcpStream, remote: SocketAddr) {
        // Small messages must not wait for more to come.
        let _ = stream.set_nodelay(true);
        let stream = Taken::new(stream, self.limits.stalled);
        let Some(tls) = &self.tls else {
            return self.requests(stream, Connection::new(remote, Vec::new())).await;
        };
        match tokio::time::timeout(HANDSHAKE_MAX, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
                self.requests(stream, Connection::new(remote, chain)).await;
            }
            Ok(Err(error)) => tracing::debug!(%remote, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%remote, "a TLS handshake took too long"),
        }
    }

    async fn requests<I>(&self, io: I, connection: Connection)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let remote = connection.remote;
        let answer = |request| traced(self.planes.clone(), connection.clone(), request);
        match serve(&self.builder, io, answer, (self.limits, &self.stopping)).await {
            Ok(()) => {}
            Err(Ended::Early(error)) => tracing::debug!(?remote, %error, "a connection ended early"),
            Err(Ended::NotWaitedFor(why)) => tracing::debug!(?remote, ?why, "a connection was dropped"),
        }
    }
}

/// Why a connection did not end well.
enum Ended {
    /// Its peer broke off or broke a rule.
    Early(Box<dyn std::error::Error + Send + Sync>),
    /// It was not waited for any longer.
    NotWaitedFor(Over),
}

/// Serves a connection for as long as it is worth its slot. One without streams, and each when the server stops, is told to
/// go; what it has under way ends well.
async fn serve<I, A, F>(
    builder: &Builder<TokioExecutor>,
    io: I,
    answer: A,
    (limits, stopping): (Limits, &CancellationToken),
) -> Result<(), Ended>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let patience = Patience::new(limits);
    let service = service_fn(|request: Request<Incoming>| {
        let open = patience.begin(request.version());
        let answered = answer(request);
        async move {
            let response = answered.await?;
            Ok::<_, Infallible>(match open {
                Some(open) => response.map(|body| Body::new(Answer::new(body, open))),
                None => response,
            })
        }
    });
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    let mut leaving = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut served => return ended.map_err(Ended::Early),
            why = patience.over() => {
                if why != Over::Idle || leaving {
                    return Err(Ended::NotWaitedFor(why));
                }
                patience.renew();
            }
            () = stopping.cancelled(), if !leaving => {}
        }
        leaving = true;
        served.as_mut().graceful_shutdown();
    }
}

/// Answers one request within a span of its own (OpenTelemetry's names for HTTP servers). A debug span, so that it costs
/// nothing unless traces are wanted.
async fn traced(planes: Planes, connection: Connection, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let span = super::trace_context::of_request(&request);
    let response = answer(planes, connection, request).instrument(span.clone()).await;
    response.inspect(|answered| {
        span.record("http.response.status_code", answered.status().as_u16());
    })
}

async fn answer(planes: Planes, connection: Connection, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    if path.starts_with("/mcp/") || path.starts_with("/http/") {
        let remote = connection.remote.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let info = ConnectionInfo { certificate: connection.thumbprint, remote };
        if path.starts_with("/http/") {
            return Ok(Box::pin(planes.apis.handle(request, info)).await.map(Body::new));
        }
        // In a box, because everything around it moves this future: whole, it has many thousand bytes.
        return Ok(Box::pin(planes.gateway.handle(request, info)).await.map(Body::new));
    }
    if !planes.names.include(&request) {
        let mut response = Response::new(Body::from("this host name is not served here\n"));
        *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        return Ok(response);
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(connection);
    planes.control.oneshot(request).await
}

/// The certificate and key of the listener, which can be renewed while it serves.
pub(crate) struct Certificates {
    settings: Tls,
    current: ArcSwap<TlsAcceptor>,
}

impl Certificates {
    /// As the configured files have them now.
    ///
    /// # Errors
    /// As [`Certificates::renew`].
    pub(crate) fn read(settings: &Tls) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { settings: settings.clone(), current: ArcSwap::from_pointee(tls(settings)?) }))
    }

    /// Reads the files again, for connections from now on.
    ///
    /// # Errors
    /// They cannot be read or do not fit: then the ones before stay.
    pub(crate) fn renew(&self) -> anyhow::Result<()> {
        self.current.store(Arc::new(tls(&self.settings)?));
        Ok(())
    }

    fn acceptor(&self) -> Arc<TlsAcceptor> {
        self.current.load_full()
    }
}

/// TLS as configured.
///
/// # Errors
/// The certificate or key cannot be read or do not fit; others than its owner can read the key.
fn tls(settings: &Tls) -> anyhow::Result<TlsAcceptor> {
    let shown = || format!("the certificates in `{}`", settings.cert.display());
    let chain = CertificateDer::pem_file_iter(&settings.cert).with_context(shown)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().with_context(shown)?;
    let key = crate::key_file::read(&settings.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).with_context(|| format!("the key in `{}`", settings.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if settings.request_client_certs {
        builder.with_client_cert_verifier(Arc::new(PossessionOnly(provider)))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).context("the TLS certificate and key")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes any client certificate whose key the handshake proves. Whom it names and whether that counts is decided per
/// request, against the trust bundle of the moment (design §5): a certificate here is evidence, not a login.
#[derive(Debug)]
struct PossessionOnly(Arc<CryptoProvider>);

impl ClientCertVerifier for PossessionOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use bytes::Bytes;
    use futures_util::StreamExt;
    use http_body_util::BodyExt;
    use hyper::client::conn::http2::{self, SendRequest};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinHandle;

    /// Long enough for anything that does come about.
    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(40);
    const PATIENT: Limits = Limits { first: LONG, idle: LONG, stalled: LONG };
    /// More than any buffer here holds.
    const LARGE: usize = 1_000_000;

    /// A connection to a server that answers with what `answer` makes. Gives the client's end of it, and how it ended.
    fn connect<F>(limits: Limits, answer: F) -> (DuplexStream, JoinHandle<Option<Over>>)
    where
        F: Fn() -> Body + Send + Sync + 'static,
    {
        let (peer, ours) = tokio::io::duplex(1_024);
        let served = async move {
            let answer = |_| std::future::ready(Ok(Response::new(answer())));
            let ours = Taken::new(ours, limits.stalled);
            let stopping = CancellationToken::new();
            match serve(&builder(), ours, answer, (limits, &stopping)).await {
                Err(Ended::NotWaitedFor(why)) => Some(why),
                Err(Ended::Early(error)) if format!("{error:?}").contains("TimedOut") => Some(Over::Stalled),
                Ok(()) | Err(Ended::Early(_)) => None,
            }
        };
        (peer, tokio::spawn(served))
    }

    /// How it ended, which it must.
    async fn end(served: JoinHandle<Option<Over>>) -> Option<Over> {
        tokio::time::timeout(LONG, served).await.unwrap().unwrap()
    }

    /// A client of HTTP/2 that answers pings whatever it reads.
    async fn client(peer: DuplexStream) -> SendRequest<Body> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let windows = builder.initial_stream_window_size(1_000).initial_connection_window_size(100_000);
        let (sender, connection) = windows.handshake(TokioIo::new(peer)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn get() -> Request<Body> {
        Request::get("http://h/").body(Body::empty()).unwrap()
    }

    /// A stream that says something, nothing for a while, and something again.
    fn news() -> Body {
        let second = async {
            tokio::time::sleep(SHORT * 5).await;
            Bytes::from_static(b"two")
        };
        let first = futures_util::stream::once(std::future::ready(Bytes::from_static(b"one")));
        Body::from_stream(first.chain(futures_util::stream::once(second)).map(Ok::<_, Infallible>))
    }

    #[tokio::test]
    async fn a_connection_that_asks_for_nothing_is_dropped() {
        for sent in [&b""[..], b"PRI * HT", b"GET / HT", b"PRI * HTTP/2.0\r\n\r\n"] {
            let (mut peer, served) = connect(Limits { first: SHORT, ..PATIENT }, Body::empty);
            peer.write_all(sent).await.unwrap();
            assert_eq!(end(served).await, Some(Over::Silent), "{:?}", String::from_utf8_lossy(sent));
        }
        let (mut peer, served) = connect(PATIENT, Body::empty);
        peer.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        peer.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        drop(peer);
        assert_eq!(end(served).await, None);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_answer_is_dropped() {
        let (mut peer, served) = connect(Limits { stalled: SHORT, ..PATIENT }, || Body::from(vec![0; LARGE]));
        peer.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        assert_eq!(end(served).await, Some(Over::Stalled));
    }

    #[tokio::test]
    async fn a_client_of_http_2_that_grants_no_window_is_dropped() {
        // Also where all that is left fits into what the connection buffers by itself.
        for size in [LARGE, 1_500] {
            let (peer, served) = connect(Limits { stalled: SHORT, ..PATIENT }, move || Body::from(vec![0; size]));
            let mut sender = client(peer).await;
            let unread = sender.send_request(get()).await.unwrap();
            assert_eq!(end(served).await, Some(Over::Stalled), "{size}");
            drop(unread);
        }
    }

    #[tokio::test]
    async fn a_stream_without_news_is_neither_stalled_nor_idle() {
        let limits = Limits { stalled: SHORT, idle: SHORT, ..PATIENT };
        let (mut peer, served) = connect(limits, news);
        peer.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut heard = String::new();
        peer.read_to_string(&mut heard).await.unwrap();
        assert!(heard.contains("one") && heard.contains("two"), "{heard}");
        assert_eq!(end(served).await, None);

        let (peer, served) = connect(limits, news);
        let mut sender = client(peer).await;
        let heard = sender.send_request(get()).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(heard.to_bytes().as_ref(), b"onetwo");
        assert_eq!(end(served).await, None, "then it is idle, and goes when it is told to");
    }

    #[tokio::test]
    async fn an_http_2_connection_that_only_answers_pings_is_told_to_go() {
        let (peer, served) = connect(Limits { idle: SHORT, ..PATIENT }, Body::empty);
        let mut sender = client(peer).await;
        assert!(sender.send_request(get()).await.unwrap().status().is_success());
        assert_eq!(end(served).await, None);
        assert!(sender.ready().await.is_err());
    }

    #[tokio::test]
    async fn one_that_does_not_go_is_dropped() {
        let (mut peer, served) = connect(Limits { idle: SHORT, ..PATIENT }, Body::empty);
        // Settings; a request; and then not a word, not even an answer to the ping that comes with GOAWAY.
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        peer.write_all(b"\0\0\x03\x01\x05\0\0\0\x01\x82\x84\x86").await.unwrap();
        assert_eq!(end(served).await, Some(Over::Idle));
    }

    #[tokio::test]
    async fn an_answer_in_parts_is_whole() {
        for size in [0, 1, 2, 16 * 1_024, 16 * 1_024 + 1, 100_000] {
            let sent: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let answer = sent.clone();
            let (peer, served) = connect(PATIENT, move || Body::from(answer.clone()));
            let mut sender = client(peer).await;
            let response = sender.send_request(get()).await.unwrap();
            let length = response.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
            assert_eq!(length.unwrap_or_default(), if size == 0 { String::new() } else { size.to_string() });
            assert!(response.into_body().collect().await.unwrap().to_bytes() == sent, "{size}");
            drop(sender);
            assert_eq!(end(served).await, None);
        }
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let names = Names { hosts: vec!["writ.example.com".into(), "writ.internal:8443".into()], loopback: false };
        for (host, known) in [
            ("writ.example.com", true),
            ("writ.internal:8443", true),
            ("writ.internal", false),
            ("writ.example.com.evil.example", false),
            ("evil.example", false),
            ("127.0.0.1", false),
            ("localhost:8700", false),
            ("", false),
        ] {
            assert_eq!(names.knows(host), known, "{host}");
        }
        let local = Names { hosts: Vec::new(), loopback: true };
        assert!(local.knows("localhost:8700") && local.knows("127.0.0.1:1") && local.knows("[::1]:8700") && local.knows("[::1]"));
        assert!(!local.knows("localhost.evil.example") && !local.knows("127.0.0.1.evil.example:8700"));
    }
}
