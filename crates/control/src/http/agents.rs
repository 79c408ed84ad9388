//! Agents and owners over REST. Owns the wire form of an agent; what an agent is and when it may act is `domain`'s, and
//! every change goes through the authority, which logs it.

use crate::App;
use crate::authenticate::{admin, reader};
use crate::body::{self, Query};
use crate::http::page::{self, page};
use crate::instant;
use crate::problem::{Fault, Problem};
use crate::respond;
use authority::Actor;
use axum::Json;
use axum::extract::{Path, Request, State};
use domain::{Agent, AgentId, AgentState, ClaimPattern, IdentityRule, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most identity rules of one agent, and most claims of one rule: each is compared at every issuance.
const RULES_MAX: usize = 32;
const PURPOSE_BYTES_MAX: usize = 1_024;
const CLAIM_PATH_BYTES_MAX: usize = 256;

/// An agent as an operator writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentRecord {
    owner: String,
    purpose: String,
    identity: Vec<RuleRecord>,
    intents: Vec<String>,
    review_by: String,
    #[serde(default)]
    allow_bearer: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleRecord {
    provider: String,
    claims: Map<String, Value>,
}

/// `GET /v1/agents`
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let query = Query::read(request.uri().query(), &["limit", "after"], &[])?;
    let now = app.authority.now();
    let agents = app.authority.agents();
    let after = query.get("after").unwrap_or_default();
    let rest = agents.iter().filter(|agent| agent.id.as_str() > after);
    Ok(Json(page(rest, page::limit(&query)?, |agent| agent.id.to_string(), |agent| to_json(agent, now))))
}

/// `GET /v1/agents/{agent}`
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    shown(&app, &named(&id)?)
}

/// `PUT /v1/agents/{agent}`: registers it, or replaces its record. A suspended agent stays suspended.
pub(crate) async fn put(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let by = admin(&app, request.headers())?;
    let (parts, body) = request.into_parts();
    let record: AgentRecord = body::record(&parts.headers, body).await?;
    let id: AgentId = id.parse().map_err(|error: domain::Error| Problem::faults(vec![fault("agent", error)]))?;
    let agent = record.read(id.clone()).map_err(Problem::faults)?;
    app.authority.put_agents(vec![agent], &Actor::Operator(by)).await.map_err(respond::problem)?;
    shown(&app, &id)
}

/// `POST /v1/agents/{agent}/suspend`: from now on it may do nothing, and its tasks end.
pub(crate) async fn suspend(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let by = admin(&app, request.headers())?;
    let id = named(&id)?;
    state(&app, &id, AgentState::Suspended, by).await
}

/// `POST /v1/agents/{agent}/resume`: it may open tasks again.
pub(crate) async fn resume(State(app): State<App>, Path(id): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let by = admin(&app, request.headers())?;
    let id = named(&id)?;
    state(&app, &id, AgentState::Active, by).await
}

async fn state(app: &App, id: &AgentId, state: AgentState, by: String) -> Result<Json<Value>, Problem> {
    app.authority.set_agent_state(id, state, &Actor::Operator(by)).await.map_err(respond::problem)?;
    shown(app, id)
}

/// `GET /v1/owners`: who answers for what.
pub(crate) async fn owners(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let mut owned: BTreeMap<String, [BTreeSet<String>; 3]> = BTreeMap::new();
    let mut ownerless = BTreeSet::new();
    for agent in app.authority.agents() {
        match &agent.owner {
            Some(owner) => drop(owned.entry(owner.to_string()).or_default()[0].insert(agent.id.to_string())),
            None => drop(ownerless.insert(agent.id.to_string())),
        }
    }
    for intent in app.authority.policy().intents() {
        owned.entry(intent.owner.to_string()).or_default()[1].insert(intent.name.to_string());
    }
    for upstream in app.authority.upstreams().values() {
        owned.entry(upstream.owner.to_string()).or_default()[2].insert(upstream.name.to_string());
    }
    let items = owned.into_iter().map(
        |(owner, [agents, intents, upstreams])| json!({"owner": owner, "agents": agents, "intents": intents, "upstreams": upstreams}),
    );
    Ok(Json(json!({ "items": items.collect::<Vec<_>>(), "ownerless_agents": ownerless })))
}

