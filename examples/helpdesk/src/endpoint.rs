//! The HTTP endpoint `/mcp`: one POST a message, in either protocol era. It checks who may come in
//! (Host, Origin, the optional credential), reads the message, and gives the answer the status and
//! headers that Streamable HTTP asks for. It knows no tool by name.
//! MCP 2026-07-28 and 2025-11-25, basic/transports, "Streamable HTTP".

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::era::{self, Era};
use crate::message::{self, Fault, Incoming};
use crate::{Helpdesk, ReceivedCall, offer};

/// The largest body that is read; the largest honest call is a mail.
const BODY_MAX: usize = 1024 * 1024;
/// How long a client may keep a list or a resource: they change only with a new build.
const TTL_MS: u64 = 60_000;

const SESSION_HEADER: &str = "mcp-session-id";
const INSTRUCTIONS: &str = "Orders, tickets and customers of a small shop. Amounts are in cents.";

pub(crate) fn router(helpdesk: Helpdesk) -> Router {
    Router::new()
        .route("/mcp", post(receive).delete(end_session))
        .layer(from_fn_with_state(helpdesk.clone(), admit))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(helpdesk)
}

/// Lets in what comes for a loopback name (a page elsewhere must not reach us through the browser of
/// somebody here) and, if a credential is asked for, brings it.
async fn admit(State(helpdesk): State<Helpdesk>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    if !host.or(authority).is_some_and(is_loopback) {
        return (StatusCode::FORBIDDEN, "this host name is not served here").into_response();
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        if !origin.is_some_and(|(_, host)| is_loopback(host)) {
            return (StatusCode::FORBIDDEN, "this origin is not served here").into_response();
        }
    }
    if !has_credential(&helpdesk, headers) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a credential is required").into_response();
    }
    next.run(request).await
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    matches!(host, Some("localhost" | "127.0.0.1" | "::1"))
}

fn has_credential(helpdesk: &Helpdesk, headers: &HeaderMap) -> bool {
    let Some(expected) = helpdesk.credential() else { return true };
    let mut presented = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(first), None) = (presented.next(), presented.next()) else { return false };
    let Some(token) = first.as_bytes().strip_prefix(b"Bearer ") else { return false };
    token.ct_eq(expected.expose_secret().as_bytes()).into()
}

async fn end_session(State(helpdesk): State<Helpdesk>, headers: HeaderMap) -> StatusCode {
    match session_id(&headers) {
        None => StatusCode::BAD_REQUEST,
        Some(id) if helpdesk.sessions().end(id) => StatusCode::NO_CONTENT,
        Some(_) => StatusCode::NOT_FOUND,
    }
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION_HEADER).and_then(|id| id.to_str().ok())
}

async fn receive(State(helpdesk): State<Helpdesk>, headers: HeaderMap, body: Bytes) -> Response {
    let incoming = match Incoming::parse(&body) {
        Ok(incoming) => incoming,
        Err(fault) => return refuse(&fault, None, false),
    };
    match era::of(&headers, &incoming) {
        Ok(Era::Stateless) => stateless(helpdesk, &headers, incoming).await,
        Ok(Era::Session) if incoming.method == "initialize" => initialize(&helpdesk, &incoming),
        Ok(Era::Session) => in_session(helpdesk, &headers, incoming).await,
        Err(fault) => refuse(&fault, incoming.id.as_ref(), true),
    }
}

/// A request of the revision 2026-07-28.
async fn stateless(helpdesk: Helpdesk, headers: &HeaderMap, incoming: Incoming) -> Response {
    let Some(id) = incoming.id.clone() else { return StatusCode::ACCEPTED.into_response() };
    let context = Context { revision: era::STATELESS, session: None, authorized: has_authorization(headers) };
    let answer = match incoming.method.as_str() {
        "server/discover" => Ok(cacheable(json!({
            "supportedVersions": era::REVISIONS,
            "capabilities": capabilities(),
            "instructions": INSTRUCTIONS,
        }))),
        "tools/list" | "resources/list" | "resources/templates/list" | "prompts/list" | "resources/read" => {
            serve(helpdesk, context, incoming).await.map(cacheable)
        }
        _ => serve(helpdesk, context, incoming).await,
    };
    match answer {
        Ok(result) => axum::Json(message::response(&id, complete(result))).into_response(),
        Err(fault) => refuse(&fault, Some(&id), true),
    }
}

