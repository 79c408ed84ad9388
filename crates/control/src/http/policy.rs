//! The policy in force: its version, reloading it, and why it says what it says. Explaining a hypothetical request is not a
//! decision: nothing follows from it, so nothing is logged.

use crate::App;
use crate::authenticate::{admin, reader};
use crate::body;
use crate::operation::Asked;
use crate::problem::{Fault, Problem};
use crate::respond;
use authority::{Explanation, RuleInfo, Standing};
use axum::Json;
use axum::extract::{Path, Request, State};
use domain::{DecisionId, Effect, Outcome, TaskId, Verdict};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// `GET /v1/policy`
pub(crate) async fn get(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    Ok(Json(shown(&app)))
}

/// `POST /v1/policy/reload`: all or nothing; on any problem the old policy stays in force.
pub(crate) async fn reload(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    let by = admin(&app, request.headers())?;
    app.policy.reload(&by).await.map_err(respond::port)?;
    Ok(Json(shown(&app)))
}

fn shown(app: &App) -> Value {
    let policy = app.authority.policy();
    json!({
        "version": policy.version().to_string(),
        "intents": policy.intents().map(|intent| intent.name.as_str()).collect::<Vec<_>>(),
        "upstreams": policy.upstreams().map(domain::UpstreamName::as_str).collect::<Vec<_>>(),
        "policies": policy.rules().map(rule_json).collect::<Vec<_>>(),
    })
}

/// A hypothetical request of an open task: exactly one of `tool`, `resource`, `prompt`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainRecord {
    task: String,
    upstream: String,
    tool: Option<String>,
    resource: Option<String>,
    prompt: Option<String>,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default)]
    approved: bool,
}

/// `POST /v1/policy/explain`
pub(crate) async fn explain(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let (parts, body) = request.into_parts();
    let record: ExplainRecord = body::record(&parts.headers, body).await?;
    let task: TaskId = record.task.parse().map_err(|_| Problem::not_found("open task"))?;
    let live = app.authority.live_task(task).ok_or_else(|| Problem::not_found("open task"))?;
    let approved = record.approved;
    let asked = record.read()?;
    let explanation = app.authority.explain(&live, asked.operation(), approved).ok_or_else(|| Problem::not_found("agent"))?;
    Ok(Json(explanation_json(&explanation)))
}

impl ExplainRecord {
    fn read(self) -> Result<Asked, Problem> {
        let fault = |at: &str, detail: String| Problem::faults(vec![Fault { at: at.to_owned(), detail }]);
        let upstream = self.upstream.parse().map_err(|error: domain::Error| fault("upstream", error.to_string()))?;
        match (self.tool, self.resource, self.prompt) {
            (Some(tool), None, None) => {
                let tool = tool.parse().map_err(|error: domain::Error| fault("tool", error.to_string()))?;
                Ok(Asked::Tool { upstream, tool, arguments: self.arguments })
            }
            (None, Some(uri), None) => Ok(Asked::Resource { upstream, uri }),
            (None, None, Some(name)) => Ok(Asked::Prompt { upstream, name, arguments: self.arguments }),
            _ => Err(fault("tool", "expected exactly one of `tool`, `resource`, `prompt`".to_owned())),
        }
    }
}

/// `GET /v1/decisions/{decision}`: one decision as it is in the log, with the policies that settled it.
pub(crate) async fn decision(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let id: DecisionId = id.parse().map_err(|_| Problem::not_found("decision"))?;
    let entry = app.authority.archive().decision(id).await.map_err(|error| respond::archive(&error))?;
    let entry = entry.ok_or_else(|| Problem::not_found("decision"))?;
    let leaf: Value = serde_json::from_slice(&entry.leaf).unwrap_or_default();
    let event = leaf.get("event").cloned().unwrap_or_default();
    let policy = app.authority.policy();
    let version = policy.version().to_string();
    // The text of a policy is known only while the version that decided is the one in force.
    let in_force = event.get("policy").and_then(Value::as_str) == Some(version.as_str());
    let settled: Vec<&str> =
        event.get("determining").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let rules = policy.rules().filter(|rule| in_force && settled.contains(&rule.id.as_str())).map(rule_json);
    Ok(Json(json!({
        "decision": id.to_string(),
        "index": entry.index,
        "event": event,
        "policy_in_force": in_force,
        "policies": rules.collect::<Vec<_>>(),
    })))
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Permit => "permit",
        Effect::Forbid => "forbid",
    }
}

fn rule_json(rule: &RuleInfo) -> Value {
    json!({
        "id": rule.id,
        "effect": effect(rule.effect),
        "annotations": rule.annotations,
        "path": rule.path,
        "line": rule.line,
    })
}

fn explanation_json(explanation: &Explanation) -> Value {
    let Verdict { outcome, reason, determining, explanation: text, approvers } = &explanation.verdict;
    let considered = explanation.considered.iter().map(|considered| {
        let standing = match considered.standing {
            Standing::Held => "held",
            Standing::NotHeld => "not_held",
            Standing::Error => "error",
        };
        json!({ "policy": rule_json(&considered.rule), "standing": standing, "unmet": considered.unmet })
    });
    json!({
        "outcome": Outcome::as_str(*outcome),
        "reason": reason.map(domain::Reason::as_str),
        "explanation": text,
        "determining": determining.iter().map(|policy| policy.id.as_str()).collect::<Vec<_>>(),
        "approvers": approvers,
        "considered": considered.collect::<Vec<_>>(),
    })
}
