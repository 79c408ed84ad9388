//! Success answers: token (RFC 6749 §5.1, RFC 8693 §2.2, RFC 9396 §7) and introspection (RFC 7662 §2.2).

use serde_json::{Value, json};

use crate::claims::AccessClaims;

/// A token answer. The caller adds `Cache-Control: no-store`.
#[derive(Debug)]
pub struct TokenResponse<'a> {
    /// The access token.
    pub access_token: &'a str,
    /// Its claims: type, scope, details and lifetime are taken from them.
    pub claims: &'a AccessClaims,
}

impl TokenResponse<'_> {
    /// The JSON body.
    #[must_use]
    pub fn to_json(&self) -> Value {
        todo!()
    }
}

/// What introspection says about a live token of ours.
#[must_use]
pub fn introspection_active(claims: &AccessClaims) -> Value {
    todo!()
}

/// What it says about every other token, whatever the cause.
#[must_use]
pub fn introspection_inactive() -> Value {
    json!({ "active": false })
}
