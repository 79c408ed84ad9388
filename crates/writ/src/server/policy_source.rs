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
use domain::{ToolName, UpstreamName};
use gateway::http::{HttpApis, HttpTarget};
use policy::{Compiled, Diagnostic, Policy, Severity, SourceFile};
use serde_json::Value;
use std::collections::BTreeMap;
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

/// Looks at the folder until one that could not be loaded is tried again.
const LOOKS_UNTIL_RETRY: u32 = 30;

/// What was read last.
struct Seen {
    /// What the folder looked like that is settled: in force, or refused for what it says.
    settled: Stamp,
    /// What it looked like at the last look.
    last: Stamp,
    /// What kept a changed folder from being loaded, though nothing in it may be wrong, and looks until it is tried again.
    kept_out: Option<(String, u32)>,
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
    /// What the folders looked like when they were read.
    pub(crate) stamp: Stamp,
}

/// The compiled policy of the folders and the targets of their files.
///
/// # Errors
/// A folder cannot be read, or all faults of either.
pub(crate) fn compile(folders: &Folders, dir: &Path) -> Result<Read, PortError> {
    let (sources, stamp) = folders.read().map_err(|error| PortError::Failed(format!("{error:#}")))?;
    let Compiled { policy, warnings } = Policy::compile(&sources).map_err(|faults| PortError::Invalid(sentences(&faults)))?;
    for warning in &warnings {
        tracing::warn!(file = warning.path, line = warning.line, "{}", warning.message);
    }
    let target_files: Vec<_> = sources.files.into_iter().filter(|file| file.path.starts_with("targets/")).collect();
    let targets = target_files::open(&target_files, &policy, dir).map_err(PortError::Invalid)?;
    let apis = target_files::apis(&target_files, &policy, dir).map_err(PortError::Invalid)?;
    Ok(Read { policy, targets, apis, target_files, stamp })
}

fn sentences(faults: &[Diagnostic]) -> Vec<String> {
    let sentence = |fault: &Diagnostic| {
        let hint = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}:{}:{}: {}{hint}", fault.path, fault.line, fault.column, fault.message)
    };
    faults.iter().filter(|fault| fault.severity == Severity::Error).map(sentence).collect()
}

impl PolicyFolder {
    /// Over folders of a configuration in `dir`, whose policy and targets are in force already: as they were `read`.
    pub(crate) fn new(
        folders: Folders,
        dir: PathBuf,
        (targets, stamp): (Vec<SourceFile>, Stamp),
        (authority, apis): (Authority, HttpApis),
        metrics: Arc<Metrics>,
    ) -> Self {
        let turn = Mutex::new(Seen { settled: stamp.clone(), last: stamp, kept_out: None, targets });
        Self(Arc::new(Inner { folders, dir, authority, apis, metrics, turn }))
    }

    /// Reloads if the folder looks different than what is settled, and as it did at the last look: between two files that
    /// are written one after the other, it may lack a policy that forbids. One that could not be loaded for another reason
    /// than what it says is tried again.
    pub(crate) async fn reload_if_changed(&self) {
        let mut seen = self.0.turn.lock().await;
        let now = self.0.folders.stamp();
        let at_rest = seen.last == now;
        seen.last = now;
        if !at_rest {
            seen.kept_out = None;
        } else if seen.settled != seen.last {
            match &mut seen.kept_out {
                Some((_, looks)) if *looks > 0 => *looks -= 1,
                _ => self.reload_noisily(&mut seen).await,
            }
        }
    }

    /// Reloads, whatever it looks like.
    pub(crate) async fn reload_now(&self) {
        let mut seen = self.0.turn.lock().await;
        seen.last = self.0.folders.stamp();
        self.reload_noisily(&mut seen).await;
    }

    async fn reload_noisily(&self, seen: &mut Seen) {
        let told = seen.kept_out.take().map(|(told, _)| told);
        match self.load(seen, &Actor::System).await {
            Ok(()) => tracing::info!(version = %self.0.authority.policy().version(), "policy is in force"),
            Err(PortError::Invalid(faults)) => {
                seen.settled = seen.last.clone();
                self.0.metrics.policy_refused.inc();
                tracing::error!("the policy folder does not validate; the policy before stays in force");
                faults.iter().for_each(|fault| tracing::error!("policy: {fault}"));
            }
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    self.0.metrics.policy_refused.inc();
                    tracing::error!(
                        error,
                        "the policy folder could not be loaded; the policy before stays in force, and it is tried again"
                    );
                }
                seen.kept_out = Some((error, LOOKS_UNTIL_RETRY));
            }
        }
    }

    async fn load(&self, seen: &mut Seen, by: &Actor) -> Result<(), PortError> {
        let (folders, dir) = (self.0.folders.clone(), self.0.dir.clone());
        let compiled = tokio::task::spawn_blocking(move || compile(&folders, &dir)).await;
        let Read { policy, targets, apis, target_files, stamp } =
            compiled.map_err(|error| PortError::Failed(error.to_string()))??;
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
        self.0.apis.replace(apis).map_err(|error| PortError::Failed(error.to_string()))?;
        seen.settled = stamp;
        Ok(())
    }

    /// Approves these definitions beside what is approved already: writes the lock file of the upstream and puts it in force.
    /// If that fails, the file is what it was.
    pub(crate) async fn approve(
        &self,
        upstream: &UpstreamName,
        accepted: Vec<(ToolName, Value)>,
        by: &Actor,
    ) -> Result<(), PortError> {
        let (this, upstream, by) = (self.clone(), upstream.clone(), by.clone());
        // To its end, whoever goes away meanwhile: a lock file that was written must be in force, or be what it was.
        let approved = tokio::spawn(async move { this.approve_alone(&upstream, accepted, &by).await });
        approved.await.map_err(|error| PortError::Failed(error.to_string()))?
    }

    async fn approve_alone(
        &self,
        upstream: &UpstreamName,
        accepted: Vec<(ToolName, Value)>,
        by: &Actor,
    ) -> Result<(), PortError> {
        let mut seen = self.0.turn.lock().await;
        // What is approved is what the folder says. Written over, an approval that somebody has just taken back would return.
        if seen.settled != self.0.folders.stamp() {
            self.load(&mut seen, by).await?;
        }
        let policy = self.0.authority.policy();
        let kept = policy.approved_tools(upstream).map(|tool| (tool.name.clone(), tool.definition.clone()));
        let definitions: BTreeMap<ToolName, Value> = kept.chain(accepted).collect();
        let definitions: Vec<Value> = definitions.into_values().collect();
        let lock = policy::render_lock(upstream, &definitions);
        let path = self.0.folders.policy.join("tools").join(format!("{upstream}.lock.json"));
        let before = match fs::read(&path) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(PortError::Failed(format!("`{}` cannot be read: {error}", path.display()))),
        };
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
        // To its end, whoever goes away meanwhile: half of it must not be in force.
        let reloaded = tokio::spawn(async move {
            let mut seen = this.0.turn.lock().await;
            this.load(&mut seen, &by).await
        });
        reloaded.await.map_err(|error| PortError::Failed(error.to_string()))?
    }
}

#[cfg(test)]
mod tests;
