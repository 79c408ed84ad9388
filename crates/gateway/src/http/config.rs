//! An HTTP API as its operator described it: where it is, which credential goes along, and the routes that may be asked
//! for. Owns the check that the description means one thing only; reads no file and no secret. The common words of an
//! offer (description, labels, parameters) are the policy crate's.

use super::address::{Network, may_connect};
use super::path::Template;
use domain::{Offer, OfferName, Param, ParamType, SecretRef, TargetName};
use http::{HeaderName, Method};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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

/// The members of `[offers.NAME]` that say how a route is recognised; the common ones are the policy crate's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    method: String,
    path: String,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: BTreeMap<String, String>,
    #[serde(default)]
    body_format: Option<BodyFormat>,
    #[serde(default)]
    pass: Vec<String>,
    #[serde(default)]
    opaque_answers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BodyFormat {
    Json,
    Form,
}

/// What the body of a request is read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyRule {
    /// There must be none.
    Nothing,
    /// A JSON object; fields by their path.
    Json(Fields),
    /// `application/x-www-form-urlencoded`.
    Form(Fields),
    /// Anything, unseen by policy.
    Anything,
}

/// Fields of a body: those that policy sees, and those that pass unseen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    /// Path to parameter.
    pub(crate) params: BTreeMap<Vec<String>, String>,
    pub(crate) pass: BTreeSet<Vec<String>>,
    pub(crate) pass_others: bool,
}

/// A route: one offer of the target, recognised by method and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub(crate) offer: OfferName,
    pub(crate) method: Method,
    pub(crate) path: Template,
    pub(crate) params: BTreeMap<String, Param>,
    pub(crate) query: Fields,
    pub(crate) headers: HashMap<HeaderName, String>,
    pub(crate) pass_headers: HashSet<HeaderName>,
    pub(crate) body: BodyRule,
    /// Whether answers may be compressed files, in which nothing can be looked for.
    pub(crate) opaque_answers: bool,
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
        match Reached::new(connect, &limits, folder) {
            Ok(Reached { origin, base, addresses, auth }) if faults.is_empty() => {
                read.sort_by_cached_key(|route| route.path.rank());
                Ok(Self { name, origin, base, addresses, roots, auth, limits, routes: read })
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

fn header(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))?;
    if RESERVED.contains(&header.as_str()) || header.as_str().starts_with("x-forwarded-") {
        return Err(format!("header `{header}` belongs to the protocol; use another one"));
    }
    Ok(header)
}

impl Route {
    fn new(table: RouteTable, offer: Offer) -> Result<Self, ConfigFault> {
        let name = offer.name.clone();
        Self::read(table, offer).map_err(|fault| ConfigFault::Route { route: name, fault })
    }

    fn read(table: RouteTable, offer: Offer) -> Result<Self, String> {
        if offer.name.as_str() == NO_ROUTE {
            return Err("the name stands for requests that match no route".into());
        }
        let method = method(&table.method)?;
        let path = Template::parse(&table.path).map_err(|fault| fault.to_string())?;
        let Passed { query: pass_query, others_query, headers: pass_headers, body: pass_body, others_body, anything } =
            Passed::read(&table.pass)?;
        let one = |fields: BTreeMap<String, String>| fields.into_iter().map(|(field, param)| (vec![field], param)).collect();
        let query = Fields { params: one(table.query), pass: pass_query, pass_others: others_query };
        let headers = table.headers.iter().map(|(name, param)| Ok((own_header(name)?, param.clone())));
        let headers = headers.collect::<Result<HashMap<_, _>, String>>()?;
        let seen = !table.body.is_empty() || !pass_body.is_empty() || others_body;
        let body = match (seen, anything, table.body_format) {
            (true, true, _) => return Err("`pass` of the whole `body` leaves no field of it to be read".into()),
            (false, true, _) => BodyRule::Anything,
            (false, false, _) => BodyRule::Nothing,
            (true, false, None | Some(BodyFormat::Json)) => {
                let params = table.body.into_iter().map(|(path, param)| (dotted(&path), param)).collect();
                BodyRule::Json(Fields { params, pass: pass_body, pass_others: others_body })
            }
            (true, false, Some(BodyFormat::Form)) => {
                let pass = pass_body.into_iter().map(|path| vec![path.join(".")]).collect();
                BodyRule::Form(Fields { params: one(table.body), pass, pass_others: others_body })
            }
        };
        if method == Method::GET && !matches!(body, BodyRule::Nothing) {
            return Err("a GET has no body that servers agree about".into());
        }
        let route = Self {
            offer: offer.name,
            method,
            path,
            params: offer.params,
            query,
            headers,
            pass_headers,
            body,
            opaque_answers: table.opaque_answers,
        };
        route.check_places()?;
        Ok(route)
    }

