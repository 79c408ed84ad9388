//! The key that a certificate is for: from the caller's request (PKCS #10, RFC 2986), of which nothing else is used, or
//! made by us. Owns the proof that the caller holds the key.

use authority::target::TargetError;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// Largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1_024;

/// The start of a `SubjectPublicKeyInfo` with an Ed25519 key (RFC 8410 §4), and of a PKCS #8 key (§7).
const ED25519_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ED25519_PRIVATE: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The public key of a request whose signature proves that its maker holds the private one. Names, extensions and
/// attributes of the request are not read.
pub(super) fn requested_key(pem: &str) -> Result<SubjectPublicKeyInfo, TargetError> {
    let unfit = |text: &str| TargetError::Unacceptable(format!("the certificate request {text}"));
    if pem.len() > REQUEST_BYTES_MAX {
        return Err(unfit("is larger than 16 KiB"));
    }
    let der =
        CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| unfit("is no `CERTIFICATE REQUEST` in PEM"))?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| unfit("is not of PKCS #10"))?;
    if !rest.is_empty() {
        return Err(unfit("has something behind it"));
    }
    request.verify_signature().map_err(|_| unfit("is not signed by the key that it names"))?;
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw);
    key.map_err(|_| unfit("has a key of a kind that is not known here: use P-256, P-384 or Ed25519"))
}

fn pair(seed: &[u8; 32]) -> Result<(Zeroizing<[u8; 32]>, Ed25519KeyPair), TargetError> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), b"x509 key");
    let bytes = Zeroizing::new(tag.as_ref().first_chunk::<32>().copied().unwrap_or_default());
    let pair = Ed25519KeyPair::from_seed_unchecked(bytes.as_slice());
    pair.map(|pair| (bytes, pair)).map_err(|_| TargetError::Refused("a key could not be made".to_owned()))
}

/// The public key that we make of a plan's unpredictable bytes.
pub(super) fn own_key(seed: &[u8; 32]) -> Result<SubjectPublicKeyInfo, TargetError> {
    let (_, pair) = pair(seed)?;
    let der = [ED25519_PUBLIC.as_slice(), pair.public_key().as_ref()].concat();
    SubjectPublicKeyInfo::from_der(&der).map_err(|error| TargetError::Refused(error.to_string()))
}

/// Its private key, for the one who asked.
pub(super) fn own_key_pem(seed: &[u8; 32]) -> Result<String, TargetError> {
    let (bytes, _) = pair(seed)?;
    let der = Zeroizing::new([ED25519_PRIVATE.as_slice(), bytes.as_slice()].concat());
    Ok(super::template::pem("PRIVATE KEY", &der))
}
