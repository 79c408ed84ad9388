//! An HTTP API as its operator described it: where it is, which credential goes along, its limits and its routes. Owns the
//! check that a request can lead nowhere else; reads no file and no secret.

use super::address::{Network, may_connect};
use super::route::{Route, RouteTable, ambiguities};
use domain::{Offer, OfferName, SecretRef, TargetName};
use http::HeaderName;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::Path;

/// The name under which requests that match no route stand in the log. No route may have it.
pub(crate) const NO_ROUTE: &str = "no-route";

/// What is wrong with the description of an API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    /// A member of `[connect]` or `[limits]`.
    #[error("`{member}`: {fault}")]
    Member {
        /// Which one.
        member: &'static str,
        /// What is wrong, and what to write instead.
        fault: String,
    },
    /// A route.
    #[error("route `{route}`: {fault}")]
    Route {
        /// Which one.
        route: OfferName,
        /// What is wrong, and what to write instead.
        fault: String,
    },
}

fn member(member: &'static str, fault: impl Into<String>) -> ConfigFault {
    ConfigFault::Member { member, fault: fault.into() }
}

/// `[connect]` of the target's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectTable {
    url: String,
    ca_file: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    trace: bool,
    auth: AuthTable,
}

impl ConnectTable {
    /// The file with the certificates to trust instead of the public roots.
    #[must_use]
    pub fn ca_file(&self) -> Option<&str> {
        self.ca_file.as_deref()
    }
}

/// `{ env = "VARIABLE" }` or `{ file = "path" }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reference {
    Env(String),
    File(String),
}

impl Reference {
    /// Relative paths are relative to `folder`.
    fn resolved(self, folder: &Path) -> SecretRef {
        match self {
            Self::Env(name) => SecretRef::Env(name),
            Self::File(path) => SecretRef::File(folder.join(path).to_string_lossy().into_owned()),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "form", rename_all = "lowercase", deny_unknown_fields)]
enum AuthTable {
    None,
    Bearer {
        secret: Reference,
    },
    Header {
        name: String,
        #[serde(default)]
        prefix: String,
        secret: Reference,
    },
    Query {
        name: String,
        secret: Reference,
    },
    Basic {
        user: String,
        password: Reference,
    },
    Oauth {
        token_url: String,
        client_id: String,
        client_secret: Reference,
        scope: Option<String>,
        #[serde(default)]
        client_auth: ClientAuth,
    },
    Sigv4 {
        access_key_id: String,
        secret_access_key: Reference,
        session_token: Option<Reference>,
        region: String,
        service: String,
        #[serde(default)]
        signature: SignatureIn,
    },
}

/// How the gateway proves itself to a token endpoint (RFC 6749 §2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// In the `Authorization` header.
    #[default]
    Basic,
    /// In the body, for servers that take nothing else.
    Body,
}

/// Where an AWS signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureIn {
    /// In the `Authorization` header.
    #[default]
    Header,
    /// In the query, as in presigned URLs.
    Query,
}

/// The credential that goes along, by reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// None: the API is public, and only what is asked of it is governed.
    None,
    /// A header with the secret behind a prefix.
    Header {
        /// Its name.
        name: HeaderName,
        /// What stands before the secret: `Bearer `.
        prefix: String,
        /// Where the secret is.
        secret: SecretRef,
    },
    /// A field of the query.
    Query {
        /// Its name.
        name: String,
        /// Where the secret is.
        secret: SecretRef,
    },
    /// RFC 7617.
    Basic {
        /// The user.
        user: String,
        /// Where the password is.
        password: SecretRef,
    },
    /// OAuth 2.0 client credentials (RFC 6749 §4.4).
    Oauth {
        /// The token endpoint.
        token: Origin,
        /// Its path and query.
        token_path: String,
        /// The client.
        client_id: String,
        /// Where its secret is.
        client_secret: SecretRef,
        /// What is asked for.
        scope: Option<String>,
        /// How the client proves itself.
        client_auth: ClientAuth,
    },
    /// AWS Signature Version 4.
    Sigv4 {
        /// The access key.
        access_key_id: String,
        /// Where its secret is.
        secret_access_key: SecretRef,
        /// Where its session token is, if it is of a session.
        session_token: Option<SecretRef>,
        /// The region.
        region: String,
        /// The service, as signatures name it.
        service: String,
        /// Where the signature stands.
        signature: SignatureIn,
    },
}

