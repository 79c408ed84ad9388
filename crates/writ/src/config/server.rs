//! `[server]`: where Writ listens, under which name clients know it, TLS, and limits of the listener.

use super::option::{Opt, Section, env_opt, opt};
use super::read::{Placed, Table};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use url::Url;

/// `[server]`.
pub(crate) static SERVER: Section =
    Section { header: "[server]", doc: "Where Writ listens and under which name clients know it.", options: SERVER_OPTIONS };

const SERVER_OPTIONS: &[Opt] = &[
    env_opt(
        "listen",
        "an address and port",
        "`127.0.0.1:8700`",
        "WRIT_LISTEN",
        "The one listener of everything: `/mcp`, `/oauth`, `/v1`, `/log`. Port 0 takes a free one.",
    ),
    env_opt(
        "public_url",
        "a URL without a path",
        "`http://` and `listen`",
        "WRIT_PUBLIC_URL",
        "The URL under which clients reach Writ: the issuer of its tokens and the base of every resource. Must be `https` unless the host is a loopback address. Behind a proxy that ends TLS, give the proxy's URL.",
    ),
    opt(
        "allowed_hosts",
        "a list of host names",
        "the host of `public_url`",
        "Further values of the `Host` header that are served, for example an internal name. Everything else is refused, which stops DNS rebinding.",
    ),
    opt(
        "allowed_origins",
        "a list of origins",
        "none",
        "Web origins whose scripts may call. A request with any other `Origin` is refused.",
    ),
    opt(
        "plain_http_hosts",
        "a list of host names",
        "none",
        "Hosts besides this machine at which MCP upstreams may be reached over plain `http`. What goes there, credentials included, can be read and changed on the way; each start warns of it. Rather give the upstream a certificate and its `ca_file`.",
    ),
    opt("connections_max", "1 to 100000", "10000", "Connections at one time; further ones wait in the kernel's queue."),
    opt(
        "stalled_secs",
        "5 to 3600",
        "60",
        "How long a client may take nothing of the bytes that wait for it; then its connection is closed. A stream without news has no bytes that wait, and stays.",
    ),
    opt(
        "drain_secs",
        "0 to 3600",
        "30",
        "At shutdown, how long calls in flight may take to finish and be logged before they are cut.",
    ),
    opt("tls", "a table `[server.tls]`", "no TLS", "Serve HTTPS. Without it a proxy in front must."),
];

/// `[server.tls]`.
pub(crate) static TLS: Section =
    Section { header: "[server.tls]", doc: "HTTPS on the listener. The files are read again on `SIGHUP`.", options: TLS_OPTIONS };

const TLS_OPTIONS: &[Opt] = &[
    opt("cert", "a path", "required", "Certificate chain in PEM, the server's own first."),
    opt("key", "a path", "required", "Private key in PEM. Refused if others than its owner can read it."),
    opt(
        "client_certs",
        "`off` or `request`",
        "`off`",
        "`request`: ask clients for a certificate. X.509-SVIDs prove identity at the token endpoint and bind tokens (RFC 8705). A certificate is evidence, not a login: which ones count is decided by the `spiffe` providers.",
    ),
];

/// The listener.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// The base URL as clients see it: scheme and authority, no slash at the end.
    pub(crate) public_url: String,
    /// Further host names.
    pub(crate) allowed_hosts: Vec<String>,
    /// Web origins.
    pub(crate) allowed_origins: Vec<String>,
    /// Hosts beyond loopback at which upstreams may be reached without TLS, in lower case.
    pub(crate) plain_http_hosts: Vec<String>,
    /// Connections at one time.
    pub(crate) connections_max: usize,
    /// Seconds without progress after which a client that does not read is dropped.
    pub(crate) stalled_secs: u64,
    /// Seconds to finish calls at shutdown.
    pub(crate) drain_secs: u64,
    /// HTTPS.
    pub(crate) tls: Option<Tls>,
}

/// HTTPS.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// Certificate chain.
    pub(crate) cert: PathBuf,
    /// Private key.
    pub(crate) key: PathBuf,
    /// Ask clients for a certificate.
    pub(crate) request_client_certs: bool,
}

