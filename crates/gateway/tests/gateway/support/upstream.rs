//! An MCP server that records what reaches it, with tools that answer at once, wait, stream, ask, or never end. Speaks
//! either era. Honest but for what a test asks of it.
#![expect(clippy::unwrap_used, reason = "tests")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore, broadcast, watch};

/// A message that reached the upstream.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) id: Value,
    pub(crate) params: Value,
    pub(crate) headers: HeaderMap,
}

pub(crate) struct Shared {
    pub(crate) modern: bool,
    pub(crate) seen: Mutex<Vec<Seen>>,
    pub(crate) definitions: Mutex<Vec<Value>>,
    /// Tool `refund` and stream `forever` say here that they began.
    pub(crate) began: Semaphore,
    /// Tool `refund` answers for each permit here.
    pub(crate) gate: Semaphore,
    /// The next `initialize` says here that it came, and is answered when it is told to go on.
    pub(crate) slow_start: Mutex<Option<Arc<(Notify, Notify)>>>,
    /// It does not know the session of the next call any more.
    pub(crate) forgets: AtomicBool,
    /// How many answers were still awaited when their request went away.
    pub(crate) abandoned: watch::Sender<usize>,
    /// What the upstream says on its own.
    pub(crate) says: broadcast::Sender<String>,
    answers: Mutex<Vec<Value>>,
    /// Every answer of the client, oldest first.
    answered_with: Mutex<Vec<Value>>,
    answered: Notify,
}

#[derive(Clone)]
pub(crate) struct FakeUpstream {
    pub(crate) url: String,
    pub(crate) shared: Arc<Shared>,
}

struct Abandon(Option<Arc<Shared>>);

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.abandoned.send_modify(|count| *count += 1);
        }
    }
}

impl FakeUpstream {
    pub(crate) async fn start(modern: bool) -> Self {
        let shared = Arc::new(Shared {
            modern,
            seen: Mutex::default(),
            definitions: Mutex::new(testkit::fixture::definitions()),
            began: Semaphore::new(0),
            gate: Semaphore::new(0),
            slow_start: Mutex::default(),
            forgets: AtomicBool::default(),
            abandoned: watch::Sender::new(0),
            says: broadcast::Sender::new(64),
            answers: Mutex::default(),
            answered_with: Mutex::default(),
            answered: Notify::new(),
        });
        let app = Router::new().route("/mcp", axum::routing::any(serve)).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared }
    }

    /// The messages of this method that reached it.
    pub(crate) fn seen(&self, method: &str) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().iter().filter(|seen| seen.method == method).cloned().collect()
    }
}

