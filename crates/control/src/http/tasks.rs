//! Tasks over REST: read by operators, ended by operators or by their own agent. Opening, renewing and changing course
//! are the token endpoint's, because each needs fresh evidence.

use crate::App;
use crate::authenticate::{self, operator, reader};
use crate::body::{self, Query};
use crate::config::{Operator, Role};
use crate::http::page::{self, page};
use crate::instant;
use crate::problem::{Fault, Problem};
use crate::respond;
use authority::ports::TaskQuery;
use authority::{Actor, Caller};
use axum::Json;
use axum::extract::{Path, Request, State};
use domain::{AgentId, EndReason, Task, TaskId, TaskState};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use token::dpop::TargetUri;

/// `GET /v1/tasks`: newest first. Sensitive parameters are shown one task at a time, because that is logged.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let query = Query::read(request.uri().query(), &["agent", "open", "limit", "before"], &[])?;
    let limit = page::limit(&query)?;
    let wanted = TaskQuery {
        agent: query.parsed::<AgentId>("agent", "the name of an agent")?,
        open_only: query.parsed("open", "`true` or `false`")?.unwrap_or(false),
        before: query.parsed::<TaskId>("before", "a task id")?,
        // One more than is shown tells whether there is a next page.
        limit: limit.saturating_add(1),
    };
    let tasks = app.authority.archive().tasks(wanted).await.map_err(|error| respond::archive(&error))?;
    Ok(Json(page(tasks, limit, |task| task.id.to_string(), |task| to_json(&app, task, &Shown::Nothing))))
}

/// `GET /v1/tasks/{task}`: by operators, and by an agent for the task of its token. For the agent asking is a sign of life.
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let (parts, _) = request.into_parts();
    if operator(&app, &parts.headers).is_ok() {
        let reader = reader(&app, &parts.headers)?;
        let task = found(&app, named(&id)?).await?;
        let shown = shown_to(&app, &task, reader).await?;
        return Ok(Json(to_json(&app, &task, &shown)));
    }
    let caller = agent(&app, &parts)?;
    // Another's task and no task at all look the same.
    if named(&id)? != caller.task() {
        return Err(Problem::not_found("task"));
    }
    // Its parameters are no news to the agent, and this is its heartbeat: it costs no search of the log.
    Ok(Json(to_json(&app, &found(&app, caller.task()).await?, &Shown::Nothing)))
}

/// What is shown in place of sensitive parameters.
enum Shown {
    /// That there is one.
    Nothing,
    /// What the log holds in its place: the index of the entry, and commitments by name.
    Committed(u64, BTreeMap<String, String>),
    /// The value. That it was read is in the log.
    Value,
}

/// What an operator is shown of a task's sensitive parameters: an auditor the values, once that is logged, as with openings of
/// the log; others the commitments.
async fn shown_to(app: &App, task: &Task, reader: &Operator) -> Result<Shown, Problem> {
    let names = sensitive(app, task);
    if names.is_empty() {
        return Ok(Shown::Nothing);
    }
    if reader.has(Role::Auditor) {
        let by = Actor::Operator(reader.name.clone());
        app.authority.read_params(task, &names, &by).await.map_err(respond::problem)?;
        return Ok(Shown::Value);
    }
    let committed = app.authority.committed_params(task).await.map_err(respond::problem)?;
    Ok(committed.map_or(Shown::Nothing, |(index, committed)| Shown::Committed(index, committed)))
}

/// The agent whose task token came with the request.
pub(crate) fn agent(app: &App, parts: &Parts) -> Result<Caller, Problem> {
    let uri = format!("{}{}", app.config.issuer(), parts.uri.path());
    let uri = TargetUri::parse(&uri).map_err(|_| Problem::not_found("task"))?;
    authenticate::agent(app, parts, &uri)
}

/// How a task is ended.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndRecord {
    reason: Option<String>,
}

