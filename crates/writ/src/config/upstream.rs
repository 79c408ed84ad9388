//! `[[upstream]]`: the MCP servers behind the gateway. Secrets stand here only as references.

use super::option::{Opt, Section, opt};
use super::read::{Placed, Table};
use super::server::allowed_url;
use domain::{Injection, OwnerId, SecretRef, Transport, Upstream, UpstreamName};
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// `[[upstream]]`.
pub(crate) static UPSTREAM: Section = Section {
    header: "[[upstream]]",
    doc: "An MCP server behind the gateway, served at `/mcp/NAME`: either `url` (Streamable HTTP) or `command` (started once for each task, stdio).",
    options: OPTIONS,
};

const OPTIONS: &[Opt] = &[
    opt("name", "a name", "required", "As policies, paths and the log use it."),
    opt("owner", "a name", "required", "Who answers for it."),
    opt(
        "url",
        "a URL",
        "one of `url` and `command` is required",
        "Its Streamable HTTP endpoint: `https`, or `http` on this machine and at `plain_http_hosts` of `[server]`.",
    ),
    opt(
        "ca_file",
        "a path",
        "the public roots",
        "With `url`: certificates in PEM that this upstream, and no other, is trusted by besides the public roots. Read at start.",
    ),
    opt(
        "command",
        "a program",
        "one of `url` and `command` is required",
        "The program that speaks MCP on its standard input and output.",
    ),
    opt("args", "a list of texts", "none", "Arguments of `command`."),
    opt(
        "vars",
        "a table of texts",
        "none",
        "Environment variables of `command`, in clear. Beside these and `env` it gets only `PATH`.",
    ),
    opt(
        "env",
        "a table of references",
        "none",
        "Environment variables of `command` by reference: `{ NAME = { env = \"X\" } }` or `{ NAME = { file = \"path\" } }`; a file that others than its owner can read is refused. What the program says is withheld if it holds one of them (of 8 bytes or more), so what is no secret belongs into `vars`.",
    ),
    opt(
        "injection",
        "a table `[upstream.injection]`",
        "none",
        "A credential that the gateway adds to each request; the agent never sees it: an answer that repeats it (8 bytes or more, in clear or encoded) is withheld.",
    ),
    opt("timeout_secs", "1 to 3600", "60", "How long one request to it may take."),
];

/// `[upstream.injection]`.
pub(crate) static INJECTION: Section = Section {
    header: "[upstream.injection]",
    doc: "A credential that the gateway adds to each request to the upstream, read from where it is each time.",
    options: INJECTION_OPTIONS,
};

const INJECTION_OPTIONS: &[Opt] = &[
    opt("header", "a header name", "`authorization`", "The header that carries it."),
    opt("prefix", "text", "`Bearer ` for `authorization`, else empty", "What stands before the secret."),
    opt(
        "env",
        "a variable name",
        "one of `env` and `file` is required",
        "The environment variable of the gateway that holds the secret.",
    ),
    opt(
        "file",
        "a path",
        "one of `env` and `file` is required",
        "The file that holds the secret (a newline at its end is cut off).",
    ),
];

/// An upstream, and what it is trusted by.
pub(crate) struct Configured {
    pub(crate) upstream: Upstream,
    pub(crate) ca_file: Option<PathBuf>,
}

