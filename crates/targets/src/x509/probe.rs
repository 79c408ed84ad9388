//! Tries a certificate at a real TLS server, as its holder would: one HTTPS request. Owns the reading of what a refusal
//! looks like: an alert, or the status with which web servers answer a certificate that they do not want.

use crate::config::Section;
use authority::target::{Acceptance, Minted, TargetError};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// Where certificates are tried.
#[derive(Debug)]
pub(super) struct Probe {
    url: http::Uri,
    roots: Arc<RootCertStore>,
}

impl Probe {
    pub(super) fn read(connect: &Section<'_>) -> Option<Self> {
        let section = connect.section("probe")?;
        let url: Option<http::Uri> = section.text("url", "https://service.internal/health").parse().ok();
        let url = url.filter(|url| url.scheme_str() == Some("https"));
        if url.is_none() {
            section.fault("url", "it must be an `https` URL", "");
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&section.file_if("ca_file").unwrap_or_default()).flatten() {
            if roots.add(certificate).is_err() {
                section.fault("ca_file", "it holds a certificate that cannot be trusted", "");
            }
        }
        if roots.is_empty() {
            section.fault("ca_file", "`ca_file` must hold the certificate of the server's authority, in PEM", "");
        }
        Some(Self { url: url?, roots: Arc::new(roots) })
    }

    pub(super) async fn run(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        let config = self.config(minted)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let answer = tokio::time::timeout(within, client.get(self.url.clone())).await;
        match answer.map_err(|_| TargetError::Unreachable("no answer in time".to_owned()))? {
            Ok(response) => Ok(match response.status() {
                StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Acceptance::Refused,
                _ => Acceptance::Accepted,
            }),
            Err(error) if has_alert(&error) => Ok(Acceptance::Refused),
            Err(_) => Err(TargetError::Unreachable("the probe's server did not answer".to_owned())),
        }
    }

    fn config(&self, minted: &Minted) -> Result<ClientConfig, TargetError> {
        let unfit = |text: &str| TargetError::Unacceptable(text.to_owned());
        let pem = ["certificate", "chain"].map(|name| minted.fields.get(name).map(String::as_str).unwrap_or_default()).concat();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|_| unfit("the certificate is not PEM"))?;
        let key =
            minted.secrets.get("private_key").ok_or_else(|| unfit("only a certificate whose key Writ made can be tried"))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes()).map_err(|_| unfit("the key is not PEM"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| unfit(&error.to_string()))?.with_root_certificates(Arc::clone(&self.roots));
        builder.with_client_auth_cert(chain, key).map_err(|_| unfit("the key does not fit the certificate"))
    }
}

/// Whether the server ended the handshake because of us: any alert, wherever in the causes it stands.
fn has_alert(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref::<rustls::Error>(), Some(rustls::Error::AlertReceived(_))) {
            return true;
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is_some_and(|inner| matches!(inner.downcast_ref::<rustls::Error>(), Some(rustls::Error::AlertReceived(_)))) {
            return true;
        }
        next = error.source();
    }
    false
}
