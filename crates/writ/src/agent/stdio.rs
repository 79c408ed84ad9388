//! The stdio bridge of `writ exec --stdio NAME`: MCP on standard input and output, for clients that start their servers
//! as programs. One line is one message; each goes to the gateway as a POST, and what comes back, whole or as a stream,
//! becomes lines again. It keeps the session of the session revisions; the stateless revision needs none.

use super::bridge::Sender;
use super::repeated::{Repeated, list_for, wants_headers};
use bytes::Bytes;
use gateway::upstream::encoded;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const VERSION_KEY: &str = "/params/_meta/io.modelcontextprotocol~1protocolVersion";
/// Longest line: what the gateway accepts as a body.
const LINE_BYTES_MAX: u64 = domain::limits::REQUEST_BYTES_MAX as u64;
/// Most pages of a list of tools that are read to learn what a call repeats.
const PAGES_MAX: usize = 100;
/// When standard input ends, how long answers that are under way may take, and each to be read.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Before that, how long a client may leave its answers unread: it may be busy, but what it asked for meanwhile waits here.
const UNREAD_MAX: Duration = Duration::from_secs(120);

/// Speaks MCP on standard input and output until the input ends, or nobody reads the output any more. Answers whether
/// everything was read.
pub(crate) async fn run(sender: Sender, upstream: String) -> bool {
    let (lines, written) = mpsc::channel::<String>(64);
    let (all, all_written) = oneshot::channel();
    // Threads of their own, and past the standard library's lock of the output: neither a read nor a write can be given up,
    // and nothing may wait for them at the end.
    std::thread::spawn(move || {
        write_lines(written);
        let _ = all.send(());
    });
    let (given, mut input) = mpsc::channel::<Vec<u8>>(64);
    let input_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&input_ended);
    std::thread::spawn(move || {
        read_lines(&given);
        ended.store(true, Ordering::Relaxed);
    });
    let bridge = Arc::new(StdioBridge {
        sender,
        upstream,
        lines,
        input_ended,
        unread: AtomicBool::new(false),
        session: Mutex::default(),
        running: Mutex::default(),
        repeated: Repeated::default(),
    });
    // What listens has no end of its own: at the end nothing waits for it.
    let (mut under_way, mut listening) = (JoinSet::new(), JoinSet::new());
    while !bridge.unread.load(Ordering::Relaxed)
        && let Some(line) = input.recv().await
    {
        bridge.read((&mut under_way, &mut listening), line).await;
        while under_way.try_join_next().is_some() {}
    }
    listening.shutdown().await;
    let rest = async { while under_way.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, rest).await;
    under_way.shutdown().await;
    let _ = tokio::time::timeout(LAST_ANSWERS, bridge.close()).await;
    let unread = bridge.unread.load(Ordering::Relaxed);
    drop(bridge);
    !unread && tokio::time::timeout(LAST_ANSWERS, all_written).await.is_ok()
}

fn read_lines(given: &mpsc::Sender<Vec<u8>>) {
    let mut input = std::io::stdin().lock();
    while let Some(line) = next_line(&mut input, LINE_BYTES_MAX) {
        if given.blocking_send(line).is_err() {
            return;
        }
    }
}

/// The next line; of one that is too long its beginning, which is no message. What follows it is never taken for a line.
fn next_line(input: &mut impl BufRead, bytes_max: u64) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = input.by_ref().take(bytes_max).read_until(b'\n', &mut line);
    if !matches!(read, Ok(1..)) {
        return None;
    }
    if line.len() as u64 == bytes_max && !line.ends_with(b"\n") {
        input.skip_until(b'\n').ok()?;
    }
    Some(line)
}

