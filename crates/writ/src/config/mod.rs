//! The configuration: `writ.toml` and `agents/*.toml`, read once into typed values, all faults at once. Owns which
//! sections there are and what must agree between them. It never opens a socket, a key or a database.

mod agent;
mod fault;
mod folders;
mod operator;
mod option;
mod provider;
mod read;
mod reference;
mod server;
mod telemetry;
mod tokens;
mod upstream;

#[cfg(test)]
mod tests;

pub(crate) use fault::{Fault, Refused};
pub(crate) use folders::{Client, Data};
pub(crate) use provider::{Keys, Kind, Provider};
pub(crate) use reference::markdown;
pub(crate) use server::{Server, Tls, is_loopback};
pub(crate) use telemetry::{LogFormat, Telemetry};
pub(crate) use tokens::Tokens;

use crate::policy_folder::Folders;
use control::Operator;
use domain::{Agent, AgentId, Upstream, UpstreamName};
use fault::{Faults, Source};
use option::{Opt, Section, opt};
use read::{Lookup, Reader, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1_024 * 1_024;

/// The root of `writ.toml`.
pub(crate) static ROOT: Section = Section { header: "writ.toml", doc: "", options: ROOT_OPTIONS };

const ROOT_OPTIONS: &[Opt] = &[
    opt("server", "", "", ""),
    opt("data", "", "", ""),
    opt("policy", "", "", ""),
    opt("targets", "", "", ""),
    opt("agents", "", "", ""),
    opt("tokens", "", "", ""),
    opt("telemetry", "", "", ""),
    opt("client", "", "", ""),
    opt("provider", "", "", ""),
    opt("operator", "", "", ""),
    opt("upstream", "", "", ""),
];

/// Every section, in the order in which people read about them.
pub(crate) static SECTIONS: [&Section; 15] = [
    &server::SERVER,
    &server::TLS,
    &folders::DATA,
    &folders::POLICY,
    &folders::TARGETS,
    &folders::AGENTS,
    &provider::PROVIDER,
    &operator::OPERATOR,
    &upstream::UPSTREAM,
    &upstream::INJECTION,
    &tokens::TOKENS,
    &telemetry::TELEMETRY,
    &folders::CLIENT,
    &agent::AGENT,
    &agent::IDENTITY,
];

/// Everything that `writ.toml` and the agent files say.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The folder of `writ.toml`, where relative paths start.
    pub(crate) dir: PathBuf,
    /// The listener.
    pub(crate) server: Server,
    /// State and log.
    pub(crate) data: Data,
    /// The folders of policies and targets.
    pub(crate) policy: Folders,
    /// The folder of the agent files.
    pub(crate) agents_dir: PathBuf,
    /// Who may vouch.
    pub(crate) providers: Vec<Provider>,
    /// Who may use the control API.
    pub(crate) operators: Vec<Operator>,
    /// The MCP servers.
    pub(crate) upstreams: Vec<Upstream>,
    /// Files of certificates that single MCP servers are trusted by.
    pub(crate) upstream_ca_files: Vec<(UpstreamName, PathBuf)>,
    /// The agents of the agent files.
    pub(crate) agents: Vec<Agent>,
    /// Our tokens.
    pub(crate) tokens: Tokens,
    /// Logs, metrics, traces.
    pub(crate) telemetry: Telemetry,
    /// What commands use.
    pub(crate) client: Client,
}

/// Reads `writ.toml` at `path` and the agent files beside it.
///
/// # Errors
/// [`Refused`] with every fault of every file.
pub(crate) fn load(path: &Path) -> Result<Config, Refused> {
    load_with(path, &crate::system::variable)
}

/// The same with a given environment.
pub(crate) fn load_with(path: &Path, env: Lookup<'_>) -> Result<Config, Refused> {
    let faults = Faults::default();
    let config = read_file(&faults, path).and_then(|source| {
        let dir = path.parent().unwrap_or_else(|| Path::new(""));
        let mut config = read(Reader { faults: &faults, source: &source, env }, dir)?;
        config.agents = read_agents(&faults, &config, env);
        Some(config)
    });
    faults.into_result(config)
}

/// Reads only the agent files of an already loaded configuration again.
///
/// # Errors
/// [`Refused`] with every fault.
pub(crate) fn reload_agents(config: &Config) -> Result<Vec<Agent>, Refused> {
    let faults = Faults::default();
    let agents = read_agents(&faults, config, &|_| None);
    faults.into_result(Some(agents))
}

fn read_file(faults: &Faults, path: &Path) -> Option<Arc<Source>> {
    let name = path.display().to_string();
    let text = std::fs::metadata(path).and_then(|meta| {
        if meta.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other("the file is too large for a configuration"));
        }
        std::fs::read_to_string(path)
    });
    match text {
        Ok(text) => Some(Source::new(name, text)),
        Err(error) => {
            let source = Source::new(&name, String::new());
            let fault = Fault::new(&source, 0..0, format!("`{name}` cannot be read: {error}"));
            faults.push(fault.help("`writ init DIR` writes a working one; `--config PATH` says where yours is"));
            None
        }
    }
}

