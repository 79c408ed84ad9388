//! The file of the gate, which the owner of the Redis writes and the broker cannot. Owns its strict reading; it reads no
//! secret, only where one is.

use super::super::rules::Template;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The longest life that the gate's file can give a user, in seconds.
pub(in crate::redis) const LIFETIME_SECS_MAX: u64 = 86_400;

/// What is wrong with the gate's file.
#[derive(Debug, thiserror::Error)]
#[error("the gate's settings: {0}")]
pub struct GateFault(pub String);

/// Where the gate listens: never beyond this machine, because its language is not encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listen {
    Unix(PathBuf),
    Loopback(SocketAddr),
}

/// The gate's settings.
#[derive(Debug, Clone)]
pub struct GateSettings {
    pub(super) listen: Listen,
    pub(super) broker_sha256: [u8; 32],
    pub(super) lifetime_secs_max: u64,
    pub(super) live_max: usize,
    pub(super) nodes: Vec<NodeSettings>,
    pub(super) templates: BTreeMap<String, Template>,
}

/// One Redis.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeSettings {
    pub(super) address: String,
    pub(super) user: String,
    pub(super) password_file: String,
    #[serde(default)]
    pub(super) tls: bool,
    #[serde(default)]
    pub(super) ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: String,
    broker_sha256: String,
    #[serde(default = "lifetime_secs_max")]
    lifetime_secs_max: u64,
    #[serde(default = "live_max")]
    live_max: usize,
    nodes: Vec<NodeSettings>,
    templates: BTreeMap<String, Template>,
}

const fn lifetime_secs_max() -> u64 {
    900
}

const fn live_max() -> usize {
    1_000
}

impl GateSettings {
    /// The settings of a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, GateFault> {
        let fault = |text: String| GateFault(text);
        let file: File = toml::from_str(text).map_err(|error| fault(error.message().to_owned()))?;
        let listen = match file.listen.strip_prefix("unix:") {
            Some(path) => Listen::Unix(PathBuf::from(path)),
            None => {
                let address: Option<SocketAddr> = file.listen.parse().ok();
                let address = address.filter(|address| address.ip().is_loopback());
                Listen::Loopback(address.ok_or_else(|| fault("`listen` must be `unix:PATH` or a loopback address".to_owned()))?)
            }
        };
        if file.nodes.is_empty() || file.templates.is_empty() {
            return Err(fault("there must be at least one of `[[nodes]]` and one of `[templates.NAME]`".to_owned()));
        }
        if !(1..=LIFETIME_SECS_MAX).contains(&file.lifetime_secs_max) {
            return Err(fault(format!("`lifetime_secs_max` must be 1 to {LIFETIME_SECS_MAX}")));
        }
        for (name, template) in &file.templates {
            template.check().map_err(|error| fault(format!("`templates.{name}`: {error}")))?;
        }
        let broker = bytes(&file.broker_sha256);
        Ok(Self {
            listen,
            broker_sha256: broker.ok_or_else(|| fault("`broker_sha256` must be 64 hexadecimal digits".to_owned()))?,
            lifetime_secs_max: file.lifetime_secs_max,
            live_max: file.live_max,
            nodes: file.nodes,
            templates: file.templates,
        })
    }
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect::<Option<Vec<_>>>()?.try_into().ok().filter(|_| rest.is_empty())
}
