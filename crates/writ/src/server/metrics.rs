//! Prometheus metrics of a server: what was decided, how long each stage took, how much is open, how far the log is
//! behind. Owns names and labels (a closed set: nothing that a client sends becomes a label) and their text form.

use authority::Authority;
use domain::{Outcome, Reason};
use gateway::{Observer, Stage};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::time::Duration;

/// From 50 µs to 10 s: a decision is fast, an upstream may not be.
const BUCKETS: [f64; 17] = [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    answer: &'static str,
}

/// The metrics of this process.
pub(crate) struct Metrics {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    stages: Family<StageLabels, Histogram>,
    refusals: Family<RefusalLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    sessions: Gauge,
    open_tasks: Gauge,
    durable: Gauge,
    published: Gauge,
    lag: Gauge,
    /// Connections of the listener.
    pub(crate) connections: Gauge,
    /// Reloads of the policy folder that did not validate.
    pub(crate) policy_refused: Counter,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Arc<Self> {
        let stages = Family::<StageLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let mut metrics = Self {
            registry: Registry::with_prefix("writ"),
            decisions: Family::default(),
            stages,
            refusals: Family::default(),
            tokens: Family::default(),
            sessions: Gauge::default(),
            open_tasks: Gauge::default(),
            durable: Gauge::default(),
            published: Gauge::default(),
            lag: Gauge::default(),
            connections: Gauge::default(),
            policy_refused: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("decisions", "Decisions about requests of tasks, by outcome and reason", metrics.decisions.clone());
        registry.register_with_unit(
            "stage_duration",
            "Time spent in each stage of a request",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        registry.register("refusals", "Requests refused before they were decided, by HTTP status", metrics.refusals.clone());
        registry.register("tokens", "Answers of the token endpoint: `issued`, or the OAuth error code", metrics.tokens.clone());
        registry.register("sessions", "Open sessions of clients of the session revisions", metrics.sessions.clone());
        registry.register("open_tasks", "Open tasks", metrics.open_tasks.clone());
        registry.register("log_durable_entries", "Entries that are durable", metrics.durable.clone());
        registry.register("log_published_entries", "Entries under a published checkpoint", metrics.published.clone());
        registry.register("log_lag_entries", "Durable entries that no published checkpoint covers yet", metrics.lag.clone());
        registry.register("connections", "Open connections of the listener", metrics.connections.clone());
        registry.register("policy_reloads_refused", "Policy folders that did not validate", metrics.policy_refused.clone());
        Arc::new(metrics)
    }

    /// The metrics as OpenMetrics text, with what is measured only when somebody asks.
    pub(crate) fn text(&self, authority: &Authority) -> String {
        let (durable, published) = authority.published_log().sizes();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.open_tasks.set(number(authority.open_tasks() as u64));
        self.durable.set(number(durable));
        self.published.set(number(published));
        self.lag.set(number(durable.saturating_sub(published)));
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Observer for Metrics {
    fn decided(&self, outcome: Outcome, reason: Option<Reason>) {
        let reason = reason.map_or("", Reason::as_str);
        self.decisions.get_or_create(&DecisionLabels { outcome: outcome.as_str(), reason }).inc();
    }

    fn took(&self, stage: Stage, duration: Duration) {
        self.stages.get_or_create(&StageLabels { stage: stage.as_str() }).observe(duration.as_secs_f64());
    }

    fn refused(&self, status: u16) {
        self.refusals.get_or_create(&RefusalLabels { status: u32::from(status) }).inc();
    }

    fn sessions(&self, open: usize) {
        self.sessions.set(i64::try_from(open).unwrap_or(i64::MAX));
    }
}

impl control::Observer for Metrics {
    fn decided(&self, outcome: Outcome, reason: Option<Reason>) {
        Observer::decided(self, outcome, reason);
    }

    fn issued(&self, answer: &'static str, took: Duration) {
        self.tokens.get_or_create(&TokenLabels { answer }).inc();
        self.stages.get_or_create(&StageLabels { stage: "issue" }).observe(took.as_secs_f64());
    }
}
