//! The only place that touches the key of the certificate authority. It signs nothing that was not shown to be decided,
//! and nothing beyond its own ceilings, which it checks on the very bytes that it signs: whoever made the plan is not
//! believed. Afterwards it reads what it signed as a stranger would. It knows no offer and no parameter.

use super::certificate::{certificate, no_signature};
use crate::config::Secret;
use authority::ShownPlan;
use authority::target::{Plan, TargetError};
use aws_lc_rs::signature::Ed25519KeyPair;
use secrecy::ExposeSecret;
use ssh_key::certificate::CertType;
use ssh_key::{Certificate, HashAlg, PrivateKey, PublicKey};
use std::collections::BTreeSet;
use zeroize::Zeroizing;

/// No certificate lives longer, in seconds, whatever is configured: nothing on a host caps it.
pub(super) const LIFETIME_SECS_MAX: u64 = 900;

/// How long before now a certificate begins, in seconds: for hosts whose clock is behind.
pub(super) const BACKDATED_SECS: u64 = 60;

/// What the owner of the hosts lets this authority sign.
#[derive(Debug, Clone)]
pub(super) struct Ceilings {
    pub(super) principals: BTreeSet<String>,
    pub(super) extensions: BTreeSet<String>,
    pub(super) lifetime_secs: u64,
    pub(super) source_address: bool,
    pub(super) force_command: bool,
}

/// One certificate authority: its public key, where its private key is, and its ceilings.
pub(super) struct Signer {
    pub(super) authority: PublicKey,
    pub(super) key: Secret,
    pub(super) ceilings: Ceilings,
}

impl Signer {
    /// Signs exactly the plan's canonical bytes.
    pub(super) fn sign(&self, plan: &Plan, shown: &ShownPlan, now: i64) -> Result<Certificate, TargetError> {
        shown.covers(plan)?;
        self.within(&certificate(&plan.canonical, &no_signature()?)?, now)?;
        let key = self.key()?;
        let signature = ssh_key::Signature::new(ssh_key::Algorithm::Ed25519, key.sign(&plan.canonical).as_ref())
            .map_err(|_| TargetError::Refused("the key failed to sign".to_owned()))?;
        let signed = certificate(&plan.canonical, &signature)?;
        self.within(&signed, now)?;
        let now = u64::try_from(now).unwrap_or_default();
        let trusted = [self.authority.fingerprint(HashAlg::Sha256)];
        signed
            .validate_at(now, &trusted)
            .map_err(|_| TargetError::Refused("what was signed does not verify; it was not handed out".to_owned()))?;
        Ok(signed)
    }

    fn key(&self) -> Result<Ed25519KeyPair, TargetError> {
        let text = self.key.read()?;
        // The parser's own words could quote the key.
        let key = PrivateKey::from_openssh(text.expose_secret())
            .map_err(|_| TargetError::Refused("`ca_key` is no private key in OpenSSH format without a passphrase".to_owned()))?;
        let pair = key.key_data().ed25519().filter(|_| key.public_key().key_data() == self.authority.key_data());
        let pair = pair.ok_or_else(|| TargetError::Refused("`ca_key` does not belong to `ca_public`".to_owned()))?;
        let seed = Zeroizing::new(pair.private.to_bytes());
        Ed25519KeyPair::from_seed_and_public_key(seed.as_slice(), &pair.public.0)
            .map_err(|_| TargetError::Refused("`ca_key` is damaged".to_owned()))
    }

    /// Whether the key can be used, for an examination.
    pub(super) fn usable(&self) -> Result<(), TargetError> {
        self.key().map(drop)
    }

    /// INVARIANT(ssh-ceilings): every certificate of this authority is a user certificate, short, for named principals of
    /// the allow-list, without an extension or critical option that was not allowed.
    fn within(&self, certificate: &Certificate, now: i64) -> Result<(), TargetError> {
        let over = |what: &str| Err(TargetError::Refused(format!("beyond the signer's ceilings: {what}")));
        let ceilings = &self.ceilings;
        if certificate.signature_key() != self.authority.key_data() {
            return over("another authority");
        }
        if certificate.cert_type() != CertType::User {
            return over("not a user certificate");
        }
        let principals = certificate.valid_principals();
        // An empty list of principals is a certificate for everybody.
        if principals.is_empty() || !principals.iter().all(|name| ceilings.principals.contains(name)) {
            return over("a principal that is not in `principals`");
        }
        let now = u64::try_from(now).unwrap_or_default();
        let (after, before) = (certificate.valid_after(), certificate.valid_before());
        let longest = ceilings.lifetime_secs.min(LIFETIME_SECS_MAX);
        if before > now.saturating_add(longest) || before <= now || after.saturating_add(2 * BACKDATED_SECS) < now || after > now
        {
            return over("a lifetime that does not begin now or is longer than `lifetime_secs_max`");
        }
        if certificate.critical_options().keys().any(|name| !matches!(name.as_str(), "force-command" | "source-address")) {
            return over("a critical option");
        }
        if ceilings.source_address && !certificate.critical_options().contains_key("source-address") {
            return over("no `source-address`");
        }
        if ceilings.force_command && !certificate.critical_options().contains_key("force-command") {
            return over("no `force-command`");
        }
        if !certificate.extensions().keys().all(|name| ceilings.extensions.contains(name)) {
            return over("an extension that is not in `extensions`");
        }
        Ok(())
    }
}
