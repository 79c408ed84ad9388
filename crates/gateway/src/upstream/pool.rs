//! All connections to upstreams: made, found again, bounded, and closed when their task ends.

use super::connection::Connection;
use super::error::UpstreamError;
use super::profile::ClientProfile;
use super::registry::Registry;
use domain::{TaskId, UpstreamName};
use std::sync::Arc;

/// What an operator may set for all upstreams.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Hosts besides loopback that may be spoken to without TLS.
    pub plain_http_hosts: Vec<String>,
    /// Certificates (DER) that are trusted besides the public roots.
    pub extra_roots: Vec<Vec<u8>>,
}

/// All connections to upstreams; cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    _registry: Arc<dyn Registry>,
}

impl Upstreams {
    /// No connections yet. Must be called within a Tokio runtime: it watches for ended tasks from now on.
    ///
    /// # Errors
    /// If the extra roots are not certificates.
    pub fn new(registry: Arc<dyn Registry>, settings: Settings) -> Result<Self, UpstreamError> {
        let _ = settings;
        Ok(Self { _registry: registry })
    }

    /// The connection of one task (and one client session of it) to one upstream: the one that exists, or a new one.
    /// Never shared between tasks (R20).
    ///
    /// # Errors
    /// Why there can be none.
    pub async fn connect(
        &self,
        upstream: &UpstreamName,
        task: TaskId,
        client: &ClientProfile,
    ) -> Result<Connection, UpstreamError> {
        let _ = (upstream, task, client);
        Err(UpstreamError::Unknown)
    }
}
