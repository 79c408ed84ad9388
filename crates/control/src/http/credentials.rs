//! Credentials over REST: asked for, listed and given back by the agent of a task; listed and revoked by operators. What
//! is answered once is never answered again: secrets are in the answer of the request and nowhere else.

use crate::App;
use crate::authenticate::{admin, operator, reader};
use crate::body::{self, Query};
use crate::http::page::{self, page};
use crate::http::targets::offer_json;
use crate::http::tasks::{agent, named};
use crate::instant;
use crate::problem::{Fault, Problem};
use crate::respond;
use authority::ports::{GrantQuery, GrantRecord};
use authority::target::Verifier;
use authority::{Actor, Caller, CredentialRequest, IssuedCredential};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use domain::{GrantId, GrantState, Operation, SecretOrigin, TargetName, TaskId};
use http::StatusCode;
use http::request::Parts;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

/// Largest verifier, in bytes: a certificate request with a large RSA key fits.
const VERIFIER_BYTES_MAX: usize = 16 * 1_024;

/// A credential that is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestRecord {
    target: String,
    offer: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    lifetime_secs: Option<u64>,
    #[serde(default)]
    verifier: BTreeMap<String, String>,
}

/// `GET /v1/tasks/{task}/offers`: what this task could be given a credential for, whatever it says about it.
pub(crate) async fn offers(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let (parts, _) = request.into_parts();
    let caller = of_task(&app, &parts, &id)?;
    let policy = app.authority.policy();
    let mut items = Vec::new();
    for target in policy.targets().filter(|target| !target.is_http()) {
        let verifier = (app.verifiers)(&target.kind);
        let secret = if verifier.is_some() { SecretOrigin::Caller } else { SecretOrigin::Writ };
        for offer in target.offers.values() {
            let (arguments, lifetime_secs) = (Map::new(), offer.lifetime_secs);
            let operation = Operation::IssueCredential {
                target: &target.name,
                offer: &offer.name,
                arguments: &arguments,
                lifetime_secs,
                secret,
            };
            if !app.authority.could_allow(&caller, &operation) {
                continue;
            }
            let mut item = offer_json(offer);
            if let Some(members) = item.as_object_mut() {
                let named = [("target", json!(target.name.as_str())), ("offer", json!(offer.name.as_str()))];
                members.extend(named.map(|(name, value)| (name.to_owned(), value)));
                members.insert("kind".to_owned(), json!(target.kind));
                members.insert("verifier".to_owned(), json!(verifier));
            }
            items.push(item);
        }
    }
    Ok(Json(json!({ "items": items, "next": null })))
}

/// `POST /v1/tasks/{task}/credentials`: decides, logs, creates, and answers all of it once. Each request is a decision and
/// a credential of its own: repeating one whose answer was lost issues another, and the lost one is in the listing to be
/// given back.
pub(crate) async fn request(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = of_task(&app, &parts, &id)?;
    let record: RequestRecord = body::record(&parts.headers, body).await?;
    let asked = record.read()?;
    let (started, target) = (Instant::now(), asked.target.clone());
    let issued = app.authority.request_credential(&caller, asked).await.map_err(respond::credential);
    let answer = issued.as_ref().map_or_else(Problem::code, |_| "issued");
    let known = app.authority.policy().target(&target).is_some().then_some(&target);
    app.observer.credential(known, answer, started.elapsed());
    let issued = issued?;
    Ok(respond::no_store(StatusCode::CREATED, issued_json(&app, &issued).to_string()))
}

