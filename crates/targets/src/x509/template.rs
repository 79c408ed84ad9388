//! What exactly the authority is asked to sign: the `TBSCertificate` of RFC 5280 §4.1, byte for byte. These bytes are the
//! plan's canonical ones. Owns the profile of our client certificates; it never signs.

use super::signer::Signer;
use authority::target::TargetError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{GrantId, OfferName};
use rcgen::{
    CertificateParams, CrlDistributionPoint, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey, SubjectPublicKeyInfo, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long before now a certificate begins, in seconds: for servers whose clock is behind.
pub(super) const BACKDATED_SECS: i64 = 60;

/// One client certificate before it is signed.
pub(super) struct Template<'a> {
    pub(super) serial: Vec<u8>,
    pub(super) grant: GrantId,
    pub(super) offer: &'a OfferName,
    pub(super) spiffe_id: String,
    /// Seconds since the epoch.
    pub(super) now: i64,
    pub(super) end: i64,
    pub(super) crl_url: Option<&'a str>,
}

/// Has the public half of the authority's key and keeps what it is asked to sign: the encoder gives out the bytes in no
/// other way.
struct Keeper<'a> {
    public: &'a SubjectPublicKeyInfo,
    bytes: Mutex<Vec<u8>>,
}

impl PublicKeyData for &Keeper<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl SigningKey for &Keeper<'_> {
    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
        Ok(vec![0])
    }
}

impl Template<'_> {
    /// The bytes that will be signed.
    pub(super) fn to_be_signed(&self, signer: &Signer, key: &SubjectPublicKeyInfo) -> Result<Vec<u8>, TargetError> {
        let failed = |error: rcgen::Error| TargetError::Refused(format!("the certificate cannot be written: {error}"));
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&self.serial));
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since_epoch(self.now.saturating_sub(BACKDATED_SECS))?;
        params.not_after = epoch + since_epoch(self.end)?;
        // For people who read a server's log: no server should decide by these.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationalUnitName, self.offer.as_str());
        params.distinguished_name.push(DnType::CommonName, self.grant.to_string());
        let name = self.spiffe_id.as_str().try_into().map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(name)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.crl_distribution_points =
            self.crl_url.map(|url| CrlDistributionPoint { uris: vec![url.to_owned()] }).into_iter().collect();
        params.use_authority_key_identifier_extension = true;
        let keeper = Keeper { public: &signer.public, bytes: Mutex::default() };
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(signer.authority.as_slice()), &keeper).map_err(failed)?;
        params.signed_by(key, &issuer).map_err(failed)?;
        Ok(keeper.bytes.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long after the epoch a moment is.
pub(super) fn since_epoch(secs: i64) -> Result<Duration, TargetError> {
    u64::try_from(secs).map(Duration::from_secs).map_err(|_| TargetError::Refused("a moment before 1970".to_owned()))
}

/// PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}
