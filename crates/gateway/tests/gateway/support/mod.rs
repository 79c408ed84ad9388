//! A gateway over the test kit's world and an upstream that records, and clients that speak either era.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

pub(crate) mod upstream;

use authority::{Actor, Issued};
use bytes::Bytes;
use domain::{EndReason, TaskId};
use gateway::upstream::{Settings, Upstreams};
use gateway::{Body, ConnectionInfo, Gateway, GatewayConfig, Limits, Observer, Stage};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::{ISSUER, World, agent, fixture, task_request};
use upstream::FakeUpstream;

pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const LEGACY: &str = "2025-11-25";
pub(crate) const ENDPOINT: &str = "/mcp/orders";

/// Resources and prompts for the one intent.
const MORE_POLICIES: &str = r#"
@id("read-orders")
permit (principal is Intent::RefundOrder, action == Orders::Action::"mcp:resources/read", resource)
when { context.input.uri like "orders://*" };

@id("greet")
permit (principal is Intent::RefundOrder, action == Orders::Action::"mcp:prompts/get", resource)
when { context.input.name == "greet" };
"#;

/// What the gateway told of itself.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) decided: Mutex<Vec<domain::Outcome>>,
    pub(crate) refused: Mutex<Vec<u16>>,
}

impl Observer for Told {
    fn decided(&self, outcome: domain::Outcome, _reason: Option<domain::Reason>) {
        self.decided.lock().unwrap().push(outcome);
    }
    fn took(&self, _stage: Stage, _duration: Duration) {}
    fn refused(&self, status: u16) {
        self.refused.lock().unwrap().push(status);
    }
    fn sessions(&self, _open: usize) {}
}

pub(crate) struct Setup {
    pub(crate) world: World,
    pub(crate) upstream: FakeUpstream,
    pub(crate) gateway: Gateway,
    pub(crate) told: Arc<Told>,
}

impl Setup {
    pub(crate) async fn new(modern_upstream: bool) -> Self {
        Self::with(modern_upstream, GatewayConfig { loopback: true, ..GatewayConfig::default() }).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(false, GatewayConfig { loopback: true, limits, ..GatewayConfig::default() }).await
    }

    pub(crate) async fn with(modern_upstream: bool, config: GatewayConfig) -> Self {
        Self::saying(modern_upstream, config, "").await
    }

    /// With this in the labels of the upstream.
    pub(crate) async fn saying(modern_upstream: bool, config: GatewayConfig, labels: &str) -> Self {
        let upstream = FakeUpstream::start(modern_upstream).await;
        let mut files = fixture::policy_files();
        files.iter_mut().filter(|(path, _)| *path == "tools/orders.toml").for_each(|(_, text)| text.push_str(labels));
        files.push(("more.cedar", MORE_POLICIES.into()));
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let mut bearer = agent("wrapped", &["refund-order"]);
        bearer.allow_bearer = true;
        let agents = vec![agent("bot", &["refund-order", "mail"]), agent("mailer", &["mail"]), bearer];
        let world = World::new(&files, agents, vec![fixture::orders(&upstream.url)]).await;
        let upstreams = Upstreams::new(Arc::new(world.authority.clone()), Settings::default()).unwrap();
        let told = Arc::new(Told::default());
        let gateway = Gateway::new(&config, world.authority.clone(), upstreams, told.clone());
        Self { world, upstream, gateway, told }
    }

