//! Foreign JWTs as evidence: one code path for every issuer. It checks what a token *is* (RFC 7519, RFC
//! 8725, OIDC Core §3.1.3.7, JWT-SVID §§2–4); matching claims to an agent, replay memory and key
//! fetching are the caller's. The issuer is looked up in configuration, never discovered from the token.

use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::error::excerpt;
use crate::jwks::KeySet;
use crate::jws::{CompactJws, EmbeddedKey, sha256_base64url};
use crate::spiffe_id::{SPIFFE_ID_BYTES_MAX, SpiffeId, TrustDomain};
use crate::{Error, UnixSeconds, json};

/// Longest foreign token in bytes.
pub const EVIDENCE_BYTES_MAX: usize = 8 * 1024;
/// Largest clock skew that can be granted, in seconds; rules that ask for more get this.
pub const LEEWAY_SECS_MAX: i64 = 60;
/// Longest `sub` in bytes; SPIFFE IDs are the longest legitimate ones.
const SUBJECT_BYTES_MAX: usize = SPIFFE_ID_BYTES_MAX;
/// Longest `jti` in bytes: it goes into a replay memory.
const TOKEN_ID_BYTES_MAX: usize = 256;

/// A foreign token, parsed and within limits, but **not verified**: good only for looking up the rules
/// and keys to verify it with.
#[derive(Debug, Clone)]
pub struct UnverifiedToken<'a> {
    jws: CompactJws<'a>,
    claims: Map<String, Value>,
}