    /// Each parameter stands in one place, each place is of a parameter, and can hold its type.
    fn check_places(&self) -> Result<(), String> {
        let in_body = match &self.body {
            BodyRule::Json(fields) | BodyRule::Form(fields) => Some(fields),
            BodyRule::Nothing | BodyRule::Anything => None,
        };
        let mut places: Vec<&str> = self.path.params().collect();
        places.extend(self.query.params.values().map(String::as_str));
        places.extend(self.headers.values().map(String::as_str));
        places.extend(in_body.into_iter().flat_map(|fields| fields.params.values().map(String::as_str)));
        for name in &places {
            if !self.params.contains_key(*name) {
                return Err(format!("`{name}` stands in the request but is none of its `params`"));
            }
            if places.iter().filter(|other| other == &name).count() > 1 {
                return Err(format!("parameter `{name}` stands in two places"));
            }
        }
        if let Some(name) = self.params.keys().find(|name| !places.contains(&name.as_str())) {
            return Err(format!(
                "parameter `{name}` stands nowhere in the request: put it into `path`, `query`, `headers` or `body`"
            ));
        }
        for name in self.path.params().chain(self.headers.values().map(String::as_str)) {
            if self.params.get(name).is_some_and(|param| param.kind == ParamType::Texts) {
                return Err(format!("parameter `{name}` is a set, which neither a path nor a header can hold"));
            }
        }
        if let Some(fields) = in_body {
            let paths: Vec<_> = fields.params.keys().chain(&fields.pass).collect();
            let within = |one: &Vec<String>| paths.iter().any(|other| other.len() < one.len() && one.starts_with(other));
            if let Some(path) = paths.iter().find(|path| within(path)) {
                return Err(format!("`{}` lies within a field that is read or passed as a whole", path.join(".")));
            }
        }
        Ok(())
    }
}

fn method(text: &str) -> Result<Method, String> {
    match text {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" => text.parse().map_err(|_| "no method".to_owned()),
        _ => Err(format!("`{text}` is no method of a route; use GET, HEAD, POST, PUT, PATCH or DELETE")),
    }
}

fn own_header(name: &str) -> Result<HeaderName, String> {
    let header = header(name)?;
    if header == http::header::AUTHORIZATION || header == http::header::COOKIE || header == http::header::PROXY_AUTHORIZATION {
        return Err(format!("header `{header}` carries credentials, which come from the gateway alone"));
    }
    Ok(header)
}

fn dotted(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// What a route lets through unseen.
#[derive(Default)]
struct Passed {
    query: BTreeSet<Vec<String>>,
    others_query: bool,
    headers: HashSet<HeaderName>,
    body: BTreeSet<Vec<String>>,
    others_body: bool,
    anything: bool,
}

impl Passed {
    fn read(list: &[String]) -> Result<Self, String> {
        let mut passed = Self::default();
        for entry in list {
            match entry.split_once('.') {
                None if entry == "body" => passed.anything = true,
                Some(("query", "*")) => passed.others_query = true,
                Some(("body", "*")) => passed.others_body = true,
                Some(("query", field)) if !field.is_empty() => drop(passed.query.insert(vec![field.to_owned()])),
                Some(("header", name)) => drop(passed.headers.insert(own_header(name)?)),
                Some(("body", path)) if !path.is_empty() => drop(passed.body.insert(dotted(path))),
                _ => {
                    return Err(format!(
                        "`{entry}` in `pass`: write `query.NAME`, `header.NAME`, `body.PATH`, `query.*`, `body.*` or `body`"
                    ));
                }
            }
        }
        Ok(passed)
    }
}

/// Routes of which nobody could say which one a request means.
fn ambiguities(routes: &[Route]) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    for (at, one) in routes.iter().enumerate() {
        for two in routes.iter().skip(at + 1) {
            let alike = one.path.rank() == two.path.rank();
            if one.method == two.method && alike && one.path.overlaps(&two.path) {
                let fault = format!("some paths match route `{}` as well, and neither is more exact", one.offer);
                faults.push(ConfigFault::Route { route: two.offer.clone(), fault });
            }
        }
    }
    faults
}
