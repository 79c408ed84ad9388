//! The policy folder of a running server: reloaded when it changes, on a signal, or when an operator asks; a folder that
//! does not validate changes nothing. What targets offer is policy, so that target files are read with it, and targets are
//! opened anew when theirs changed. Also writes the lock files with which tool definitions are approved.

use super::metrics::Metrics;
use crate::policy_folder::{Folders, Stamp};
use crate::target_files;
use anyhow::Context;
use async_trait::async_trait;
use authority::{Actor, Authority, ConfiguredTarget};
use control::{PolicySource, PortError};
use domain::UpstreamName;
use gateway::http::{HttpApis, HttpTarget};
use policy::{Compiled, Diagnostic, Policy, Severity, SourceFile};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The folder, and the authority that it rules.
#[derive(Clone)]
pub(crate) struct PolicyFolder(Arc<Inner>);

struct Inner {
    folders: Folders,
    /// The folder of the configuration, where relative paths of target files start.
    dir: PathBuf,
    authority: Authority,
    apis: HttpApis,
    metrics: Arc<Metrics>,
    /// Reloads and approvals go one after the other, so that none undoes another.
    turn: Mutex<Seen>,
}

/// What was read last.
struct Seen {
    stamp: Stamp,
    targets: Vec<SourceFile>,
}

/// Everything that the folders say.
pub(crate) struct Read {
    /// The policy.
    pub(crate) policy: Policy,
    /// The targets, opened and not yet reached.
    pub(crate) targets: Vec<ConfiguredTarget>,
    /// The HTTP APIs.
    pub(crate) apis: Vec<HttpTarget>,
    /// The target files.
    pub(crate) target_files: Vec<SourceFile>,
}

/// The compiled policy of the folders and the targets of their files.
///
/// # Errors
/// A folder cannot be read, or all faults of either.
pub(crate) fn compile(folders: &Folders, dir: &Path) -> Result<Read, PortError> {
    let sources = folders.read().map_err(|error| PortError::Failed(format!("{error:#}")))?;
    let Compiled { policy, warnings } = Policy::compile(&sources).map_err(|faults| PortError::Invalid(sentences(&faults)))?;
    for warning in &warnings {
        tracing::warn!(file = warning.path, line = warning.line, "{}", warning.message);
    }
    let target_files: Vec<_> = sources.files.into_iter().filter(|file| file.path.starts_with("targets/")).collect();
    let targets = target_files::open(&target_files, &policy, dir).map_err(PortError::Invalid)?;
    let apis = target_files::apis(&target_files, &policy, dir).map_err(PortError::Invalid)?;
    Ok(Read { policy, targets, apis, target_files })
}

fn sentences(faults: &[Diagnostic]) -> Vec<String> {
    let sentence = |fault: &Diagnostic| {
        let hint = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}:{}:{}: {}{hint}", fault.path, fault.line, fault.column, fault.message)
    };
    faults.iter().filter(|fault| fault.severity == Severity::Error).map(sentence).collect()
}

impl PolicyFolder {
    /// Over folders of a configuration in `dir`, whose policy and targets are in force already.
    pub(crate) fn new(
        folders: Folders,
        dir: PathBuf,
        targets: Vec<SourceFile>,
        (authority, apis): (Authority, HttpApis),
        metrics: Arc<Metrics>,
    ) -> Self {
        let turn = Mutex::new(Seen { stamp: folders.stamp(), targets });
        Self(Arc::new(Inner { folders, dir, authority, apis, metrics, turn }))
    }

    /// Reloads if the folder looks different than last time.
    pub(crate) async fn reload_if_changed(&self) {
        let mut seen = self.0.turn.lock().await;
        let now = self.0.folders.stamp();
        if seen.stamp != now {
            // Remembered before it is read: a change during the read is noticed the next time.
            seen.stamp = now;
            self.reload_noisily(&mut seen).await;
        }
    }

