//! The policy in force: its version, reloading it, and why it says what it says. Explaining a hypothetical request is not a
//! decision: nothing follows from it, so nothing is logged.

use crate::App;
use crate::again;
use crate::authenticate::{admin, reader};
use crate::body;
use crate::operation::Asked;
use crate::problem::{Fault, Problem};
use crate::respond;
use authority::{Explanation, Hypothetical, RuleInfo, Standing};
use axum::Json;
use axum::extract::{Path, Request, State};
use domain::{Binding, DecisionId, Effect, Labels, Operation, Outcome, Sensitivity, TaskId, Verdict};
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

/// A hypothetical request: of an open `task`, or of one that is only supposed (`agent`, `intent`, `parameters` …). At most
/// one of `tool`, `resource`, `prompt`; with none of them and no upstream it is the opening of the supposed task.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExplainRecord {
    task: Option<String>,
    agent: Option<String>,
    intent: Option<String>,
    parameters: Map<String, Value>,
    claims: Map<String, Value>,
    binding: Option<String>,
    read_untrusted: bool,
    read_sensitivity: Option<String>,
    upstream: Option<String>,
    tool: Option<String>,
    resource: Option<String>,
    prompt: Option<String>,
    arguments: Map<String, Value>,
    approved: bool,
}

/// `POST /v1/policy/explain`
pub(crate) async fn explain(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let (parts, body) = request.into_parts();
    let record: ExplainRecord = body::record(&parts.headers, body).await?;
    let asked = record.asked()?;
    let operation = asked.as_ref().map_or(Operation::OpenTask, Asked::operation);
    let explanation = match (&record.task, record.supposed()?) {
        (Some(task), None) => {
            let live = task.parse::<TaskId>().ok().and_then(|task| app.authority.live_task(task));
            let live = live.ok_or_else(|| Problem::not_found("open task"))?;
            app.authority.explain(&live, operation, record.approved).ok_or_else(|| Problem::not_found("agent"))?
        }
        (None, Some(supposed)) => app.authority.explain_if(&supposed, operation).map_err(respond::impossible)?,
        _ => return Err(wrong("task", "expected either an open `task`, or `agent` and `intent` of a supposed one")),
    };
    Ok(Json(explanation_json(&explanation)))
}

fn wrong(at: &str, detail: impl ToString) -> Problem {
    Problem::faults(vec![Fault { at: at.to_owned(), detail: detail.to_string() }])
}

impl ExplainRecord {
    /// The task that is supposed, if one is.
    fn supposed(&self) -> Result<Option<Hypothetical>, Problem> {
        let (Some(agent), Some(intent)) = (&self.agent, &self.intent) else {
            let none = self.agent.is_none() && self.intent.is_none() && self.parameters.is_empty() && self.claims.is_empty();
            let plain = self.binding.is_none() && !self.read_untrusted && self.read_sensitivity.is_none();
            return if none && plain { Ok(None) } else { Err(wrong("agent", "a supposed task needs `agent` and `intent`")) };
        };
        let sensitivity = self.read_sensitivity.as_deref().unwrap_or(Sensitivity::Public.as_str());
        let read_sensitivity = sensitivity.parse().map_err(|error: domain::Error| wrong("read_sensitivity", error))?;
        let binding = Binding::from_word(self.binding.as_deref().unwrap_or(Binding::Dpop.as_str()));
        let binding = binding.ok_or_else(|| wrong("binding", "expected `dpop`, `mtls` or `bearer`"))?;
        Ok(Some(Hypothetical {
            agent: agent.parse().map_err(|_| Problem::not_found("agent"))?,
            intent: intent.clone(),
            parameters: self.parameters.clone(),
            claims: self.claims.clone(),
            labels: Labels { read_untrusted: self.read_untrusted, read_sensitivity },
            binding,
            approved: self.approved,
        }))
    }

    /// What is asked of the task; nothing means its opening.
    fn asked(&self) -> Result<Option<Asked>, Problem> {
        let Some(upstream) = &self.upstream else {
            let nothing = self.tool.is_none() && self.resource.is_none() && self.prompt.is_none() && self.task.is_none();
            return if nothing { Ok(None) } else { Err(wrong("upstream", "say where the request would go")) };
        };
        let upstream = upstream.parse().map_err(|error: domain::Error| wrong("upstream", error))?;
        let arguments = self.arguments.clone();
        let asked = match (&self.tool, &self.resource, &self.prompt) {
            (Some(tool), None, None) => {
                let tool = tool.parse().map_err(|error: domain::Error| wrong("tool", error))?;
                Asked::Tool { upstream, tool, arguments }
            }
            (None, Some(uri), None) => Asked::Resource { upstream, uri: uri.clone() },
            (None, None, Some(name)) => Asked::Prompt { upstream, name: name.clone(), arguments },
            _ => return Err(wrong("tool", "expected exactly one of `tool`, `resource`, `prompt`")),
        };
        Ok(Some(asked))
    }
}

/// `GET /v1/decisions/{decision}`: one decision as it is in the log, with the policies that settled it and why.
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
    let explained = match in_force {
        true => again::explained(&app.authority, &event).await.map_err(respond::problem)?,
        false => None,
    };
    let rules = policy.rules().filter(|rule| in_force && settled.contains(&rule.id.as_str())).map(rule_json);
    Ok(Json(json!({
        "decision": id.to_string(),
        "index": entry.index,
        "event": event,
        "policy_in_force": in_force,
        "policies": rules.collect::<Vec<_>>(),
        "explanation": explained.map(|explained| explained.verdict.explanation),
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
