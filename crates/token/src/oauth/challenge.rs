//! `WWW-Authenticate` challenges (RFC 9110 §11.6.1, RFC 6750 §3, RFC 9449 §7.1, RFC 9728 §5.1), quoted correctly.

use crate::oauth::error::ErrorCode;

/// The scheme of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `Bearer`.
    Bearer,
    /// `DPoP`, with the algorithms that proofs may use.
    Dpop,
}

/// One challenge; [`Challenge::to_header`] gives the header value.
#[derive(Debug, Clone)]
pub struct Challenge<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// URL of the protected-resource metadata.
    pub resource_metadata: Option<&'a str>,
    /// Scopes the operation needs, space separated: all of them at once.
    pub scope: Option<&'a str>,
    /// The error and its description; `None` if no token was presented (RFC 6750 §3).
    pub error: Option<(ErrorCode, &'a str)>,
}

impl Challenge<'_> {
    /// The header value: visible ASCII only.
    #[must_use]
    pub fn to_header(&self) -> String {
        todo!()
    }
}
