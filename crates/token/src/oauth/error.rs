//! OAuth error answers: the registered codes with their statuses, and a description in the characters that fit (RFC 6749
//! §5.2, RFC 6750 §3.1, RFC 8707 §2, RFC 9396 §5, RFC 9449 §5, §8). Which code a cause gets is for the edge to say.

use serde_json::{Value, json};

/// The `error` codes that our endpoints use, exactly as registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Malformed, a parameter missing, repeated or contradictory.
    InvalidRequest,
    /// The client could not be authenticated.
    InvalidClient,
    /// The evidence or assertion is invalid, expired, or not for us.
    InvalidGrant,
    /// The client may not use this grant, or may not hold bearer tokens.
    UnauthorizedClient,
    /// A grant type that we do not have.
    UnsupportedGrantType,
    /// A scope that is unknown or too wide.
    InvalidScope,
    /// A `resource` that is unknown or not allowed.
    InvalidTarget,
    /// `authorization_details` of unknown type or malformed.
    InvalidAuthorizationDetails,
    /// The DPoP proof is missing or does not verify.
    InvalidDpopProof,
    /// A (fresh) DPoP nonce is needed.
    UseDpopNonce,
    /// Policy, or a human, said no (RFC 6749 §4.1.2.1, also used by RFC 8628).
    AccessDenied,
    /// At a resource: the access token is missing, invalid, expired or revoked.
    InvalidToken,
    /// At a resource: the token's scope does not reach this operation.
    InsufficientScope,
    /// Revocation: a token type that we cannot revoke (RFC 7009 §2.2.1).
    UnsupportedTokenType,
    /// We cannot answer now.
    TemporarilyUnavailable,
    /// Our fault.
    ServerError,
}

impl ErrorCode {
    /// The code as it goes on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidAuthorizationDetails => "invalid_authorization_details",
            Self::InvalidDpopProof => "invalid_dpop_proof",
            Self::UseDpopNonce => "use_dpop_nonce",
            Self::AccessDenied => "access_denied",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }

    /// The HTTP status at the token endpoint (and, for the resource codes, at a resource). A resource
    /// answers `use_dpop_nonce` and `invalid_dpop_proof` with 401 instead (RFC 9449 §7.1, §9).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidClient | Self::InvalidToken => 401,
            Self::InsufficientScope => 403,
            Self::TemporarilyUnavailable => 503,
            Self::ServerError => 500,
            _ => 400,
        }
    }
}

/// An error answer: a code and a plain description for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {description}", code.as_str())]
pub struct OAuthError {
    /// The registered code.
    pub code: ErrorCode,
    /// `error_description`: says what to do, reveals nothing; cleaned to the RFC's character set.
    pub description: String,
}

impl OAuthError {
    /// An error with its description, cleaned to the characters that RFC 6749 §5.2 allows.
    #[must_use]
    pub fn new(code: ErrorCode, description: &str) -> Self {
        Self { code, description: clean(description) }
    }

    /// The JSON body (RFC 6749 §5.2).
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "error": self.code.as_str(), "error_description": self.description })
    }
}

/// Longest description in characters.
const DESCRIPTION_CHARS_MAX: usize = 512;

/// `%x20-21 / %x23-5B / %x5D-7E` (RFC 6749 §5.2): what is outside becomes something harmless, so that
/// the text fits a JSON member and a quoted string alike.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .take(DESCRIPTION_CHARS_MAX)
        .map(|c| match c {
            '"' => '\'',
            '\\' => '/',
            c if c == ' ' || c.is_ascii_graphic() => c,
            c if c.is_whitespace() => ' ',
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_the_specifications() {
        assert_eq!(ErrorCode::InvalidClient.status(), 401);
        assert_eq!(ErrorCode::InvalidToken.status(), 401);
        assert_eq!(ErrorCode::InsufficientScope.status(), 403);
        assert_eq!(ErrorCode::InvalidGrant.status(), 400);
        assert_eq!(ErrorCode::InvalidTarget.status(), 400);
    }

    #[test]
    fn descriptions_are_plain_ascii_without_quotes() {
        let error = OAuthError::new(ErrorCode::InvalidRequest, "a\"b\\c\r\nd\u{202e}é");
        assert_eq!(error.description, "a'b/c  d??");
        assert_eq!(error.to_json(), json!({ "error": "invalid_request", "error_description": "a'b/c  d??" }));
    }
}
