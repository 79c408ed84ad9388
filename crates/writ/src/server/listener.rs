//! The one listener: accepts connections, speaks TLS if it is configured, and hands each request to the data plane
//! (`/mcp/*`, `/http/*`) or the control plane (all else). Owns limits of connections and the graceful end; decides nothing.

use super::metrics::Metrics;
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
use hyper_util::server::graceful::GracefulShutdown;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::Instrument;

/// Longest time for a TLS handshake, and for the head of a request. The first one is counted from the beginning of the
/// connection, whatever it speaks.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEAD_MAX: Duration = Duration::from_secs(15);
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
    metrics: Arc<Metrics>,
}

impl Listener {
    /// Over a bound socket.
    pub(crate) fn new(tcp: TcpListener, tls: Option<Arc<Certificates>>, connections_max: usize, metrics: Arc<Metrics>) -> Self {
        Self { tcp, tls, slots: Arc::new(Semaphore::new(connections_max)), metrics }
    }

    /// Accepts until `stopping`, then lets open connections finish what they do for at most `patience`.
    pub(crate) async fn serve(self, planes: Planes, stopping: CancellationToken, patience: Duration) {
        let graceful = GracefulShutdown::new();
        let opened = Arc::new(Opened { tls: self.tls, planes, builder: builder(), metrics: self.metrics });
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
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                let _slot = slot;
                opened.metrics.connections.inc();
                opened.connection(stream, remote, watcher).await;
                opened.metrics.connections.dec();
            });
        }
        drop(self.tcp);
        if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
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
    metrics: Arc<Metrics>,
}

impl Opened {
    async fn connection(&self, stream: TcpStream, remote: SocketAddr, watcher: hyper_util::server::graceful::Watcher) {
        // Small messages must not wait for more to come.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.requests(TokioIo::new(stream), Connection::new(remote, Vec::new()), watcher).await;
        };
        match tokio::time::timeout(HANDSHAKE_MAX, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
                self.requests(TokioIo::new(stream), Connection::new(remote, chain), watcher).await;
            }
            Ok(Err(error)) => tracing::debug!(%remote, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%remote, "a TLS handshake took too long"),
        }
    }

    async fn requests<I>(&self, io: I, connection: Connection, watcher: hyper_util::server::graceful::Watcher)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let remote = connection.remote;
        let begun = Notify::new();
        let service = service_fn(|request| {
            begun.notify_one();
            traced(self.planes.clone(), connection.clone(), request)
        });
        let served = watcher.watch(self.builder.serve_connection_with_upgrades(io, service));
        match unless_silent(served, &begun, HEAD_MAX).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(?remote, %error, "a connection ended early"),
            None => tracing::debug!(?remote, "a connection asked for nothing in time"),
        }
    }
}

/// Serves a connection; `None` if no request has `begun` within `patience`, and then it is dropped. As long as it is not
/// known whether a connection speaks HTTP/1 or 2, no other limit holds, and silence would keep its slot for ever.
async fn unless_silent<T>(served: impl Future<Output = T>, begun: &Notify, patience: Duration) -> Option<T> {
    let silent = async {
        if tokio::time::timeout(patience, begun.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        served = served => Some(served),
        () = silent => None,
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Whether a connection is dropped whose peer sends this and then nothing.
    async fn is_dropped(sent: &[u8], patience: Duration) -> bool {
        let (mut peer, ours) = tokio::io::duplex(1_024);
        peer.write_all(sent).await.unwrap();
        let begun = Notify::new();
        let service = service_fn(|_| {
            begun.notify_one();
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        });
        let builder = builder();
        let served = unless_silent(builder.serve_connection_with_upgrades(TokioIo::new(ours), service), &begun, patience);
        let served = tokio::time::timeout(Duration::from_secs(10), served);
        let answered = async {
            let mut start = [0; 12];
            // Its own end, so that only silence is told apart.
            if peer.read_exact(&mut start).await.is_ok() && start == *b"HTTP/1.1 200" {
                peer.shutdown().await.unwrap();
            }
        };
        let (ended, ()) = tokio::join!(served, answered);
        ended.unwrap().is_none()
    }

    #[tokio::test]
    async fn a_connection_that_asks_for_nothing_is_dropped() {
        for sent in [&b""[..], b"PRI * HT", b"GET / HT", b"PRI * HTTP/2.0\r\n\r\n"] {
            assert!(is_dropped(sent, Duration::from_millis(20)).await, "{:?}", String::from_utf8_lossy(sent));
        }
        assert!(!is_dropped(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", Duration::from_secs(10)).await);
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
