//! Connections to one API: to its configured host and port, over TLS with exactly that name, at an address that was checked
//! when it was resolved, and nowhere else. No proxy, no redirect, HTTP/1.1 only (one request at a time on a connection).
//! Knows no secret and no request.

use super::address::{Network, may_connect};
use super::config::Origin;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Most idle connections to one API.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// Most headers of an answer, and the largest head, in bytes.
const HEADERS_MAX: usize = 128;
const HEAD_BYTES_MAX: usize = 128 * 1_024;

/// From names to addresses. A port, so that tests can rebind a name.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of a host.
    ///
    /// # Errors
    /// The name does not resolve.
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Resolves a name once for each connection; the connection goes to exactly the addresses that were checked here.
#[derive(Clone)]
pub(crate) struct CheckedLookup {
    lookup: Arc<dyn Lookup>,
    named: Arc<[Network]>,
}

impl Service<Name> for CheckedLookup {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let found = this.lookup.addresses(name.as_str()).await?;
            // One address of ours among those of others is somebody who tries; none of them is used then.
            if found.is_empty() || !found.iter().all(|address| may_connect(*address, &this.named)) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "its name leads to an address that is not allowed"));
            }
            Ok(found.into_iter().map(|address| SocketAddr::new(address, 0)).collect::<Vec<_>>().into_iter())
        })
    }
}

/// A client for one origin.
pub(crate) type OriginClient = Client<HttpsConnector<HttpConnector<CheckedLookup>>, Full<Bytes>>;

/// A client that connects to `origin` at public addresses and those of `named`, and trusts `roots` (DER), or the public
/// roots if there are none.
///
/// # Errors
/// A root is no certificate.
pub(crate) fn client(
    origin: &Origin,
    named: &[Network],
    roots: &[Vec<u8>],
    lookup: Arc<dyn Lookup>,
) -> Result<OriginClient, rustls::Error> {
    let mut store = rustls::RootCertStore::empty();
    for der in roots {
        store.add(CertificateDer::from(der.clone()))?;
    }
    if roots.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new_with_resolver(CheckedLookup { lookup, named: named.into() });
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_MAX));
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
    let builder = if origin.https { builder.https_only() } else { builder.https_or_http() };
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .http1_max_headers(HEADERS_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .build(builder.enable_http1().wrap_connector(tcp)))
}

/// The last words of an error: the chain above them only repeats that there was one.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
