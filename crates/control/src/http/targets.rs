//! Targets over REST, for operators: how each stands, and the examinations that an operator asks for. What a target is and
//! how it is reached is configuration; nothing here changes it.

use crate::App;
use crate::authenticate::{admin, reader};
use crate::instant;
use crate::problem::Problem;
use crate::respond;
use authority::target::{Finding, Gravity, Standing};
use authority::{Health, TargetStatus};
use axum::Json;
use axum::extract::{Path, Request, State};
use domain::{Offer, TargetName};
use serde_json::{Map, Value, json};

/// `GET /v1/targets`.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let mut items = Vec::new();
    for name in app.authority.target_names() {
        items.push(to_json(&app, &status(&app, &name).await?));
    }
    Ok(Json(json!({ "items": items, "next": null })))
}

/// `GET /v1/targets/{target}`.
pub(crate) async fn get(State(app): State<App>, Path(name): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    Ok(Json(to_json(&app, &status(&app, &named(&name)?).await?)))
}

/// `POST /v1/targets/{target}/doctor`: whether our account there can do what it must and nothing more.
pub(crate) async fn doctor(State(app): State<App>, Path(name): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    admin(&app, request.headers())?;
    let findings = app.authority.examine_target(&named(&name)?).await.map_err(respond::problem)?;
    let worst = findings.iter().map(|finding| finding.gravity).max().unwrap_or(Gravity::Fine);
    Ok(Json(json!({ "target": name, "verdict": word(worst), "findings": findings.iter().map(finding).collect::<Vec<_>>() })))
}

/// `POST /v1/targets/{target}/probe`: issue, use, take back, prove dead, now. Decides whether the target issues.
pub(crate) async fn probe(State(app): State<App>, Path(name): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    admin(&app, request.headers())?;
    let name = named(&name)?;
    let health = app.authority.probe_target(&name).await.map_err(respond::problem)?;
    Ok(Json(json!({ "target": name.as_str(), "health": health_json(&health) })))
}

/// `POST /v1/targets/{target}/scan`: credentials that stand there without us (R14).
pub(crate) async fn scan(State(app): State<App>, Path(name): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    admin(&app, request.headers())?;
    let standing = app.authority.scan_target(&named(&name)?).await.map_err(respond::problem)?;
    Ok(Json(json!({ "target": name, "items": standing.iter().map(found).collect::<Vec<_>>(), "next": null })))
}

fn named(name: &str) -> Result<TargetName, Problem> {
    name.parse().map_err(|_| Problem::not_found("target"))
}

async fn status(app: &App, name: &TargetName) -> Result<TargetStatus, Problem> {
    app.authority.target_status(name).await.map_err(respond::problem)
}

fn to_json(app: &App, status: &TargetStatus) -> Value {
    let profile = &status.profile;
    let policy = app.authority.policy();
    let offers = policy.target(&profile.name);
    let shown = offers.map(|offers| -> Map<String, Value> {
        offers.offers.iter().map(|(name, offer)| (name.to_string(), offer_json(offer))).collect()
    });
    json!({
        "name": profile.name.as_str(),
        "kind": profile.kind,
        "owner": profile.owner.as_str(),
        "description": offers.map(|offers| offers.description.as_str()),
        "health": health_json(&status.health),
        "issues": matches!(status.health, Health::Healthy { .. }) && status.breaker_open_for.is_none(),
        "breaker_open_secs": status.breaker_open_for.map(|left| left.as_secs_f64()),
        "credentials": {
            "held": status.counts.held,
            "ending": status.counts.ending,
            "oldest_due": status.counts.oldest_due.map(instant::to_text),
            "live_max": profile.live_max,
        },
        "issue_connections": profile.issue_connections,
        "end_connections": profile.end_connections,
        "offers": shown,
    })
}

fn health_json(health: &Health) -> Value {
    let (at, why, note) = match health {
        Health::Unprobed => (None, None, None),
        Health::Healthy { at, note, .. } => (Some(*at), None, *note),
        Health::Broken { at, why } => (Some(*at), Some(why.as_str()), None),
    };
    json!({ "state": health.as_str(), "probed_at": at.map(instant::to_text), "why": why, "note": note })
}

/// An offer as those see it who may ask for it.
pub(crate) fn offer_json(offer: &Offer) -> Value {
    let param = |param: &domain::Param| {
        json!({
            "type": param.kind.as_str(),
            "description": param.description,
            "required": param.default.is_none(),
            "default": param.default.as_ref().map(domain::Value::to_json),
            "min": param.min,
            "max": param.max,
            "one_of": param.one_of,
        })
    };
    json!({
        "description": offer.description,
        "lifetime_secs": offer.lifetime_secs,
        "parameters": offer.params.iter().map(|(name, one)| (name.clone(), param(one))).collect::<Map<_, _>>(),
        "sensitivity": offer.traits.reading.sensitivity.as_str(),
        "untrusted": offer.traits.reading.untrusted,
        "sink": offer.traits.sink.as_str(),
    })
}

const fn word(gravity: Gravity) -> &'static str {
    match gravity {
        Gravity::Fine => "fine",
        Gravity::Warning => "warning",
        Gravity::Broken => "broken",
    }
}

fn finding(finding: &Finding) -> Value {
    json!({
        "gravity": word(finding.gravity), "check": finding.check, "found": finding.found, "remedy": finding.remedy,
    })
}

fn found(standing: &Standing) -> Value {
    json!({
        "name": standing.name, "kind": standing.kind, "flags": standing.flags, "details": standing.details,
        "proposal": standing.proposal,
    })
}
