//! The policy folder of a running server: reloaded when it changes, on a signal, or when an operator asks; a folder that
//! does not validate changes nothing. Also writes the lock files with which tool definitions are approved.

use super::metrics::Metrics;
use crate::policy_folder::{Folders, Stamp};
use anyhow::Context;
use async_trait::async_trait;
use authority::{Actor, Authority};
use control::{PolicySource, PortError};
use domain::UpstreamName;
use policy::{Compiled, Diagnostic, Policy, Severity};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The folder, and the authority that it rules.
#[derive(Clone)]
pub(crate) struct PolicyFolder(Arc<Inner>);

struct Inner {
    folders: Folders,
    authority: Authority,
    metrics: Arc<Metrics>,
    /// Reloads and approvals go one after the other, so that none undoes another.
    turn: Mutex<Stamp>,
}

/// The compiled policy of a folder.
///
/// # Errors
/// The folder cannot be read, or its faults.
pub(crate) fn compile(folders: &Folders) -> Result<Policy, PortError> {
    let sources = folders.read().map_err(|error| PortError::Failed(format!("{error:#}")))?;
    let Compiled { policy, warnings } = Policy::compile(&sources).map_err(|faults| PortError::Invalid(sentences(&faults)))?;
    for warning in &warnings {
        tracing::warn!(file = warning.path, line = warning.line, "{}", warning.message);
    }
    Ok(policy)
}

fn sentences(faults: &[Diagnostic]) -> Vec<String> {
    let sentence = |fault: &Diagnostic| {
        let hint = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}:{}:{}: {}{hint}", fault.path, fault.line, fault.column, fault.message)
    };
    faults.iter().filter(|fault| fault.severity == Severity::Error).map(sentence).collect()
}

impl PolicyFolder {
    /// Over a folder whose policy is in force already.
    pub(crate) fn new(folders: Folders, authority: Authority, metrics: Arc<Metrics>) -> Self {
        let seen = folders.stamp();
        Self(Arc::new(Inner { folders, authority, metrics, turn: Mutex::new(seen) }))
    }

    /// Reloads if the folder looks different than last time.
    pub(crate) async fn reload_if_changed(&self) {
        let mut seen = self.0.turn.lock().await;
        let now = self.0.folders.stamp();
        if *seen != now {
            // Remembered before it is read: a change during the read is noticed the next time.
            *seen = now;
            self.reload_noisily().await;
        }
    }

    /// Reloads, whatever it looks like.
    pub(crate) async fn reload_now(&self) {
        let mut seen = self.0.turn.lock().await;
        *seen = self.0.folders.stamp();
        self.reload_noisily().await;
    }

    async fn reload_noisily(&self) {
        match self.load(&Actor::System).await {
            Ok(()) => tracing::info!(version = %self.0.authority.policy().version(), "policy is in force"),
            Err(PortError::Invalid(faults)) => {
                self.0.metrics.policy_refused.inc();
                tracing::error!("the policy folder does not validate; the policy before stays in force");
                faults.iter().for_each(|fault| tracing::error!("policy: {fault}"));
            }
            Err(error) => tracing::error!(%error, "the policy folder could not be loaded; the policy before stays in force"),
        }
    }

    async fn load(&self, by: &Actor) -> Result<(), PortError> {
        let folders = self.0.folders.clone();
        let compiled = tokio::task::spawn_blocking(move || compile(&folders)).await;
        let policy = compiled.map_err(|error| PortError::Failed(error.to_string()))??;
        self.0.authority.reload_policy(policy, by).await.map_err(|error| PortError::Failed(error.to_string()))
    }

    /// Writes the lock file of an upstream and puts it in force; if that fails, the file is what it was.
    pub(crate) async fn approve(&self, upstream: &UpstreamName, lock: &str, by: &Actor) -> Result<(), PortError> {
        let mut seen = self.0.turn.lock().await;
        let path = self.0.folders.policy.join("tools").join(format!("{upstream}.lock.json"));
        let before = fs::read(&path).ok();
        let failed = |error: anyhow::Error| PortError::Failed(format!("{error:#}"));
        replace(&path, lock.as_bytes()).map_err(failed)?;
        let loaded = self.load(by).await;
        if loaded.is_err() {
            let undone = match before {
                Some(before) => replace(&path, &before),
                None => fs::remove_file(&path).context("the new lock file"),
            };
            if let Err(error) = undone {
                tracing::error!(error = format!("{error:#}"), "a lock file could not be put back; it does not validate");
            }
        }
        *seen = self.0.folders.stamp();
        loaded
    }
}

/// Replaces a file as a whole: readers see the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let shown = || format!("`{}` cannot be written", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(shown)?;
    }
    let temporary = path.with_extension("new");
    let written = fs::File::create(&temporary).and_then(|mut file| {
        use std::io::Write;
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, path)).with_context(shown)
}

#[async_trait]
impl PolicySource for PolicyFolder {
    async fn reload(&self, by: &str) -> Result<(), PortError> {
        let mut seen = self.0.turn.lock().await;
        *seen = self.0.folders.stamp();
        self.load(&Actor::Operator(by.to_owned())).await
    }
}