impl RequestRecord {
    fn read(self) -> Result<CredentialRequest, Problem> {
        let mut faults = Vec::new();
        let mut fault = |at: &str, detail: String| faults.push(Fault { at: at.to_owned(), detail });
        let target = self.target.parse().map_err(|error: domain::Error| fault("target", error.to_string())).ok();
        let offer = self.offer.parse().map_err(|error: domain::Error| fault("offer", error.to_string())).ok();
        if self.lifetime_secs == Some(0) {
            fault("lifetime_secs", "expected at least 1".to_owned());
        }
        let verifier = verifier(self.verifier).map_err(|detail| fault("verifier", detail)).ok();
        match (target, offer, verifier) {
            (Some(target), Some(offer), Some(verifier)) if faults.is_empty() => {
                let (params, lifetime_secs) = (self.parameters, self.lifetime_secs);
                Ok(CredentialRequest { target, offer, params, lifetime_secs, verifier })
            }
            _ => Err(Problem::faults(faults)),
        }
    }
}

/// The one verifier that was given, if any. Its form is the target's to check.
fn verifier(given: BTreeMap<String, String>) -> Result<Option<Verifier>, String> {
    if given.len() > 1 {
        return Err("give one verifier".to_owned());
    }
    let Some((kind, value)) = given.into_iter().next() else { return Ok(None) };
    if value.is_empty() || value.len() > VERIFIER_BYTES_MAX {
        return Err(format!("a verifier has 1 to {VERIFIER_BYTES_MAX} bytes"));
    }
    Ok(Some(match kind.as_str() {
        "scram_sha_256" => Verifier::ScramSha256(value),
        "mysql_native" => Verifier::MysqlNative(value),
        "sha256" => Verifier::Sha256(value),
        "ssh_public_key" => Verifier::SshPublicKey(value),
        "certificate_request" => Verifier::CertificateRequest(value),
        _ => {
            // A caller that mistook the place of its secret must not find it in an answer.
            return Err(
                "expected one of `scram_sha_256`, `mysql_native`, `sha256`, `ssh_public_key`, `certificate_request`".to_owned()
            );
        }
    }))
}

fn issued_json(app: &App, issued: &IssuedCredential) -> Value {
    let secrets = issued.secrets.iter().map(|(name, secret)| (name.clone(), secret.expose_secret().into()));
    json!({
        "id": issued.grant.to_string(),
        "target": issued.target.as_str(),
        "offer": issued.offer.as_str(),
        "kind": app.authority.policy().target(&issued.target).map(|target| target.kind.clone()),
        "handle": issued.handle,
        "decision": issued.decision.to_string(),
        "secret": issued.secret.as_str(),
        "expires_at": instant::to_text(issued.expires_at),
        "fields": issued.fields,
        "secrets": secrets.collect::<Map<String, Value>>(),
    })
}

/// `GET /v1/tasks/{task}/credentials`: without secrets. By the agent of the task, and by operators.
pub(crate) async fn of_one_task(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (parts, _) = request.into_parts();
    let task = match operator(&app, &parts.headers) {
        Ok(_) => reader(&app, &parts.headers).and_then(|_| named(&id))?,
        Err(_) => of_task(&app, &parts, &id)?.task(),
    };
    listed(&app, &parts, Some(task)).await
}

/// `GET /v1/credentials`: all, for operators.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    let (parts, _) = request.into_parts();
    reader(&app, &parts.headers)?;
    listed(&app, &parts, None).await
}

async fn listed(app: &App, parts: &Parts, task: Option<TaskId>) -> Result<Json<Value>, Problem> {
    let query = Query::read(parts.uri.query(), &["task", "target", "state", "standing", "limit", "before"], &[])?;
    let limit = page::limit(&query)?;
    let state = query.parsed::<InState>("state", "a state of a credential")?.map(|state| state.0);
    let wanted = GrantQuery {
        task: match task {
            Some(task) => Some(task),
            None => query.parsed("task", "a task id")?,
        },
        target: query.parsed::<TargetName>("target", "the name of a target")?,
        state,
        standing_only: query.parsed("standing", "`true` or `false`")?.unwrap_or(false),
        before: query.parsed::<GrantId>("before", "a credential id")?,
        // One more than is shown tells whether there is a next page.
        limit: limit.saturating_add(1),
    };
    let grants = app.authority.credentials(wanted).await.map_err(respond::problem)?;
    Ok(Json(page(grants, limit, |record| record.grant.id.to_string(), to_json)))
}

