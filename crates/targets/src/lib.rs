//! Credential backends: one module for each kind of target, each an implementation of [`authority::target::Target`].
//! This crate owns how a credential is made and taken back at a real system. It must never know tasks, policy or the log
//! beyond the plan that it is shown, and it never touches anything without our mark.
//!
//! A new kind is a module with `open` and `install_script`, and one line in `KINDS`.

mod assertion;
mod aws;
mod azure;
pub mod config;
mod evidence;
mod federation;
mod gcp;
mod github;
pub mod https;
mod kubernetes;
mod mysql;
mod offered;
#[cfg(test)]
mod peer;
mod postgresql;
mod publish;
pub mod redis;
pub mod ssh;
mod x509;

use authority::target::Target;
use config::{Config, ConfigFault, ConfigFaults, Surroundings, TargetConfig};
use std::path::PathBuf;
use std::sync::Arc;

/// One kind of target.
pub struct Kind {
    /// The word in target files.
    pub name: &'static str,
    /// What a caller that makes the secret itself hands over ([`authority::target::Verifier::kind`]); `None` if only
    /// Writ or the target can make it.
    pub verifier: Option<&'static str>,
    /// The key of `[connect]` that names the file of its revocation list.
    list: Option<&'static str>,
    open: Open,
    install_script: Script,
}

type Open = fn(&Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults>;
type Script = fn(&Config<'_>) -> Result<String, ConfigFaults>;

impl Kind {
    const fn new(name: &'static str, verifier: Option<&'static str>, open: Open, install_script: Script) -> Self {
        Self { name, verifier, list: None, open, install_script }
    }

    const fn publishing(self, key: &'static str) -> Self {
        Self { list: Some(key), ..self }
    }
}

/// Every kind, by its word.
static KINDS: &[Kind] = &[
    Kind::new("aws", None, aws::open, aws::install_script),
    Kind::new("azure", None, azure::open, azure::install_script),
    Kind::new("gcp", None, gcp::open, gcp::install_script),
    Kind::new("github", None, github::open, github::install_script),
    Kind::new("kubernetes", None, kubernetes::open, kubernetes::install_script),
    Kind::new("mysql", Some("mysql_native"), mysql::open, mysql::install_script),
    Kind::new("postgresql", Some("scram_sha_256"), postgresql::open, postgresql::install_script),
    Kind::new("redis", Some("sha256"), redis::open, redis::install_script),
    Kind::new("ssh", Some("ssh_public_key"), ssh::open, ssh::install_script).publishing("krl_file"),
    Kind::new("x509", Some("certificate_request"), x509::open, x509::install_script).publishing("crl_file"),
];

/// Every kind that can be configured.
#[must_use]
pub fn kinds() -> &'static [Kind] {
    KINDS
}

/// The kind of this word.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Opens a configured target. Nothing is connected yet: a target that is down opens like any other.
///
/// # Errors
/// Every fault of its own part of the configuration.
pub fn open(target: &TargetConfig, surroundings: &Arc<dyn Surroundings>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let kind = known(target)?;
    let config = Config::new(kind.name, target, surroundings);
    let opened = (kind.open)(&config);
    config.check()?;
    opened
}

/// The file in which a target publishes what it revoked, for anybody to read; none if its kind has no such list.
#[must_use]
pub fn revocation_list(target: &TargetConfig, surroundings: &Arc<dyn Surroundings>) -> Option<PathBuf> {
    let path = target.connect.get(kind(&target.kind)?.list?)?.as_str()?;
    Some(surroundings.locate(path))
}

/// What the administrator of the target runs once, so that our account there can do what it must and nothing more.
///
/// # Errors
/// Every fault of the target's own part of the configuration.
pub fn install_script(target: &TargetConfig, surroundings: &Arc<dyn Surroundings>) -> Result<String, ConfigFaults> {
    let kind = known(target)?;
    let config = Config::new(kind.name, target, surroundings);
    let script = (kind.install_script)(&config);
    config.check()?;
    script
}

fn known(target: &TargetConfig) -> Result<&'static Kind, ConfigFaults> {
    kind(&target.kind).ok_or_else(|| {
        let words: Vec<_> = KINDS.iter().map(|kind| format!("`{}`", kind.name)).collect();
        let message = format!("`{}` is not a kind of target", target.kind);
        ConfigFaults::from(ConfigFault::new(&["kind"], message).help(format!("use one of {}", words.join(", "))))
    })
}