    /// A client of agent `bot` with an open task to refund order `o-1`, at most 500.
    pub(crate) async fn client(&self) -> Client<'_> {
        let request = task_request("refund-order", json!({ "order_id": "o-1", "max_amount_cents": 500 }));
        let issued = self.world.issue("bot", request).await.unwrap();
        Client { setup: self, issued, session: None, version: MODERN }
    }

    /// The same in the era of sessions, initialized.
    pub(crate) async fn legacy_client(&self) -> Client<'_> {
        let mut client = self.client().await;
        client.version = LEGACY;
        client.initialize(LEGACY).await;
        client
    }

    pub(crate) async fn end_task(&self, client: &Client<'_>) {
        self.world.authority.end_task(client.task(), &Actor::System, EndReason::Revoked).await.unwrap();
    }

    /// Events of the log of this type.
    pub(crate) fn logged(&self, kind: &str) -> Vec<Value> {
        self.world.ledger.events().into_iter().filter(|event| event.get("type").and_then(Value::as_str) == Some(kind)).collect()
    }

    /// Waits until the log has `count` events of this type.
    pub(crate) async fn wait_logged(&self, kind: &str, count: usize) -> Vec<Value> {
        let waiting = async {
            loop {
                let events = self.logged(kind);
                if events.len() >= count {
                    return events;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap()
    }
}

pub(crate) struct Client<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) issued: Issued,
    pub(crate) session: Option<String>,
    pub(crate) version: &'static str,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let reading = tokio::time::timeout(Duration::from_secs(10), body.collect());
        let text = String::from_utf8(reading.await.unwrap().unwrap().to_bytes().to_vec()).unwrap();
        Self { status: parts.status, headers: parts.headers, text }
    }

    /// The one message, whichever form of answer it came in.
    pub(crate) fn json(&self) -> Value {
        match self.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream") {
            true => self.messages().pop().unwrap_or_default(),
            false => serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text)),
        }
    }

    pub(crate) fn code(&self) -> i64 {
        self.json().pointer("/error/code").and_then(Value::as_i64).unwrap_or_else(|| panic!("{}", self.text))
    }

    /// The messages of a stream.
    pub(crate) fn messages(&self) -> Vec<Value> {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| !data.is_empty())
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    pub(crate) fn challenges(&self) -> Vec<String> {
        self.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }
}

/// The next event of a stream that carries a message.
pub(crate) async fn next_message(body: &mut Body) -> Option<Value> {
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap()?.unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")).filter(|data| !data.is_empty()) {
            return Some(serde_json::from_str(data).unwrap());
        }
    }
}

pub(crate) fn info() -> ConnectionInfo {
    ConnectionInfo { certificate: None, remote: ([127, 0, 0, 1], 1).into() }
}

impl Client<'_> {
    pub(crate) fn task(&self) -> TaskId {
        self.issued.claims.task.parse().unwrap()
    }

    /// A request with everything that this client's revision wants, and a fresh proof.
    pub(crate) fn request(&self, method: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let body: Bytes = body.into();
        let token = self.issued.token.expose_secret();
        let proof = self.setup.world.holder.proof(method, &format!("{ISSUER}{ENDPOINT}"), self.setup.world.now(), Some(token));
        let mut request = Request::builder()
            .method(method)
            .uri(ENDPOINT)
            .header("host", "writ.test")
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", proof)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        if self.session.is_some() || self.version == MODERN {
            request = request.header("mcp-protocol-version", self.version);
        }
        if let (MODERN, Ok(message)) = (self.version, serde_json::from_slice::<Value>(&body)) {
            if let Some(method) = message.get("method").and_then(Value::as_str) {
                request = request.header("mcp-method", method);
            }
            let name = message.pointer("/params/name").or_else(|| message.pointer("/params/uri"));
            if let Some(name) = name.and_then(Value::as_str).filter(|name| name.is_ascii()) {
                request = request.header("mcp-name", name);
            }
        }
        request.body(Full::new(body)).unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        tokio::time::timeout(Duration::from_secs(10), self.setup.gateway.handle(request, info())).await.unwrap()
    }

    pub(crate) async fn post(&self, body: impl Into<Bytes>) -> Answer {
        Answer::of(self.send(self.request("POST", body)).await).await
    }

    /// The body of a request of this client's era.
    pub(crate) fn body(&self, id: u64, method: &str, params: Value) -> String {
        let mut params = params;
        if self.version == MODERN {
            let meta = params.as_object_mut().unwrap().entry("_meta").or_insert_with(|| json!({}));
            meta.as_object_mut().unwrap().extend([
                ("io.modelcontextprotocol/protocolVersion".into(), MODERN.into()),
                (
                    "io.modelcontextprotocol/clientCapabilities".into(),
                    json!({ "elicitation": {}, "extensions": { "io.modelcontextprotocol/tasks": {} } }),
                ),
            ]);
        }
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
    }

    pub(crate) async fn ask(&self, method: &str, params: Value) -> Answer {
        self.post(self.body(1, method, params)).await
    }

    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    pub(crate) async fn initialize(&mut self, version: &str) -> Answer {
        self.session = None;
        let params = json!({ "protocolVersion": version, "capabilities": { "elicitation": {} }, "clientInfo": { "name": "t", "version": "1" } });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string();
        let answer = self.post(body).await;
        self.session = answer.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        answer
    }
}
