//! Certificates made for one run: a server's and a client's, each signed by itself. The client trusts exactly the server's;
//! the server takes any client certificate whose key is proved, because what binds a token is its hash (RFC 8705 §2.2).

use anyhow::Result;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The files of a server, and how clients connect to it.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) connector: TlsConnector,
}

impl Tls {
    /// Makes the certificates; the server's are files in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let server = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        let client = rcgen::generate_simple_self_signed(["load".to_owned()])?;
        let (cert, key) = (folder.join("tls.pem"), folder.join("tls.key"));
        std::fs::write(&cert, server.cert.pem())?;
        let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&key)?;
        file.write_all(server.signing_key.serialize_pem().as_bytes())?;
        let mut roots = RootCertStore::empty();
        roots.add(server.cert.der().clone())?;
        let key_of_client = PrivateKeyDer::try_from(client.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![client.cert.der().clone()], key_of_client)?;
        Ok(Self { cert, key, connector: TlsConnector::from(Arc::new(config)) })
    }
}

/// How a baseline accepts. It asks for no certificate: what that costs is paid once a connection.
pub(crate) fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
