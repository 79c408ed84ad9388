//! What is called: an address, and the bytes of one request after another. A proof of possession differs in each request,
//! so a target may make them; that costs the client's share of the machine, as it would in life.

use std::net::SocketAddr;
use std::sync::Arc;

/// The tool call that every path carries: 64 bytes of argument.
pub(crate) const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"0123456789012345678901234567890123456789012345678901234567890123"}}}"#;

type Headers = dyn Fn() -> String + Send + Sync;

/// Something to put load on.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) at: SocketAddr,
    path: String,
    headers: Arc<Headers>,
    body: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Target {
    /// An endpoint that wants nothing but the call.
    pub(crate) fn plain(at: SocketAddr, path: &str) -> Self {
        Self::with(at, path, || "mcp-protocol-version: 2025-11-25\r\n".into())
    }

    /// An endpoint that wants more headers.
    pub(crate) fn with(at: SocketAddr, path: &str, headers: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { at, path: path.into(), headers: Arc::new(headers), body: Arc::new(|| CALL.into()) }
    }

    /// The same with another body.
    pub(crate) fn body(self, body: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { body: Arc::new(body), ..self }
    }

    /// The next request, whole.
    pub(crate) fn request(&self) -> Vec<u8> {
        let body = (self.body)();
        let content = if body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: {content}\r\naccept: application/json, text/event-stream\r\n{}content-length: {}\r\n\r\n{body}",
            self.path,
            self.at,
            (self.headers)(),
            body.len(),
        )
        .into_bytes()
    }
}