    /// Reloads, whatever it looks like.
    pub(crate) async fn reload_now(&self) {
        let mut seen = self.0.turn.lock().await;
        seen.stamp = self.0.folders.stamp();
        self.reload_noisily(&mut seen).await;
    }

    async fn reload_noisily(&self, seen: &mut Seen) {
        match self.load(seen, &Actor::System).await {
            Ok(()) => tracing::info!(version = %self.0.authority.policy().version(), "policy is in force"),
            Err(PortError::Invalid(faults)) => {
                self.0.metrics.policy_refused.inc();
                tracing::error!("the policy folder does not validate; the policy before stays in force");
                faults.iter().for_each(|fault| tracing::error!("policy: {fault}"));
            }
            Err(error) => tracing::error!(%error, "the policy folder could not be loaded; the policy before stays in force"),
        }
    }

    async fn load(&self, seen: &mut Seen, by: &Actor) -> Result<(), PortError> {
        let (folders, dir) = (self.0.folders.clone(), self.0.dir.clone());
        let compiled = tokio::task::spawn_blocking(move || compile(&folders, &dir)).await;
        let Read { policy, targets, apis, target_files } = compiled.map_err(|error| PortError::Failed(error.to_string()))??;
        // Targets first: one that may not go yet keeps its offers as well. Those whose files did not change keep what is
        // known of them, above all that they were probed.
        if seen.targets != target_files {
            let set = self.0.authority.set_targets(targets, by).await;
            set.map_err(|error| match error {
                authority::Error::TargetInUse { .. } => PortError::Conflict(error.to_string()),
                error => PortError::Failed(error.to_string()),
            })?;
            seen.targets = target_files;
        }
        self.0.authority.reload_policy(policy, by).await.map_err(|error| PortError::Failed(error.to_string()))?;
        // Routes last: one that policy does not know is refused, whatever the gateway reads of it.
        self.0.apis.replace(apis).map_err(|error| PortError::Failed(error.to_string()))
    }

    /// Writes the lock file of an upstream and puts it in force; if that fails, the file is what it was.
    pub(crate) async fn approve(&self, upstream: &UpstreamName, lock: &str, by: &Actor) -> Result<(), PortError> {
        let mut seen = self.0.turn.lock().await;
        let path = self.0.folders.policy.join("tools").join(format!("{upstream}.lock.json"));
        let before = fs::read(&path).ok();
        let failed = |error: anyhow::Error| PortError::Failed(format!("{error:#}"));
        replace(&path, lock.as_bytes()).map_err(failed)?;
        let loaded = self.load(&mut seen, by).await;
        if loaded.is_err() {
            let undone = match before {
                Some(before) => replace(&path, &before),
                None => fs::remove_file(&path).context("the new lock file"),
            };
            if let Err(error) = undone {
                tracing::error!(error = format!("{error:#}"), "a lock file could not be put back; it does not validate");
            }
        }
        seen.stamp = self.0.folders.stamp();
        loaded
    }
}

/// Replaces a file as a whole: readers see the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let shown = || format!("`{}` cannot be written", path.display());
    let temporary = path.with_extension("new");
    let written = crate::key_file::put_public(&temporary, bytes);
    let written = written.and_then(|()| fs::File::open(&temporary)?.sync_all());
    written.and_then(|()| fs::rename(&temporary, path)).with_context(shown)
}

#[async_trait]
impl PolicySource for PolicyFolder {
    async fn reload(&self, by: &str) -> Result<(), PortError> {
        let (this, by) = (self.clone(), Actor::Operator(by.to_owned()));
        // To its end, whoever goes away meanwhile: the folder counts as read from the beginning, and is not read again.
        let reloaded = tokio::spawn(async move {
            let mut seen = this.0.turn.lock().await;
            seen.stamp = this.0.folders.stamp();
            this.load(&mut seen, &by).await
        });
        reloaded.await.map_err(|error| PortError::Failed(error.to_string()))?
    }
}
