//! Metadata documents: authorization server (RFC 8414) and protected resource (RFC 9728), built from
//! plain inputs. Issuer and resource come out in slash-less canonical form, always.

use serde_json::{Map, Value, json};
use url::Url;

use crate::algorithm::Algorithm;
use crate::oauth::WRIT_TASK_TYPE;
use crate::oauth::request::{GRANT_CLIENT_CREDENTIALS, GRANT_JWT_BEARER, GRANT_TOKEN_EXCHANGE};

/// What the authorization server's metadata says. Paths start with a slash and follow the issuer.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizationServer<'a> {
    /// The issuer URL.
    pub issuer: &'a str,
    /// Path of the authorization endpoint.
    pub authorization_path: &'a str,
    /// Path of the token endpoint.
    pub token_path: &'a str,
    /// Path of the introspection endpoint.
    pub introspection_path: &'a str,
    /// Path of the revocation endpoint.
    pub revocation_path: &'a str,
    /// Path of our JWKS.
    pub jwks_path: &'a str,
    /// Scopes to advertise, if any.
    pub scopes: &'a [&'a str],
    /// Base URL of the mutual-TLS listener (RFC 8705 §5), if there is one.
    pub mtls_base: Option<&'a str>,
}

impl AuthorizationServer<'_> {
    /// The document for `/.well-known/oauth-authorization-server`. No grant uses the authorization endpoint, so
    /// RFC 8414 §2 does not ask for one; clients do. `none` is the response type that yields nothing: an empty
    /// list must not be sent (§3.2), and the member must (§2).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let issuer = slashless(self.issuer);
        let at = |base: &str, path: &str| format!("{}{path}", slashless(base));
        let algorithms = algorithm_names();
        let mut document = json!({
            "issuer": issuer,
            "authorization_endpoint": at(issuer, self.authorization_path),
            "token_endpoint": at(issuer, self.token_path),
            "introspection_endpoint": at(issuer, self.introspection_path),
            "revocation_endpoint": at(issuer, self.revocation_path),
            "jwks_uri": at(issuer, self.jwks_path),
            "response_types_supported": ["none"],
            "grant_types_supported":
                [GRANT_TOKEN_EXCHANGE, GRANT_JWT_BEARER, GRANT_CLIENT_CREDENTIALS],
            "token_endpoint_auth_methods_supported":
                client_auth_methods(&["none", "private_key_jwt"], self.mtls_base),
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            // Enforcement points are operators with a secret of at least 256 bits; who holds a token may revoke it.
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
            "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "dpop_signing_alg_values_supported": algorithms,
            "authorization_details_types_supported": [WRIT_TASK_TYPE],
            "tls_client_certificate_bound_access_tokens": self.mtls_base.is_some(),
        });
        if let Some(members) = document.as_object_mut() {
            put_scopes(members, self.scopes);
            if let Some(base) = self.mtls_base {
                let aliases = json!({
                    "token_endpoint": at(base, self.token_path),
                    "introspection_endpoint": at(base, self.introspection_path),
                    "revocation_endpoint": at(base, self.revocation_path),
                });
                members.insert("mtls_endpoint_aliases".to_owned(), aliases);
            }
        }
        document
    }
}

/// What a protected resource's metadata says.
#[derive(Debug, Clone, Copy)]
pub struct ProtectedResource<'a> {
    /// The resource URI with its path.
    pub resource: &'a str,
    /// The issuer of tokens for it.
    pub authorization_server: &'a str,
    /// Scopes to advertise, if any; never `offline_access` (MCP authorization).
    pub scopes: &'a [&'a str],
    /// A human-readable name.
    pub name: Option<&'a str>,
    /// Whether every token used here must be DPoP-bound.
    pub dpop_required: bool,
    /// Whether certificate-bound tokens can be used here (RFC 8705 §3).
    pub mtls: bool,
}

impl ProtectedResource<'_> {
    /// The document for `/.well-known/oauth-protected-resource/<path>`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut document = json!({
            "resource": slashless(self.resource),
            "authorization_servers": [slashless(self.authorization_server)],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": algorithm_names(),
            "dpop_bound_access_tokens_required": self.dpop_required,
            "authorization_details_types_supported": [WRIT_TASK_TYPE],
            "tls_client_certificate_bound_access_tokens": self.mtls,
        });
        if let Some(members) = document.as_object_mut() {
            put_scopes(members, self.scopes);
            if let Some(name) = self.name {
                members.insert("resource_name".to_owned(), name.into());
            }
        }
        document
    }
}

