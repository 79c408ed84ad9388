//! The client of the demo: speaks MCP (2026-07-28) and the REST API over HTTP, and knows nothing that an outside client
//! would not. What it reads back is reduced to what a step of the story shows.

use super::stage::Stage;
use crate::agent::evidence::Evidence;
use crate::agent::stdio::Events;
use crate::agent::{Agent, Declared};
use crate::cli::Failure;
use crate::web::{Web, connector};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value, json};

const REVISION: &str = "2026-07-28";
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What came back of an MCP request.
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// The JSON-RPC message.
    pub(super) message: Value,
}

impl Answer {
    /// Whether it is a result that is no error.
    pub(super) fn is_good(&self) -> bool {
        self.status == StatusCode::OK && self.message.get("result").is_some() && !self.is_refusal()
    }

    /// Whether it is a result that says no.
    pub(super) fn is_refusal(&self) -> bool {
        self.message.pointer("/result/isError") == Some(&Value::Bool(true))
    }

    /// What it says, in words.
    pub(super) fn text(&self) -> String {
        let at = |pointer: &str| self.message.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let text = at("/result/content/0/text").or_else(|| at("/error/message"));
        text.unwrap_or_else(|| format!("HTTP {} {}", self.status.as_u16(), self.message))
    }

    /// The names of listed tools.
    pub(super) fn tools(&self) -> Vec<String> {
        let tools = self.message.pointer("/result/tools").and_then(Value::as_array);
        let mut names: Vec<_> =
            tools.into_iter().flatten().filter_map(|tool| tool.get("name")?.as_str().map(str::to_owned)).collect();
        names.sort();
        names
    }
}

/// Proves to be `subject` and opens a task.
pub(super) async fn open(stage: &Stage, subject: &str, intent: &str, parameters: Value) -> Result<Agent, Failure> {
    let evidence =
        Evidence::Development { issuer: Box::new(stage.issuer()?), subject: subject.to_owned(), audience: stage.url.clone() };
    open_with(stage, evidence, intent, parameters).await
}

/// Opens a task with given evidence.
pub(super) async fn open_with(stage: &Stage, evidence: Evidence, intent: &str, parameters: Value) -> Result<Agent, Failure> {
    let parameters = parameters.as_object().cloned().unwrap_or_default();
    let declared =
        Declared { intent: intent.to_owned(), parameters, lifetime_secs: None, upstreams: vec!["helpdesk".to_owned()] };
    Agent::open(stage.url.clone(), connector(None)?, evidence, declared).await
}

/// Calls a tool.
pub(super) async fn call(agent: &Agent, tool: &str, arguments: Value) -> Result<Answer, Failure> {
    mcp(agent, "tools/call", json!({ "name": tool, "arguments": arguments })).await
}

/// Sends one MCP request.
pub(super) async fn mcp(agent: &Agent, method: &str, params: Value) -> Result<Answer, Failure> {
    let name = params.get("name").and_then(Value::as_str).map(str::to_owned);
    let (headers, body) = message(method, params, name.as_deref());
    let answer = agent.request(Method::POST, &agent.endpoint("helpdesk"), headers, body).await?;
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let message = if kind.starts_with("text/event-stream") {
        Events::default().feed(&answer.body).last().and_then(|event| serde_json::from_str(event).ok()).unwrap_or_default()
    } else {
        serde_json::from_slice(&answer.body).unwrap_or_default()
    };
    Ok(Answer { status: answer.status, message })
}

fn message(method: &str, params: Value, name: Option<&str>) -> (HeaderMap, Bytes) {
    let mut params = params;
    if let Some(params) = params.as_object_mut() {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientInfo": { "name": "demo", "version": env!("CARGO_PKG_VERSION") },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params.insert("_meta".to_owned(), meta);
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    for (header, value) in [("mcp-protocol-version", Some(REVISION)), ("mcp-method", Some(method)), ("mcp-name", name)] {
        headers.extend(value.and_then(|value| Some((HeaderName::from_static(header), HeaderValue::from_str(value).ok()?))));
    }
    (headers, Bytes::from(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()))
}

/// Shows a token without any proof; gives the status.
pub(super) async fn show_token(agent: &Agent, scheme: &str, token: &str) -> Result<StatusCode, Failure> {
    let (headers, body) = message("tools/list", Value::Object(Map::new()), None);
    let mut request = Request::post(agent.endpoint("helpdesk"))
        .header(AUTHORIZATION, format!("{scheme} {token}"))
        .body(Full::new(body))
        .map_err(|error| Failure::new(error.to_string()))?;
    request.headers_mut().extend(headers);
    let answer = Web::new().send(request, ANSWER_BYTES_MAX).await.map_err(anyhow::Error::new)?;
    Ok(answer.status)
}

/// The REST API and the OAuth endpoints as the operator of the stage.
pub(super) struct Operator {
    url: String,
    secret: String,
}

impl Operator {
    /// The operator of the stage.
    pub(super) fn of(stage: &Stage) -> Result<Self, Failure> {
        let secret = crate::key_file::read(&stage.dir.join("operator.secret")).map_err(anyhow::Error::new)?;
        Ok(Self { url: stage.url.clone(), secret: String::from_utf8_lossy(&secret).into_owned() })
    }

    /// One request; the answer as JSON.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(AUTHORIZATION, format!("Bearer {}", self.secret))
            .body(Full::default())
            .map_err(|error| Failure::new(error.to_string()))?;
        let answer = Web::new().send(request, ANSWER_BYTES_MAX).await.map_err(anyhow::Error::new)?;
        Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// Whether a token is alive, as introspection says (RFC 7662).
    pub(super) async fn introspect(&self, token: &str) -> Result<bool, Failure> {
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("admin:{}", self.secret));
        let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("token", token).finish();
        let request = Request::post(format!("{}/oauth/introspect", self.url))
            .header(AUTHORIZATION, format!("Basic {basic}"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form))
            .map_err(|error| Failure::new(error.to_string()))?;
        let answer = Web::new().send(request, ANSWER_BYTES_MAX).await.map_err(anyhow::Error::new)?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        body.get("active").and_then(Value::as_bool).ok_or_else(|| Failure::new(format!("introspection answered {body}")))
    }
}