impl FakeUpstream {
    /// The client's answers to its questions, oldest first.
    pub(crate) fn answered(&self) -> Vec<Value> {
        self.shared.answered_with.lock().unwrap().clone()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    match method {
        Method::POST => post(shared, headers, body).await,
        Method::GET if !shared.modern => {
            let says = stream::unfold(shared.says.subscribe(), |mut says| async move {
                let text = says.recv().await.ok()?;
                Some((Ok::<_, Infallible>(event(&text)), says))
            });
            sse(Body::from_stream(says))
        }
        Method::DELETE => StatusCode::OK.into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn event(text: &str) -> Bytes {
    Bytes::from(format!("data: {text}\n\n"))
}

fn sse(body: Body) -> Response {
    ([("content-type", "text/event-stream")], body).into_response()
}

fn answer(id: &Value, result: &str) -> Response {
    ([("content-type", "application/json")], format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).into_response()
}

async fn post(shared: Arc<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap();
    let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
    let params = message.get("params").cloned().unwrap_or_default();
    let seen_id = message.get("id").cloned().unwrap_or_default();
    shared.seen.lock().unwrap().push(Seen { method: method.clone(), id: seen_id, params: params.clone(), headers });
    let Some(id) = message.get("id").cloned() else { return StatusCode::ACCEPTED.into_response() };
    if method.is_empty() {
        shared.answered_with.lock().unwrap().push(message.clone());
        shared.answers.lock().unwrap().push(message);
        shared.answered.notify_one();
        return StatusCode::ACCEPTED.into_response();
    }
    let complete = if shared.modern { r#","resultType":"complete""# } else { "" };
    let cached = if shared.modern { r#","ttlMs":3600000,"cacheScope":"public""# } else { "" };
    match method.as_str() {
        "initialize" if !shared.modern => {
            let slow = shared.slow_start.lock().unwrap().take();
            if let Some(slow) = slow {
                slow.0.notify_one();
                slow.1.notified().await;
            }
            let version = params.get("protocolVersion").cloned().unwrap_or_default();
            let result = format!(
                r#"{{"protocolVersion":{version},"capabilities":{{"tools":{{"listChanged":true}},"resources":{{"subscribe":true}},"prompts":{{}},"completions":{{}},"logging":{{}}}},"serverInfo":{{"name":"fake","version":"1"}},"instructions":"be kind","x-unknown":1.50}}"#
            );
            let mut response = answer(&id, &result);
            response.headers_mut().insert("mcp-session-id", "upstream-session".parse().unwrap());
            response
        }
        "server/discover" if shared.modern => answer(
            &id,
            &format!(
                r#"{{"supportedVersions":["2026-07-28"],"capabilities":{{"tools":{{"listChanged":true}},"resources":{{}},"prompts":{{}}}},"_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"fake","version":"1"}}}},"instructions":"be kind"{complete}{cached}}}"#
            ),
        ),
        "tools/list" => {
            let tools = Value::from(shared.definitions.lock().unwrap().clone());
            answer(&id, &format!(r#"{{"tools":{tools},"x-unknown":1.50{complete}{cached}}}"#))
        }
        "resources/list" => answer(&id, &format!(r#"{{"resources":[{{"uri":"orders://1","name":"one"}}]{complete}{cached}}}"#)),
        "resources/templates/list" => {
            let next = if params.get("cursor").is_none() { r#","nextCursor":"page 2""# } else { "" };
            answer(&id, &format!(r#"{{"resourceTemplates":[]{next}{complete}{cached}}}"#))
        }
        "prompts/list" => answer(&id, &format!(r#"{{"prompts":[{{"name":"greet"}}]{complete}{cached}}}"#)),
        "resources/read" => answer(&id, &format!(r#"{{"contents":[{{"uri":"orders://1","text":"x"}}]{complete}{cached}}}"#)),
        "prompts/get" => answer(&id, &format!(r#"{{"messages":[]{complete}}}"#)),
        "completion/complete" => answer(&id, &format!(r#"{{"completion":{{"values":["a"]}}{complete}}}"#)),
        "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" | "ping" => answer(&id, "{}"),
        "tasks/get" => answer(&id, &format!(r#"{{"taskId":"w-1","status":"completed"{complete}}}"#)),
        "tasks/list" => answer(&id, r#"{"tasks":[{"taskId":"w-0"},{"taskId":"w-1"}]}"#),
        "tools/call" if shared.forgets.swap(false, Ordering::SeqCst) => StatusCode::NOT_FOUND.into_response(),
        "tools/call" => call(shared, id, &params, complete).await,
        "subscriptions/listen" => listen(shared, &id, &params),
        _ => {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"Method not found"}}}}"#);
            ([("content-type", "application/json")], text).into_response()
        }
    }
}

fn listen(shared: Arc<Shared>, id: &Value, params: &Value) -> Response {
    let tag = json!({ "io.modelcontextprotocol/subscriptionId": id });
    let first = json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": { "_meta": tag, "notifications": params.get("notifications") } });
    let says = stream::unfold(shared.says.subscribe(), |mut says| async move {
        let text = says.recv().await.ok()?;
        Some((Ok::<_, Infallible>(event(&text)), says))
    });
    sse(Body::from_stream(stream::once(async move { Ok(event(&first.to_string())) }).chain(says)))
}

/// The result of `get_order`, with everything that a round trip through a parser could change.
pub(crate) const ORDER: &str = r#"{ "content":[{"type":"text","text":"order \u006f-1"}], "structuredContent":{"total":1.50,"big":12345678901234567890123}, "isError" : false, "x-vendor": {"z":1,"a":2}"#;

async fn call(shared: Arc<Shared>, id: Value, params: &Value, complete: &str) -> Response {
    let done = format!(r#"{{"content":[{{"type":"text","text":"done"}}]{complete}}}"#);
    let argument =
        |name: &str| params.pointer(&format!("/arguments/{name}")).and_then(Value::as_str).unwrap_or_default().to_owned();
    match params.get("name").and_then(Value::as_str).unwrap_or_default() {
        "get_order" => answer(&id, &format!("{ORDER}{complete}}}")),
        "refund" => {
            let mut abandon = Abandon(Some(shared.clone()));
            shared.began.add_permits(1);
            shared.gate.acquire().await.unwrap().forget();
            abandon.0 = None;
            answer(&id, &done)
        }
        "read_ticket" => match argument("ticket_id").as_str() {
            "tags" => answer(
                &id,
                &format!(
                    r#"{{"content":[],"_meta":{{"note":"smuggled","io.modelcontextprotocol/related-task":{{"taskId":"t"}}}}{complete}}}"#
                ),
            ),
            "huge" => answer(&id, &format!(r#"{{"content":[{{"type":"text","text":"{}"}}]{complete}}}"#, "x".repeat(15 << 20))),
            "fails" => answer(&id, &format!(r#"{{"content":[{{"type":"text","text":"no"}}],"isError":true{complete}}}"#)),
            "progress" => {
                let token = params.pointer("/_meta/progressToken").cloned().unwrap_or_default();
                let frames = [
                    format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
                    ),
                    format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":2}}}}"#
                    ),
                    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{done}}}"#),
                ];
                sse(Body::from_stream(stream::iter(frames.map(|frame| Ok::<_, Infallible>(event(&frame))))))
            }
            "forever" => {
                let first = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"began"}}"#;
                shared.began.add_permits(1);
                let abandon = Abandon(Some(shared));
                let rest = stream::pending::<Result<Bytes, Infallible>>().map(move |piece| {
                    let _ = &abandon;
                    piece
                });
                sse(Body::from_stream(stream::once(async move { Ok(event(first)) }).chain(rest)))
            }
            "work" if shared.modern => answer(&id, r#"{"resultType":"task","taskId":"w-1","status":"working"}"#),
            "work" => answer(&id, r#"{"task":{"taskId":"w-1","status":"working"}}"#),
            "ask" if shared.modern => match params.get("requestState").and_then(Value::as_str) {
                None => answer(
                    &id,
                    r#"{"resultType":"input_required","inputRequests":{"q":{"method":"elicitation/create","params":{"mode":"form","message":"sure?","requestedSchema":{"type":"object","properties":{}}}}},"requestState":"state of the upstream"}"#,
                ),
                Some("state of the upstream") => {
                    let said = params.pointer("/inputResponses/q/action").cloned().unwrap_or_default();
                    answer(&id, &format!(r#"{{"content":[{{"type":"text","text":{said}}}]{complete}}}"#))
                }
                Some(_) => answer(&id, &format!(r#"{{"content":[],"isError":true{complete}}}"#)),
            },
            "ask" => {
                let question = r#"{"jsonrpc":"2.0","id":"q-1","method":"elicitation/create","params":{"message":"sure?","requestedSchema":{"type":"object","properties":{}},"_meta":{"progressToken":"q-token"}}}"#;
                let token = params.pointer("/_meta/progressToken").cloned();
                let rest = stream::once(async move {
                    shared.answered.notified().await;
                    let said = shared.answers.lock().unwrap().pop().unwrap();
                    let said = said.pointer("/result/action").cloned().unwrap_or_default();
                    let progress = token.map_or_else(Vec::new, |token| {
                        let note =
                            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken":"#;
                        event(&format!("{note}{token}}}}}")).to_vec()
                    });
                    let result = event(&format!(
                        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":{said}}}]}}}}"#
                    ));
                    Ok::<_, Infallible>([progress, result.to_vec()].concat().into())
                });
                sse(Body::from_stream(stream::once(async move { Ok(event(question)) }).chain(rest)))
            }
            _ => answer(&id, &done),
        },
        _ => answer(&id, &done),
    }
}
