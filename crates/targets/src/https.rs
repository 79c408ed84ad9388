//! The one HTTPS client of the kinds that speak to an HTTP API. Owns what could go wrong on the way: TLS to the configured
//! host alone, no redirects (a secret would go along), a bound on time and on the size of an answer, plain HTTP only on
//! loopback or where the operator allowed it. What is asked, and what an answer means, is the kind's business.

use crate::config::Section;
use authority::target::TargetError;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;

/// Longest time for one exchange, if the target file says nothing else.
const TIMEOUT_SECS: u64 = 10;
/// Largest answer that is read, in bytes: a list of what stands at a target fits.
const ANSWER_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// A server, and how it is reached. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct Https {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    scheme: Scheme,
    authority: Authority,
    base_path: String,
    timeout: Duration,
}

/// Where a server is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its URL: scheme, host, port, and a path that stands before every path that is asked.
    pub url: String,
    /// Certificates to trust instead of the public roots, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Whether plain HTTP is allowed beyond loopback.
    pub allow_http: bool,
    /// Longest time for one exchange.
    pub timeout: Duration,
}

impl Place {
    /// The place that a table of a target file says: `url`, `ca_file`, `timeout_secs`, `allow_http`.
    #[must_use]
    pub fn read(section: &Section<'_>, default_url: Option<&str>) -> Self {
        let url = match default_url {
            Some(default) => section.text_if("url").unwrap_or_else(|| default.to_owned()),
            None => section.text("url", "https://host"),
        };
        Self {
            url,
            ca_pem: section.file_if("ca_file"),
            allow_http: section.flag("allow_http", false),
            timeout: section.seconds("timeout_secs", 1..=60, TIMEOUT_SECS),
        }
    }

    /// A client for the server of a table within `section`, or for the public one if there is no such table.
    pub(crate) fn within(section: &Section<'_>, key: &str, default_url: &str) -> Option<Https> {
        match section.section(key) {
            Some(own) => Self::read(&own, Some(default_url)).open(&own),
            None => {
                let timeout = Duration::from_secs(TIMEOUT_SECS);
                let public = Self { url: default_url.to_owned(), ca_pem: None, allow_http: false, timeout };
                Https::new(&public).map_err(|(_, message)| section.fault(key, message, "")).ok()
            }
        }
    }

    /// A client for it; what is wrong with it becomes a fault of the key `url` or `ca_file`.
    #[must_use]
    pub fn open(&self, section: &Section<'_>) -> Option<Https> {
        // A key that is missing was already said.
        if self.url.is_empty() {
            return None;
        }
        Https::new(self).map_err(|(key, message)| section.fault(key, message, "")).ok()
    }
}

/// An answer, read as a whole.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body. It may hold a secret: never log it.
    pub body: Bytes,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`TargetError::Refused`]: it is not what the API promises. The message names no value of it.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, TargetError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            TargetError::Refused(format!("its answer is not the JSON that was expected (line {line}, column {column})"))
        })
    }

    /// The error for a status that was not wanted: without the body, which may hold anything.
    #[must_use]
    pub fn unwanted(&self, what: &str) -> TargetError {
        let status = self.status;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            TargetError::Unreachable(format!("{what} was answered with {status}"))
        } else {
            TargetError::Refused(format!("{what} was answered with {status}"))
        }
    }
}

impl Https {
    /// A client for one place.
    ///
    /// # Errors
    /// The key at fault, and why.
    pub fn new(place: &Place) -> Result<Self, (&'static str, String)> {
        let url = url::Url::parse(&place.url).map_err(|error| ("url", format!("`{}` is not a URL: {error}", place.url)))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(("url", "a user, password, query or fragment cannot stand in the URL".to_owned()));
        }
        let scheme = match url.scheme() {
            "https" => Scheme::HTTPS,
            "http" if place.allow_http || is_loopback(&url) => Scheme::HTTP,
            _ => return Err(("url", format!("`{}` must be `https`, or `http` on a loopback address", place.url))),
        };
        let authority = url.authority().parse().map_err(|_| ("url", format!("`{}` names no host", place.url)))?;
        let tls = tls_config(place.ca_pem.as_deref()).map_err(|message| ("ca_file", message))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let base_path = url.path().trim_end_matches('/').to_owned();
        Ok(Self { client, scheme, authority, base_path, timeout: place.timeout })
    }

    /// The host (and port, where one is named) as the `Host` header says it.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// The path that stands before every path that is asked.
    #[must_use]
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// One exchange. `path` begins with `/`, may have a query, and is encoded already. Mark headers with secrets as
    /// sensitive.
    ///
    /// # Errors
    /// [`TargetError::Unreachable`]: no whole answer; whether it was done is unknown. [`TargetError::Unacceptable`]:
    /// `path` is none, and nothing was sent.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Answer, TargetError> {
        let request = self.request(method, path, headers, body.into())?;
        let exchange = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| TargetError::Unreachable(cause(&error)))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let broken = |_| TargetError::Unreachable(format!("its answer broke off or has more than {ANSWER_BYTES_MAX} bytes"));
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.map_err(broken)?.to_bytes() })
        };
        let slow = |_| TargetError::Unreachable(format!("no whole answer within {} seconds", self.timeout.as_secs()));
        tokio::time::timeout(self.timeout, exchange).await.map_err(slow)?
    }

    fn request(&self, method: Method, path: &str, headers: HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>, TargetError> {
        let unfit = || TargetError::Unacceptable("a path at the target cannot be written as a URL".to_owned());
        // The host is never part of what is put together, so that no path can move a request elsewhere.
        let path: PathAndQuery = format!("{}{path}", self.base_path).parse().map_err(|_| unfit())?;
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.build().map_err(|_| unfit())?;
        *request.headers_mut() = headers;
        let agent = header::HeaderValue::from_static(concat!("writ/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
        Ok(request)
    }
}

/// A member of an answer that is a secret, for `#[serde(deserialize_with)]`.
pub(crate) fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<secrecy::SecretString, D::Error> {
    <String as serde::Deserialize>::deserialize(from).map(Into::into)
}

/// TLS 1.2 or 1.3 with the given certificates, or the public roots.
fn tls_config(ca_pem: Option<&[u8]>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| format!("it is not PEM: {error}"))?;
                roots.add(certificate).map_err(|error| format!("it holds a certificate that cannot be trusted: {error}"))?;
            }
            if roots.is_empty() {
                return Err("it holds no certificate".to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An error and its causes in one line. Those of a client name hosts and TLS faults, never headers or bodies.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
