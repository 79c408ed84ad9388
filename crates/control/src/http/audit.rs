//! The log for people: search, one entry with what opens its commitments, its proof, and redaction. An opening is shown to
//! auditors only; redacting one deletes the opening, never the entry, so that no proof ever breaks.

use crate::App;
use crate::authenticate::{admin, reader};
use crate::body::{self, Query};
use crate::config::Role;
use crate::http::page::{self, page};
use crate::instant;
use crate::problem::{Fault, Problem};
use crate::respond;
use authority::Actor;
use authority::ports::{LogEntry, LogPage, LogQuery};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{DecisionId, GrantId, Outcome, TaskId, Timestamp};
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

/// Fields that entries can be searched by (`authority::ports::LogQuery`).
const TERMS: [&str; 11] =
    ["agent", "task", "intent", "upstream", "target", "subject", "owner", "outcome", "type", "decision", "grant"];
/// The outcomes that entries have.
const OUTCOMES: [Outcome; 4] = [Outcome::Allow, Outcome::Deny, Outcome::Ask, Outcome::Failed];

/// `GET /v1/audit/entries`: newest first.
pub(crate) async fn search(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    reader(&app, request.headers())?;
    let once = [&TERMS[..], &["since", "until", "before", "limit"]].concat();
    let query = Query::read(request.uri().query(), &once, &["resource"])?;
    let limit = page::limit(&query)?;
    refuse_what_none_has(&query)?;
    let terms = TERMS.iter().filter_map(|term| query.get(term).map(|value| ((*term).to_owned(), value.to_owned())));
    let resources = query.all("resource").map(|value| ("resource".to_owned(), value.to_owned()));
    let wanted = LogQuery {
        terms: terms.chain(resources).collect(),
        since: moment(&query, "since", instant::from_text)?,
        until: moment(&query, "until", instant::end_of_text)?,
        before: query.parsed("before", "the index of an entry")?,
        limit: limit.saturating_add(1),
    };
    let LogPage { entries, rest } = app.authority.archive().search(wanted).await.map_err(|error| respond::archive(&error))?;
    // A search reads only so much at one time: that nothing was found so far does not say that there is nothing.
    let more = rest.filter(|_| entries.len() <= limit);
    let mut found = page(entries, limit, |entry| entry.index.to_string(), |entry| to_json(&app, entry));
    if let (Some(more), Some(found)) = (more, found.as_object_mut()) {
        found.insert("next".to_owned(), more.to_string().into());
    }
    Ok(Json(found))
}

/// A word that no entry can have would find nothing, which reads like *it never happened*.
fn refuse_what_none_has(query: &Query) -> Result<(), Problem> {
    let mut faults = Vec::new();
    let mut expect = |at: &str, detail: String| faults.push(Fault { at: at.to_owned(), detail });
    if query.get("outcome").is_some_and(|outcome| OUTCOMES.iter().all(|known| known.as_str() != outcome)) {
        expect("outcome", format!("expected `{}`", OUTCOMES.map(Outcome::as_str).join("`, `")));
    }
    if query.get("decision").is_some_and(|id| id.parse::<DecisionId>().is_err()) {
        expect("decision", "expected the id of a decision, `dec_…`".to_owned());
    }
    if query.get("task").is_some_and(|id| id.parse::<TaskId>().is_err()) {
        expect("task", "expected the id of a task, `tsk_…`".to_owned());
    }
    if query.get("grant").is_some_and(|id| id.parse::<GrantId>().is_err()) {
        expect("grant", "expected the id of a credential, `grt_…`".to_owned());
    }
    if query.all("resource").any(|resource| !resource.contains('=')) {
        expect("resource", "expected `NAME=VALUE`".to_owned());
    }
    if faults.is_empty() { Ok(()) } else { Err(Problem::faults(faults)) }
}

/// `GET /v1/audit/entries/{index}`
pub(crate) async fn get(State(app): State<App>, Path(index): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let operator = reader(&app, request.headers())?;
    let entry = found(&app, &index).await?;
    let mut shown = to_json(&app, &entry);
    if let Some(object) = shown.as_object_mut() {
        object.insert("leaf_base64".to_owned(), STANDARD.encode(&entry.leaf).into());
        if operator.has(Role::Auditor) {
            let opened = app.authority.opened(&entry, &Actor::Operator(operator.name.clone())).await.map_err(respond::problem)?;
            object.insert("openings".to_owned(), json!(opened));
        }
    }
    Ok(Json(shown))
}

/// `GET /v1/audit/entries/{index}/proof`: a `c2sp.org/tlog-proof@v1`, for verifiers that trust nobody here.
pub(crate) async fn prove(State(app): State<App>, Path(index): Path<String>, request: Request) -> Result<Response, Problem> {
    reader(&app, request.headers())?;
    let index = position(&index)?;
    let proof = app.authority.published_log().proof(index).await.map_err(|error| respond::archive(&error))?;
    let proof = proof.ok_or_else(|| Problem::not_found("published entry"))?;
    let mut response = proof.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// Which value loses its opening, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RedactRecord {
    name: String,
    why: String,
}

/// `POST /v1/audit/entries/{index}/redact`
pub(crate) async fn redact(State(app): State<App>, Path(index): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    let by = admin(&app, request.headers())?;
    let (parts, body) = request.into_parts();
    let record: RedactRecord = body::record(&parts.headers, body).await?;
    if record.why.trim().is_empty() || record.why.len() > 500 {
        return Err(Problem::faults(vec![Fault { at: "why".to_owned(), detail: "say why, in at most 500 bytes".to_owned() }]));
    }
    let entry = found(&app, &index).await?;
    app.authority.redact(&entry, &record.name, &record.why, &Actor::Operator(by)).await.map_err(respond::problem)?;
    Ok(Json(json!({ "redacted": record.name, "index": entry.index })))
}

fn moment(query: &Query, name: &str, read: impl Fn(&str) -> Option<Timestamp>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let fault =
        || Problem::faults(vec![Fault { at: name.to_owned(), detail: "expected a date or an RFC 3339 moment".to_owned() }]);
    read(text).map(Some).ok_or_else(fault)
}

fn position(index: &str) -> Result<u64, Problem> {
    index.parse().map_err(|_| Problem::not_found("entry"))
}

async fn found(app: &App, index: &str) -> Result<LogEntry, Problem> {
    let index = position(index)?;
    let query = LogQuery { before: Some(index.saturating_add(1)), limit: 1, ..LogQuery::default() };
    let entries = app.authority.archive().search(query).await.map_err(|error| respond::archive(&error))?;
    entries.entries.into_iter().find(|entry| entry.index == index).ok_or_else(|| Problem::not_found("entry"))
}

fn to_json(app: &App, entry: &LogEntry) -> Value {
    let (_, published) = app.authority.published_log().sizes();
    json!({
        "index": entry.index,
        "published": entry.index < published,
        // Convenient to read; what hashes to the leaf are the bytes of `leaf_base64`.
        "leaf": serde_json::from_slice::<Value>(&entry.leaf).unwrap_or_default(),
    })
}
