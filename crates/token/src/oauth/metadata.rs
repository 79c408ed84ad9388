//! Metadata documents: authorization server (RFC 8414) and protected resource (RFC 9728), built from
//! plain inputs. Issuer and resource come out in slash-less canonical form, always.

use serde_json::Value;

/// What the authorization server's metadata says.
#[derive(Debug, Clone)]
pub struct AuthorizationServer<'a> {
    /// The issuer URL; endpoints are `issuer` + path.
    pub issuer: &'a str,
    /// Scopes, if any are advertised.
    pub scopes: &'a [&'a str],
    /// Algorithms accepted for client assertions and evidence (JOSE names).
    pub assertion_algs: &'a [&'a str],
    /// Base URL of the mutual-TLS listener (RFC 8705 §5), if there is one.
    pub mtls_base: Option<&'a str>,
}

impl AuthorizationServer<'_> {
    /// The document for `/.well-known/oauth-authorization-server`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        todo!()
    }
}

/// What a protected resource's metadata says.
#[derive(Debug, Clone)]
pub struct ProtectedResource<'a> {
    /// The resource URI with its path.
    pub resource: &'a str,
    /// The issuer of tokens for it.
    pub authorization_server: &'a str,
    /// Scopes, if any.
    pub scopes: &'a [&'a str],
    /// A human-readable name.
    pub name: Option<&'a str>,
    /// Whether unbound bearer tokens can never be used here.
    pub dpop_required: bool,
}

impl ProtectedResource<'_> {
    /// The document for `/.well-known/oauth-protected-resource/<path>`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        todo!()
    }
}

/// The canonical form of an issuer or resource URI: no slash at the end, nothing else changed. Input may
/// come with or without it; what we emit and compare never has it.
#[must_use]
pub fn slashless(uri: &str) -> &str {
    uri.trim_end_matches('/')
}

/// The metadata URL of a resource (RFC 9728 §3.1): the well-known segment goes between host and path.
#[must_use]
pub fn resource_metadata_url(resource: &str) -> Option<String> {
    todo!()
}