/// A place that is connected to: nothing of it comes from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// As it stands in a URL and in `Host`.
    pub(crate) fn authority(&self) -> String {
        let default = if self.https { 443 } else { 80 };
        if self.port == default { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }

    /// The origin of a URL, and its path and query.
    fn read(name: &'static str, text: &str, named: &[Network]) -> Result<(Self, String), ConfigFault> {
        let url = url::Url::parse(text).map_err(|_| member(name, "it is not a URL"))?;
        let host = url.host_str().filter(|host| !host.ends_with('.')).ok_or_else(|| member(name, "it names no host"))?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(member(name, "it must hold neither credentials nor a fragment; credentials go into `auth`"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let literal = bare.parse::<IpAddr>().ok();
        // A name is checked each time that it is resolved; an address is not resolved.
        if literal.is_some_and(|address| !may_connect(address, named)) {
            return Err(member(name, "its address is not a public one; if it is meant, add it to `addresses`"));
        }
        let https = match url.scheme() {
            "https" => true,
            "http" if literal.map_or(host == "localhost", |address| address.is_loopback()) => false,
            _ => return Err(member(name, "only `https` is possible (`http` on this machine)")),
        };
        let port = url.port_or_known_default().ok_or_else(|| member(name, "it has no port"))?;
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        Ok((Self { https, host: host.to_owned(), port }, path))
    }
}

/// `[limits]` of the target's file, for this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpLimits {
    /// Largest body of a request, in bytes.
    pub request_bytes: usize,
    /// Largest body of an answer, in bytes; of a stream, in all.
    pub response_bytes: u64,
    /// Longest time until the head of an answer, until a whole answer that is not a stream, and between two pieces of a
    /// stream, in seconds.
    pub timeout_secs: u64,
    /// Most requests of one task in a minute.
    pub requests_per_minute: u32,
    /// Most bytes that one task may send and receive in all.
    pub bytes_per_task: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            request_bytes: 1_024 * 1_024,
            response_bytes: 16 * 1_024 * 1_024,
            timeout_secs: 60,
            requests_per_minute: 600,
            bytes_per_task: 1_024 * 1_024 * 1_024,
        }
    }
}

/// An HTTP API behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    pub(crate) name: TargetName,
    pub(crate) origin: Origin,
    /// What stands before the path of each route; no slash at its end.
    pub(crate) base: String,
    pub(crate) addresses: Vec<Network>,
    /// Certificates (DER) to trust instead of the public roots.
    pub(crate) roots: Vec<Vec<u8>>,
    /// Whether the API gets the ids of our trace.
    pub(crate) trace: bool,
    pub(crate) auth: Auth,
    pub(crate) limits: HttpLimits,
    pub(crate) routes: Vec<Route>,
}