fn named(id: &str) -> Result<AgentId, Problem> {
    id.parse().map_err(|_| Problem::not_found("agent"))
}

fn shown(app: &App, id: &AgentId) -> Result<Json<Value>, Problem> {
    let agent = app.authority.agent(id).ok_or_else(|| Problem::not_found("agent"))?;
    Ok(Json(to_json(&agent, app.authority.now())))
}

fn to_json(agent: &Agent, now: Timestamp) -> Value {
    let mut flags = Vec::new();
    flags.extend(agent.allow_bearer.then_some("unbound_tokens_allowed"));
    flags.extend(agent.rules.iter().any(IdentityRule::is_wide).then_some("wildcard_identity_rule"));
    let eligible = agent.eligible(now);
    json!({
        "id": agent.id.as_str(),
        "owner": agent.owner.as_ref().map(domain::OwnerId::as_str),
        "purpose": agent.purpose,
        "identity": agent.rules.iter().map(rule_json).collect::<Vec<_>>(),
        "intents": agent.intents.iter().map(domain::IntentName::as_str).collect::<Vec<_>>(),
        "review_by": instant::to_text(agent.review_by),
        "allow_bearer": agent.allow_bearer,
        "declared_in_file": agent.declared,
        "state": match agent.state { AgentState::Active => "active", AgentState::Suspended => "suspended" },
        "eligible": eligible.is_ok(),
        "not_eligible_because": eligible.err().map(|why| why.to_string()),
        "flags": flags,
    })
}

fn rule_json(rule: &IdentityRule) -> Value {
    let claims = rule.claims.iter().map(|(path, pattern)| match pattern {
        ClaimPattern::Exact(value) => (path.clone(), value.clone()),
        ClaimPattern::Prefix(prefix) => (path.clone(), json!({ "prefix": prefix })),
    });
    json!({ "provider": rule.provider.as_str(), "claims": claims.collect::<Map<_, _>>() })
}

fn fault(at: impl Into<String>, detail: impl ToString) -> Fault {
    Fault { at: at.into(), detail: detail.to_string() }
}

/// The value, or a fault noted.
fn noted<T, E: ToString>(faults: &mut Vec<Fault>, at: impl Into<String>, read: Result<T, E>) -> Option<T> {
    read.map_err(|error| faults.push(fault(at, error))).ok()
}

impl AgentRecord {
    /// The agent, or everything that is wrong with it.
    fn read(self, id: AgentId) -> Result<Agent, Vec<Fault>> {
        let mut faults = Vec::new();
        let owner = noted(&mut faults, "owner", self.owner.parse());
        let review_by = instant::from_text(&self.review_by).ok_or("expected a date or an RFC 3339 moment");
        let review_by = noted(&mut faults, "review_by", review_by);
        if self.purpose.trim().is_empty() || self.purpose.len() > PURPOSE_BYTES_MAX {
            faults.push(fault("purpose", format!("say what the agent is for, in at most {PURPOSE_BYTES_MAX} bytes")));
        }
        if self.identity.is_empty() || self.identity.len() > RULES_MAX {
            faults.push(fault(
                "identity",
                format!("1 to {RULES_MAX} identity rules are needed: how else would the agent be known"),
            ));
        }
        let rules = self.identity.into_iter().take(RULES_MAX).enumerate();
        let rules = rules.filter_map(|(index, rule)| rule.read(index, &mut faults)).collect();
        let intents = self.intents.iter().enumerate();
        let intents = intents.filter_map(|(index, name)| noted(&mut faults, format!("intents[{index}]"), name.parse())).collect();
        match (owner, review_by) {
            (Some(owner), Some(review_by)) if faults.is_empty() => {
                let (purpose, allow_bearer) = (self.purpose, self.allow_bearer);
                let state = AgentState::Active;
                Ok(Agent { id, owner: Some(owner), purpose, rules, intents, review_by, state, allow_bearer, declared: false })
            }
            _ => Err(faults),
        }
    }
}