/// Reads one upstream; paths are relative to `dir`, and hosts of `plain` need no TLS.
pub(crate) fn read(table: &Table<'_>, dir: &Path, plain: &[String]) -> Option<Configured> {
    let name = table.needed_parsed::<UpstreamName>("name");
    let owner = table.needed_parsed::<OwnerId>("owner");
    let timeout_secs = table.number("timeout_secs", 1..=3_600).unwrap_or(60);
    let transport = match (table.has("url"), table.has("command")) {
        (true, false) => http(table, plain),
        (false, true) => stdio(table, dir),
        (false, false) => {
            table.push(table.fault("an upstream needs `url` or `command`"));
            None
        }
        (true, true) => {
            // Asking for both keeps them from being reported again as unknown.
            drop((http(table, plain), stdio(table, dir)));
            table.push(table.fault("an upstream has either `url` or `command`, not both"));
            None
        }
    };
    let injection = table.table("injection", &INJECTION, |table| read_injection(table, dir));
    if injection.is_some() && table.has("command") {
        table.push(table.fault("`injection` adds a header, which a `command` does not have").help("give it the secret in `env`"));
    }
    let ca_file = table.text("ca_file").map(|path| dir.join(path.value));
    if ca_file.is_some() && table.has("command") {
        table.push(table.fault("`ca_file` is about TLS, which a `command` does not have"));
    }
    let injection = injection.flatten();
    let upstream = Upstream { name: name?.value, owner: owner?.value, transport: transport?, injection, timeout_secs };
    Some(Configured { upstream, ca_file })
}

fn http(table: &Table<'_>, plain: &[String]) -> Option<Transport> {
    let url = table.text("url")?;
    let parsed = allowed_url(table, &url, "url", plain)?;
    Some(Transport::Http { url: parsed.to_string() })
}

fn stdio(table: &Table<'_>, dir: &Path) -> Option<Transport> {
    let command = table.text("command")?.value;
    let args = table.texts("args").unwrap_or_default().into_iter().map(|arg| arg.value).collect();
    let mut vars = Vec::new();
    for (name, value) in table.open_table("vars") {
        match value.value.as_str() {
            Some(text) => vars.push((name.value, text.to_owned())),
            None => table.push(value.fault("an environment variable must be text in quotes")),
        }
    }
    let env = table.open_table("env");
    let env = env.into_iter().filter_map(|(name, value)| Some((name.value, reference(table, &value, dir)?))).collect();
    Some(Transport::Stdio { command, args, env, vars })
}

/// `{ env = "X" }` or `{ file = "path" }`.
fn reference(table: &Table<'_>, value: &Placed<&DeValue<'_>>, dir: &Path) -> Option<SecretRef> {
    let entries = value.value.as_table().map(|entries| entries.iter().collect::<Vec<_>>()).unwrap_or_default();
    if let [(key, place)] = entries.as_slice()
        && let Some(text) = place.get_ref().as_str()
    {
        match key.get_ref().as_ref() {
            "env" => return Some(SecretRef::Env(text.to_owned())),
            "file" => return Some(file(dir, text)),
            _ => {}
        }
    }
    let fault = value.fault("a secret is given by reference");
    table.push(fault.help("write `{ env = \"VARIABLE\" }` or `{ file = \"path\" }`; a value that is no secret goes into `vars`"));
    None
}

/// A secret in a file, which is named from the folder of the configuration.
fn file(dir: &Path, path: &str) -> SecretRef {
    SecretRef::File(dir.join(path).to_string_lossy().into_owned())
}

fn read_injection(table: &Table<'_>, dir: &Path) -> Option<Injection> {
    let given = table.text("header");
    let header = given.as_ref().map_or_else(|| "authorization".to_owned(), |header| header.value.to_lowercase());
    if let Some(given) = given.filter(|_| !Injection::may_be_in(&header)) {
        let fault = given.fault(format!("`{}` cannot carry a credential", given.value));
        table.push(
            fault.help("name a header that the transport does not need itself, for example `authorization` or `x-api-key`"),
        );
    }
    let prefix = table.text("prefix").map(|prefix| prefix.value);
    let prefix = prefix.unwrap_or_else(|| if header == "authorization" { "Bearer ".to_owned() } else { String::new() });
    let secret = match (table.text("env"), table.text("file")) {
        (Some(variable), None) => Some(SecretRef::Env(variable.value)),
        (None, Some(path)) => Some(file(dir, &path.value)),
        _ => {
            table.push(table.fault("an injection needs either `env` or `file`: where the secret is, never the secret itself"));
            None
        }
    };
    Some(Injection { header, prefix, secret: secret? })
}
