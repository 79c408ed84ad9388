//! Requests of this binary to others: key documents of identity providers, the REST API and token endpoint of a server.
//! Guards against what a remote side could do: no redirects, size and time caps, `https` or loopback only. What is asked
//! and which credential goes along is the caller's business. Streams of MCP do not pass here.

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::time::Duration;

/// Longest time that one exchange may take as a whole.
const EXCHANGE_MAX: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// It is not a place that is asked.
    #[error("`{0}` must be `https`, or `http` on a loopback address")]
    Insecure(String),
    /// It took too long.
    #[error("no whole answer within {} seconds", EXCHANGE_MAX.as_secs())]
    Slow,
    /// The server could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// It answered something else than 200.
    #[error("the server answered {0}; redirects are not followed")]
    Status(StatusCode),
    /// The answer broke off or is too large.
    #[error("the answer broke off or has more than {0} bytes")]
    Body(usize),
}

/// An answer that was read as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

/// The connector of every client in this binary.
pub(crate) type Connector = HttpsConnector<HttpConnector>;

/// A client for small exchanges. Cheap to clone: clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct Web(Client<Connector, Full<Bytes>>);

impl Web {
    /// A client that trusts the public roots.
    pub(crate) fn new() -> Self {
        Self::over(HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build())
    }

    /// A client over a connector.
    pub(crate) fn over(connector: Connector) -> Self {
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Sends a request and reads the whole answer, at most `bytes_max` large.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>, bytes_max: usize) -> Result<Answer, WebError> {
        let exchange = async {
            let response = self.0.request(request).await.map_err(|error| WebError::Unreachable(chain(&error)))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, bytes_max).collect().await.map_err(|_| WebError::Body(bytes_max))?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(EXCHANGE_MAX, exchange).await.map_err(|_| WebError::Slow)?
    }

    /// The document at `url`, at most `bytes_max` large.
    pub(crate) async fn get(&self, url: &str, bytes_max: usize) -> Result<Bytes, WebError> {
        let insecure = || WebError::Insecure(url.to_owned());
        let parsed = url::Url::parse(url).map_err(|_| insecure())?;
        if !is_secure(&parsed) {
            return Err(insecure());
        }
        let request = Request::get(parsed.as_str()).header(header::ACCEPT, "application/json");
        let answer = self.send(request.body(Full::default()).map_err(|_| insecure())?, bytes_max).await?;
        if answer.status == StatusCode::OK { Ok(answer.body) } else { Err(WebError::Status(answer.status)) }
    }
}

/// Whether what is sent to a URL stays secret on the way.
pub(crate) fn is_secure(url: &url::Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && crate::config::is_loopback(url))
}

/// A connector that trusts the certificates of a file, or the public roots if there is none.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub(crate) fn connector(ca_file: Option<&Path>) -> anyhow::Result<Connector> {
    let builder = HttpsConnectorBuilder::new();
    let builder = match ca_file {
        None => builder.with_webpki_roots(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).with_context(|| format!("trusted certificates in `{}`", path.display()))?;
            }
            builder.with_tls_config(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
        }
    };
    Ok(builder.https_or_http().enable_http1().build())
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub(crate) fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = || format!("trusted certificates in `{}`", path.display());
    let read = CertificateDer::pem_file_iter(path).with_context(shown)?;
    let found = read.collect::<Result<Vec<_>, _>>().with_context(shown)?;
    anyhow::ensure!(!found.is_empty(), "`{}` holds no certificate", path.display());
    Ok(found)
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn serving(answer: Vec<u8>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
        });
        url
    }

    #[tokio::test]
    async fn a_document_is_fetched_whole() {
        let url = serving(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()).await;
        assert_eq!(Web::new().get(&url, 10).await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let target = serving(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()).await;
        let url = serving(format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n").into_bytes()).await;
        assert!(matches!(Web::new().get(&url, 10).await, Err(WebError::Status(StatusCode::FOUND))));
    }

    #[tokio::test]
    async fn a_document_that_is_too_large_is_refused() {
        let url = serving(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n01234567890123456789".to_vec()).await;
        assert!(matches!(Web::new().get(&url, 10).await, Err(WebError::Body(10))));
    }

    #[tokio::test]
    async fn plain_http_beyond_this_machine_is_refused_before_anything_is_sent() {
        for url in ["http://issuer.example/keys", "http://10.0.0.1/keys", "file:///etc/passwd", "ftp://127.0.0.1/x", "keys"] {
            assert!(matches!(Web::new().get(url, 10).await, Err(WebError::Insecure(_))), "{url}");
        }
    }
}
