//! A running server: store → authority → policy → gateway and control on one listener, and what runs beside them. Owns
//! the order of start and stop; every part is made elsewhere and knows only its ports.

mod catalog;
mod key_source;
mod keys;
mod listener;
mod metrics;
mod patience;
mod policy_source;
mod token_keys;
mod trace_context;

use crate::config::{self, Config, Kind, Provider};
use crate::policy_folder::{self, Stamp};
use crate::system::{SystemClock, SystemEntropy};
use anyhow::Context;
use auditlog::port::NoteSigner;
use authority::ports::{Clock, TaskQuery};
use authority::{Actor, Authority, ConfiguredTarget, Parts, SignerConfig};
use catalog::Catalog;
use control::{Control, ControlConfig, Probe};
use domain::Agent;
use gateway::http::{HttpApis, SystemLookup};
use gateway::{Gateway, GatewayConfig};
use key_source::ConfiguredKeys;
use listener::{Certificates, Listener, Names, Planes};
use metrics::Metrics;
use policy_source::PolicyFolder;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{Keys, Store, StoreConfig};
use token::verify::{EvidenceRules, Profile};
use token_keys::RotatingKeys;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often overdue tasks are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Rounds of the credential worker that may run at once: each waits for the slowest target only.
const ROUNDS_MAX: usize = 8;
/// Longest time from a durable entry to its published checkpoint.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// How often files are looked at for changes. One must look alike twice before it counts.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// A server that is bound and ready to accept.
pub(crate) struct Server {
    address: SocketAddr,
    url: String,
    config: Config,
    authority: Authority,
    gateway: Gateway,
    apis: HttpApis,
    control: axum::Router,
    listener: Listener,
    certificates: Option<Arc<Certificates>>,
    policy: PolicyFolder,
    keys: RotatingKeys,
    metrics: Arc<Metrics>,
    store: Store,
}

impl Server {
    /// Opens everything that the configuration names and binds the listener.
    ///
    /// # Errors
    /// What is missing or does not fit; nothing is served then.
    pub(crate) async fn start(mut config: Config) -> anyhow::Result<Self> {
        let listen = config.server.listen;
        let socket = TcpListener::bind(listen).await.with_context(|| format!("`{listen}` cannot be listened on"))?;
        let address = socket.local_addr()?;
        if listen.port() == 0 {
            config.server.public_url = config.server.public_url.replace(&listen.to_string(), &address.to_string());
        }
        let url = config.server.public_url.clone();
        let metrics = Metrics::new();
        let read = policy_source::compile(&config.policy, &config.dir).map_err(anyhow::Error::new);
        let read = read.with_context(|| format!("the policy in `{}`", config.policy.policy.display()))?;
        let (seen, apis) = ((read.target_files, read.stamp), read.apis);
        let (authority, store) = open(&config, read.policy, read.targets).await?;
        declare_agents(&authority, &config.agents).await?;
        let upstreams = upstreams(&config, &authority)?;
        let gateway = Gateway::new(&gateway_config(&config), authority.clone(), upstreams.clone(), metrics.clone());
        let lookup = Arc::new(SystemLookup);
        let apis = HttpApis::new(&gateway_config(&config), authority.clone(), apis, lookup, metrics.clone());
        let apis = apis.context("the certificates that HTTP APIs are trusted by")?;
        let keys = rotating_keys(&config, &authority);
        keys.advance().await.context("the keys of tokens")?;
        let (folders, dir) = (config.policy.clone(), config.dir.clone());
        let policy = PolicyFolder::new(folders, dir, seen, (authority.clone(), apis.clone()), Arc::clone(&metrics));
        let catalog = Catalog { authority: authority.clone(), upstreams, policy: policy.clone() };
        let control = control(&config, &authority, (catalog, policy.clone(), keys.clone()), &metrics, &store)?;
        let certificates = config.server.tls.as_ref().map(Certificates::read).transpose()?;
        let listener = Listener::new(socket, certificates.clone(), &config.server, Arc::clone(&metrics));
        Ok(Self { address, url, config, authority, gateway, apis, control, listener, certificates, policy, keys, metrics, store })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL under which clients reach it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Serves until `stopping`; then calls in flight finish and are logged, and the log is closed.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        let patience = Duration::from_secs(self.config.server.drain_secs);
        let sweeper = tokio::spawn(sweep(self.authority.clone()));
        let worker = tokio::spawn(credentials(self.authority.clone(), self.metrics));
        let watched = Watched {
            authority: self.authority.clone(),
            policy: self.policy.clone(),
            keys: self.keys.clone(),
            config: self.config.clone(),
            certificates: self.certificates,
        };
        let watcher = tokio::spawn(watch(watched));
        let planes = Planes {
            gateway: self.gateway.clone(),
            apis: self.apis.clone(),
            control: self.control,
            names: Arc::new(Names::of(&self.config.server)),
        };
        let draining = stopping.clone();
        let (gateway, apis) = (self.gateway.clone(), self.apis.clone());
        let drained = tokio::spawn(async move {
            draining.cancelled().await;
            tracing::info!("stopping: calls in flight are finished and logged");
            tokio::join!(gateway.stop(patience), apis.stop(patience));
        });
        self.listener.serve(planes, stopping, patience).await;
        let _ = drained.await;
        sweeper.abort();
        // What it was at is in the store: the next start goes on with it.
        worker.abort();
        watcher.abort();
        let store = self.store;
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            tracing::error!("the store did not close well; it recovers at the next start");
        }
    }
}