impl RuleRecord {
    fn read(self, index: usize, faults: &mut Vec<Fault>) -> Option<IdentityRule> {
        let at = format!("identity[{index}]");
        let provider = noted(faults, format!("{at}.provider"), self.provider.parse())?;
        if self.claims.is_empty() || self.claims.len() > RULES_MAX {
            faults.push(fault(
                format!("{at}.claims"),
                format!("1 to {RULES_MAX} claims are needed: a rule without claims matches nobody"),
            ));
        }
        let mut claims = Vec::new();
        for (path, value) in self.claims {
            if path.is_empty() || path.len() > CLAIM_PATH_BYTES_MAX {
                faults.push(fault(format!("{at}.claims"), format!("a claim's path has 1 to {CLAIM_PATH_BYTES_MAX} bytes")));
            }
            if let Some(pattern) = noted(faults, format!("{at}.claims.{path}"), pattern(value)) {
                claims.push((path, pattern));
            }
        }
        Some(IdentityRule { provider, claims })
    }
}

fn pattern(value: Value) -> Result<ClaimPattern, &'static str> {
    match value {
        // Two writings of one fraction need not compare equal, and no issuer has such a claim.
        Value::Number(number) if number.is_f64() => Err("expected a whole number"),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(ClaimPattern::Exact(value)),
        Value::Object(members) => match (members.len(), members.get("prefix").and_then(Value::as_str)) {
            (1, Some(prefix)) if !prefix.is_empty() => Ok(ClaimPattern::Prefix(prefix.to_owned())),
            _ => Err("expected exactly `{\"prefix\": \"…\"}` with a text that is not empty"),
        },
        Value::Null | Value::Array(_) => Err("expected a text, a number, a truth value, or `{\"prefix\": \"…\"}`"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_fault_of_a_record_is_named_at_once() {
        let record: AgentRecord = serde_json::from_value(json!({
            "owner": "No One", "purpose": " ", "review_by": "soon", "intents": ["ok", "Not ok"],
            "identity": [{"provider": "ci", "claims": {}}, {"provider": "ci", "claims": {"sub": null, "ref": {"prefix": ""}, "n": 1.5, "": "x"}}],
        }))
        .unwrap();
        let faults = record.read("bot".parse().unwrap()).unwrap_err();
        let mut places: Vec<_> = faults.iter().map(|fault| fault.at.as_str()).collect();
        places.sort_unstable();
        assert_eq!(
            places,
            [
                "identity[0].claims",
                "identity[1].claims",
                "identity[1].claims.n",
                "identity[1].claims.ref",
                "identity[1].claims.sub",
                "intents[1]",
                "owner",
                "purpose",
                "review_by"
            ]
        );
    }

    #[test]
    fn a_record_survives_the_wire() {
        let record = json!({
            "owner": "support", "purpose": "refunds", "review_by": "2027-01-01T00:00:00Z", "intents": ["refund-order"],
            "allow_bearer": false,
            "identity": [{"provider": "ci", "claims": {"repository_id": "1", "ref": {"prefix": "refs/heads/"}, "n": 3, "b": true}}],
        });
        let read: AgentRecord = serde_json::from_value(record.clone()).unwrap();
        let shown = to_json(&read.read("bot".parse().unwrap()).unwrap(), Timestamp::from_secs(0));
        for (name, value) in record.as_object().unwrap() {
            assert_eq!(shown.get(name), Some(value), "{name}");
        }
        assert_eq!(shown.get("flags"), Some(&json!(["wildcard_identity_rule"])));
    }
}
