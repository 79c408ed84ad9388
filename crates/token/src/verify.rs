//! Foreign JWTs as evidence: one code path for every issuer. It checks what a token *is* (RFC 7519, RFC
//! 8725, OIDC Core §3.1.3.7, JWT-SVID §§2–4); matching claims to an agent, replay memory and key
//! fetching are the caller's. The issuer is looked up in configuration, never discovered from the token.

use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::jwks::KeySet;
use crate::spiffe_id::TrustDomain;
use crate::{Error, UnixSeconds};

/// Longest foreign token in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 8 * 1024;
/// Largest clock skew that can be granted, in seconds; rules that ask for more get this.
pub const LEEWAY_SECS_MAX: i64 = 60;

/// A foreign token, parsed and within limits, but **not verified**: good only for looking up the rules
/// and keys to verify it with.
#[derive(Debug, Clone)]
pub struct UnverifiedToken<'a> {
    raw: &'a str,
}

impl<'a> UnverifiedToken<'a> {
    /// Checks size, structure, header and JSON (no duplicate members, bounded depth).
    ///
    /// # Errors
    /// The rule that refused it.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        todo!()
    }

    /// The `iss` it claims. Choose the issuer's rules by exact comparison.
    #[must_use]
    pub fn claimed_issuer(&self) -> Option<&str> {
        todo!()
    }

    /// The `sub` it claims. If it is a SPIFFE ID, its trust domain (never `iss`) chooses the bundle.
    #[must_use]
    pub fn claimed_subject(&self) -> Option<&str> {
        todo!()
    }

    /// Verifies the token by one issuer's rules and keys.
    ///
    /// # Errors
    /// The first rule that refused it. [`Error::KeyUnknown`] means: refetch the keys (bounded) and retry.
    pub fn verify(&self, rules: &EvidenceRules, keys: &KeySet, now: UnixSeconds) -> Result<Evidence, Error> {
        todo!()
    }
}

/// Who may issue, and under which profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// An OIDC or plain JWT issuer with this exact `iss`.
    Oidc {
        /// The issuer string.
        issuer: String,
    },
    /// JWT-SVIDs of this trust domain: strict headers, no EdDSA, `sub` a SPIFFE ID of it, `iss` ignored.
    JwtSvid {
        /// The trust domain.
        trust_domain: TrustDomain,
    },
}

/// The rules of one configured issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceRules {
    /// Issuer and profile.
    pub profile: Profile,
    /// Our audience; must be the only value of `aud`, byte for byte.
    pub audience: String,
    /// Algorithms this issuer may use.
    pub algorithms: Vec<Algorithm>,
    /// Clock skew granted; at most [`LEEWAY_SECS_MAX`] count.
    pub leeway_secs: i64,
    /// Longest total life (`exp - iat`) in seconds.
    pub lifetime_secs_max: i64,
    /// Longest age (`now - iat`) in seconds.
    pub age_secs_max: i64,
}

/// What a verified foreign token proves.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The configured issuer: `iss`, or `spiffe://trust-domain` for SVIDs.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// All claims, as sent.
    pub claims: Map<String, Value>,
    /// What the replay memory remembers until `expires_at` plus leeway; unique per issuer.
    pub replay_key: String,
    /// `exp`.
    pub expires_at: UnixSeconds,
    /// `iat`, if the token has it (OIDC tokens must).
    pub issued_at: Option<UnixSeconds>,
}