/// The authority over the store.
async fn open(config: &Config, policy: policy::Policy, targets: Vec<ConfiguredTarget>) -> anyhow::Result<(Authority, Store)> {
    let tokens_live = Duration::from_secs(config.tokens.lifetime_secs);
    crate::key_file::claim_private_dir(&config.data.dir)?;
    let origin = log_origin(&config.server.public_url);
    let keys = keys::open(&config.data.dir, &origin, &config.data.node, tokens_live)?;
    let log_key = keys.log.verifier().clone();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let settings =
        StoreConfig { data_dir: config.data.dir.clone(), anchor: config.data.anchor.clone(), publish_every: PUBLISH_EVERY };
    let signers = Keys { log: Box::new(keys.log), node: Box::new(keys.node) };
    let opening = Arc::clone(&clock);
    let store = tokio::task::spawn_blocking(move || store::open(settings, signers, opening)).await?;
    let store = store.with_context(|| format!("the store in `{}` cannot be opened", config.data.dir.display()))?;
    let provider_keys = ConfiguredKeys::new(&config.providers);
    provider_keys.warm().await;
    let parts = Parts {
        issuer: config.server.public_url.clone(),
        token_lifetime_secs: config.tokens.lifetime_secs,
        dpop_nonce_required: config.tokens.nonce_required,
        providers: config.providers.iter().map(|provider| rules(provider, &config.server.public_url)).collect(),
        keys: Arc::new(provider_keys),
        policy,
        upstreams: config.upstreams.clone(),
        targets,
        grants_kept_secs: config.data.grants_kept_days.saturating_mul(86_400),
        ledger: Arc::new(store.clone()),
        archive: Arc::new(store.clone()),
        published: Arc::new(store.clone()),
        signer: SignerConfig {
            log_key,
            keys: keys.tokens,
            token_lifetime_secs_max: i64::try_from(config.tokens.lifetime_secs).unwrap_or(i64::MAX),
        },
        wrapping: keys.wrapping,
        clock,
        entropy: Arc::new(SystemEntropy),
    };
    Ok((Authority::start(parts).await.context("the state in the store cannot be read")?, store))
}

fn rotating_keys(config: &Config, authority: &Authority) -> RotatingKeys {
    let tokens_live = Duration::from_secs(config.tokens.lifetime_secs);
    RotatingKeys::new(keys::folder(&config.data.dir), authority.clone(), tokens_live)
}

/// The name of a new log (C2SP tlog-checkpoint: a URL without its scheme).
fn log_origin(public_url: &str) -> String {
    let host = public_url.split_once("://").map_or(public_url, |(_, host)| host);
    format!("{host}/log")
}

/// The rules of one provider's evidence.
fn rules(provider: &Provider, public_url: &str) -> authority::Provider {
    if provider.dev_key_file.is_some() {
        tracing::warn!(provider = %provider.name, "DEVELOPMENT provider: whoever can read its key file is every agent of it");
    }
    if !provider.single_use {
        tracing::warn!(provider = %provider.name, "its evidence can be used again until it expires (single_use = false)");
    }
    let secs = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let profile = match &provider.kind {
        Kind::Oidc { issuer, .. } => Profile::Oidc { issuer: issuer.clone() },
        Kind::Spiffe { trust_domain, .. } => Profile::JwtSvid { trust_domain: trust_domain.clone() },
    };
    authority::Provider {
        name: provider.name.clone(),
        rules: EvidenceRules {
            profile,
            audience: provider.audience.clone().unwrap_or_else(|| public_url.to_owned()),
            algorithms: provider.algorithms.clone(),
            leeway_secs: secs(provider.leeway_secs),
            lifetime_secs_max: secs(provider.max_lifetime_secs),
            age_secs_max: secs(provider.max_age_secs),
        },
        single_use: provider.single_use,
    }
}