/// Opens a session with the revision that the client asks for, or the newest that has sessions.
fn initialize(helpdesk: &Helpdesk, incoming: &Incoming) -> Response {
    let Some(id) = &incoming.id else { return refuse(&Fault::NotARequest, None, false) };
    let asked = incoming.params.get("protocolVersion").and_then(Value::as_str);
    let revision =
        era::REVISIONS.into_iter().find(|known| Some(*known) == asked && *known != era::STATELESS).unwrap_or(era::SESSION_NEWEST);
    let result = json!({
        "protocolVersion": revision,
        "capabilities": capabilities(),
        "serverInfo": server_info(),
        "instructions": INSTRUCTIONS,
    });
    let session = helpdesk.sessions().open(revision);
    ([(SESSION_HEADER, session)], axum::Json(message::response(id, result))).into_response()
}

/// A request of an older revision, which must name its session.
async fn in_session(helpdesk: Helpdesk, headers: &HeaderMap, incoming: Incoming) -> Response {
    let Some(session) = session_id(headers) else {
        return (StatusCode::BAD_REQUEST, "a session is required: send `initialize` first").into_response();
    };
    let Some(revision) = helpdesk.sessions().revision(session) else {
        return (StatusCode::NOT_FOUND, "no such session").into_response();
    };
    let Some(id) = incoming.id.clone() else { return StatusCode::ACCEPTED.into_response() };
    let context = Context { revision, session: Some(session.to_owned()), authorized: has_authorization(headers) };
    let answer = if incoming.method == "ping" { Ok(json!({})) } else { serve(helpdesk, context, incoming).await };
    match answer {
        Ok(result) => axum::Json(message::response(&id, result)).into_response(),
        Err(fault) => refuse(&fault, Some(&id), false),
    }
}

/// What a call is recorded with.
struct Context {
    revision: &'static str,
    session: Option<String>,
    authorized: bool,
}

/// The methods that both eras have.
async fn serve(helpdesk: Helpdesk, context: Context, incoming: Incoming) -> Result<Value, Fault> {
    match incoming.method.as_str() {
        "tools/list" => Ok(json!({ "tools": offer::tools() })),
        "resources/list" => Ok(json!({ "resources": offer::resources() })),
        "resources/templates/list" => Ok(json!({ "resourceTemplates": [] })),
        "prompts/list" => Ok(json!({ "prompts": offer::prompts() })),
        "resources/read" => offer::read_resource(named(&incoming, "uri")?),
        "prompts/get" => offer::get_prompt(&incoming.params),
        "tools/call" => {
            let tool = named(&incoming, "name")?.to_owned();
            let arguments = incoming.params.get("arguments").cloned().unwrap_or(Value::Null);
            helpdesk.note_received(ReceivedCall {
                tool: tool.clone(),
                arguments: arguments.clone(),
                revision: context.revision.to_owned(),
                session: context.session,
                authorized: context.authorized,
            });
            // SQLite blocks; the thread that serves connections must not.
            tokio::task::spawn_blocking(move || offer::call(helpdesk.records(), &tool, arguments))
                .await
                .map_err(|_| Fault::Internal)?
        }
        method => Err(Fault::NoSuchMethod(method.to_owned())),
    }
}

fn named<'a>(incoming: &'a Incoming, member: &str) -> Result<&'a str, Fault> {
    incoming
        .params
        .get(member)
        .and_then(Value::as_str)
        .ok_or_else(|| Fault::BadParams(format!("`params.{member}` must be a string")))
}

fn has_authorization(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
}

fn capabilities() -> Value {
    json!({ "tools": {}, "resources": {}, "prompts": {} })
}

fn server_info() -> Value {
    json!({ "name": "helpdesk", "title": "Orders and helpdesk", "version": env!("CARGO_PKG_VERSION") })
}

/// Marks a result that a client may keep. Everybody sees the same, hence `public`.
fn cacheable(mut result: Value) -> Value {
    if let Some(result) = result.as_object_mut() {
        result.insert("ttlMs".to_owned(), json!(TTL_MS));
        result.insert("cacheScope".to_owned(), json!("public"));
    }
    result
}

/// Adds what every result of the stateless revision carries.
fn complete(mut result: Value) -> Value {
    if let Some(result) = result.as_object_mut() {
        result.insert("resultType".to_owned(), json!("complete"));
        result.insert("_meta".to_owned(), json!({ "io.modelcontextprotocol/serverInfo": server_info() }));
    }
    result
}

fn refuse(fault: &Fault, id: Option<&Value>, stateless: bool) -> Response {
    (fault.status(stateless), axum::Json(fault.response(id))).into_response()
}

#[cfg(test)]
mod tests;
