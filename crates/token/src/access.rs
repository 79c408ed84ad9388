//! Checking our own access tokens as a stranger would (RFC 9068 §4). The signature check is apart from
//! the claim check, so that a gateway may cache the former under [`token_hash`] and still do the latter
//! on every request. It must never consult task state: a valid token of an ended task is still dead.

use crate::claims::AccessClaims;
use crate::jwks::KeySet;
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
        todo!()
    }

    /// Checks issuer, audience and time, and lets the claims out. Cheap; do it on every request.
    ///
    /// # Errors
    /// [`Error::IssuerWrong`], [`Error::AudienceWrong`], [`Error::Expired`], [`Error::IssuedInFuture`].
    pub fn check(&self, expected: &Expected<'_>, now: UnixSeconds) -> Result<&AccessClaims, Error> {
        todo!()
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
pub fn verify_access_token(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: UnixSeconds,
) -> Result<AccessClaims, Error> {
    let signed = SignedAccess::verify(token, keys)?;
    signed.check(expected, now)?;
    Ok(signed.claims)
}

/// SHA-256 of the token: the key of a cache of verified tokens, never the token itself.
#[must_use]
pub fn token_hash(token: &str) -> [u8; 32] {
    todo!()
}