/// Registers the agents of the files, and suspends those whose file is gone.
async fn declare_agents(authority: &Authority, agents: &[Agent]) -> anyhow::Result<()> {
    authority.declare_agents(agents.to_vec(), &Actor::System).await.context("the agents of the agent files")
}

fn upstreams(config: &Config, authority: &Authority) -> anyhow::Result<gateway::upstream::Upstreams> {
    for host in &config.server.plain_http_hosts {
        tracing::warn!(host, "upstreams at this host may be reached without TLS: what goes there can be read and changed");
    }
    let roots = |(name, path): &(_, std::path::PathBuf)| {
        let trusted = crate::web::certificates(path)?;
        Ok((domain::UpstreamName::clone(name), trusted.into_iter().map(|certificate| certificate.to_vec()).collect()))
    };
    let settings = gateway::upstream::Settings {
        plain_http_hosts: config.server.plain_http_hosts.clone(),
        traceparent: traceparent(config),
        extra_roots: config.upstream_ca_files.iter().map(roots).collect::<anyhow::Result<_>>()?,
    };
    gateway::upstream::Upstreams::new(Arc::new(authority.clone()), settings).context("the connections to upstreams")
}

/// What tells upstreams and APIs of our trace, if there are traces.
fn traceparent(config: &Config) -> Option<fn() -> Option<String>> {
    config.telemetry.otlp_endpoint.is_some().then_some(trace_context::current)
}

fn gateway_config(config: &Config) -> GatewayConfig {
    GatewayConfig {
        hosts: config.server.allowed_hosts.clone(),
        origins: config.server.allowed_origins.clone(),
        loopback: config.server.listen.ip().is_loopback(),
        traceparent: traceparent(config),
        ..GatewayConfig::default()
    }
}

fn control(
    config: &Config,
    authority: &Authority,
    (catalog, policy, keys): (Catalog, PolicyFolder, RotatingKeys),
    metrics: &Arc<Metrics>,
    store: &Store,
) -> anyhow::Result<axum::Router> {
    let settings = ControlConfig::new(&config.server.public_url, config.operators.clone())?;
    let mutual = config.server.tls.as_ref().is_some_and(|tls| tls.request_client_certs);
    let settings = if mutual { settings.with_mtls(config.server.public_url.clone()) } else { settings };
    let (shown, asked) = (Arc::clone(metrics), authority.clone());
    let serve_metrics = config.telemetry.metrics;
    let control = Control {
        authority: authority.clone(),
        config: settings,
        upstreams: Box::new(catalog),
        policy: Box::new(policy),
        keys: Box::new(keys),
        probes: vec![store_probe(authority.clone()), ledger_probe(store.clone())],
        metrics: Box::new(move || if serve_metrics { shown.text(&asked) } else { String::new() }),
        observer: Arc::clone(metrics) as Arc<dyn control::Observer>,
        verifiers: |kind| targets::kind(kind)?.verifier,
    };
    Ok(control::router(control)?)
}

/// Whether the store answers.
fn store_probe(authority: Authority) -> Probe {
    let check = move || -> control::Probing {
        let authority = authority.clone();
        Box::pin(async move {
            let query = TaskQuery { limit: 1, ..TaskQuery::default() };
            authority.archive().tasks(query).await.map(drop).map_err(|_| "the store cannot be read".to_owned())
        })
    };
    Probe { name: "store", check: Box::new(check) }
}

/// Whether entries of the log can be made durable, and what is durable be published.
fn ledger_probe(store: Store) -> Probe {
    let check = move || -> control::Probing {
        // What is wrong in detail is for the operator's log: anybody may read this answer.
        let fault = match (store.fault(), store.unpublishable()) {
            (Some(_), _) => Err("the ledger cannot be written".to_owned()),
            (None, true) => Err("the log cannot be published".to_owned()),
            (None, false) => Ok(()),
        };
        Box::pin(async move { fault })
    };
    Probe { name: "ledger", check: Box::new(check) }
}

/// Ends what is overdue, once a second.
async fn sweep(authority: Authority) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = authority.sweep().await {
            tracing::error!(%error, "ended tasks could not be made durable yet; they are dead, and it is tried again");
        }
    }
}

