//! What the gateway tells of itself while it works: outcomes, latencies, how much is open. Owns no metric and no
//! exporter; the binary implements [`Observer`]. Spans follow the OpenTelemetry conventions for MCP.

use domain::{Outcome, Reason};
use std::time::{Duration, Instant};

/// A part of the way of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Token, proof of possession, task.
    Authenticate,
    /// Policy, and the decision durable in the log.
    Decide,
    /// The upstream's work, until its outcome.
    Upstream,
}

impl Stage {
    /// The word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Decide => "decide",
            Self::Upstream => "upstream",
        }
    }
}

/// Hears what happens. Called on the path of requests: must not block.
pub trait Observer: Send + Sync + 'static {
    /// A request was decided.
    fn decided(&self, outcome: Outcome, reason: Option<Reason>);
    /// A stage of a request took so long.
    fn took(&self, stage: Stage, duration: Duration);
    /// A request was refused before it was decided, with this HTTP status.
    fn refused(&self, status: u16);
    /// So many sessions of legacy clients are open.
    fn sessions(&self, open: usize);
}

/// Measures one stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn stop(self, observer: &dyn Observer, stage: Stage) {
        observer.took(stage, self.0.elapsed());
    }
}
