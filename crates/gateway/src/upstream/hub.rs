//! One upstream as all tasks share it: how it is reached, what is known of it, and the room that it has. Nothing here
//! could tell one task of another (R20).

use super::catalog::Catalog;
use super::era::Eras;
use super::error::UpstreamError;
use super::http::Endpoint;
use super::registry::Registry;
use crate::room::Room;
use domain::Upstream;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// What all connections to one upstream share: nothing that one task could see of another.
pub(super) struct Hub {
    pub(super) upstream: Arc<Upstream>,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) traceparent: Option<fn() -> Option<String>>,
    pub(super) eras: Eras,
    pub(super) catalog: Catalog,
    /// Requests that may be under way at once.
    pub(super) places: Arc<Semaphore>,
    /// For what it says by itself, to all tasks.
    pub(super) room: Room,
    pub(super) registry: Arc<dyn Registry>,
    /// How the last attempt to speak with it went.
    pub(super) fault: Mutex<Option<Result<(), UpstreamError>>>,
    /// What must be done before the gateway may stop.
    pub(super) farewells: TaskTracker,
}

impl Hub {
    /// Whether the upstream is still registered as it was when this was made.
    pub(super) fn is_current(&self) -> bool {
        let registered = self.registry.upstream(&self.upstream.name);
        registered.is_some_and(|now| Arc::ptr_eq(&now, &self.upstream) || now == self.upstream)
    }

    /// Remembers how it went to speak with it.
    pub(super) fn note(&self, outcome: Result<(), &UpstreamError>) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        *fault = Some(outcome.map_err(Clone::clone));
    }

    /// Whether it answered when it was last spoken to, and what went wrong if not.
    pub(super) fn health(&self) -> (Option<bool>, Option<String>) {
        match &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            None => (None, None),
            Some(Ok(())) => (Some(true), None),
            Some(Err(error)) => (Some(false), Some(error.to_string())),
        }
    }
}
