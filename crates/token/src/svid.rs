//! X.509-SVIDs (X509-SVID §§2–5): path validation against one trust domain's bundle, the leaf rules, and
//! the certificate thumbprint that mTLS-bound tokens carry. JWT-SVIDs go through `verify`.

use rustls_pki_types::CertificateDer;

use crate::jwks::SpiffeBundle;
use crate::spiffe_id::SpiffeId;
use crate::{Error, UnixSeconds};

/// Most certificates in a presented chain.
pub const CHAIN_LENGTH_MAX: usize = 8;

/// A verified X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Svid {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// SHA-256 of the leaf's DER, base64url: `x5t#S256` (RFC 8705 §3.1).
    pub thumbprint: String,
    /// `notBefore`.
    pub not_before: UnixSeconds,
    /// `notAfter`.
    pub not_after: UnixSeconds,
}

/// The SPIFFE ID that an **unverified** leaf claims: good only for choosing the bundle.
///
/// # Errors
/// [`Error::CertificateMalformed`], [`Error::LeafRefused`], [`Error::SpiffeId`].
pub fn claimed_spiffe_id(leaf: &CertificateDer<'_>) -> Result<SpiffeId, Error> {
    todo!()
}

/// Verifies a presented chain (leaf first) against the bundle of its trust domain.
///
/// # Errors
/// The rule that refused it.
pub fn verify_x509_svid(
    chain: &[CertificateDer<'_>],
    bundle: &SpiffeBundle,
    now: UnixSeconds,
) -> Result<X509Svid, Error> {
    todo!()
}

/// `x5t#S256` of any certificate: SHA-256 of its DER, base64url without padding (RFC 8705 §3.1).
#[must_use]
pub fn certificate_thumbprint(certificate: &CertificateDer<'_>) -> String {
    todo!()
}