impl HttpTarget {
    /// The target as described. `roots` are the certificates of [`ConnectTable::ca_file`], in DER; relative paths of
    /// secrets are relative to `folder`. Each route comes with its offer as policy read it.
    ///
    /// # Errors
    /// Everything that is wrong, so that it can be mended at once.
    pub fn new(
        name: TargetName,
        (connect, roots): (ConnectTable, Vec<Vec<u8>>),
        limits: HttpLimits,
        routes: Vec<(RouteTable, Offer)>,
        folder: &Path,
    ) -> Result<Self, Vec<ConfigFault>> {
        let mut faults = Vec::new();
        let mut read = Vec::new();
        for (table, offer) in routes {
            match Route::new(table, offer) {
                Ok(route) => read.push(route),
                Err(fault) => faults.push(fault),
            }
        }
        faults.extend(ambiguities(&read));
        let trace = connect.trace;
        match Reached::new(connect, &limits, folder) {
            Ok(Reached { origin, base, addresses, auth }) if faults.is_empty() => {
                read.sort_by_cached_key(|route| route.path.rank());
                Ok(Self { name, origin, base, addresses, roots, trace, auth, limits, routes: read })
            }
            Ok(_) => Err(faults),
            Err(fault) => {
                faults.push(fault);
                Err(faults)
            }
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TargetName {
        &self.name
    }
}

struct Reached {
    origin: Origin,
    base: String,
    addresses: Vec<Network>,
    auth: Auth,
}

impl Reached {
    fn new(connect: ConnectTable, limits: &HttpLimits, folder: &Path) -> Result<Self, ConfigFault> {
        let addresses = connect.addresses.iter().map(|text| text.parse());
        let addresses = addresses.collect::<Result<Vec<Network>, _>>().map_err(|fault| member("addresses", fault.to_string()))?;
        let (origin, base) = Origin::read("url", &connect.url, &addresses)?;
        if base.contains(['?', '%', ';']) || base.contains("//") {
            return Err(member("url", "its path must be plain, without a query"));
        }
        if limits.request_bytes > domain::limits::REQUEST_BYTES_MAX {
            return Err(member("request_bytes", format!("at most {}", domain::limits::REQUEST_BYTES_MAX)));
        }
        if limits.timeout_secs == 0 || limits.requests_per_minute == 0 {
            return Err(member("limits", "`timeout_secs` and `requests_per_minute` are at least 1"));
        }
        let auth = auth(connect.auth, folder, &addresses)?;
        Ok(Self { origin, base: base.trim_end_matches('/').to_owned(), addresses, auth })
    }
}

fn auth(table: AuthTable, folder: &Path, addresses: &[Network]) -> Result<Auth, ConfigFault> {
    Ok(match table {
        AuthTable::None => Auth::None,
        AuthTable::Bearer { secret } => {
            Auth::Header { name: http::header::AUTHORIZATION, prefix: "Bearer ".into(), secret: secret.resolved(folder) }
        }
        AuthTable::Header { name, prefix, secret } => {
            Auth::Header { name: credential_header(&name)?, prefix, secret: secret.resolved(folder) }
        }
        AuthTable::Query { name, .. } if name.is_empty() => return Err(member("auth", "the query field has no name")),
        AuthTable::Query { name, secret } => Auth::Query { name, secret: secret.resolved(folder) },
        AuthTable::Basic { user, .. } if user.contains(':') || user.chars().any(char::is_control) => {
            return Err(member("auth", "a user holds neither `:` nor control characters"));
        }
        AuthTable::Basic { user, password } => Auth::Basic { user, password: password.resolved(folder) },
        AuthTable::Oauth { token_url, client_id, client_secret, scope, client_auth } => {
            let (token, token_path) = Origin::read("token_url", &token_url, addresses)?;
            let client_secret = client_secret.resolved(folder);
            Auth::Oauth { token, token_path, client_id, client_secret, scope, client_auth }
        }
        AuthTable::Sigv4 { access_key_id, secret_access_key, session_token, region, service, signature } => Auth::Sigv4 {
            access_key_id,
            secret_access_key: secret_access_key.resolved(folder),
            session_token: session_token.map(|reference| reference.resolved(folder)),
            region,
            service,
            signature,
        },
    })
}

/// Headers that carry the protocol: a credential or a parameter in one of them would break or redirect requests.
const RESERVED: [&str; 18] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "accept-encoding",
    "expect",
    "keep-alive",
    "proxy-connection",
    "dpop",
    "x-http-method-override",
    "x-method-override",
    "x-http-method",
    "forwarded",
];

fn credential_header(name: &str) -> Result<HeaderName, ConfigFault> {
    header(name).map_err(|fault| member("auth", fault))
}

pub(super) fn header(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))?;
    if RESERVED.contains(&header.as_str()) || header.as_str().starts_with("x-forwarded-") {
        return Err(format!("header `{header}` belongs to the protocol; use another one"));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn no_place_is_one_that_a_shell_a_file_or_the_network_inside_could_answer() {
        let inside: Network = "127.0.0.1".parse().unwrap();
        for text in [
            "a:$(cmd)",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "ftp://api.test/",
            "gopher://api.test/",
            "ws://api.test/",
            "http://api.test/",
            "https://",
            "https://user@api.test/",
            "https://user:password@api.test/",
            "https://api.test./",
            "https://api.test/#x",
            "https://10.0.0.1/",
            "https://[::ffff:10.0.0.1]/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://169.254.169.254/",
            "http://127.0.0.1/",
        ] {
            assert!(Origin::read("token_url", text, &[]).is_err(), "{text}");
        }
        assert!(Origin::read("token_url", "https://api.test/token", &[]).is_ok());
        assert!(Origin::read("token_url", "http://127.0.0.1:1/token", &[inside]).is_ok());
    }
}
