//! Tests of the upstream half: against servers made by hand that do what no honest one would, and against real ones.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod catalog;
mod echo;
mod eras;
mod fake;
mod hostile;
mod lifecycle;
mod real;
mod rounds;
mod stdio;
mod tls;

use super::*;
use crate::mcp::message::{Id, Raw};
use crate::mcp::version::{Era, Version};
use ::http::HeaderMap;
use domain::{Digest, EndReason, Injection, SecretRef, TaskId, ToolName, Transport, Upstream, UpstreamName};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::broadcast;

/// An operator's table that a test can change.
pub(super) struct Table {
    upstreams: Mutex<HashMap<UpstreamName, Arc<Upstream>>>,
    approved: Mutex<HashMap<ToolName, Value>>,
    ended: Mutex<HashMap<TaskId, EndReason>>,
    ends: broadcast::Sender<(TaskId, EndReason)>,
}

/// The real pin: what a definition is must not depend on how it is written.
fn digest(definition: &Value) -> Digest {
    authority::Authority::pin(&name(), definition)
}

impl Registry for Table {
    fn upstream(&self, name: &UpstreamName) -> Option<Arc<Upstream>> {
        self.upstreams.lock().unwrap().get(name).cloned()
    }
    fn approved(&self, _: &UpstreamName, tool: &ToolName) -> Option<Digest> {
        self.approved.lock().unwrap().get(tool).map(digest)
    }
    fn approved_definition(&self, _: &UpstreamName, tool: &ToolName) -> Option<Value> {
        self.approved.lock().unwrap().get(tool).cloned()
    }
    fn pin(&self, _: &UpstreamName, definition: &Value) -> Digest {
        digest(definition)
    }
    fn ended(&self, task: TaskId) -> Option<EndReason> {
        self.ended.lock().unwrap().get(&task).copied()
    }
    fn ends(&self) -> broadcast::Receiver<(TaskId, EndReason)> {
        self.ends.subscribe()
    }
}

/// A table with one upstream, and the connections to it.
pub(super) struct Bench {
    table: Arc<Table>,
    upstreams: Upstreams,
}

pub(super) fn name() -> UpstreamName {
    "orders".parse().unwrap()
}

pub(super) fn http(url: &str) -> Transport {
    Transport::Http { url: url.to_owned() }
}

impl Bench {
    pub(super) fn new(transport: Transport) -> Self {
        Self::with(Upstream { timeout_secs: 20, ..upstream(transport) })
    }

    /// An upstream that is given up after a second.
    pub(super) fn hasty(transport: Transport) -> Self {
        Self::with(Upstream { timeout_secs: 1, ..upstream(transport) })
    }

    pub(super) fn with(upstream: Upstream) -> Self {
        let table = Arc::new(Table {
            upstreams: Mutex::new(HashMap::from([(upstream.name.clone(), Arc::new(upstream))])),
            approved: Mutex::default(),
            ended: Mutex::default(),
            ends: broadcast::Sender::new(16),
        });
        let upstreams = Upstreams::new(Arc::clone(&table) as Arc<dyn Registry>, Settings::default()).unwrap();
        Self { table, upstreams }
    }

    pub(super) async fn connect(&self, task: u8, client: &ClientProfile) -> Connection {
        self.upstreams.connect(&name(), TaskId::from_bytes([task; 16]), client).await.unwrap()
    }

    pub(super) fn end_task(&self, task: u8) {
        let task = TaskId::from_bytes([task; 16]);
        self.table.ended.lock().unwrap().insert(task, EndReason::Revoked);
        self.table.ends.send((task, EndReason::Revoked)).unwrap();
    }

    pub(super) fn approve(&self, definition: &Value) {
        let tool = definition["name"].as_str().unwrap().parse().unwrap();
        self.table.approved.lock().unwrap().insert(tool, definition.clone());
    }
}

fn upstream(transport: Transport) -> Upstream {
    Upstream { name: name(), owner: "team".parse().unwrap(), transport, injection: None, timeout_secs: 20 }
}

pub(super) fn modern() -> ClientProfile {
    ClientProfile { era: Era::Modern(Version::NEWEST_MODERN), capabilities: json!({ "elicitation": {} }), session: None }
}

pub(super) fn legacy(session: &str) -> ClientProfile {
    ClientProfile { era: Era::Legacy(Version::NEWEST_LEGACY), session: Some(SessionKey(session.into())), ..modern() }
}

pub(super) fn raw(text: &str) -> Raw {
    Raw::from_json(bytes::Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

pub(super) fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
        "io.modelcontextprotocol/clientInfo": { "name": "tester", "version": "1" },
    })
}

/// Sends a request as the agent-facing half would after a decision.
pub(super) async fn send(connection: &Connection, id: i64, method: &str, params: Value) -> Result<Exchange, UpstreamError> {
    let params = Raw::from_value(&params);
    send_raw(connection, id, method, &params).await
}

pub(super) async fn send_raw(connection: &Connection, id: i64, method: &str, params: &Raw) -> Result<Exchange, UpstreamError> {
    let headers = HeaderMap::new();
    let id = Id::Number(id);
    connection.forward(Outgoing { id: &id, method, params: Some(params), headers: &headers, released: None }).await
}

/// All events up to the end.
pub(super) async fn events(mut exchange: Exchange) -> Result<Vec<Event>, UpstreamError> {
    let mut events = Vec::new();
    loop {
        let event = exchange.next().await?;
        let is_end = event.is_end();
        events.push(event);
        if is_end {
            return Ok(events);
        }
    }
}

/// The result of a request.
pub(super) async fn call(connection: &Connection, id: i64, method: &str, params: Value) -> Result<Value, UpstreamError> {
    match events(send(connection, id, method, params).await?).await?.pop() {
        Some(Event::Result(raw)) => Ok(raw.to_value()),
        other => panic!("no result: {other:?}"),
    }
}

pub(super) fn echo(id: u64) -> Value {
    json!({ "name": "echo", "arguments": { "n": id }, "_meta": meta() })
}