/// A state by its word.
struct InState(GrantState);

impl std::str::FromStr for InState {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        GrantState::from_word(word).map(Self).ok_or(())
    }
}

/// `GET /v1/credentials/{credential}`: for operators.
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    Ok(Json(to_json(&found(&app, &id, None).await?)))
}

/// `GET /v1/tasks/{task}/credentials/{credential}`: by the agent of the task.
pub(crate) async fn get_of_task(
    State(app): State<App>,
    Path((task, id)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (parts, _) = request.into_parts();
    let caller = of_task(&app, &parts, &task)?;
    Ok(Json(to_json(&found(&app, &id, Some(caller.task())).await?)))
}

/// `DELETE /v1/tasks/{task}/credentials/{credential}`: gives one back. It counts as revoked when this answers; what its
/// target still has to do is in the answer, and goes on without the caller.
pub(crate) async fn give_back(
    State(app): State<App>,
    Path((task, id)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (parts, _) = request.into_parts();
    let caller = of_task(&app, &parts, &task)?;
    let grant = found(&app, &id, Some(caller.task())).await?.grant.id;
    app.authority.return_credential(&caller, grant).await.map_err(respond::problem)?;
    Ok(Json(to_json(&found(&app, &id, None).await?)))
}

/// `POST /v1/credentials/{credential}/revoke`: by an operator.
pub(crate) async fn revoke(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let by = Actor::Operator(admin(&app, request.headers())?);
    let grant = found(&app, &id, None).await?.grant.id;
    app.authority.revoke_credential(grant, &by).await.map_err(respond::problem)?;
    Ok(Json(to_json(&found(&app, &id, None).await?)))
}

/// The agent whose task token came with the request, if it is for this task.
fn of_task(app: &App, parts: &Parts, task: &str) -> Result<Caller, Problem> {
    if let Ok(operator) = operator(app, &parts.headers) {
        let detail = format!("this is for the agent of the task; operator `{}` finds all at /v1/credentials", operator.name);
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let caller = agent(app, parts)?;
    // Another's task and no task at all look the same.
    if named(task)? == caller.task() { Ok(caller) } else { Err(Problem::not_found("task")) }
}

async fn found(app: &App, id: &str, task: Option<TaskId>) -> Result<GrantRecord, Problem> {
    let id: GrantId = id.parse().map_err(|_| Problem::not_found("credential"))?;
    let record = match app.authority.credential(id).await {
        Err(authority::Error::NotFound { .. }) => return Err(Problem::not_found("credential")),
        record => record.map_err(respond::problem)?,
    };
    // Another's credential and none at all look the same.
    if task.is_none_or(|task| record.grant.task == task) { Ok(record) } else { Err(Problem::not_found("credential")) }
}

/// What is true here and what is true at the target, apart: a credential counts for nothing from `revoked_at` on, whatever
/// its target has done about it.
fn to_json(record: &GrantRecord) -> Value {
    let grant = &record.grant;
    json!({
        "id": grant.id.to_string(),
        "task": grant.task.to_string(),
        "agent": grant.agent.as_str(),
        "target": grant.target.as_str(),
        "offer": grant.offer.as_str(),
        "handle": grant.handle,
        "decision": grant.decision.to_string(),
        "granted_at": instant::to_text(grant.granted_at),
        "expires_at": instant::to_text(grant.expires_at),
        "revoked_at": grant.revoked_at.map(instant::to_text),
        "revoked_because": record.reason,
        "at_target": {
            "state": grant.state.as_str(),
            "next_try_at": record.next_try_at.map(instant::to_text),
            "failed_tries": record.tries,
        },
    })
}