fn read(reader: Reader<'_>, dir: &Path) -> Option<Config> {
    read::with_root(reader, &ROOT, |root| {
        let server = root.section("server", &server::SERVER, |table| server::read(table, dir)).flatten();
        let data = root.section("data", &folders::DATA, |table| folders::read_data(table, dir));
        let policy_dir = root.section("policy", &folders::POLICY, |table| folders::read_dir(table, dir, "policy"));
        let targets_dir = root.section("targets", &folders::TARGETS, |table| folders::read_dir(table, dir, "targets"));
        let agents_dir = root.section("agents", &folders::AGENTS, |table| folders::read_dir(table, dir, "agents"));
        let tokens = root.section("tokens", &tokens::TOKENS, tokens::read);
        let telemetry = root.section("telemetry", &telemetry::TELEMETRY, telemetry::read);
        let client = root.section("client", &folders::CLIENT, |table| folders::read_client(table, dir));
        let providers = root.tables("provider", &provider::PROVIDER, |table| provider::read(table, dir));
        let operators = root.tables("operator", &operator::OPERATOR, operator::read);
        let plain = server.as_ref().map_or(&[][..], |server| &server.plain_http_hosts);
        let configured = root.tables("upstream", &upstream::UPSTREAM, |table| upstream::read(table, dir, plain));
        let ca_files = configured.iter().filter_map(|one| Some((one.upstream.name.clone(), one.ca_file.clone()?))).collect();
        let upstreams: Vec<_> = configured.into_iter().map(|one| one.upstream).collect();
        unique(root, "provider", providers.iter().map(|provider| provider.name.as_str()));
        unshared(root, &providers);
        unique(root, "operator", operators.iter().map(|operator| operator.name.as_str()));
        unique(root, "upstream", upstreams.iter().map(|upstream| upstream.name.as_str()));
        Some(Config {
            dir: dir.to_owned(),
            server: server?,
            data: data?,
            policy: Folders { policy: policy_dir?, targets: Some(targets_dir?) },
            agents_dir: agents_dir?,
            providers,
            operators,
            upstreams,
            upstream_ca_files: ca_files,
            agents: Vec::new(),
            tokens: tokens?,
            telemetry: telemetry?,
            client: client?,
        })
    })
    .flatten()
}

/// Reports names that stand twice.
fn unique<'a>(root: &Table<'_>, kind: &str, names: impl Iterator<Item = &'a str>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            root.push(root.fault(format!("there are two [[{kind}]] with the name `{name}`")));
        }
    }
}

/// Evidence chooses its provider by issuer, so of two with the same one the second would never be asked.
fn unshared(root: &Table<'_>, providers: &[Provider]) {
    let mut seen = BTreeMap::new();
    for provider in providers {
        let issuer = match &provider.kind {
            Kind::Oidc { issuer, .. } => issuer.clone(),
            Kind::Spiffe { trust_domain, .. } => trust_domain.id_string(),
        };
        if let Some(other) = seen.insert(issuer.clone(), &provider.name) {
            let both = format!("[[provider]] `{other}` and `{}` have the same issuer `{issuer}`", provider.name);
            root.push(
                root.fault(both).help("evidence is told apart by its issuer: make them one, with rules on claims for each agent"),
            );
        }
    }
}

fn read_agents(faults: &Faults, config: &Config, env: Lookup<'_>) -> Vec<Agent> {
    let listed = std::fs::read_dir(&config.agents_dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>());
    let mut paths = match listed {
        Ok(paths) => paths,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let source = Source::new(config.agents_dir.display().to_string(), String::new());
            faults.push(Fault::new(&source, 0..0, format!("the folder cannot be read: {error}")));
            return Vec::new();
        }
    };
    // What an editor hides there is no agent.
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml") && !hidden(path));
    paths.sort();
    paths.iter().filter_map(|path| read_agent(faults, config, env, path)).collect()
}

fn read_agent(faults: &Faults, config: &Config, env: Lookup<'_>, path: &Path) -> Option<Agent> {
    let source = read_file(faults, path)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let id = match stem.parse::<AgentId>() {
        Ok(id) => id,
        Err(error) => {
            faults.push(Fault::new(&source, 0..0, error.to_string()).help("an agent is named for its file"));
            return None;
        }
    };
    let agent =
        read::with_root(Reader { faults, source: &source, env }, &agent::AGENT, |table| agent::read(table, id)).flatten()?;
    for rule in &agent.rules {
        if !config.providers.iter().any(|provider| provider.name == rule.provider) {
            let names: Vec<_> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
            let at = source.text().find(&format!("\"{}\"", rule.provider)).unwrap_or_default();
            let span = at..at + rule.provider.as_str().len() + 2;
            let fault = Fault::new(&source, span, format!("there is no provider `{}`", rule.provider));
            faults.push(match option::meant(rule.provider.as_str(), names.iter().copied()) {
                Some(near) => fault.help(format!("did you mean `{near}`?")),
                None => fault.help(format!("providers in writ.toml: {}", names.join(", "))),
            });
        }
    }
    Some(agent)
}