/// Reads `[server]`; paths are relative to `dir`.
pub(crate) fn read(table: &Table<'_>, dir: &Path) -> Option<Server> {
    let listen = match table.text("listen") {
        Some(given) => listen(table, &given),
        None => (!table.has("listen")).then(|| SocketAddr::from(([127, 0, 0, 1], 8700))),
    };
    let tls = table.table("tls", &TLS, |tls| read_tls(tls, dir));
    let public_url = match table.text("public_url") {
        Some(given) => public_url(table, &given),
        None => listen.map(|listen| format!("{}://{listen}", if tls.is_some() { "https" } else { "http" })),
    };
    let words = |name| -> Vec<String> { table.texts(name).unwrap_or_default().into_iter().map(|text| text.value).collect() };
    Some(Server {
        allowed_hosts: allowed(table, "allowed_hosts", is_host, "a name and perhaps a port, for example `writ.internal:8700`"),
        allowed_origins: allowed(
            table,
            "allowed_origins",
            is_origin,
            "as browsers send it, for example `https://app.example.com`",
        ),
        plain_http_hosts: words("plain_http_hosts").into_iter().map(|host| host.to_lowercase()).collect(),
        connections_max: table.number("connections_max", 1..=100_000).unwrap_or(10_000).try_into().unwrap_or(usize::MAX),
        stalled_secs: table.number("stalled_secs", 5..=3_600).unwrap_or(60),
        drain_secs: table.number("drain_secs", 0..=3_600).unwrap_or(30),
        listen: listen?,
        public_url: public_url?,
        tls: tls.flatten(),
    })
}

/// A list of values that clients send; one that none can send is a mistake.
fn allowed(table: &Table<'_>, name: &'static str, can_be: fn(&str) -> bool, help: &'static str) -> Vec<String> {
    let given = table.texts(name).unwrap_or_default();
    for text in given.iter().filter(|text| !can_be(&text.value)) {
        table.push(text.fault(format!("`{}` is nothing that a client would send", text.value)).help(help));
    }
    given.into_iter().map(|text| text.value).collect()
}

/// Whether this can stand in `Host` (RFC 9110 §7.2).
fn is_host(text: &str) -> bool {
    !text.contains('@') && text.parse::<http::uri::Authority>().is_ok()
}

/// Whether this can stand in `Origin` (RFC 6454 §6.2).
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
}

fn listen(table: &Table<'_>, given: &Placed<String>) -> Option<SocketAddr> {
    let parsed = given.value.parse().ok();
    if parsed.is_none() {
        let fault = given.fault(format!("`{}` is not an address with a port", given.value));
        table.push(fault.help("for example `127.0.0.1:8700`, or `0.0.0.0:8700` for all addresses; a name is none"));
    }
    parsed
}

fn read_tls(table: &Table<'_>, dir: &Path) -> Option<Tls> {
    let cert = table.needed("cert");
    let key = table.needed("key");
    let request = table.word("client_certs", &[("off", false), ("request", true)]).unwrap_or(false);
    Some(Tls { cert: dir.join(cert?.value), key: dir.join(key?.value), request_client_certs: request })
}

fn public_url(table: &Table<'_>, given: &Placed<String>) -> Option<String> {
    let url = secure_url(table, given, "public_url")?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !bare {
        let fault = given.fault("`public_url` must be a scheme, a host and perhaps a port, nothing more");
        table.push(fault.help("for example `https://writ.example.com`"));
        return None;
    }
    Some(url.as_str().trim_end_matches('/').to_owned())
}

/// A URL that is `https`, or `http` on a loopback address.
pub(super) fn secure_url(table: &Table<'_>, given: &Placed<String>, name: &str) -> Option<Url> {
    allowed_url(table, given, name, &[])
}

/// A URL that is `https`, or `http` on a loopback address or at one of the `plain` hosts.
pub(super) fn allowed_url(table: &Table<'_>, given: &Placed<String>, name: &str, plain: &[String]) -> Option<Url> {
    let url = match Url::parse(&given.value) {
        Ok(url) => url,
        Err(error) => {
            table.push(given.fault(format!("`{}` is not a URL: {error}", given.value)));
            return None;
        }
    };
    // It would be shown wherever the URL is: to auditors, in messages, to whoever reads the file.
    if !url.username().is_empty() || url.password().is_some() {
        table.push(
            given
                .fault(format!("`{name}` must not hold credentials"))
                .help("a secret is given by reference, where there is an option for it"),
        );
        return None;
    }
    let may_be_plain = || is_loopback(&url) || url.host_str().is_some_and(|host| plain.iter().any(|plain| plain == host));
    if url.scheme() == "https" || (url.scheme() == "http" && may_be_plain()) {
        return Some(url);
    }
    let fault = given.fault(format!("`{name}` must start with `https://`"));
    table.push(fault.help("plain `http` is accepted only for `localhost`, `127.0.0.1` and `[::1]`"));
    None
}

/// Whether a URL stays on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
