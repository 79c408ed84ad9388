//! The only place that touches the authority's key. It signs nothing that was not shown to be decided, and nothing beyond
//! its own ceilings, which it reads from the very bytes that it signs: whoever made the plan is not believed. Afterwards it
//! reads what it signed as a stranger would.

use super::template::{BACKDATED_SECS, since_epoch};
use crate::config::Secret;
use authority::ShownPlan;
use authority::target::{Finding, Gravity, Plan, TargetError};
use domain::TaskId;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, PublicKeyData, RevocationReason, RevokedCertParams,
    SerialNumber, SigningKey, SubjectPublicKeyInfo, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use x509_parser::certificate::{TbsCertificate, X509Certificate};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// How long a certificate lives at most, in seconds, if the target file says nothing else.
pub(super) const LIFETIME_SECS_MAX: u64 = 900;

/// `AlgorithmIdentifier` of what authorities sign with (RFC 8410 §3, RFC 5758 §3.2).
const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];

/// One intermediate authority: its certificate, where its key is, and its ceilings.
pub(super) struct Signer {
    /// Its certificate.
    pub(super) authority: Vec<u8>,
    /// Its public key.
    pub(super) public: SubjectPublicKeyInfo,
    pub(super) trust_domain: String,
    pub(super) lifetime_secs: u64,
    /// When its own certificate ends, in seconds since the epoch.
    pub(super) ends_at: i64,
    algorithm: &'static [u8],
    key: Secret,
}

fn refused(text: impl Into<String>) -> TargetError {
    TargetError::Refused(text.into())
}

fn parsed(der: &[u8]) -> Result<X509Certificate<'_>, TargetError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(refused("what should be a certificate is none")),
    }
}

