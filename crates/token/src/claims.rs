//! The claims of our access tokens (`at+jwt`, RFC 9068) as values, and their canonical bytes: what is
//! decided and logged is exactly what is signed. It must never sign and never read a clock.

use serde_json::{Map, Value};

use crate::{Error, UnixSeconds};

/// Longest `act` chain that we write or read. Delegation depth is limited far below this elsewhere.
pub const ACT_DEPTH_MAX: usize = 8;

/// How a token is bound to the holder's key (`cnf`, RFC 7800).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Confirmation {
    /// DPoP: RFC 7638 SHA-256 thumbprint of the proof key, base64url (RFC 9449 §6.1).
    Jkt(String),
    /// Mutual TLS: SHA-256 of the client certificate's DER, base64url (RFC 8705 §3.1).
    X5tS256(String),
}

/// One link of the `act` chain (RFC 8693 §4.1): the outermost acts now, the inner ones acted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The acting agent.
    pub subject: String,
    /// Its task, if the chain records it.
    pub task: Option<String>,
    /// Who acted before it.
    pub act: Option<Box<Actor>>,
}

/// Everything that one of our access tokens says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `iss`: our issuer URL, slash-less.
    pub issuer: String,
    /// `sub`: the agent.
    pub subject: String,
    /// `client_id`: who asked for the token (RFC 9068 §2.2).
    pub client_id: String,
    /// `aud`: the resource URIs; written as a string if there is one, as an array otherwise. Never empty.
    pub audience: Vec<String>,
    /// `iat`.
    pub issued_at: UnixSeconds,
    /// `exp`; later than `issued_at`.
    pub expires_at: UnixSeconds,
    /// `jti`.
    pub token_id: String,
    /// `task`: the task that the token belongs to.
    pub task: String,
    /// `intent`: the name of the task's intent.
    pub intent: String,
    /// `act`: on whose behalf the task was delegated.
    pub act: Option<Actor>,
    /// `cnf`; `None` is a bearer token.
    pub confirmation: Option<Confirmation>,
    /// `scope`: space separated.
    pub scope: Option<String>,
    /// `authorization_details` as granted (RFC 9396 §9.1); omitted if empty.
    pub authorization_details: Vec<Value>,
}

/// The canonical JSON bytes of valid claims: the only thing that [`crate::sign::mint`] signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalClaims {
    bytes: Vec<u8>,
}

impl CanonicalClaims {
    /// Reads bytes back that are claimed to be canonical (the signer's side of *no log, no key*).
    ///
    /// # Errors
    /// [`Error::ClaimsNotCanonical`] if re-serialising gives other bytes; otherwise as
    /// [`AccessClaims::canonical`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, AccessClaims), Error> {
        todo!()
    }

    /// The bytes: UTF-8 JSON, keys sorted, no white space.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes: what a log entry decides.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        todo!()
    }
}

impl AccessClaims {
    /// The canonical bytes of these claims.
    ///
    /// # Errors
    /// [`Error::ClaimsUnfit`] for claims that must never be signed: empty strings or audience, `exp` not
    /// after `iat`, an `act` chain deeper than [`ACT_DEPTH_MAX`].
    pub fn canonical(&self) -> Result<CanonicalClaims, Error> {
        todo!()
    }

    /// Reads the claims of a token of ours. All required claims must be there and well-typed (RFC 9068
    /// §2.2); claims we do not know are ignored. Checks no time, issuer or audience.
    ///
    /// # Errors
    /// [`Error::ClaimMissing`] or [`Error::ClaimMalformed`].
    pub fn from_map(claims: &Map<String, Value>) -> Result<Self, Error> {
        todo!()
    }
}
