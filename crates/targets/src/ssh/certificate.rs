//! What exactly a certificate authority of SSH is asked to sign (OpenSSH `PROTOCOL.certkeys`). Owns the bytes of the
//! certificate without its signature, which are the plan's canonical bytes: the decision's leaf commits to them, and they
//! are what is signed. It knows no key and no ceiling.

use super::krl::string;
use authority::target::TargetError;
use ssh_key::Certificate;
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{PublicKey, Signature};
use std::collections::BTreeMap;

/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// A user certificate before it is signed.
#[derive(Debug, Clone)]
pub(super) struct Unsigned<'a> {
    pub(super) nonce: [u8; 32],
    pub(super) subject: &'a KeyData,
    pub(super) serial: u64,
    pub(super) key_id: String,
    pub(super) principals: &'a [String],
    /// Seconds since the epoch.
    pub(super) valid_after: u64,
    pub(super) valid_before: u64,
    /// Without `force-command` and `source-address` there are none.
    pub(super) critical: BTreeMap<&'static str, String>,
    pub(super) extensions: &'a [String],
    pub(super) authority: &'a PublicKey,
}

impl Unsigned<'_> {
    /// The bytes that are signed.
    pub(super) fn encode(&self) -> Result<Vec<u8>, TargetError> {
        let mut out = Vec::with_capacity(512);
        match self.subject {
            KeyData::Ed25519(key) => {
                string(&mut out, b"ssh-ed25519-cert-v01@openssh.com");
                string(&mut out, &self.nonce);
                string(&mut out, &key.0);
            }
            KeyData::Ecdsa(key) => {
                let curve = match key {
                    EcdsaPublicKey::NistP256(_) => "nistp256",
                    EcdsaPublicKey::NistP384(_) => "nistp384",
                    EcdsaPublicKey::NistP521(_) => "nistp521",
                };
                string(&mut out, format!("ecdsa-sha2-{curve}-cert-v01@openssh.com").as_bytes());
                string(&mut out, &self.nonce);
                string(&mut out, curve.as_bytes());
                string(&mut out, key.as_sec1_bytes());
            }
            _ => return Err(TargetError::Unacceptable("the public key must be `ssh-ed25519` or `ecdsa-sha2-…`".to_owned())),
        }
        out.extend(self.serial.to_be_bytes());
        out.extend(1_u32.to_be_bytes());
        string(&mut out, self.key_id.as_bytes());
        string(&mut out, &list(self.principals.iter().map(String::as_str)));
        out.extend(self.valid_after.to_be_bytes());
        out.extend(self.valid_before.to_be_bytes());
        let mut critical = Vec::new();
        for (name, value) in &self.critical {
            string(&mut critical, name.as_bytes());
            string(&mut critical, &list(std::iter::once(value.as_str())));
        }
        string(&mut out, &critical);
        let mut names = self.extensions.to_vec();
        names.sort();
        names.dedup();
        string(&mut out, &names.iter().flat_map(|name| list([name.as_str(), ""].into_iter())).collect::<Vec<_>>());
        string(&mut out, b"");
        string(&mut out, &self.authority.to_bytes().map_err(|error| TargetError::Refused(error.to_string()))?);
        Ok(out)
    }
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut out = Vec::new();
    texts.for_each(|text| string(&mut out, text.as_bytes()));
    out
}

/// The certificate of these signed bytes, read as a stranger reads it.
pub(super) fn certificate(signed: &[u8], signature: &Signature) -> Result<Certificate, TargetError> {
    let mut bytes = signed.to_vec();
    let mut inner = Vec::new();
    string(&mut inner, signature.algorithm().to_string().as_bytes());
    string(&mut inner, signature.as_bytes());
    string(&mut bytes, &inner);
    Certificate::from_bytes(&bytes)
        .map_err(|error| TargetError::Refused(format!("what would be signed is no certificate: {error}")))
}

/// A signature that signs nothing, to read what is to be signed before it is.
pub(super) fn no_signature() -> Result<Signature, TargetError> {
    Signature::new(ssh_key::Algorithm::Ed25519, vec![0; SIGNATURE_BYTES]).map_err(|error| TargetError::Refused(error.to_string()))
}
