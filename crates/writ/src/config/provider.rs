//! `[[provider]]`: who may vouch for workloads, and by which keys. Owns names and places only; verification is the
//! token crate's, matching of claims to agents the inventory's.

use super::option::{Opt, Section, opt};
use super::read::{Placed, Table};
use super::server::secure_url;
use domain::ProviderName;
use std::path::{Path, PathBuf};
use token::algorithm::Algorithm;
use token::spiffe_id::TrustDomain;

/// `[[provider]]`.
pub(crate) static PROVIDER: Section = Section {
    header: "[[provider]]",
    doc: "Who may vouch for workloads. `kind = \"oidc\"` takes `issuer` and `jwks_url` or `jwks_file`; `kind = \"spiffe\"` takes `trust_domain` and `bundle_file`, `bundle_url` or `workload_api`.",
    options: OPTIONS,
};

const OPTIONS: &[Opt] = &[
    opt("name", "a name", "required", "How agents' identity rules refer to it."),
    opt(
        "kind",
        "`oidc` or `spiffe`",
        "required",
        "`oidc`: signed identity tokens (CI runners, Kubernetes, clouds, any OIDC issuer). `spiffe`: JWT-SVIDs and X.509-SVIDs of one trust domain.",
    ),
    opt("audience", "text", "`public_url`", "The only audience (`aud`) that evidence may be made out to."),
    opt("leeway_secs", "0 to 60", "30", "Clock skew that is granted to `exp`, `nbf` and `iat`."),
    opt("max_age_secs", "30 to 86400", "900", "The oldest evidence that is accepted, counted from `iat`."),
    opt("max_lifetime_secs", "30 to 86400", "3600", "The longest whole life (`exp` minus `iat`) of evidence that is accepted."),
    opt(
        "single_use",
        "`true` or `false`",
        "`true`",
        "Whether one piece of evidence opens or renews one task only. Turn it off only for issuers that hand the same token out again (a Workload API caches JWT-SVIDs, Kubernetes projects one token for minutes): a stolen token can then be used again until it expires. Flagged.",
    ),
    opt(
        "algorithms",
        "a list of JWS algorithms",
        "`[\"ES256\", \"RS256\"]`; for `spiffe` all that JWT-SVID allows",
        "Signature algorithms that this issuer may use. `none` and HMAC do not exist here.",
    ),
    opt(
        "issuer",
        "text",
        "required for `oidc`",
        "The exact `iss` of its tokens. Chosen by comparison, never fetched from a token.",
    ),
    opt(
        "jwks_url",
        "a URL",
        "one of the two is required for `oidc`",
        "Where its keys are published. Fetched with a size and time limit, without redirects, cached, and again when an unknown key shows up (at most once a minute).",
    ),
    opt(
        "jwks_file",
        "a path",
        "one of the two is required for `oidc`",
        "A file with its keys (JWKS). Read again when it changes.",
    ),
    opt(
        "trust_domain",
        "a SPIFFE trust domain",
        "required for `spiffe`",
        "Whose SVIDs these are, for example `prod.example.com`.",
    ),
    opt(
        "bundle_file",
        "a path",
        "one of the three is required for `spiffe`",
        "A SPIFFE bundle file (JWKS with `use`). Read again when it changes.",
    ),
    opt("bundle_url", "a URL", "one of the three is required for `spiffe`", "A SPIFFE bundle endpoint (`https_web`)."),
    opt(
        "workload_api",
        "a socket",
        "one of the three is required for `spiffe`",
        "Endpoint of the SPIFFE Workload API that gives the bundle, for example `unix:///run/spire/agent.sock`.",
    ),
    opt(
        "dev_key_file",
        "a path",
        "none",
        "DEVELOPMENT ONLY, `oidc` only: the private key of this issuer, with which `writ exec --dev AGENT` signs identity tokens. Whoever can read it is every agent of this provider.",
    ),
];

/// One provider.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    /// Its name.
    pub(crate) name: ProviderName,
    /// The audience of its evidence; `None` means the public URL.
    pub(crate) audience: Option<String>,
    /// Clock skew.
    pub(crate) leeway_secs: u64,
    /// Oldest evidence.
    pub(crate) max_age_secs: u64,
    /// Longest-lived evidence.
    pub(crate) max_lifetime_secs: u64,
    /// Whether evidence can be used once only.
    pub(crate) single_use: bool,
    /// Its algorithms.
    pub(crate) algorithms: Vec<Algorithm>,
    /// What kind it is.
    pub(crate) kind: Kind,
    /// Its private key, in development.
    pub(crate) dev_key_file: Option<PathBuf>,
}

