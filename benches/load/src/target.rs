//! What is called: a server, and the bytes of one request after another. A proof of possession differs in each request, so
//! a target may make them; that costs the client's share of the machine, as it would in life.

use crate::child::Server;
use crate::client::contains;
use anyhow::{Result, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_rustls::TlsConnector;

/// The tool call that every path carries: 64 bytes of argument. Each with an id of its own, because connections share sessions.
fn call() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(1);
    let id = CALLS.fetch_add(1, Ordering::Relaxed);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{SAID}"}}}}}}"#)
}

/// Its argument, which the right answer says back.
const SAID: &str = "0123456789012345678901234567890123456789012345678901234567890123";

type Text = dyn Fn() -> String + Send + Sync;

/// Something to put load on.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) server: Arc<Server>,
    pub(crate) tls: Option<TlsConnector>,
    path: String,
    headers: Arc<Text>,
    body: Arc<Text>,
    /// What the answer must hold.
    answer: &'static str,
    /// What other clients call in place of this, in turn.
    others: Arc<[Target]>,
}

impl Target {
    /// An endpoint that wants nothing but the call.
    pub(crate) fn plain(server: &Arc<Server>, tls: Option<TlsConnector>) -> Self {
        Self::new(server, tls, "/mcp").headers(|| "mcp-protocol-version: 2025-11-25\r\n".into())
    }

    /// A path on a server.
    pub(crate) fn new(server: &Arc<Server>, tls: Option<TlsConnector>, path: &str) -> Self {
        let (headers, body) = (Arc::new(String::new), Arc::new(call));
        Self { server: Arc::clone(server), tls, path: path.into(), headers, body, answer: SAID, others: Arc::new([]) }
    }

    /// The same with these headers.
    pub(crate) fn headers(self, headers: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { headers: Arc::new(headers), ..self }
    }

    /// The same with this body in place of the call: any answer is right that is no error.
    pub(crate) fn body(self, body: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { body: Arc::new(body), answer: "", ..self }
    }

    /// Something of its own for each client.
    pub(crate) fn each(mut targets: Vec<Self>) -> Option<Self> {
        let first = targets.pop()?;
        Some(Self { others: targets.into(), ..first })
    }

    /// What the client with this number calls.
    pub(crate) fn of(&self, client: usize) -> Self {
        let place = client % (self.others.len() + 1);
        self.others.get(place).unwrap_or(self).clone()
    }

    /// Refuses an answer that does not hold what it must.
    pub(crate) fn check(&self, body: &[u8]) -> Result<()> {
        let right = self.answer.is_empty() || contains(body, self.answer.as_bytes());
        ensure!(right, "not the answer to the call: {}", String::from_utf8_lossy(body));
        Ok(())
    }

    /// The next request, whole.
    pub(crate) fn request(&self) -> Vec<u8> {
        let body = (self.body)();
        let content = if body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: {content}\r\naccept: application/json, text/event-stream\r\n{}content-length: {}\r\n\r\n{body}",
            self.path,
            self.server.at,
            (self.headers)(),
            body.len(),
        )
        .into_bytes()
    }
}