/// `POST /v1/tasks/{task}/end`: by an operator (admin) for any task, by an agent for the task of its token.
pub(crate) async fn end(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let (parts, body) = request.into_parts();
    let (by, reason) = match operator_or_none(&app, &parts.headers)? {
        Some(name) => (Actor::Operator(name), EndReason::Revoked),
        None => (Actor::Agent(agent(&app, &parts)?), EndReason::Completed),
    };
    let record: EndRecord = body::record_or_default(&parts.headers, body).await?;
    let id = named(&id)?;
    app.authority.end_task(id, &by, allowed_reason(record, reason)?).await.map_err(respond::problem)?;
    let task = found(&app, id).await?;
    Ok(Json(to_json(&app, &task, &Shown::Nothing)))
}

/// The operator whose secret came with the request; `None` if none did and the caller may be an agent.
fn operator_or_none(app: &App, headers: &http::HeaderMap) -> Result<Option<String>, Problem> {
    match operator(app, headers) {
        Ok(operator) if operator.has(Role::Admin) => Ok(Some(operator.name.clone())),
        Ok(operator) => {
            let detail = format!("operator `{}` does not have role `admin`", operator.name);
            Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
        }
        Err(_) => Ok(None),
    }
}

/// Who ends a task cannot claim another cause than its own.
fn allowed_reason(record: EndRecord, own: EndReason) -> Result<EndReason, Problem> {
    match record.reason.as_deref() {
        None => Ok(own),
        Some(word) if word == own.as_str() => Ok(own),
        Some(_) => {
            let detail = format!("expected `{}`, or leave it out", own.as_str());
            Err(Problem::faults(vec![Fault { at: "reason".to_owned(), detail }]))
        }
    }
}

/// The task that a path names; what is no id names none.
pub(crate) fn named(id: &str) -> Result<TaskId, Problem> {
    id.parse().map_err(|_| Problem::not_found("task"))
}

async fn found(app: &App, id: TaskId) -> Result<Task, Problem> {
    let task = app.authority.archive().task(id).await.map_err(|error| respond::archive(&error))?;
    task.ok_or_else(|| Problem::not_found("task"))
}

/// The task as it is now: memory knows more than the store while it is open.
fn to_json(app: &App, task: &Task, shown: &Shown) -> Value {
    let live = app.authority.live_task(task.id);
    let progress = live.map_or(task.progress, |live| live.progress().joined(task.progress));
    let (state, ended_at, reason) = match progress.state {
        TaskState::Open => ("open", None, None),
        TaskState::Ended { at, reason } => ("ended", Some(instant::to_text(at)), Some(reason.as_str())),
    };
    json!({
        "id": task.id.to_string(),
        "agent": task.agent.as_str(),
        "intent": task.intent.as_str(),
        "parameters": parameters(app, task, shown),
        "state": state,
        "opened_at": instant::to_text(task.opened_at),
        "deadline": instant::to_text(task.deadline),
        "ended_at": ended_at,
        "end_reason": reason,
        "calls_used": progress.calls_used,
        "calls_max": task.calls_max,
        "idle_secs": task.idle_secs,
        "seen_at": instant::to_text(progress.seen_at),
        "attested_at": instant::to_text(progress.attested_at),
        "read_untrusted": progress.labels.read_untrusted,
        "read_sensitivity": progress.labels.read_sensitivity.as_str(),
        "workload": {
            "provider": task.workload.provider.as_str(), "issuer": task.workload.issuer, "subject": task.workload.subject,
        },
        "predecessor": task.predecessor.map(|id| id.to_string()),
    })
}

/// The names of parameters that the intent calls sensitive; those of an intent that is gone may all have been.
fn sensitive(app: &App, task: &Task) -> Vec<String> {
    let policy = app.authority.policy();
    let intent = policy.intent(&task.intent);
    let clear = |name: &str| intent.and_then(|intent| intent.params.get(name)).is_some_and(|param| !param.sensitive);
    task.params.to_json().into_iter().map(|(name, _)| name).filter(|name| !clear(name)).collect()
}

fn parameters(app: &App, task: &Task, shown: &Shown) -> Map<String, Value> {
    let mut parameters = task.params.to_json();
    for name in sensitive(app, task) {
        let instead = match shown {
            Shown::Value => continue,
            Shown::Nothing => json!({ "withheld": true }),
            Shown::Committed(index, committed) => match committed.get(&name) {
                Some(commitment) => json!({ "withheld": true, "commitment": commitment, "entry": index }),
                None => json!({ "withheld": true }),
            },
        };
        parameters.insert(name, instead);
    }
    parameters
}