/// What kind of provider.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// An OIDC issuer.
    Oidc {
        /// The exact `iss`.
        issuer: String,
        /// Its keys.
        keys: Keys,
    },
    /// A SPIFFE trust domain.
    Spiffe {
        /// Its name.
        trust_domain: TrustDomain,
        /// Its bundle.
        keys: Keys,
    },
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// A file.
    File(PathBuf),
    /// A URL.
    Url(String),
    /// The SPIFFE Workload API at this endpoint.
    WorkloadApi(String),
}

#[derive(Clone, Copy)]
enum Word {
    Oidc,
    Spiffe,
}

/// Reads one provider; paths are relative to `dir`.
pub(crate) fn read(table: &Table<'_>, dir: &Path) -> Option<Provider> {
    let name = table.needed_parsed::<ProviderName>("name");
    let word = table.needed("kind").and_then(|given| table.choose(&given, &[("oidc", Word::Oidc), ("spiffe", Word::Spiffe)]));
    let audience = table.text("audience").map(|audience| audience.value);
    let leeway_secs = table.number("leeway_secs", 0..=60).unwrap_or(30);
    let max_age_secs = table.number("max_age_secs", 30..=86_400).unwrap_or(900);
    let max_lifetime_secs = table.number("max_lifetime_secs", 30..=86_400).unwrap_or(3_600);
    let single_use = table.flag("single_use").unwrap_or(true);
    let algorithms = algorithms(table);
    let mut dev_key_file = None;
    let (kind, default_algorithms) = match word? {
        Word::Oidc => {
            dev_key_file = table.text("dev_key_file").map(|path| dir.join(path.value));
            (oidc(table, dir), vec![Algorithm::Es256, Algorithm::Rs256])
        }
        Word::Spiffe => (spiffe(table, dir), Algorithm::JWT_SVID.to_vec()),
    };
    Some(Provider {
        name: name?.value,
        audience,
        leeway_secs,
        max_age_secs,
        max_lifetime_secs,
        single_use,
        algorithms: algorithms.unwrap_or(default_algorithms),
        kind: kind?,
        dev_key_file,
    })
}

fn algorithms(table: &Table<'_>) -> Option<Vec<Algorithm>> {
    let known = Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
    let given = table.texts("algorithms")?;
    if given.is_empty() {
        table.push(
            table
                .fault("`algorithms` is empty, so no token of this provider would be accepted")
                .help("leave it out, or name some"),
        );
    }
    Some(given.iter().filter_map(|text| table.choose(text, &known)).collect())
}

fn oidc(table: &Table<'_>, dir: &Path) -> Option<Kind> {
    let issuer = table.needed("issuer");
    let file = table.text("jwks_file").map(|path| Keys::File(dir.join(path.value)));
    let url = table.text("jwks_url").and_then(|url| url_keys(table, &url, "jwks_url"));
    let keys = one_of(table, [file, url], "`jwks_url` or `jwks_file`", &["jwks_file", "jwks_url"]);
    Some(Kind::Oidc { issuer: issuer?.value, keys: keys? })
}

fn spiffe(table: &Table<'_>, dir: &Path) -> Option<Kind> {
    let trust_domain = table.needed("trust_domain").and_then(|given| match TrustDomain::parse(&given.value) {
        Ok(domain) => Some(domain),
        Err(error) => {
            table.push(given.fault(error.to_string()));
            None
        }
    });
    let file = table.text("bundle_file").map(|path| Keys::File(dir.join(path.value)));
    let url = table.text("bundle_url").and_then(|url| url_keys(table, &url, "bundle_url"));
    let socket = table.text("workload_api").map(|socket| Keys::WorkloadApi(socket.value));
    let names = ["bundle_file", "bundle_url", "workload_api"];
    let keys = one_of(table, [file, url, socket], "`bundle_file`, `bundle_url` or `workload_api`", &names);
    Some(Kind::Spiffe { trust_domain: trust_domain?, keys: keys? })
}

fn url_keys(table: &Table<'_>, given: &Placed<String>, name: &str) -> Option<Keys> {
    secure_url(table, given, name).map(|url| Keys::Url(url.to_string()))
}

/// Exactly one of several ways to say where the keys are.
fn one_of<const N: usize>(table: &Table<'_>, found: [Option<Keys>; N], what: &str, names: &[&'static str]) -> Option<Keys> {
    match names.iter().filter(|name| table.has(name)).count() {
        0 => table.push(table.fault(format!("this provider needs {what}"))),
        1 => return found.into_iter().flatten().next(),
        _ => table.push(table.fault(format!("this provider takes only one of {what}"))),
    }
    None
}
