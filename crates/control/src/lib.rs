//! The control plane over HTTP: OAuth, discovery, REST for operators, AuthZEN decisions, the read path of the log, health.
//! It parses hostile requests, asks the authority, and shows the answer; it decides nothing and changes nothing itself.
//! It must never know MCP, SQL or Cedar. Start reading at [`router`], then `http/token.rs`.

mod again;
mod authenticate;
mod authzen;
mod body;
mod config;
mod connection;
mod edge;
mod http;
mod instant;
mod openapi;
mod operation;
pub mod ports;
mod problem;
mod respond;
mod router;

#[cfg(fuzzing)]
pub use authzen::door;
pub use config::{ConfigError, ControlConfig, Operator, Role};
pub use connection::Connection;
pub use ports::{
    KeyRotation, NextKey, Observer, PolicySource, PortError, Probe, Probing, ToolState, ToolView, UpstreamCatalog, UpstreamStatus,
};
pub use router::router;

use ::authority::Authority;
use std::sync::Arc;

/// What the control plane is made of.
pub struct Control {
    /// The use cases.
    pub authority: Authority,
    /// Settings and operators.
    pub config: ControlConfig,
    /// The upstreams' live side.
    pub upstreams: Box<dyn UpstreamCatalog>,
    /// The policy folder.
    pub policy: Box<dyn PolicySource>,
    /// The token signing keys.
    pub keys: Box<dyn KeyRotation>,
    /// What must work for the node to be ready.
    pub probes: Vec<Probe>,
    /// The metrics as OpenMetrics text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Counts what is answered.
    pub observer: Arc<dyn Observer>,
    /// What a caller that makes its secret itself hands over to a target of this kind, if the kind can do with that.
    pub verifiers: fn(&str) -> Option<&'static str>,
}

/// What every handler is given.
type App = Arc<router::Served>;