impl Signer {
    pub(super) fn new(authority: Vec<u8>, key: Secret, trust_domain: String, lifetime_secs: u64) -> Result<Self, TargetError> {
        let (public, ends_at) = {
            let certificate = parsed(&authority)?;
            if !certificate.is_ca() {
                return Err(refused("the certificate is not one of an authority"));
            }
            let public = SubjectPublicKeyInfo::from_der(certificate.public_key().raw);
            (public.map_err(|error| refused(error.to_string()))?, certificate.validity().not_after.timestamp())
        };
        let algorithm = public.algorithm();
        let algorithm = if algorithm == &rcgen::PKCS_ED25519 {
            ED25519
        } else if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
            ECDSA_SHA256
        } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
            ECDSA_SHA384
        } else {
            return Err(refused("the authority has a key of a kind that is not known here"));
        };
        Ok(Self { authority, public, trust_domain, lifetime_secs, ends_at, algorithm, key })
    }

    /// The certificate over exactly the plan's canonical bytes, in DER.
    pub(super) fn sign(&self, plan: &Plan, shown: &ShownPlan, now: i64) -> Result<Vec<u8>, TargetError> {
        shown.covers(plan)?;
        self.within(&plan.canonical, now)?;
        let signature = self.key()?.sign(&plan.canonical).map_err(|_| refused("the key failed to sign"))?;
        let bits = [&[0], signature.as_slice()].concat();
        let certificate = tagged(0x30, &[plan.canonical.as_slice(), self.algorithm, &tagged(0x03, &bits)].concat());
        let signed = parsed(&certificate)?;
        if signed.tbs_certificate.as_ref() != plan.canonical.as_slice() || !self.is_valid(&certificate, now)? {
            return Err(refused("what was signed does not verify; it was not handed out"));
        }
        Ok(certificate)
    }

    /// Whether a certificate is of this authority and alive.
    pub(super) fn is_valid(&self, certificate: &[u8], now: i64) -> Result<bool, TargetError> {
        let (certificate, authority) = (parsed(certificate)?, parsed(&self.authority)?);
        let validity = certificate.validity();
        let alive = validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
        Ok(alive && certificate.verify_signature(Some(authority.public_key())).is_ok())
    }

    fn key(&self) -> Result<KeyPair, TargetError> {
        let pem = self.key.read()?;
        // The parser's own words could quote the key.
        let key = KeyPair::from_pem(pem.expose_secret()).map_err(|_| refused("`ca_key` is no private key of PKCS #8 in PEM"))?;
        if key.subject_public_key_info() == self.public.subject_public_key_info() {
            Ok(key)
        } else {
            Err(refused("`ca_key` does not belong to `ca_certificate`"))
        }
    }

    /// INVARIANT(x509-ceilings): every certificate of this authority is short, begins now, names one task of the trust
    /// domain, is good for TLS clients alone, and has no extension beyond the profile's.
    fn within(&self, bytes: &[u8], now: i64) -> Result<(), TargetError> {
        let over = |what: &str| Err(refused(format!("beyond the signer's ceilings: {what}")));
        let Ok(([], body)) = TbsCertificate::from_der(bytes) else { return over("no certificate") };
        let authority = parsed(&self.authority)?;
        if body.issuer.as_raw() != authority.subject().as_raw() {
            return over("another issuer");
        }
        let (from, to) = (body.validity.not_before.timestamp(), body.validity.not_after.timestamp());
        let longest = now.saturating_add(i64::try_from(self.lifetime_secs).unwrap_or(i64::MAX));
        if from > now || from.saturating_add(2 * BACKDATED_SECS) < now || to <= now || to > longest.min(self.ends_at) {
            return over("a lifetime that does not begin now or is longer than `lifetime_secs_max`");
        }
        let (mut names, mut client, mut leaf) = (0, false, false);
        for extension in body.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(alternative) => {
                    names += alternative.general_names.len();
                    if !alternative.general_names.iter().all(|name| self.is_task(name)) {
                        return over("a name that is not of a task of the trust domain");
                    }
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    let more = usage.any
                        || usage.server_auth
                        || usage.code_signing
                        || usage.email_protection
                        || usage.time_stamping
                        || usage.ocsp_signing
                        || !usage.other.is_empty();
                    if more || !usage.client_auth {
                        return over("a use beyond TLS clients");
                    }
                    client = true;
                }
                // Bit 0 is digitalSignature.
                ParsedExtension::KeyUsage(usage) if usage.flags == 1 => {}
                ParsedExtension::BasicConstraints(constraints) if !constraints.ca => leaf = true,
                ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::CRLDistributionPoints(_) => {}
                _ => return over("an extension beyond the profile"),
            }
        }
        if (names, client, leaf) == (1, true, true) { Ok(()) } else { over("not exactly one name, or no bounds on its use") }
    }

    fn is_task(&self, name: &GeneralName<'_>) -> bool {
        let GeneralName::URI(uri) = name else { return false };
        let rest = uri.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(self.trust_domain.as_str()));
        rest.and_then(|rest| rest.strip_prefix("/task/")).is_some_and(|task| task.parse::<TaskId>().is_ok())
    }

    /// The revocation list with these serials and the moments of their revocation, in DER, read back before it is given.
    pub(super) fn list(&self, number: u64, revoked: &[(Vec<u8>, i64)], now: i64, life: u64) -> Result<Vec<u8>, TargetError> {
        let failed = |error: rcgen::Error| refused(format!("the revocation list cannot be written: {error}"));
        let epoch = date_time_ymd(1970, 1, 1);
        let revoked = revoked.iter().map(|(serial, when)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial),
                revocation_time: epoch + since_epoch(*when)?,
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: epoch + since_epoch(now.saturating_sub(BACKDATED_SECS))?,
            next_update: epoch + since_epoch(now.saturating_add(i64::try_from(life).unwrap_or_default()))?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_, TargetError>>()?,
            key_identifier_method: self.key_id()?,
        };
        let key = self.key()?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(self.authority.as_slice()), &key).map_err(failed)?;
        let list = params.signed_by(&issuer).map_err(failed)?;
        if self.listed(list.der())?.len() == params.revoked_certs.len() {
            return Ok(super::template::pem("X509 CRL", list.der()).into_bytes());
        }
        Err(refused("the revocation list would not read back; the old one stays"))
    }

    /// The authority's key identifier as its own certificate says it: verifiers match a list to its issuer by it.
    fn key_id(&self) -> Result<KeyIdMethod, TargetError> {
        let authority = parsed(&self.authority)?;
        let id = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(id.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified))
    }

    /// The serials of a list of this authority, in DER or PEM.
    pub(super) fn listed(&self, list: &[u8]) -> Result<BTreeSet<Vec<u8>>, TargetError> {
        let not_ours = || refused("the published list is not one of this authority");
        let der = if list.starts_with(b"-----BEGIN") {
            use rustls_pki_types::pem::PemObject;
            rustls_pki_types::CertificateRevocationListDer::from_pem_slice(list).map_err(|_| not_ours())?.to_vec()
        } else {
            list.to_vec()
        };
        let authority = parsed(&self.authority)?;
        let Ok(([], list)) = CertificateRevocationList::from_der(&der) else { return Err(not_ours()) };
        list.verify_signature(authority.public_key()).map_err(|_| not_ours())?;
        Ok(list.iter_revoked_certificates().map(|revoked| revoked.raw_serial().to_vec()).collect())
    }

    /// Whether the authority is as narrow as it should be, and its key usable.
    pub(super) fn findings(&self, now: i64) -> Vec<Finding> {
        let finding = |check, fine: bool, bad: Gravity, found: String, remedy: &str| Finding {
            gravity: if fine { Gravity::Fine } else { bad },
            check,
            found,
            remedy: if fine { String::new() } else { remedy.to_owned() },
        };
        let key = self.key().map(drop);
        let usable = key.is_ok();
        let said = key.map_or_else(|error| error.to_string(), |()| "the key is the certificate's".to_owned());
        let mut findings =
            vec![finding("signer.key", usable, Gravity::Broken, said, "give `ca_key` to the user of Writ alone, mode 0600")];
        let Ok(authority) = parsed(&self.authority) else { return findings };
        let short = authority.basic_constraints().ok().flatten().is_some_and(|found| found.value.path_len_constraint == Some(0));
        let found = format!("path length zero: {short}");
        findings.push(finding("authority.pathlen", short, Gravity::Warning, found, "issue the intermediate with pathlen 0"));
        let bounded = authority.name_constraints().ok().flatten().is_some_and(|found| found.value.permitted_subtrees.is_some());
        let found = format!("constrained to names: {bounded}");
        let remedy = "issue the intermediate with nameConstraints, so that a stolen key is worth nothing in another trust domain";
        findings.push(finding("authority.names", bounded, Gravity::Warning, found, remedy));
        let alive = self.ends_at > now.saturating_add(86_400);
        let found = format!("it ends at {}", authority.validity().not_after);
        findings.push(finding("authority.alive", alive, Gravity::Broken, found, "issue a new intermediate"));
        findings
    }
}

/// A value with its tag and length (X.690 §8.1).
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let significant = length.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<_>>();
    let mut out = vec![tag];
    match significant.as_slice() {
        [] => out.push(0),
        [one] if *one < 0x80 => out.push(*one),
        // The length of a length is one to eight.
        more => {
            out.push(0x80 | u8::try_from(more.len()).unwrap_or(8));
            out.extend(more);
        }
    }
    out.extend(value);
    out
}
