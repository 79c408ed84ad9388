//! Checking our own access tokens as a stranger would (RFC 9068 §4). The signature check is apart from
//! the claim check, so that a gateway may cache the former under [`token_hash`] and still do the latter
//! on every request. It must never consult task state: a valid token of an ended task is still dead.

use crate::claims::AccessClaims;
use crate::error::excerpt;
use crate::jwks::KeySet;
use crate::jws::{CompactJws, EmbeddedKey, sha256};
use crate::sign::ACCESS_TOKEN_TYPE;
use crate::verify::LEEWAY_SECS_MAX;
use crate::{Error, UnixSeconds};

/// Longest access token in bytes.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What the verifier insists on.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Our issuer, byte for byte.
    pub issuer: &'a str,
    /// The resource that the token is presented to; must be one of `aud`, byte for byte.
    pub audience: &'a str,
    /// Clock skew granted on `exp` and `iat`; at most 60 s count. 0 where issuer and verifier share a clock.
    pub leeway_secs: i64,
}

/// A token whose signature, type and claim shapes were checked, but not its time, issuer or audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAccess {
    claims: AccessClaims,
}

impl SignedAccess {
    /// Verifies structure, `typ` (`at+jwt`), algorithm and signature, and reads the claims. Expensive;
    /// the result may be cached as long as the key set is the same.
    ///
    /// # Errors
    /// The rule that refused it.
    pub fn verify(token: &str, keys: &KeySet) -> Result<Self, Error> {
        let jws = CompactJws::parse(token, ACCESS_TOKEN_BYTES_MAX, EmbeddedKey::Refuse)?;
        jws.header.require_type(ACCESS_TOKEN_TYPE)?;
        jws.header.only_plain_members()?;
        let algorithm = jws.header.algorithm;
        keys.find(jws.header.key_id.as_deref(), algorithm)?.verify(algorithm, jws.signing_input.as_bytes(), &jws.signature)?;
        Ok(Self { claims: AccessClaims::from_map(&jws.claims()?)? })
    }

    /// Checks issuer, audience and time, and lets the claims out. Cheap; do it on every request.
    ///
    /// # Errors
    /// [`Error::IssuerWrong`], [`Error::AudienceWrong`], [`Error::Expired`], [`Error::IssuedInFuture`].
    pub fn check(&self, expected: &Expected<'_>, now: UnixSeconds) -> Result<&AccessClaims, Error> {
        let claims = &self.claims;
        let leeway = expected.leeway_secs.clamp(0, LEEWAY_SECS_MAX);
        if claims.issuer != expected.issuer {
            return Err(Error::IssuerWrong { found: excerpt(&claims.issuer) });
        }
        if !claims.audience.iter().any(|audience| audience == expected.audience) {
            return Err(Error::AudienceWrong);
        }
        if now >= claims.expires_at.plus(leeway) {
            return Err(Error::Expired { ago_secs: now.since(claims.expires_at) });
        }
        if now < claims.issued_at.plus(-leeway) {
            return Err(Error::IssuedInFuture { in_secs: claims.issued_at.since(now) });
        }
        Ok(claims)
    }

    /// What the token says, before [`SignedAccess::check`] said that it is ours, for us, and alive.
    #[must_use]
    pub fn claims(&self) -> &AccessClaims {
        &self.claims
    }

    /// When the token expires: how long a cache may keep it.
    #[must_use]
    pub fn expires_at(&self) -> UnixSeconds {
        self.claims.expires_at
    }
}

/// Both checks at once.
///
/// # Errors
/// As [`SignedAccess::verify`] and [`SignedAccess::check`].
pub fn verify_access_token(token: &str, keys: &KeySet, expected: &Expected<'_>, now: UnixSeconds) -> Result<AccessClaims, Error> {
    let signed = SignedAccess::verify(token, keys)?;
    signed.check(expected, now)?;
    Ok(signed.claims)
}

/// SHA-256 of the token: the key of a cache of verified tokens, never the token itself.
#[must_use]
pub fn token_hash(token: &str) -> [u8; 32] {
    sha256(token.as_bytes())
}

#[cfg(test)]
mod tests;
