//! DPoP proofs (RFC 9449 §4.3, checks 1–12) and stateless nonces (§8). The replay cache is the caller's:
//! remember [`Proof::jti`] under [`Proof::jkt`] for the whole acceptance window.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;
use url::Url;

use crate::jwk::{KeyMembers, PublicKey};
use crate::jws::{CompactJws, EmbeddedKey, encode, sha256_base64url};
use crate::{Error, UnixSeconds, json};

/// Longest proof in bytes.
pub const PROOF_BYTES_MAX: usize = 4 * 1024;
/// Longest `jti` in bytes: it goes into the caller's replay cache.
pub const JTI_BYTES_MAX: usize = 128;
/// Longest `htu` or request URI in bytes.
const URI_BYTES_MAX: usize = 2048;
/// Longest nonce in bytes that is looked at.
const NONCE_BYTES_MAX: usize = 64;
/// How much of the MAC a nonce carries: 144 bits, 24 characters.
const NONCE_MAC_BYTES: usize = 18;

/// The normalised target URI of a request: no query, no fragment, lower-case scheme and host, no default
/// port, dot segments resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUri(String);

impl TargetUri {
    /// Normalises an absolute http(s) URI (RFC 9449 §4.3 check 9, RFC 3986 §6.2.2–3). Precompute it per
    /// endpoint.
    ///
    /// # Errors
    /// [`Error::UriMalformed`].
    pub fn parse(uri: &str) -> Result<Self, Error> {
        // The URL parser forgives white space and backslashes; identical bytes must mean identical URIs.
        let plain = |b: u8| b.is_ascii_graphic() && b != b'\\';
        // A per cent sign that begins no escape may begin one once what follows it is decoded.
        let escape = |piece: &str| piece.get(..2).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if uri.len() > URI_BYTES_MAX || !uri.bytes().all(plain) || !uri.split('%').skip(1).all(escape) {
            return Err(Error::UriMalformed);
        }
        let mut url = Url::parse(uri).map_err(|_| Error::UriMalformed)?;
        // It forgives slashes too many or too few before the host (RFC 3986 §3: two, and then the host).
        let authority = uri.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
        if authority.is_none_or(|authority| authority.starts_with('/')) {
            return Err(Error::UriMalformed);
        }
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !anonymous {
            return Err(Error::UriMalformed);
        }
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self(normalise_percent(url.as_str())))
    }

    /// The normalised URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `htu` names the same target. The spelling that well-behaved clients send costs no parsing.
    fn is_named_by(&self, htu: &str) -> bool {
        self.0 == htu || Self::parse(htu).is_ok_and(|named| named == *self)
    }
}

/// Percent-encoding in one spelling: unreserved characters decoded, the others in upper-case hex (RFC
/// 3986 §6.2.2.1–2). Every per cent sign begins an escape.
fn normalise_percent(uri: &str) -> String {
    let mut pieces = uri.split('%');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (octet, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        match u8::from_str_radix(octet, 16).ok().map(char::from) {
            Some(c) if c.is_ascii_alphanumeric() || "-._~".contains(c) => out.push(c),
            _ => {
                out.push('%');
                out.push_str(&octet.to_ascii_uppercase());
            }
        }
        out.push_str(rest);
    }
    out
}

/// A parsed proof key and its thumbprint; cheap to clone, meant to be cached per `jkt`.
#[derive(Debug, Clone)]
pub struct ProofKey {
    jkt: Arc<str>,
    key: Arc<PublicKey>,
}

impl ProofKey {
    /// The RFC 7638 thumbprint.
    #[must_use]
    pub fn jkt(&self) -> &str {
        &self.jkt
    }
}

/// What the proof must be about.
#[derive(Debug, Clone, Copy)]
pub struct ProofRequest<'a> {
    /// The request's method, e.g. `POST`; compared with case.
    pub method: &'a str,
    /// The request's URI as the client sees it.
    pub uri: &'a TargetUri,
    /// The access token presented with it; `None` at the token endpoint.
    pub access_token: Option<&'a str>,
    /// A key parsed from an earlier proof of the same holder, to save parsing it again.
    pub known_key: Option<&'a ProofKey>,
}

/// How fresh a proof must be.
#[derive(Debug, Clone, Copy)]
pub struct ProofRules<'a> {
    /// Seconds that `iat` may lie in the past.
    pub age_secs_max: i64,
    /// Seconds that `iat` may lie in the future.
    pub ahead_secs_max: i64,
    /// If set, a nonce of this key is demanded.
    pub nonce: Option<&'a NonceKey>,
    /// The time of nonces, as [`NonceKey::issue`] was told it. It may be another clock than that of `iat`: one that nobody
    /// sets back.
    pub nonce_at: UnixSeconds,
}

/// A proof that passed all checks except replay.
#[derive(Debug, Clone)]
pub struct Proof {
    /// Thumbprint of the proof key; compare with the token's `cnf.jkt`.
    pub jkt: String,
    /// To be remembered by the caller.
    pub jti: String,
    /// When the holder made it.
    pub issued_at: UnixSeconds,
    /// The parsed key, for [`ProofRequest::known_key`] next time.
    pub key: ProofKey,
}

