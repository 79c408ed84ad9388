//! X.509-SVIDs (X509-SVID §§2–5): path validation against one trust domain's bundle, the leaf rules, and
//! the certificate thumbprint that mTLS-bound tokens carry. JWT-SVIDs go through `verify`.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert, aws_lc_rs as algs};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::error::{ChainFault, LeafFault};
use crate::jwks::SpiffeBundle;
use crate::jws::sha256_base64url;
use crate::spiffe_id::SpiffeId;
use crate::verify::check_trust_domain;
use crate::{Error, UnixSeconds};

/// Most certificates in a presented chain.
pub const CHAIN_LENGTH_MAX: usize = 8;
/// Largest certificate in bytes.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// Signatures that a chain may carry: the same strength floor as for tokens.
static CHAIN_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algs::ECDSA_P256_SHA256,
    algs::ECDSA_P256_SHA384,
    algs::ECDSA_P384_SHA256,
    algs::ECDSA_P384_SHA384,
    algs::ED25519,
    algs::RSA_PKCS1_2048_8192_SHA256,
    algs::RSA_PKCS1_2048_8192_SHA384,
    algs::RSA_PKCS1_2048_8192_SHA512,
    algs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

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
    read_spiffe_id(&read_certificate(leaf)?)
}

/// Verifies a presented chain (leaf first) against the bundle of its trust domain.
///
/// # Errors
/// The rule that refused it.
pub fn verify_x509_svid(chain: &[CertificateDer<'_>], bundle: &SpiffeBundle, now: UnixSeconds) -> Result<X509Svid, Error> {
    let (leaf, intermediates) = match chain {
        [leaf, intermediates @ ..] if chain.len() <= CHAIN_LENGTH_MAX => (leaf, intermediates),
        _ => return Err(Error::ChainLength { limit: CHAIN_LENGTH_MAX }),
    };
    let certificate = read_certificate(leaf)?;
    let spiffe_id = read_spiffe_id(&certificate)?;
    check_trust_domain(&spiffe_id, bundle.trust_domain())?;
    check_leaf(&certificate, &spiffe_id)?;
    verify_path(leaf, intermediates, bundle, now)?;
    let validity = certificate.validity();
    Ok(X509Svid {
        spiffe_id,
        thumbprint: certificate_thumbprint(leaf),
        not_before: UnixSeconds(validity.not_before.timestamp()),
        not_after: UnixSeconds(validity.not_after.timestamp()),
    })
}

/// `x5t#S256` of any certificate: SHA-256 of its DER, base64url without padding (RFC 8705 §3.1).
#[must_use]
pub fn certificate_thumbprint(certificate: &CertificateDer<'_>) -> String {
    sha256_base64url(certificate)
}

/// Whether the bytes are a certificate that can serve as an authority.
pub(crate) fn is_certificate(certificate: &CertificateDer<'_>) -> bool {
    certificate.len() <= CERTIFICATE_BYTES_MAX && anchor_from_trusted_cert(certificate).is_ok()
}

fn read_certificate<'c>(der: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, Error> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(Error::TooLarge { limit: CERTIFICATE_BYTES_MAX });
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::CertificateMalformed),
    }
}

/// Exactly one URI SAN, and it is a SPIFFE ID (X509-SVID §2). Other kinds of names may stand beside it.
fn read_spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Error> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| Error::CertificateMalformed)?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(SpiffeId::parse(uri)?),
        _ => Err(Error::LeafRefused { fault: LeafFault::UriSanCount }),
    }
}

/// What only a leaf must be (X509-SVID §§2, 4.1, 4.3, 4.4, 5.2): a certificate that may sign others
/// never authenticates.
fn check_leaf(certificate: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), Error> {
    let refused = |fault| Err(Error::LeafRefused { fault });
    if !id.names_workload() {
        return refused(LeafFault::RootPath);
    }
    let constraints = certificate.basic_constraints().map_err(|_| Error::CertificateMalformed)?;
    if constraints.is_some_and(|extension| extension.value.ca) {
        return refused(LeafFault::IsCa);
    }
    match certificate.key_usage().map_err(|_| Error::CertificateMalformed)? {
        Some(usage) if usage.critical => {
            if !usage.value.digital_signature() {
                return refused(LeafFault::NoDigitalSignature);
            }
            if usage.value.key_cert_sign() || usage.value.crl_sign() {
                return refused(LeafFault::MaySign);
            }
        }
        _ => return refused(LeafFault::KeyUsageMissing),
    }
    let purposes = certificate.extended_key_usage().map_err(|_| Error::CertificateMalformed)?;
    match purposes {
        Some(purposes) if !(purposes.value.server_auth && purposes.value.client_auth) => refused(LeafFault::ExtendedKeyUsage),
        _ => Ok(()),
    }
}

/// RFC 5280 §6 by webpki, against this trust domain's authorities and nothing else. webpki refuses chains
/// with name constraints on URIs instead of evaluating them, which X509-SVID §4.2 allows.
fn verify_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &SpiffeBundle,
    now: UnixSeconds,
) -> Result<(), Error> {
    let trust_domain = bundle.trust_domain();
    let anchors = bundle
        .x509_authorities()
        .iter()
        .map(anchor_from_trusted_cert)
        .collect::<Result<Vec<TrustAnchor<'_>>, _>>()
        .map_err(chain_fault)?;
    if anchors.is_empty() {
        return Err(Error::BundleEmpty { trust_domain: trust_domain.as_str().to_owned() });
    }
    let since_epoch = Duration::from_secs(u64::try_from(now.0).unwrap_or_default());
    // An intermediate that carries an identity must carry one of the same trust domain (X509-SVID §4.1).
    let same_domain = |path: &VerifiedPath<'_>| {
        let foreign = path.intermediate_certificates().any(|certificate| {
            certificate.valid_uri_names().any(|uri| SpiffeId::parse(uri).is_ok_and(|id| id.trust_domain() != trust_domain))
        });
        if foreign { Err(webpki::Error::NameConstraintViolation) } else { Ok(()) }
    };
    EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(
                CHAIN_ALGORITHMS,
                &anchors,
                intermediates,
                UnixTime::since_unix_epoch(since_epoch),
                KeyUsage::client_auth(),
                None,
                Some(&same_domain),
            )
            .map(|_| ())
        })
        .map_err(chain_fault)
}

/// The one map from webpki's errors to ours.
fn chain_fault(error: webpki::Error) -> Error {
    use webpki::Error as E;
    let fault = match error {
        E::UnknownIssuer => ChainFault::UnknownIssuer,
        E::CertExpired { .. } => ChainFault::Expired,
        E::CertNotValidYet { .. } => ChainFault::NotYetValid,
        E::InvalidSignatureForPublicKey
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => ChainFault::Signature,
        E::NameConstraintViolation => ChainFault::NameConstraint,
        E::CaUsedAsEndEntity | E::EndEntityUsedAsCa | E::PathLenConstraintViolated | E::RequiredEkuNotFoundContext(_) => {
            ChainFault::Usage
        }
        _ => ChainFault::Malformed,
    };
    Error::ChainInvalid { fault }
}

#[cfg(test)]
pub(crate) mod tests;
