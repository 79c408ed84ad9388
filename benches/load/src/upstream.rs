//! The trivial upstream: an MCP server over Streamable HTTP (2025-11-25, without sessions) whose one tool says what it was
//! told. It is as cheap as hyper allows, so that what is measured is the path to it.

use crate::accept::Accepting;
use crate::keeping::Keeping;
use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

/// The definition of a tool.
pub(crate) fn definition(name: &str) -> Value {
    json!({
        "name": name,
        "description": "Says what it was told.",
        "inputSchema": { "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] },
    })
}

/// Serves on this listener, for good; what is kept of a call is on disk before it is answered.
pub(crate) async fn serve(listener: Accepting, keeping: Keeping) -> Result<()> {
    loop {
        let Some(stream) = listener.next().await? else { continue };
        let keeping = keeping.clone();
        tokio::spawn(stream.serve(service_fn(move |request| answer(keeping.clone(), request))));
    }
}

async fn answer(keeping: Keeping, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let method = request.method().clone();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    keeping.decided(&message).await?;
    let result = match message.get("method").and_then(Value::as_str) {
        _ if method != hyper::Method::POST => return Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
        Some("tools/call") => {
            let text = message.pointer("/params/arguments/text").cloned().unwrap_or_default();
            json!({ "content": [{ "type": "text", "text": text }] })
        }
        Some("initialize") => json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "echo", "version": "1" },
        }),
        Some("tools/list") => json!({ "tools": [definition("echo")] }),
        Some(method) if method.starts_with("notifications/") => return Ok(empty(StatusCode::ACCEPTED)),
        _ => {
            let refused =
                json!({ "jsonrpc": "2.0", "id": message.get("id"), "error": { "code": -32601, "message": "unknown method" } });
            return Ok(json_response(&refused));
        }
    };
    Ok(json_response(&json!({ "jsonrpc": "2.0", "id": message.get("id"), "result": result })))
}

fn json_response(value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(value.to_string().into()));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
