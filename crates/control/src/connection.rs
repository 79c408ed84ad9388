//! What the listener knows about the connection that a request came over. The binary puts one into each request's
//! extensions; a request without one is treated as coming from an unknown peer without a certificate. Owns no trust
//! decision: the chain is what the peer *presented* (and proved to hold the key of), nothing more (RFC 8705 §2).

use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;

/// The connection of a request.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// The peer's address.
    pub remote: Option<SocketAddr>,
    /// The client certificate chain, leaf first, if the TLS handshake had one.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// SHA-256 of the leaf's DER (`x5t#S256`), computed once per connection.
    pub thumbprint: Option<[u8; 32]>,
}

impl Connection {
    /// A connection from this address, with the chain that its TLS handshake presented (leaf first; may be empty).
    #[must_use]
    pub fn new(remote: SocketAddr, certificates: Vec<CertificateDer<'static>>) -> Self {
        let thumbprint = certificates.first().map(|leaf| crate::config::sha256(leaf.as_ref()));
        Self { remote: Some(remote), certificates: certificates.into(), thumbprint }
    }
}
