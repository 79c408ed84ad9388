//! Whether the process lives, whether it can serve, and its metrics. Open to anybody who reaches the listener, so the
//! answers hold no names of agents or operators.

use crate::App;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long one probe may take.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: all that serving needs works.
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let probing = app.probes.iter().map(|probe| async {
        let outcome = tokio::time::timeout(PROBE_MAX, (probe.check)()).await.unwrap_or_else(|_| Err("no answer in time".into()));
        (probe.name, outcome)
    });
    let outcomes = futures_util::future::join_all(probing).await;
    let ready = outcomes.iter().all(|(_, outcome)| outcome.is_ok());
    let checks =
        outcomes.into_iter().map(|(name, outcome)| (name.to_owned(), Value::from(outcome.err().unwrap_or_else(|| "ok".into()))));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": ready, "checks": checks.collect::<Map<_, _>>() });
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `GET /metrics`: OpenMetrics text.
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let mut response = (app.metrics)().into_response();
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