/// The canonical form of an issuer or resource URI: no slash at the end, nothing else changed. Input may
/// come with or without it; what we emit and compare never has it.
#[must_use]
pub fn slashless(uri: &str) -> &str {
    uri.trim_end_matches('/')
}

/// The metadata URL of a protected resource (RFC 9728 §3.1); `None` if `resource` is not an http(s) URL
/// without fragment.
#[must_use]
pub fn resource_metadata_url(resource: &str) -> Option<String> {
    well_known_url(resource, "oauth-protected-resource")
}

/// The metadata URL of an authorization server (RFC 8414 §3.1); `None` as above.
#[must_use]
pub fn server_metadata_url(issuer: &str) -> Option<String> {
    well_known_url(issuer, "oauth-authorization-server")
}

/// The well-known segment goes between host and path.
fn well_known_url(uri: &str, name: &str) -> Option<String> {
    let url = Url::parse(uri).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.fragment().is_some() {
        return None;
    }
    let origin = url.origin().ascii_serialization();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{origin}/.well-known/{name}{}{query}", slashless(url.path())))
}

/// Algorithms of proofs, assertions and evidence, as JOSE names.
pub(super) fn algorithm_names() -> Vec<&'static str> {
    Algorithm::ALL.into_iter().map(Algorithm::name).collect()
}

fn client_auth_methods<'m>(methods: &[&'m str], mtls_base: Option<&str>) -> Vec<&'m str> {
    let mtls = mtls_base.map(|_| "tls_client_auth");
    methods.iter().copied().chain(mtls).collect()
}

fn put_scopes(members: &mut Map<String, Value>, scopes: &[&str]) {
    if !scopes.is_empty() {
        members.insert("scopes_supported".to_owned(), scopes.into());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn issuer_and_resource_are_emitted_without_a_slash_at_the_end() {
        for issuer in ["https://writ.example", "https://writ.example/"] {
            let document = AuthorizationServer {
                issuer,
                authorization_path: "/oauth/authorize",
                token_path: "/oauth/token",
                introspection_path: "/oauth/introspect",
                revocation_path: "/oauth/revoke",
                jwks_path: "/oauth/jwks",
                scopes: &[],
                mtls_base: None,
            }
            .to_json();
            assert_eq!(document["issuer"], "https://writ.example");
            assert_eq!(document["token_endpoint"], "https://writ.example/oauth/token");
            assert_eq!(document["tls_client_certificate_bound_access_tokens"], false);
            assert_eq!(document.get("mtls_endpoint_aliases"), None);
            let resource = ProtectedResource {
                resource: "https://writ.example/mcp/orders/",
                authorization_server: issuer,
                scopes: &["mcp"],
                name: Some("Orders"),
                dpop_required: true,
                mtls: false,
            }
            .to_json();
            assert_eq!(resource["resource"], "https://writ.example/mcp/orders");
            assert_eq!(resource["authorization_servers"], json!(["https://writ.example"]));
            assert_eq!(resource["scopes_supported"], json!(["mcp"]));
        }
    }

    #[test]
    fn mutual_tls_is_advertised_only_where_there_is_a_listener() {
        let document = AuthorizationServer {
            issuer: "https://writ.example",
            authorization_path: "/oauth/authorize",
            token_path: "/oauth/token",
            introspection_path: "/oauth/introspect",
            revocation_path: "/oauth/revoke",
            jwks_path: "/oauth/jwks",
            scopes: &[],
            mtls_base: Some("https://mtls.writ.example/"),
        }
        .to_json();
        assert_eq!(document["mtls_endpoint_aliases"]["token_endpoint"], "https://mtls.writ.example/oauth/token");
        assert_eq!(document["tls_client_certificate_bound_access_tokens"], true);
    }

    #[test]
    fn metadata_lives_between_host_and_path() {
        let check = |resource: &str, expected: Option<&str>| {
            assert_eq!(resource_metadata_url(resource).as_deref(), expected, "{resource}");
        };
        let base = "https://h.example/.well-known/oauth-protected-resource";
        check("https://h.example", Some(base));
        check("https://h.example/", Some(base));
        check("https://h.example/mcp/orders/", Some(&format!("{base}/mcp/orders")));
        check("https://h.example:8443/mcp", Some("https://h.example:8443/.well-known/oauth-protected-resource/mcp"));
        check("https://h.example/mcp#x", None);
        check("spiffe://h.example/mcp", None);
        check("mcp", None);
    }
}