/// Probes targets, takes back what is due there, compares: a round each second, and at once when something is revoked.
/// Rounds may overlap: a target that is busy is left out of the next one.
async fn credentials(authority: Authority, metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rounds = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => measure_targets(&authority, &metrics).await,
            () = authority.credentials_due() => {}
        }
        while rounds.try_join_next().is_some() {}
        if rounds.len() < ROUNDS_MAX {
            let authority = authority.clone();
            rounds.spawn(async move { authority.run_credentials().await });
        }
    }
}

/// A target that cannot be asked about keeps the figures that it had.
async fn measure_targets(authority: &Authority, metrics: &Metrics) {
    let mut statuses = Vec::new();
    for name in authority.target_names() {
        statuses.extend(authority.target_status(&name).await.ok());
    }
    metrics.targets(&statuses, authority.now());
    metrics.endings(authority.take_ending_latencies());
}

/// What is read again while the server runs.
struct Watched {
    authority: Authority,
    policy: PolicyFolder,
    keys: RotatingKeys,
    config: Config,
    certificates: Option<Arc<Certificates>>,
}

/// Notices changed policy and agent files, by looking every second, or at once on `SIGHUP`.
async fn watch(watched: Watched) {
    let Watched { authority, policy, keys, config, certificates } = watched;
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let Ok(mut hangups) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) else {
        return tracing::error!("changes of files are not watched: no signal handler");
    };
    // Nothing yet: what was read at the start may have changed since.
    let (mut agents, mut seen) = (Stamp::default(), Stamp::default());
    let mut refused = None;
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            _ = hangups.recv() => true,
        };
        if asked {
            if let Some(Err(error)) = certificates.as_ref().map(|certificates| certificates.renew()) {
                tracing::error!(error = format!("{error:#}"), "the TLS certificate could not be renewed; the one before stays");
            }
            policy.reload_now().await;
        } else {
            policy.reload_if_changed().await;
        }
        if let Err(error) = keys.advance().await {
            tracing::error!(
                error = format!("{error:#}"),
                "a step of the rotation of token keys was not taken; it is tried again"
            );
        }
        let now = agent_files(&config.agents_dir);
        // Seen twice alike: an editor or a checkout that replaces files must not look as if they were deleted.
        if (asked || (now != agents && now == seen)) && reload_agents(&authority, &config, &mut refused).await {
            agents.clone_from(&now);
        }
        seen = now;
    }
}

fn agent_files(dir: &Path) -> Stamp {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    policy_folder::stamp_of(paths)
}

/// Whether that is settled: the files have faults, or their agents are registered. What could not be registered is tried again,
/// because it may be a suspension; `refused` is why, so that it is told once.
async fn reload_agents(authority: &Authority, config: &Config, refused: &mut Option<String>) -> bool {
    let agents = match config::reload_agents(config) {
        Ok(agents) => agents,
        Err(faults) => {
            for fault in &faults.0 {
                tracing::error!(fault = %fault.to_json(), "agent files have faults; the agents stay as they were");
            }
            return true;
        }
    };
    let why = declare_agents(authority, &agents).await.err().map(|error| format!("{error:#}"));
    match &why {
        None => tracing::info!(count = agents.len(), "agents of the agent files are registered"),
        Some(error) if why != *refused => tracing::error!(error, "the agents stay as they were; it is tried again"),
        Some(_) => {}
    }
    *refused = why;
    refused.is_none()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use domain::AgentState;
    use testkit::{Fault, World};

    #[tokio::test]
    async fn the_suspension_of_an_agent_whose_file_is_gone_is_tried_until_it_is_logged() {
        let (world, dir) = (World::fixture().await, tempfile::tempdir().unwrap());
        let folder = dir.path().join("new");
        crate::cli::init::write(&folder).unwrap();
        let config = config::load_with(&folder.join("writ.toml"), &|_| None);
        let config = config.unwrap_or_else(|refused| unreachable!("{:?}", refused.0));
        let mut told = None;
        assert!(reload_agents(&world.authority, &config, &mut told).await);
        std::fs::remove_file(folder.join("agents/support-bot.toml")).unwrap();
        world.ledger.break_with(Some(Fault::Failed));
        assert!(!reload_agents(&world.authority, &config, &mut told).await, "not settled, so it is tried again");
        world.ledger.break_with(None);
        assert!(reload_agents(&world.authority, &config, &mut told).await);
        let agent = world.authority.agent(&"support-bot".parse().unwrap()).unwrap();
        assert_eq!(agent.state, AgentState::Suspended);
    }
}
