//! Who a workload is, once its evidence was verified, and which workloads an agent may run as. Verification itself is
//! the token crate's. Matching is exact: a missing claim never matches, and a wildcard works only where it is marked.

use crate::name::ProviderName;
use serde_json::{Map, Value};

/// What attestation proved about a caller.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadIdentity {
    /// The configured provider that vouched for it.
    pub provider: ProviderName,
    /// The issuer as configured (an OIDC issuer URL or a SPIFFE trust domain).
    pub issuer: String,
    /// The immutable subject (`sub`, or the SPIFFE ID).
    pub subject: String,
    /// The verified claims: what policies see as posture.
    pub claims: Map<String, Value>,
}

/// How one claim must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimPattern {
    /// Equal to this text, number or truth value.
    Exact(Value),
    /// Text that starts with this. Only where the configuration says `prefix`; flagged in reviews.
    Prefix(String),
}

impl ClaimPattern {
    fn matches(&self, claim: &Value) -> bool {
        match self {
            Self::Exact(wanted) => claim == wanted,
            // An empty prefix would match everything: refused here too, whoever built the rule.
            Self::Prefix(wanted) => !wanted.is_empty() && claim.as_str().is_some_and(|text| text.starts_with(wanted.as_str())),
        }
    }
}

/// One way in which an agent may prove itself: a provider and claims that all must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRule {
    /// The provider that must have vouched.
    pub provider: ProviderName,
    /// Claim path (members joined by `/`; a single member name may hold any other character) and pattern.
    /// `sub` is the subject. Never empty: a rule without a claim matches nobody.
    pub claims: Vec<(String, ClaimPattern)>,
}

impl IdentityRule {
    /// Whether this workload is the one that the rule means.
    ///
    /// INVARIANT(no-claim-no-match): an absent claim is a mismatch, and a rule without claims matches nobody.
    #[must_use]
    pub fn matches(&self, workload: &WorkloadIdentity) -> bool {
        self.provider == workload.provider
            && !self.claims.is_empty()
            && self.claims.iter().all(|(path, pattern)| workload.claim(path).is_some_and(|claim| pattern.matches(&claim)))
    }

    /// Whether the rule uses a wildcard, which a review should see.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.claims.iter().any(|(_, pattern)| matches!(pattern, ClaimPattern::Prefix(_)))
    }
}

impl WorkloadIdentity {
    /// The claim at `path`: the member of that exact name if there is one, else nested members joined by `/`.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<Value> {
        if path == "sub" {
            return Some(Value::String(self.subject.clone()));
        }
        if let Some(claim) = self.claims.get(path) {
            return Some(claim.clone());
        }
        let mut members = path.split('/');
        let first = self.claims.get(members.next()?)?;
        members.try_fold(first, |value, member| value.as_object()?.get(member)).cloned()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn workload() -> WorkloadIdentity {
        let Value::Object(claims) = json!({
            "repository_id": "123", "ref": "refs/heads/main",
            "kubernetes.io": { "namespace": "prod", "pod": { "uid": "u1" } },
        }) else {
            unreachable!()
        };
        WorkloadIdentity {
            provider: "ci".parse().unwrap(),
            issuer: "https://ci.example".into(),
            subject: "repo:a/b".into(),
            claims,
        }
    }

    fn rule(provider: &str, claims: &[(&str, ClaimPattern)]) -> IdentityRule {
        IdentityRule {
            provider: provider.parse().unwrap(),
            claims: claims.iter().map(|(p, c)| ((*p).to_owned(), c.clone())).collect(),
        }
    }

    #[test]
    fn a_rule_matches_only_when_every_claim_is_there_and_equal() {
        let exact = |v: Value| ClaimPattern::Exact(v);
        let cases = [
            (rule("ci", &[("sub", exact(json!("repo:a/b")))]), true),
            (rule("ci", &[("repository_id", exact(json!("123"))), ("ref", exact(json!("refs/heads/main")))]), true),
            (rule("ci", &[("kubernetes.io/namespace", exact(json!("prod")))]), true),
            (rule("ci", &[("kubernetes.io/pod/uid", exact(json!("u1")))]), true),
            (rule("ci", &[("repository_id", exact(json!(123)))]), false),
            (rule("ci", &[("environment", exact(json!("prod")))]), false),
            (rule("ci", &[("repository_id", exact(json!("123"))), ("environment", exact(Value::Null))]), false),
            (rule("other", &[("sub", exact(json!("repo:a/b")))]), false),
            (rule("ci", &[]), false),
            (rule("ci", &[("ref", ClaimPattern::Prefix("refs/heads/".into()))]), true),
            (rule("ci", &[("ref", ClaimPattern::Prefix(String::new()))]), false),
            (rule("ci", &[("ref", ClaimPattern::Prefix("main".into()))]), false),
        ];
        for (rule, expected) in cases {
            assert_eq!(rule.matches(&workload()), expected, "{rule:?}");
        }
    }
}