fn write_lines(mut written: mpsc::Receiver<String>) {
    let Ok(out) = std::io::stdout().as_fd().try_clone_to_owned() else { return };
    let mut out = File::from(out);
    while let Some(line) = written.blocking_recv() {
        if out.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

struct StdioBridge {
    sender: Sender,
    upstream: String,
    lines: mpsc::Sender<String>,
    /// Standard input has ended.
    input_ended: Arc<AtomicBool>,
    /// Nobody reads standard output any more.
    unread: AtomicBool,
    session: Mutex<Session>,
    /// Requests of the stateless revision, to be dropped when they are cancelled.
    running: Mutex<HashMap<String, tokio::task::AbortHandle>>,
    repeated: Repeated,
}

/// What `initialize` brought.
#[derive(Default, Clone)]
struct Session {
    id: Option<HeaderValue>,
    version: Option<HeaderValue>,
}

impl StdioBridge {
    fn session(&self) -> Session {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One line of the client.
    async fn read(self: &Arc<Self>, (under_way, listening): (&mut JoinSet<()>, &mut JoinSet<()>), line: Vec<u8>) {
        let text = Bytes::from(line);
        if text.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let Ok(message) = serde_json::from_slice::<Value>(&text) else {
            let error = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32700, "message": "this line is not a JSON message" } });
            return self.write(&error.to_string()).await;
        };
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        let stateless = message.pointer(VERSION_KEY).is_some();
        if method == "notifications/cancelled" && self.session().id.is_none() {
            return self.cancel(&message);
        }
        let this = Arc::clone(self);
        if method == "initialize" || method.starts_with("notifications/") {
            // What follows depends on these, so they go one after the other.
            this.exchange(&message, text).await;
            if method == "notifications/initialized" {
                listening.spawn(async move { this.listen().await });
            }
            return;
        }
        let id = message.get("id").map(Value::to_string);
        let handle = under_way.spawn(async move { this.exchange(&message, text).await });
        if let (true, Some(id)) = (stateless, id) {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|_, handle| !handle.is_finished());
            running.insert(id, handle);
        }
    }

    /// Drops a request: its closed stream tells the server.
    fn cancel(&self, message: &Value) {
        let id = message.pointer("/params/requestId").map(Value::to_string).unwrap_or_default();
        if let Some(handle) = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            handle.abort();
        }
    }

    /// Sends one message and writes what comes back. A call whose headers were wrong is sent again once, with those that its
    /// tool's definition wants.
    async fn exchange(&self, message: &Value, text: Bytes) {
        let id = message.get("id").filter(|_| message.get("method").is_some());
        let mut answered = self.send(message, text.clone(), message.pointer(VERSION_KEY).is_some()).await;
        if matches!(answered, Ok(Answered::HeadersWanted)) {
            self.list_tools(message).await;
            answered = self.send(message, text, false).await;
        }
        if let (Err(why), Some(id)) = (answered, id) {
            self.write(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32000, "message": why } }).to_string()).await;
        }
    }

    async fn send(&self, message: &Value, text: Bytes, again: bool) -> Result<Answered, String> {
        let response = self.sender.send(&Method::POST, &self.upstream, &self.headers(message), text).await?;
        self.answer(message, response, again).await
    }

    /// Learns which arguments are repeated in headers. What cannot be learned shows when the call is sent again.
    async fn list_tools(&self, call: &Value) {
        let mut cursor = None;
        for _ in 0..PAGES_MAX {
            let list = list_for(call, cursor.as_deref());
            let text = Bytes::from(list.to_string());
            let Ok(response) = self.sender.send(&Method::POST, &self.upstream, &self.headers(&list), text).await else { return };
            let is_stream = is_stream(&response);
            let Ok(body) = response.into_body().collect().await else { return };
            let body = body.to_bytes();
            let events =
                if is_stream { Events::default().feed(&body) } else { vec![String::from_utf8_lossy(&body).into_owned()] };
            let Some(page) = events.last().and_then(|event| serde_json::from_str::<Value>(event).ok()) else { return };
            self.repeated.learn(&page);
            cursor = page.pointer("/result/nextCursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                return;
            }
        }
    }

    async fn answer(&self, message: &Value, response: Response<Incoming>, again: bool) -> Result<Answered, String> {
        let id = message.get("id").filter(|_| message.get("method").is_some());
        if message.get("method").and_then(Value::as_str) == Some("initialize") {
            self.session.lock().unwrap_or_else(PoisonError::into_inner).id = response.headers().get(SESSION).cloned();
        }
        let status = response.status();
        if status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT {
            return Ok(Answered::Done);
        }
        if is_stream(&response) {
            return self.stream(response).await.map(|()| Answered::Done);
        }
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        if id.is_some() && parsed.get("id") != id {
            let told = parsed.pointer("/error/message").and_then(Value::as_str);
            return Err(told.map_or_else(|| format!("the gateway answered {status}"), str::to_owned));
        }
        if again && wants_headers(message, &parsed) {
            return Ok(Answered::HeadersWanted);
        }
        self.note_version(message, &parsed);
        self.repeated.learn(&parsed);
        self.write(&String::from_utf8_lossy(&body)).await;
        Ok(Answered::Done)
    }

    /// Later requests of a session name the revision that `initialize` agreed on.
    fn note_version(&self, message: &Value, answer: &Value) {
        let version = answer.pointer("/result/protocolVersion").and_then(Value::as_str);
        if message.get("method").and_then(Value::as_str) == Some("initialize") {
            let version = version.and_then(|version| HeaderValue::from_str(version).ok());
            self.session.lock().unwrap_or_else(PoisonError::into_inner).version = version;
        }
    }

    /// What the server says on its own: the GET stream of the session revisions.
    async fn listen(&self) {
        let session = self.session();
        if session.id.is_none() {
            return;
        }
        if let Ok(response) = self.sender.send(&Method::GET, &self.upstream, &self.headers(&Value::Null), Bytes::new()).await
            && response.status() == StatusCode::OK
        {
            let _ = self.stream(response).await;
        }
    }

    /// Writes each event of a stream as a line (WHATWG HTML, "Server-sent events").
    async fn stream(&self, response: Response<Incoming>) -> Result<(), String> {
        let mut body = response.into_body();
        let mut events = Events::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            for event in frame.data_ref().map(|data| events.feed(data)).unwrap_or_default() {
                let parsed: Value = serde_json::from_str(&event).unwrap_or_default();
                if let Some(version) = parsed.pointer("/result/protocolVersion").and_then(Value::as_str)
                    && self.session().version.is_none()
                {
                    let version = HeaderValue::from_str(version).ok();
                    self.session.lock().unwrap_or_else(PoisonError::into_inner).version = version;
                }
                self.repeated.learn(&parsed);
                self.write(&event).await;
            }
        }
        Ok(())
    }

    fn headers(&self, message: &Value) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(version) = message.pointer(VERSION_KEY).and_then(Value::as_str) {
            let name = ["/params/name", "/params/uri"].iter().find_map(|at| message.pointer(at)?.as_str());
            for (header, value) in
                [(VERSION, Some(version)), (METHOD, message.get("method").and_then(Value::as_str)), (NAME, name)]
            {
                headers.extend(value.and_then(encoded).map(|value| (header, value)));
            }
            self.repeated.add(message, &mut headers);
            return headers;
        }
        let session = self.session();
        headers.extend(session.id.map(|id| (SESSION, id)));
        headers.extend(session.version.map(|version| (VERSION, version)));
        headers
    }

    /// Ends the session, if there is one.
    async fn close(&self) {
        if self.session().id.is_some() {
            let _ = self.sender.send(&Method::DELETE, &self.upstream, &self.headers(&Value::Null), Bytes::new()).await;
        }
    }

    /// Writes one message as one line. A line break can stand only between the tokens of JSON, never within one. What nobody
    /// reads is waited for, but not for ever.
    async fn write(&self, message: &str) {
        let mut line = message.replace(['\n', '\r'], " ");
        line.push('\n');
        let mut waited = Duration::ZERO;
        while !self.unread.load(Ordering::Relaxed) {
            // Whoever went away altogether reads nothing either, but nobody need be told.
            if let Ok(room) = tokio::time::timeout(LAST_ANSWERS, self.lines.reserve()).await {
                return room.map_or((), |room| room.send(line));
            }
            waited += LAST_ANSWERS;
            if waited >= UNREAD_MAX || self.input_ended.load(Ordering::Relaxed) {
                self.unread.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// What became of a message.
enum Answered {
    /// What came back was written.
    Done,
    /// Nothing: the call must repeat some of its arguments in headers.
    HeadersWanted,
}

fn is_stream(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with("text/event-stream")
}

/// Cuts a stream of bytes into the data of its events.
#[derive(Default)]
pub(crate) struct Events {
    buffer: Vec<u8>,
    data: String,
}

impl Events {
    /// More bytes; gives the data of each event that is now whole.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.buffer.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned();
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let data = std::mem::take(&mut self.data);
                if !data.is_empty() {
                    events.push(data);
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_line_that_is_too_long_is_no_line() {
        let mut input = &b"{}\n1234567890{\"id\":1}\n12345678\n1234567\nlast"[..];
        let lines: Vec<_> = std::iter::from_fn(|| next_line(&mut input, 8)).collect();
        assert_eq!(lines, [&b"{}\n"[..], b"12345678", b"12345678", b"1234567\n", b"last"]);
    }

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let stream = b": hello\n\nid: 1\nevent: message\ndata: {\"a\":\ndata: 1}\n\ndata: {}\r\n\r\n";
        let whole = Events::default().feed(stream);
        assert_eq!(whole, ["{\"a\":\n1}", "{}"]);
        let mut events = Events::default();
        let cut: Vec<String> = stream.iter().flat_map(|byte| events.feed(&[*byte])).collect();
        assert_eq!(cut, whole);
    }
}
