//! Intents over REST, read only: they are policy as code and change with the policy folder. Owns their wire form;
//! knows neither files nor Cedar.

use crate::App;
use crate::authenticate::reader;
use crate::body::Query;
use crate::problem::Problem;
use axum::Json;
use axum::extract::{Path, Request, State};
use domain::{Intent, Param, UpstreamName, Value as Concrete};
use serde_json::{Map, Value, json};

/// `GET /v1/intents`
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    Query::read(request.uri().query(), &[], &[])?;
    let policy = app.authority.policy();
    let mut intents: Vec<_> = policy.intents().collect();
    intents.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(Json(json!({ "items": intents.into_iter().map(to_json).collect::<Vec<_>>(), "next": null })))
}

/// `GET /v1/intents/{intent}`
pub(crate) async fn get(State(app): State<App>, Path(name): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let policy = app.authority.policy();
    let intent = name.parse().ok().and_then(|name| policy.intent(&name));
    intent.map(|intent| Json(to_json(intent))).ok_or_else(|| Problem::not_found("intent"))
}

fn to_json(intent: &Intent) -> Value {
    let params: Map<_, _> = intent.params.iter().map(|(name, param)| (name.clone(), param_json(param))).collect();
    json!({
        "name": intent.name.as_str(),
        "description": intent.description,
        "owner": intent.owner.as_str(),
        "parameters": params,
        "reach": intent.reach.iter().map(UpstreamName::as_str).collect::<Vec<_>>(),
        "limits": {
            "lifetime_secs": intent.limits.lifetime_secs,
            "calls": intent.limits.calls,
            "idle_secs": intent.limits.idle_secs,
        },
    })
}

fn param_json(param: &Param) -> Value {
    json!({
        "type": param.kind.as_str(),
        "description": param.description,
        "default": param.default.as_ref().map(Concrete::to_json),
        "min": param.min,
        "max": param.max,
        "one_of": param.one_of,
        "sensitive": param.sensitive,
    })
}