/// Checks a proof. That there is exactly one `DPoP` header (check 1) is the caller's to see; that the
/// thumbprint is the token's (check 12b) is [`crate::claims::AccessClaims::check_binding`].
///
/// Claims are checked before the signature, so that a stale or misdirected proof costs a stranger's
/// request no elliptic curve work; nothing is returned before both.
///
/// # Errors
/// The rule that refused it; [`Error::NonceMissing`] and [`Error::NonceRefused`] are answered
/// `use_dpop_nonce`, everything else `invalid_dpop_proof`.
pub fn verify_proof(proof: &str, request: &ProofRequest<'_>, rules: &ProofRules<'_>, now: UnixSeconds) -> Result<Proof, Error> {
    // Checks 2, 4, 5 and 7: well-formed, typed, asymmetric, with a public key.
    let jws = CompactJws::parse(proof, PROOF_BYTES_MAX, EmbeddedKey::Allow)?;
    jws.header.require_type("dpop+jwt")?;
    let jwk = jws.header.jwk().ok_or(Error::KeyMalformed { what: "proof has no `jwk`" })?;
    let members = KeyMembers::from_jwk(jwk)?;

    let claims = jws.claims()?;
    let (jti, issued_at) = check_claims(&claims, request, rules, now)?;

    // Check 6: the signature, by the key in the proof.
    let key = proof_key(members, request.known_key)?;
    key.key.verify(jws.header.algorithm, jws.signing_input.as_bytes(), &jws.signature)?;
    Ok(Proof { jkt: key.jkt.as_ref().to_owned(), jti, issued_at, key })
}

/// Checks 3 and 8 to 12a: the claims fit this request, now.
fn check_claims(
    claims: &Map<String, Value>,
    request: &ProofRequest<'_>,
    rules: &ProofRules<'_>,
    now: UnixSeconds,
) -> Result<(String, UnixSeconds), Error> {
    let jti = json::required_str(claims, "jti", JTI_BYTES_MAX)?;
    if json::required_str(claims, "htm", URI_BYTES_MAX)? != request.method {
        return Err(Error::ProofMethodWrong);
    }
    if !request.uri.is_named_by(json::required_str(claims, "htu", URI_BYTES_MAX)?) {
        return Err(Error::ProofUriWrong);
    }
    let nonce = json::optional_str(claims, "nonce", NONCE_BYTES_MAX);
    match (rules.nonce, nonce) {
        (None, _) => {}
        (Some(_), Ok(None)) => return Err(Error::NonceMissing),
        (Some(key), Ok(Some(nonce))) if key.accepts(nonce, rules.nonce_at) => {}
        (Some(_), _) => return Err(Error::NonceRefused),
    }
    let issued_at = json::required_time(claims, "iat")?;
    let age_secs = now.since(issued_at);
    if age_secs > rules.age_secs_max {
        return Err(Error::TooOld { age_secs, max_secs: rules.age_secs_max });
    }
    if age_secs < -rules.ahead_secs_max {
        return Err(Error::IssuedInFuture { in_secs: -age_secs });
    }
    let hash = json::optional_str(claims, "ath", JTI_BYTES_MAX)?;
    match (request.access_token, hash) {
        (Some(_), None) => return Err(Error::ClaimMissing { claim: "ath" }),
        (Some(token), Some(hash)) if hash != sha256_base64url(token.as_bytes()) => {
            return Err(Error::ProofTokenWrong);
        }
        (None, Some(_)) => return Err(Error::ProofTokenUnexpected),
        (Some(_), Some(_)) | (None, None) => {}
    }
    Ok((jti.to_owned(), issued_at))
}

/// The key of the proof, taken from the cache if it is the very same (equal thumbprints of equal members).
fn proof_key(members: KeyMembers, known: Option<&ProofKey>) -> Result<ProofKey, Error> {
    let jkt = members.thumbprint();
    match known {
        Some(known) if *known.jkt == jkt => Ok(known.clone()),
        _ => Ok(ProofKey { jkt: jkt.into(), key: Arc::new(members.into_key()?) }),
    }
}

/// The key of stateless nonces: a nonce is a MAC over a time bucket, so every node that holds the key
/// accepts what any other handed out, and nobody stores anything.
pub struct NonceKey {
    key: hmac::Key,
    bucket_secs: i64,
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(..)")
    }
}

impl NonceKey {
    /// From 32 random bytes. Nonces last between one and two `bucket_secs` (at least one second).
    #[must_use]
    pub fn new(secret: &[u8; 32], bucket_secs: u32) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { key, bucket_secs: i64::from(bucket_secs.max(1)) }
    }

    /// The nonce to hand out now.
    #[must_use]
    pub fn issue(&self, now: UnixSeconds) -> String {
        self.nonce(self.bucket(now))
    }

    /// Whether a nonce is of the current or the previous bucket. Constant time for nonces of equal length.
    #[must_use]
    pub fn accepts(&self, nonce: &str, now: UnixSeconds) -> bool {
        let bucket = self.bucket(now);
        let current = self.nonce(bucket).as_bytes().ct_eq(nonce.as_bytes());
        let previous = self.nonce(bucket.saturating_sub(1)).as_bytes().ct_eq(nonce.as_bytes());
        (current | previous).into()
    }

    fn bucket(&self, now: UnixSeconds) -> i64 {
        now.0.div_euclid(self.bucket_secs)
    }

    fn nonce(&self, bucket: i64) -> String {
        let tag = hmac::sign(&self.key, format!("dpop nonce {bucket}").as_bytes());
        encode(tag.as_ref().get(..NONCE_MAC_BYTES).unwrap_or(tag.as_ref()))
    }
}

#[cfg(test)]
mod tests;
