//! SPIFFE IDs and trust domain names, parsed strictly (SPIFFE-ID §2). It normalises nothing: an
//! identity that needs correcting is another identity. It must never decide what an ID may do.

use std::fmt;

/// Longest SPIFFE ID in bytes that implementations must accept, and that we do (SPIFFE-ID §2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// Longest trust domain name in bytes (SPIFFE-ID §2.3).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// Which rule a would-be SPIFFE ID breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdFault {
    /// Longer than 2048 bytes, or a trust domain longer than 255.
    #[error("too long")]
    TooLong,
    /// Does not start with `spiffe://` in lower case.
    #[error("scheme is not `spiffe://`")]
    Scheme,
    /// No trust domain.
    #[error("trust domain is empty")]
    TrustDomainEmpty,
    /// A character other than `a-z 0-9 . - _` (so: user info, port, upper case, percent-encoding).
    #[error("trust domain has a character other than a-z, 0-9, `.`, `-`, `_`")]
    TrustDomainCharacter,
    /// `//`, or a slash at the end.
    #[error("path has an empty segment or ends with a slash")]
    SegmentEmpty,
    /// `.` or `..` as a segment.
    #[error("path has a dot segment")]
    SegmentDots,
    /// A character other than `a-z A-Z 0-9 . - _` (so: query, fragment, percent-encoding).
    #[error("path has a character other than letters, digits, `.`, `-`, `_`")]
    PathCharacter,
}

/// A trust domain name such as `example.org`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Parses a bare trust domain name (no scheme).
    ///
    /// # Errors
    /// The rule it breaks (SPIFFE-ID §2.1).
    pub fn parse(name: &str) -> Result<Self, SpiffeIdFault> {
        if name.is_empty() {
            return Err(SpiffeIdFault::TrustDomainEmpty);
        }
        if name.len() > TRUST_DOMAIN_BYTES_MAX {
            return Err(SpiffeIdFault::TooLong);
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if name.bytes().all(allowed) { Ok(Self(name.to_owned())) } else { Err(SpiffeIdFault::TrustDomainCharacter) }
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own SPIFFE ID, `spiffe://name`.
    #[must_use]
    pub fn id_string(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID such as `spiffe://example.org/agent/a`. Two IDs are equal only byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    path: String,
}

impl SpiffeId {
    /// Parses an ID exactly as it must be written.
    ///
    /// # Errors
    /// The rule it breaks (SPIFFE-ID §2).
    pub fn parse(id: &str) -> Result<Self, SpiffeIdFault> {
        if id.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdFault::TooLong);
        }
        let rest = id.strip_prefix(SCHEME).ok_or(SpiffeIdFault::Scheme)?;
        let Some((domain, path)) = rest.split_once('/') else {
            return Ok(Self { trust_domain: TrustDomain::parse(rest)?, path: String::new() });
        };
        let trust_domain = TrustDomain::parse(domain)?;
        path.split('/').try_for_each(check_segment)?;
        Ok(Self { trust_domain, path: format!("/{path}") })
    }

    /// The trust domain whose bundle alone may vouch for this ID.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash; empty for the trust domain's own ID.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the ID has a path, so that it can name a workload.
    #[must_use]
    pub fn names_workload(&self) -> bool {
        !self.path.is_empty()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

/// One path segment (SPIFFE-ID §2.2).
fn check_segment(segment: &str) -> Result<(), SpiffeIdFault> {
    match segment {
        "" => Err(SpiffeIdFault::SegmentEmpty),
        "." | ".." => Err(SpiffeIdFault::SegmentDots),
        _ if segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) => Ok(()),
        _ => Err(SpiffeIdFault::PathCharacter),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use serde_json::Value;

    use super::*;

    #[test]
    fn ids_are_accepted_exactly_as_specified_or_not_at_all() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../testdata/spiffe_ids.json")).unwrap();
        assert!(cases.len() > 30);
        for case in cases {
            let id = case["id"].as_str().unwrap();
            let parsed = SpiffeId::parse(id);
            let fault = parsed.as_ref().err().map(|fault| format!("{fault:?}"));
            assert_eq!(fault.as_deref(), case["fault"].as_str(), "{id:?}");
            if let Ok(parsed) = parsed {
                assert_eq!(parsed.to_string(), id, "an ID is never rewritten");
            }
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let domain = "a".repeat(TRUST_DOMAIN_BYTES_MAX);
        assert!(SpiffeId::parse(&format!("spiffe://{domain}/a")).is_ok());
        assert_eq!(SpiffeId::parse(&format!("spiffe://a{domain}/a")), Err(SpiffeIdFault::TooLong));
        let prefix = "spiffe://example.org/";
        let path = "p".repeat(SPIFFE_ID_BYTES_MAX - prefix.len());
        assert!(SpiffeId::parse(&format!("{prefix}{path}")).is_ok());
        assert_eq!(SpiffeId::parse(&format!("{prefix}{path}p")), Err(SpiffeIdFault::TooLong));
    }

    #[test]
    fn parts_are_kept() {
        let id = SpiffeId::parse("spiffe://example.org/agent/a").unwrap();
        assert_eq!((id.trust_domain().as_str(), id.path()), ("example.org", "/agent/a"));
        assert!(id.names_workload());
        assert!(!SpiffeId::parse("spiffe://example.org").unwrap().names_workload());
        assert_eq!(id.trust_domain().id_string(), "spiffe://example.org");
    }
}
