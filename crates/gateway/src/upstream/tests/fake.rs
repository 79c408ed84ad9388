//! An HTTP upstream that answers whatever a test wants, and remembers what it was sent.

use super::*;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use tokio::sync::watch;

/// A request that arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Seen {
    pub(super) fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
    pub(super) fn rpc(&self) -> String {
        self.body()["method"].as_str().unwrap_or_default().to_owned()
    }
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

type Handler = Arc<dyn Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync>;

pub(super) struct Fake {
    pub(super) url: String,
    seen: watch::Receiver<Vec<Seen>>,
}

impl Fake {
    /// A server that answers at once.
    pub(super) async fn start(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        Self::start_async(move |seen| {
            let response = answer(&seen);
            async move { response }.boxed()
        })
        .await
    }

    pub(super) async fn start_async(handler: impl Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync + 'static) -> Self {
        let handler: Handler = Arc::new(handler);
        let (record, seen) = watch::channel(Vec::new());
        let record = Arc::new(record);
        let serve = move |request: axum::extract::Request| {
            let (handler, record) = (Arc::clone(&handler), Arc::clone(&record));
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
                let seen = Seen {
                    method: head.method.to_string(),
                    headers: head.headers,
                    text: String::from_utf8(body.to_vec()).unwrap(),
                };
                record.send_modify(|all| all.push(seen.clone()));
                handler(seen).await
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(serve)).await });
        Self { url, seen }
    }

    /// Everything that has arrived.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// The same, as it grows.
    pub(super) fn watch(&self) -> watch::Receiver<Vec<Seen>> {
        self.seen.clone()
    }

    /// The requests with this JSON-RPC method.
    pub(super) fn of(&self, rpc: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.rpc() == rpc).collect()
    }

    /// Waits until something has arrived.
    pub(super) async fn wait_for(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let found = seen.wait_for(|all| all.iter().any(&wanted)).await.unwrap();
        found.iter().rev().find(|seen| wanted(seen)).unwrap().clone()
    }
}

pub(super) fn status(code: u16) -> Response {
    ::http::StatusCode::from_u16(code).unwrap().into_response()
}

pub(super) fn json_text(text: String) -> Response {
    ([("content-type", "application/json")], text).into_response()
}

/// A JSON-RPC result for what was asked.
pub(super) fn result(seen: &Seen, result: &Value) -> Response {
    json_text(json!({ "jsonrpc": "2.0", "id": seen.body()["id"], "result": result }).to_string())
}

pub(super) fn error(seen: &Seen, code: i64) -> Response {
    json_text(json!({ "jsonrpc": "2.0", "id": seen.body()["id"], "error": { "code": code, "message": "no" } }).to_string())
}

/// A finished stream of events.
pub(super) fn sse(text: String) -> Response {
    ([("content-type", "text/event-stream")], text).into_response()
}

/// A stream of these pieces that then neither ends nor goes on.
pub(super) fn stuck(content_type: &'static str, pieces: Vec<String>) -> Response {
    use futures_util::StreamExt;
    let pieces = stream::iter(pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece))));
    ([("content-type", content_type)], Body::from_stream(pieces.chain(stream::pending()))).into_response()
}

/// A stream of one piece for ever.
pub(super) fn endless(content_type: &'static str, piece: &'static str) -> Response {
    let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())));
    ([("content-type", content_type)], Body::from_stream(pieces)).into_response()
}

/// A stream of these pieces that then breaks.
pub(super) fn broken(content_type: &'static str, pieces: Vec<String>) -> Response {
    use futures_util::StreamExt;
    let pieces = stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece))));
    let dies = stream::once(async {
        // The pieces shall leave first.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        Err(std::io::Error::other("died"))
    });
    ([("content-type", content_type)], Body::from_stream(pieces.chain(dies))).into_response()
}

pub(super) fn discovered() -> Value {
    json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
        "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "fake", "version": "1" } },
        "instructions": "be kind", "ttlMs": 0, "cacheScope": "private" })
}

pub(super) fn initialized(capabilities: &Value) -> Value {
    json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": { "name": "fake", "version": "1" } })
}

/// What a stateless server does with everything but the request under test.
pub(super) fn stateless(seen: &Seen, call: impl FnOnce(&Seen) -> Response) -> Response {
    match seen.rpc().as_str() {
        "server/discover" => result(seen, &discovered()),
        "initialize" => error(seen, -32601),
        _ => call(seen),
    }
}

/// What a server with sessions does with everything but the request under test.
pub(super) fn with_sessions(seen: &Seen, call: impl FnOnce(&Seen) -> Response) -> Response {
    if seen.method != "POST" {
        return if seen.method == "GET" { call(seen) } else { status(200) };
    }
    match seen.rpc().as_str() {
        "initialize" => {
            let mut response = result(seen, &initialized(&json!({ "tools": { "listChanged": true }, "logging": {} })));
            response.headers_mut().insert("mcp-session-id", "session-1".parse().unwrap());
            response
        }
        "server/discover" => status(400),
        method if method.starts_with("notifications/") => status(202),
        "" => status(202),
        _ => call(seen),
    }
}
