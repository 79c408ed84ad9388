//! `[data]`, `[policy]`, `[targets]`, `[agents]`: which folders; and `[client]`: what the command line needs to reach a server.

use super::option::{Opt, Section, env_opt, opt};
use super::read::Table;
use super::server::secure_url;
use std::path::{Path, PathBuf};

/// `[data]`.
pub(crate) static DATA: Section = Section {
    header: "[data]",
    doc: "Where the state and the log are kept.",
    options: &[
        env_opt(
            "dir",
            "a path",
            "`data`",
            "WRIT_DATA_DIR",
            "The folder of the database, the published log, and the keys. Created with access for its owner only.",
        ),
        opt(
            "anchor",
            "a path",
            "`anchor` in `dir`",
            "The file that remembers the newest signed checkpoint outside the database, so that a database that went back in time is noticed. Best on another volume, and never in the backup that holds the database.",
        ),
        opt("node", "a name", "`node-1`", "The name of this node in the log."),
        opt(
            "grants_kept_days",
            "1 to 3650",
            "30",
            "How long credentials that are proved dead stay in listings after their time was over. What happened to them stays in the log for ever.",
        ),
    ],
};

/// `[policy]`.
pub(crate) static POLICY: Section = Section {
    header: "[policy]",
    doc: "Where policy lives. It is read again when a file changes; a version that does not validate is reported and the one before stays.",
    options: &[opt("dir", "a path", "`policy`", "The folder with `intents/*.toml`, `*.cedar`, `tools/*`, `tests/*.toml`.")],
};

/// `[targets]`.
pub(crate) static TARGETS: Section = Section {
    header: "[targets]",
    doc: "Where the systems are described in which credentials are issued. What they offer is part of the policy and is read again with it.",
    options: &[opt("dir", "a path", "`targets`", "The folder of the target files, one `NAME.toml` each. It need not exist.")],
};

/// `[agents]`.
pub(crate) static AGENTS: Section = Section {
    header: "[agents]",
    doc: "Where agents are registered as files. An agent whose file is deleted is suspended. Agents can also be registered over the API.",
    options: &[opt("dir", "a path", "`agents`", "The folder of the agent files, one `NAME.toml` each.")],
};

const CLIENT_OPTIONS: &[Opt] = &[
    env_opt("server", "a URL", "`public_url`", "WRIT_SERVER", "The server that commands talk to."),
    env_opt(
        "operator_secret_file",
        "a path",
        "none",
        "WRIT_OPERATOR_SECRET_FILE",
        "The file with the operator's secret, readable by its owner only.",
    ),
    opt("ca_file", "a path", "public roots", "Certificates (PEM) that the command line trusts instead of the public roots."),
];

/// `[client]`.
pub(crate) static CLIENT: Section = Section {
    header: "[client]",
    doc: "What commands such as `writ task list` and `writ exec` use. `writ serve` ignores it.",
    options: CLIENT_OPTIONS,
};

/// `[data]`.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    /// The folder.
    pub(crate) dir: PathBuf,
    /// The file that remembers the newest checkpoint.
    pub(crate) anchor: PathBuf,
    /// How long dead grants are kept.
    pub(crate) grants_kept_days: u64,
    /// The name of this node in the log.
    pub(crate) node: String,
}

/// `[client]`.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The server, without a slash at the end.
    pub(crate) server: Option<String>,
    /// The operator's secret.
    pub(crate) operator_secret_file: Option<PathBuf>,
    /// Trusted certificates.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Reads `[data]`.
pub(crate) fn read_data(table: &Table<'_>, root: &Path) -> Data {
    let node = table.text("node").filter(|node| {
        let named = node.value.parse::<domain::ProviderName>().is_ok();
        if !named {
            table.push(node.fault("`node` must be a name: 1 to 64 of a-z, 0-9, `-`, `_` and `.`"));
        }
        named
    });
    let dir = read_dir(table, root, "data");
    let anchor = table.text("anchor").map_or_else(|| dir.join("anchor"), |anchor| root.join(anchor.value));
    let grants_kept_days = table.number("grants_kept_days", 1..=3_650).unwrap_or(30);
    Data { dir, anchor, grants_kept_days, node: node.map_or_else(|| "node-1".to_owned(), |node| node.value) }
}

/// Reads `dir`.
pub(crate) fn read_dir(table: &Table<'_>, root: &Path, default: &str) -> PathBuf {
    root.join(table.text("dir").map_or_else(|| default.to_owned(), |dir| dir.value))
}

/// Reads `[client]`.
pub(crate) fn read_client(table: &Table<'_>, root: &Path) -> Client {
    let server = table.text("server").and_then(|server| secure_url(table, &server, "server"));
    let path = |name| table.text(name).map(|path| root.join(path.value));
    Client {
        server: server.map(|server| server.as_str().trim_end_matches('/').to_owned()),
        operator_secret_file: path("operator_secret_file"),
        ca_file: path("ca_file"),
    }
}