impl<'a> UnverifiedToken<'a> {
    /// Checks size, structure, header and JSON (no duplicate members, bounded depth).
    ///
    /// # Errors
    /// The rule that refused it.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        let jws = CompactJws::parse(token, EVIDENCE_BYTES_MAX, EmbeddedKey::Refuse)?;
        let claims = jws.claims()?;
        Ok(Self { jws, claims })
    }

    /// The `iss` it claims. Choose the issuer's rules by exact comparison.
    #[must_use]
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// The `sub` it claims. If it is a SPIFFE ID, its trust domain (never `iss`) chooses the bundle.
    #[must_use]
    pub fn claimed_subject(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// Verifies the token by one issuer's rules and keys: header first, then signature, then claims.
    ///
    /// # Errors
    /// The first rule that refused it. [`Error::KeyUnknown`] means: refetch the keys (bounded) and retry.
    pub fn verify(&self, rules: &EvidenceRules, keys: &KeySet, now: UnixSeconds) -> Result<Evidence, Error> {
        self.check_header(rules)?;
        let header = &self.jws.header;
        keys.find(header.key_id.as_deref(), header.algorithm)?.verify(
            header.algorithm,
            self.jws.signing_input.as_bytes(),
            &self.jws.signature,
        )?;
        let (issuer, subject) = self.check_parties(rules)?;
        let (issued_at, expires_at) = self.check_times(rules, now)?;
        let replay_key = self.replay_key()?;
        let claims = self.claims.clone();
        Ok(Evidence { issuer, subject, claims, replay_key, expires_at, issued_at })
    }

    fn check_header(&self, rules: &EvidenceRules) -> Result<(), Error> {
        let header = &self.jws.header;
        let algorithm = header.algorithm;
        let profile_allows = match rules.profile {
            Profile::Oidc { .. } => true,
            Profile::JwtSvid { .. } => Algorithm::JWT_SVID.contains(&algorithm),
        };
        if !profile_allows || !rules.algorithms.contains(&algorithm) {
            return Err(Error::AlgorithmRefused { name: algorithm.name() });
        }
        if matches!(rules.profile, Profile::JwtSvid { .. }) {
            header.only_plain_members()?;
        }
        header.require_generic_type()
    }

    /// Who issued it, about whom, and only for us.
    fn check_parties(&self, rules: &EvidenceRules) -> Result<(String, String), Error> {
        let subject = json::required_str(&self.claims, "sub", SUBJECT_BYTES_MAX)?;
        let issuer = match &rules.profile {
            Profile::Oidc { issuer } => {
                let found = json::required_str(&self.claims, "iss", EVIDENCE_BYTES_MAX)?;
                if found != issuer {
                    return Err(Error::IssuerWrong { found: excerpt(found) });
                }
                issuer.clone()
            }
            Profile::JwtSvid { trust_domain } => {
                let id = SpiffeId::parse(subject)?;
                check_trust_domain(&id, trust_domain)?;
                if !id.names_workload() {
                    return Err(Error::ClaimMalformed { claim: "sub" });
                }
                trust_domain.id_string()
            }
        };
        self.check_audience(&rules.audience)?;
        Ok((issuer, subject.to_owned()))
    }

    /// Exactly one audience, and it is ours. With several, any other receiver could replay the token here
    /// (JWT-SVID §6.2).
    fn check_audience(&self, ours: &str) -> Result<(), Error> {
        let claim = "aud";
        let audience = match self.claims.get(claim) {
            None => return Err(Error::ClaimMissing { claim }),
            Some(Value::Array(values)) => match values.as_slice() {
                [single] => single,
                several => return Err(Error::AudienceNotSingle { count: several.len() }),
            },
            Some(value) => value,
        };
        match audience.as_str() {
            Some(audience) if audience == ours && !ours.is_empty() => Ok(()),
            Some(_) => Err(Error::AudienceWrong),
            None => Err(Error::ClaimMalformed { claim }),
        }
    }

    /// Expiry, start, age and total life. Comparisons give the leeway to clocks, never to lifetimes.
    fn check_times(&self, rules: &EvidenceRules, now: UnixSeconds) -> Result<(Option<UnixSeconds>, UnixSeconds), Error> {
        let leeway = rules.leeway_secs.clamp(0, LEEWAY_SECS_MAX);
        let expires_at = json::required_time(&self.claims, "exp")?;
        let issued_at = json::optional_time(&self.claims, "iat")?;
        let not_before = json::optional_time(&self.claims, "nbf")?;
        if now >= expires_at.plus(leeway) {
            return Err(Error::Expired { ago_secs: now.since(expires_at) });
        }
        if let Some(not_before) = not_before.filter(|start| now < start.plus(-leeway)) {
            return Err(Error::NotYetValid { in_secs: not_before.since(now) });
        }
        match (issued_at, &rules.profile) {
            (None, Profile::Oidc { .. }) => return Err(Error::ClaimMissing { claim: "iat" }),
            (Some(issued_at), _) => check_age(issued_at, leeway, rules.age_secs_max, now)?,
            (None, Profile::JwtSvid { .. }) => {}
        }
        let lifetime_secs = expires_at.since(issued_at.unwrap_or(now));
        // Without `iat` the remaining life is all we know, and the clock skew counts in it.
        let max_secs = rules.lifetime_secs_max + if issued_at.is_none() { leeway } else { 0 };
        if lifetime_secs > max_secs {
            return Err(Error::LifetimeTooLong { lifetime_secs, max_secs });
        }
        Ok((issued_at, expires_at))
    }

    /// `jti`, or else a hash of what was signed. Not of the signature: ECDSA signatures can be turned into
    /// other valid ones by anybody (`s` → `n − s`), which would make a copy look new.
    fn replay_key(&self) -> Result<String, Error> {
        Ok(match json::optional_str(&self.claims, "jti", TOKEN_ID_BYTES_MAX)? {
            Some(token_id) => format!("jti:{token_id}"),
            None => format!("sha256:{}", sha256_base64url(self.jws.signing_input.as_bytes())),
        })
    }
}

/// `iat` is neither in the future nor too far in the past.
fn check_age(issued_at: UnixSeconds, leeway: i64, max_secs: i64, now: UnixSeconds) -> Result<(), Error> {
    let age_secs = now.since(issued_at);
    if age_secs < -leeway {
        return Err(Error::IssuedInFuture { in_secs: -age_secs });
    }
    if age_secs > max_secs.saturating_add(leeway) {
        return Err(Error::TooOld { age_secs, max_secs });
    }
    Ok(())
}

/// A workload's ID within the trust domain whose keys vouch for it.
pub(crate) fn check_trust_domain(id: &SpiffeId, expected: &TrustDomain) -> Result<(), Error> {
    if id.trust_domain() == expected {
        return Ok(());
    }
    Err(Error::TrustDomainWrong { found: excerpt(id.trust_domain().as_str()), expected: expected.as_str().to_owned() })
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
    /// Our audience; must be the only value of `aud`, byte for byte. Empty matches nothing.
    pub audience: String,
    /// Algorithms this issuer may use. Empty allows nothing.
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
    /// `iat`; always there for OIDC tokens.
    pub issued_at: Option<UnixSeconds>,
}

#[cfg(test)]
mod tests;
