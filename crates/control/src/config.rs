//! Settings of the control plane and the operators who may use it. Owns the check of operator secrets, which are
//! compared as SHA-256 digests in constant time; never holds a secret itself.

use aws_lc_rs::digest;
use std::fmt;
use std::str::FromStr;
use subtle::{Choice, ConstantTimeEq};

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads everything but openings, and changes things.
    Admin,
    /// Reads everything, openings of sensitive values included, and changes nothing.
    Auditor,
    /// An enforcement point: introspects and revokes tokens, and asks for decisions about any task.
    Introspect,
}

impl Role {
    /// The word for configuration and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::Introspect => "introspect",
        }
    }
}

impl FromStr for Role {
    type Err = ConfigError;
    fn from_str(word: &str) -> Result<Self, ConfigError> {
        [Self::Admin, Self::Auditor, Self::Introspect]
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| ConfigError::Role(word.chars().take(64).collect()))
    }
}

/// Somebody (or an enforcement point) who holds an operator secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Operator {
    /// Its name: what the log says, and the `client_id` for HTTP Basic.
    pub name: String,
    /// SHA-256 of its secret. The secret is random and has at least 256 bits, so that a plain digest suffices.
    pub secret_sha256: [u8; 32],
    /// What it may do.
    pub roles: Vec<Role>,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("name", &self.name).field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Operator {
    /// Whether it has this role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Why a configuration cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The public URL is not an origin.
    #[error("public URL `{0}` must be an origin such as `https://writ.example`: scheme and host, no path, query or user")]
    PublicUrl(String),
    /// Plain HTTP beyond this machine would send tokens in the clear.
    #[error("public URL `{0}` must be https: tokens travel to it (http is accepted for loopback hosts only)")]
    PlainHttp(String),
    /// Two operators have one name.
    #[error("operator `{0}` is configured twice")]
    OperatorTwice(String),
    /// Two operators have one secret: the log could not tell them apart.
    #[error("operators `{0}` and `{1}` have the same secret; give each its own")]
    SecretTwice(String, String),
    /// An unknown role.
    #[error("`{0}` is not a role: expected one of `admin`, `auditor`, `introspect`")]
    Role(String),
}

/// Settings of the control plane.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    pub(crate) issuer: String,
    pub(crate) operators: Vec<Operator>,
    pub(crate) mtls_url: Option<String>,
}

impl ControlConfig {
    /// Settings for this public URL (the OAuth issuer; a slash at its end is dropped) and these operators.
    ///
    /// # Errors
    /// What must be mended first.
    pub fn new(public_url: &str, operators: Vec<Operator>) -> Result<Self, ConfigError> {
        let issuer = origin(public_url)?;
        distinct(&operators)?;
        Ok(Self { issuer, operators, mtls_url: None })
    }

    /// The same with a listener that asks for client certificates, at this base URL; it may be the public one
    /// (RFC 8705 §5).
    #[must_use]
    pub fn with_mtls(mut self, base_url: String) -> Self {
        self.mtls_url = Some(base_url);
        self
    }

    /// The issuer: scheme and host, without a slash.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The operator who holds this secret. Takes the same time whoever it is, and if it is nobody.
    pub(crate) fn operator_by_secret(&self, secret: &[u8]) -> Option<&Operator> {
        let given = sha256(secret);
        let mut found = None;
        for operator in &self.operators {
            if bool::from(operator.secret_sha256.ct_eq(&given)) {
                found = Some(operator);
            }
        }
        found
    }

    /// The operator of this name, if it is its secret.
    pub(crate) fn operator_by_name(&self, name: &str, secret: &[u8]) -> Option<&Operator> {
        let given = sha256(secret);
        let mut found = None;
        for operator in &self.operators {
            let named = Choice::from(u8::from(operator.name == name));
            if bool::from(named & operator.secret_sha256.ct_eq(&given)) {
                found = Some(operator);
            }
        }
        found
    }
}

fn origin(public_url: &str) -> Result<String, ConfigError> {
    let fail = || ConfigError::PublicUrl(public_url.chars().take(200).collect());
    let url = url::Url::parse(public_url).map_err(|_| fail())?;
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !plain || !url.username().is_empty() || url.password().is_some() || url.host_str().is_none() {
        return Err(fail());
    }
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => {}
        ("http", Some(url::Host::Domain("localhost"))) => {}
        ("http", Some(url::Host::Ipv4(address))) if address.is_loopback() => {}
        ("http", Some(url::Host::Ipv6(address))) if address.is_loopback() => {}
        ("http", Some(_)) => return Err(ConfigError::PlainHttp(public_url.to_owned())),
        _ => return Err(fail()),
    }
    Ok(url.origin().ascii_serialization())
}

fn distinct(operators: &[Operator]) -> Result<(), ConfigError> {
    for (index, one) in operators.iter().enumerate() {
        for other in operators.iter().skip(index + 1) {
            if one.name == other.name {
                return Err(ConfigError::OperatorTwice(one.name.clone()));
            }
            if one.secret_sha256 == other.secret_sha256 {
                return Err(ConfigError::SecretTwice(one.name.clone(), other.name.clone()));
            }
        }
    }
    Ok(())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn operator(name: &str, secret: &str) -> Operator {
        Operator { name: name.into(), secret_sha256: sha256(secret.as_bytes()), roles: vec![Role::Admin] }
    }

    #[test]
    fn the_issuer_is_an_origin_without_slash() {
        for (given, expected) in [
            ("https://writ.example", "https://writ.example"),
            ("https://writ.example/", "https://writ.example"),
            ("https://writ.example:8443/", "https://writ.example:8443"),
            ("https://WRIT.example:443", "https://writ.example"),
            ("http://127.0.0.1:7300", "http://127.0.0.1:7300"),
            ("http://[::1]:7300/", "http://[::1]:7300"),
            ("http://localhost:7300", "http://localhost:7300"),
        ] {
            assert_eq!(ControlConfig::new(given, vec![]).unwrap().issuer(), expected);
        }
        for given in
            ["", "writ.example", "ftp://h", "https://h/x", "https://h?x", "https://h/#x", "https://u@h", "http://writ.example"]
        {
            assert!(ControlConfig::new(given, vec![]).is_err(), "{given}");
        }
    }

    #[test]
    fn operators_need_their_own_names_and_secrets() {
        let refused = |a, b| ControlConfig::new("https://h", vec![a, b]).unwrap_err();
        assert_eq!(refused(operator("a", "1"), operator("a", "2")), ConfigError::OperatorTwice("a".into()));
        assert_eq!(refused(operator("a", "1"), operator("b", "1")), ConfigError::SecretTwice("a".into(), "b".into()));
    }

    #[test]
    fn only_the_right_secret_finds_an_operator() {
        let config = ControlConfig::new("https://h", vec![operator("a", "1"), operator("b", "2")]).unwrap();
        assert_eq!(config.operator_by_secret(b"2").unwrap().name, "b");
        assert_eq!(config.operator_by_name("b", b"2").unwrap().name, "b");
        assert!(config.operator_by_secret(b"").is_none());
        assert!(config.operator_by_secret(b"3").is_none());
        assert!(config.operator_by_name("a", b"2").is_none(), "the secret of another operator");
        assert!(!format!("{config:?}").contains("secret_sha256"), "digests stay out of debug output");
    }
}
