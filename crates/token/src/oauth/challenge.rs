//! `WWW-Authenticate` challenges (RFC 9110 §11.6.1, RFC 6750 §3, RFC 9449 §7.1, RFC 9728 §5.1), with
//! values that cannot break out of their quotes.

use std::fmt::Write as _;

use crate::oauth::error::{ErrorCode, clean};
use crate::oauth::metadata::algorithm_names;

/// The scheme of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `Bearer`.
    Bearer,
    /// `DPoP`, with the algorithms that proofs may use.
    Dpop,
}

/// One challenge; [`Challenge::to_header`] gives the header value. A resource that takes both schemes
/// sends two headers.
#[derive(Debug, Clone, Copy)]
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
    /// The header value: visible ASCII and spaces only.
    #[must_use]
    pub fn to_header(&self) -> String {
        let mut header = String::from(match self.scheme {
            Scheme::Bearer => "Bearer",
            Scheme::Dpop => "DPoP",
        });
        let mut separator = " ";
        let mut put = |name: &str, value: &str| {
            // Writing to a `String` cannot fail. `clean` leaves no quote and no backslash.
            let _ = write!(header, "{separator}{name}=\"{}\"", clean(value));
            separator = ", ";
        };
        if let Some((code, description)) = self.error {
            put("error", code.as_str());
            put("error_description", description);
        }
        if let Some(scope) = self.scope {
            put("scope", scope);
        }
        if let Some(url) = self.resource_metadata {
            put("resource_metadata", &url.replace('"', "%22").replace('\\', "%5C"));
        }
        if self.scheme == Scheme::Dpop {
            put("algs", &algorithm_names().join(" "));
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Challenge<'static> = Challenge { scheme: Scheme::Bearer, resource_metadata: None, scope: None, error: None };

    #[test]
    fn challenges_are_quoted_and_separated() {
        let check = |challenge: Challenge<'_>, expected: &str| {
            assert_eq!(challenge.to_header(), expected);
        };
        check(NONE, "Bearer");
        check(
            Challenge { resource_metadata: Some("https://h/x"), scope: Some("a b"), ..NONE },
            r#"Bearer scope="a b", resource_metadata="https://h/x""#,
        );
        check(
            Challenge { error: Some((ErrorCode::InvalidToken, "expired")), scheme: Scheme::Dpop, ..NONE },
            r#"DPoP error="invalid_token", error_description="expired", algs="ES256 ES384 RS256 RS384 RS512 PS256 PS384 PS512 EdDSA""#,
        );
    }

    #[test]
    fn values_cannot_break_out_of_their_quotes() {
        let header = Challenge {
            resource_metadata: Some("https://h/\"x\\\r\n"),
            scope: Some("a\", error=\"x"),
            error: Some((ErrorCode::InvalidToken, "a\"b\\c\r\nd é")),
            ..NONE
        }
        .to_header();
        assert_eq!(
            header,
            r#"Bearer error="invalid_token", error_description="a'b/c  d ?", scope="a', error='x", resource_metadata="https://h/%22x%5C  ""#
        );
    }
}
