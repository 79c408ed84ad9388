//! Prometheus metrics of a server: what was decided, how long each stage took, how much is open, how far the log is
//! behind. Owns names and labels (a closed set: nothing that a client sends becomes a label) and their text form.

use authority::{Authority, Health, TargetStatus};
use domain::{Outcome, Reason, TargetName, Timestamp};
use gateway::{Observer, Stage};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// From 50 µs to 10 s: a decision is fast, an upstream may not be.
const BUCKETS: [f64; 17] = [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// From 10 ms to 6 h: a target that is down, or that can only wait for its own expiry, takes long.
const ENDING_BUCKETS: [f64; 14] = [1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0, 1_200.0, 3_600.0, 21_600.0];

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

/// Targets are named by the configuration: a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CredentialLabels {
    target: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    target: String,
    answer: &'static str,
}

/// The kinds of targets: a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// What is known of targets and their credentials.
struct TargetMetrics {
    /// Those that there are series of.
    named: Mutex<BTreeSet<String>>,
    credentials: Family<CredentialLabels, Gauge>,
    oldest_due: Family<TargetLabels, Gauge>,
    healthy: Family<TargetLabels, Gauge>,
    breaker_open: Family<TargetLabels, Gauge>,
    requests: Family<RequestLabels, Counter>,
    issue: Family<TargetLabels, Histogram>,
    ending: Family<KindLabels, Histogram>,
}

impl TargetMetrics {
    fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            named: Mutex::default(),
            credentials: Family::default(),
            oldest_due: Family::default(),
            healthy: Family::default(),
            breaker_open: Family::default(),
            requests: Family::default(),
            issue: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            ending: Family::new_with_constructor(|| Histogram::new(ENDING_BUCKETS)),
        };
        let credentials = "Credentials, `held` or `ending`: revoked here and not yet proved dead at the target";
        registry.register("credentials", credentials, metrics.credentials.clone());
        let oldest = "How long the oldest thing that is to be done at a target has been waiting";
        registry.register_with_unit("credentials_oldest_due", oldest, Unit::Seconds, metrics.oldest_due.clone());
        registry.register("target_healthy", "Whether the last probe of a target succeeded", metrics.healthy.clone());
        registry.register("target_breaker_open", "Whether a target does not answer at present", metrics.breaker_open.clone());
        registry.register("credential_requests", "Requests for credentials by answer", metrics.requests.clone());
        let issue = "Time from a request for a credential to its answer, if it was issued";
        registry.register_with_unit("credential_issue_duration", issue, Unit::Seconds, metrics.issue.clone());
        let ending = "Time from the end of a credential here (revoked, expired) to the proof that it is dead at its target";
        registry.register_with_unit("credential_ending_duration", ending, Unit::Seconds, metrics.ending.clone());
        metrics
    }
}

impl TargetMetrics {
    /// Drops what is measured of a target that is not configured any more; what was counted stays.
    fn forget(&self, name: &str) {
        let labels = TargetLabels { target: name.to_owned() };
        for state in ["held", "ending"] {
            self.credentials.remove(&CredentialLabels { target: name.to_owned(), state });
        }
        for family in [&self.oldest_due, &self.healthy, &self.breaker_open] {
            family.remove(&labels);
        }
    }
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
    targets: TargetMetrics,
    /// Connections of the listener.
    pub(crate) connections: Gauge,
    /// Reloads of the policy folder that did not validate.
    pub(crate) policy_refused: Counter,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Arc<Self> {
        let stages = Family::<StageLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let mut registry = Registry::with_prefix("writ");
        let targets = TargetMetrics::registered(&mut registry);
        let mut metrics = Self {
            registry,
            targets,
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
        registry.register(
            "policy_reloads_refused",
            "Changed policy folders that could not be put in force",
            metrics.policy_refused.clone(),
        );
        Arc::new(metrics)
    }

    /// Notes how targets stand, and forgets those that are not among `statuses`.
    pub(crate) fn targets(&self, statuses: &[TargetStatus], now: Timestamp) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let names = statuses.iter().map(|status| status.profile.name.to_string()).collect();
        let before = std::mem::replace(&mut *self.targets.named.lock().unwrap_or_else(PoisonError::into_inner), names);
        before.iter().filter(|name| !statuses.iter().any(|status| status.profile.name.as_str() == **name)).for_each(|name| {
            self.targets.forget(name);
        });
        for status in statuses {
            let target = status.profile.name.to_string();
            let labels = TargetLabels { target: target.clone() };
            for (state, count) in [("held", status.counts.held), ("ending", status.counts.ending)] {
                let labels = CredentialLabels { target: target.clone(), state };
                self.targets.credentials.get_or_create(&labels).set(number(count));
            }
            let waiting = status.counts.oldest_due.map_or(0, |due| now.secs().saturating_sub(due.secs()).max(0));
            self.targets.oldest_due.get_or_create(&labels).set(waiting);
            self.targets.healthy.get_or_create(&labels).set(i64::from(matches!(status.health, Health::Healthy { .. })));
            self.targets.breaker_open.get_or_create(&labels).set(i64::from(status.breaker_open_for.is_some()));
        }
    }

    /// Notes how long credentials took to die.
    pub(crate) fn endings(&self, latencies: Vec<(&'static str, Vec<Duration>)>) {
        for (kind, latencies) in latencies.into_iter().filter(|(_, latencies)| !latencies.is_empty()) {
            let histogram = self.targets.ending.get_or_create(&KindLabels { kind });
            latencies.iter().for_each(|latency| histogram.observe(latency.as_secs_f64()));
        }
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

    fn credential(&self, target: Option<&TargetName>, answer: &'static str, took: Duration) {
        let target = target.map(ToString::to_string).unwrap_or_default();
        self.targets.requests.get_or_create(&RequestLabels { target: target.clone(), answer }).inc();
        if answer == "issued" {
            self.targets.issue.get_or_create(&TargetLabels { target }).observe(took.as_secs_f64());
        }
    }

    fn issued(&self, answer: &'static str, took: Duration) {
        self.tokens.get_or_create(&TokenLabels { answer }).inc();
        self.stages.get_or_create(&StageLabels { stage: "issue" }).observe(took.as_secs_f64());
    }
}
