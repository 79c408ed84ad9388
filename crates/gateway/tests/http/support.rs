//! One API `api.test` behind TLS with its own certificate, one intent that reaches it, and a client of one task.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use async_trait::async_trait;
use authority::{Actor, Issued, Policy, SourceFile, Sources};
use bytes::Bytes;
use domain::{EndReason, Offer, TaskId};
use gateway::http::{ApiBody, ConnectTable, HttpApis, HttpLimits, HttpTarget, Lookup, RouteTable};
use gateway::{ConnectionInfo, GatewayConfig, Observer, Stage};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::{ISSUER, World, agent, task_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

pub(crate) const SECRET: &str = "sk-live/0123456789+abcdef";

const INTENT: &str = r#"
name = "triage"
description = "Work on the issues of one repository."
owner = "team-support"
targets = ["api"]

[params.repo]
type = "string"
description = "The repository."

[limits]
lifetime_secs = 600
calls = 1000
"#;

/// What the gateway of a setup says that its current span is.
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) const POLICIES: &str = r#"
@id("open") permit (principal, action == Writ::Action::"open", resource);
@id("own-repo") permit (principal is Intent::Triage, action == Api::Action::"read", resource) when { context.input.repo == principal.repo };
@id("comment") permit (principal is Intent::Triage, action == Api::Action::"comment", resource) when { context.input.repo == principal.repo };
@id("mail") permit (principal is Intent::Triage, action == Api::Action::"mail", resource);
@id("echo") permit (principal is Intent::Triage, action in [Api::Action::"echo", Api::Action::"head", Api::Action::"download"], resource);
@id("socket") permit (principal is Intent::Triage, action == Api::Action::"socket", resource);
@id("no-exfiltration") forbid (principal, action, resource is Writ::Route)
when { resource.sink == "external" && context.facts.read_untrusted && context.facts.read_sensitivity > 1 };
"#;

const TARGET: &str = r#"
kind = "http"
owner = "team-platform"

[offers.read]
description = "Reads issues of a repository."
method = "GET"
path = "/repos/{repo}/issues"
query = { page = "page" }
reading = { untrusted = true, sensitivity = "confidential" }
sink = "none"
[offers.read.params]
repo = { type = "string", description = "The repository." }
page = { type = "integer", description = "The page.", default = 1 }

[offers.comment]
description = "Comments an issue."
method = "POST"
path = "/repos/{repo}/comments"
body = { text = "text" }
reading = { untrusted = false, sensitivity = "public" }
sink = "internal"
[offers.comment.params]
repo = { type = "string", description = "The repository." }
text = { type = "string", description = "The text." }

[offers.mail]
description = "Sends mail."
method = "POST"
path = "/mail"
body = { to = "to" }
pass = ["body.text"]
reading = { untrusted = false, sensitivity = "public" }
sink = "external"
[offers.mail.params]
to = { type = "string", description = "To whom." }

[offers.echo]
description = "Whatever the test wants."
method = "GET"
path = "/echo"
reading = { untrusted = false, sensitivity = "public" }
sink = "none"

[offers.head]
description = "The same without a body."
method = "HEAD"
path = "/echo"
reading = { untrusted = false, sensitivity = "public" }
sink = "none"

[offers.socket]
description = "Messages both ways."
method = "GET"
path = "/socket"
websocket = true
subprotocols = ["chat"]
reading = { untrusted = false, sensitivity = "public" }
sink = "external"

[offers.download]
description = "A compressed file."
method = "GET"
path = "/download"
opaque_answers = true
reading = { untrusted = false, sensitivity = "public" }
sink = "none"
"#;

/// A request as it reached the API.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) sni: Option<String>,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let named = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        named.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
    }
}

/// What the API does then.
pub(crate) enum Answer {
    /// Sends these pieces, each by itself; the connection stays.
    Pieces(Vec<Vec<u8>>),
    /// The same and closes the connection.
    Last(Vec<Vec<u8>>),
    /// Sends this and waits until the gateway closes the connection.
    Hang(Vec<u8>),
    /// Sends these pieces once it is told to go on; the connection stays.
    Held(Vec<Vec<u8>>),
    /// Agrees to a WebSocket with these headers besides, and answers each message with what the talk says.
    Socket(String, Talk),
}

/// What an API says on a WebSocket, in bytes of frames: at first (`None`), and to each frame (opcode, payload).
pub(crate) type Talk = Box<dyn FnMut(Option<(u8, &[u8])>) -> Vec<Vec<u8>> + Send>;

/// One frame of a server (RFC 6455 §5.2).
pub(crate) fn frame(fin: bool, opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = vec![if fin { 0x80 } else { 0 } | opcode];
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => bytes.push(payload.len() as u8),
        Ok(length) => bytes.extend([&[126][..], &length.to_be_bytes()].concat()),
        Err(_) => bytes.extend([&[127][..], &(payload.len() as u64).to_be_bytes()].concat()),
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// The next frame of a client, as (opcode, payload).
async fn next_frame<S: AsyncReadExt + Unpin>(stream: &mut S) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let length = match head[1] & 0x7f {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        short => u64::from(short),
    };
    assert!(head[1] & 0x80 != 0 && head[0] & 0x70 == 0, "a client masks its frames and uses no extension");
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await.ok()?;
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((head[0] & 0x0f, payload))
}

pub(crate) fn ok(headers: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    Answer::Pieces(vec![[head.as_bytes(), body].concat()])
}

type Script = Box<dyn Fn(&Seen) -> Answer + Send>;

pub(crate) struct Upstream {
    pub(crate) port: u16,
    pub(crate) certificate: Vec<u8>,
    seen: Mutex<Vec<Seen>>,
    /// Frames that came over WebSockets.
    pub(crate) frames: Mutex<Vec<(u8, Vec<u8>)>>,
    script: Mutex<Script>,
    pub(crate) accepted: AtomicUsize,
    /// Told when the gateway closed a connection on which an answer hung.
    pub(crate) closed: Notify,
    /// Told when an answer hangs.
    pub(crate) hanging: Notify,
    /// Lets an answer go that is held.
    pub(crate) goes_on: Notify,
    /// Tells it to say `unasked` on a WebSocket, between two messages of the task.
    pub(crate) speaks: Notify,
}

impl Upstream {
    async fn start(name: &str) -> Arc<Self> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = made.cert.der().to_vec();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate.clone())], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // The same port at another address of this machine, for names that are bound anew.
        let other = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let upstream = Arc::new(Self {
            port,
            certificate,
            seen: Mutex::default(),
            frames: Mutex::default(),
            script: Mutex::new(Box::new(|_| ok("content-type: application/json\r\n", "{\"fine\":true}"))),
            accepted: AtomicUsize::new(0),
            closed: Notify::new(),
            hanging: Notify::new(),
            goes_on: Notify::new(),
            speaks: Notify::new(),
        });
        for listener in [listener, other] {
            let (served, acceptor) = (Arc::clone(&upstream), acceptor.clone());
            tokio::spawn(async move {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    served.accepted.fetch_add(1, Ordering::SeqCst);
                    let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
                    tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(socket).await {
                            served.serve(stream).await;
                        }
                    });
                }
            });
        }
        upstream
    }

    async fn serve(&self, mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
        let sni = stream.get_ref().1.server_name().map(str::to_owned);
        let mut read = Vec::new();
        loop {
            let Some(seen) = next_request(&mut stream, &mut read, sni.clone()).await else { return };
            let answer = (self.script.lock().unwrap())(&seen);
            self.seen.lock().unwrap().push(seen.clone());
            let (pieces, last) = match answer {
                Answer::Pieces(pieces) => (pieces, false),
                Answer::Last(pieces) => (pieces, true),
                Answer::Socket(headers, talk) => return self.talk(stream, &seen, &headers, talk).await,
                Answer::Held(pieces) => {
                    self.hanging.notify_one();
                    self.goes_on.notified().await;
                    (pieces, false)
                }
                Answer::Hang(piece) => {
                    let _ = stream.write_all(&piece).await;
                    let _ = stream.flush().await;
                    self.hanging.notify_one();
                    let _ = stream.read(&mut [0; 16]).await;
                    self.closed.notify_one();
                    return;
                }
            };
            for piece in pieces {
                if stream.write_all(&piece).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            if last {
                let _ = stream.shutdown().await;
                return;
            }
        }
    }

    async fn talk<S>(&self, mut stream: S, seen: &Seen, headers: &str, mut talk: Talk)
    where
        S: AsyncReadExt + AsyncWriteExt + Unpin,
    {
        use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
        let accept = derive_accept_key(seen.header("sec-websocket-key").concat().as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n{headers}\r\n"
        );
        let mut said = talk(None);
        said.insert(0, head.into_bytes());
        loop {
            for piece in said {
                if stream.write_all(&piece).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let next = tokio::select! {
                () = self.speaks.notified() => {
                    said = vec![frame(true, 1, "unasked")];
                    continue;
                }
                next = next_frame(&mut stream) => next,
            };
            let Some((opcode, payload)) = next else { break };
            said = talk(Some((opcode, &payload)));
            self.frames.lock().unwrap().push((opcode, payload));
        }
        self.closed.notify_one();
    }

    pub(crate) fn answer(&self, script: impl Fn(&Seen) -> Answer + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn next_request<S: AsyncReadExt + Unpin>(stream: &mut S, read: &mut Vec<u8>, sni: Option<String>) -> Option<Seen> {
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end + 2].to_vec()).unwrap();
            let seen = Seen { head, body: Vec::new(), sni: sni.clone() };
            let length = seen.header("content-length").first().map_or(0, |length| length.parse::<usize>().unwrap());
            if read.len() >= end + 4 + length {
                let body = read[end + 4..end + 4 + length].to_vec();
                read.drain(..end + 4 + length);
                return Some(Seen { body, ..seen });
            }
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&piece[..count]),
        }
    }
}

/// Answers each lookup with the next of these; with the last again and again.
pub(crate) struct Names(pub(crate) Mutex<VecDeque<Vec<IpAddr>>>);

#[async_trait]
impl Lookup for Names {
    async fn addresses(&self, _host: &str) -> std::io::Result<Vec<IpAddr>> {
        let mut left = self.0.lock().unwrap();
        Ok(if left.len() > 1 { left.pop_front().unwrap() } else { left[0].clone() })
    }
}

#[derive(Default)]
pub(crate) struct Quiet;

impl Observer for Quiet {
    fn decided(&self, _: domain::Outcome, _: Option<domain::Reason>) {}
    fn took(&self, _: Stage, _: Duration) {}
    fn refused(&self, _: u16) {}
    fn sessions(&self, _: usize) {}
}

/// What differs from test to test.
pub(crate) struct With {
    pub(crate) auth: &'static str,
    pub(crate) limits: HttpLimits,
    pub(crate) host: &'static str,
    pub(crate) certified: &'static str,
    pub(crate) named: &'static str,
    pub(crate) trusted: bool,
    /// Whether the target wants the ids of traces.
    pub(crate) trace: bool,
    pub(crate) lookups: Vec<Vec<IpAddr>>,
}

impl Default for With {
    fn default() -> Self {
        Self {
            auth: "form = \"bearer\", secret = { file = \"secret\" }",
            limits: HttpLimits { timeout_secs: 5, ..HttpLimits::default() },
            host: "api.test",
            certified: "api.test",
            named: "127.0.0.1",
            trusted: true,
            trace: false,
            lookups: vec![vec![Ipv4Addr::LOCALHOST.into()]],
        }
    }
}

pub(crate) struct Setup {
    pub(crate) world: World,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) apis: HttpApis,
    pub(crate) secrets: tempfile::TempDir,
    pub(crate) target: HttpTarget,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        Self::with(With::default()).await
    }

    pub(crate) async fn with(with: With) -> Self {
        let upstream = Upstream::start(with.certified).await;
        let files = [("intents/triage.toml", INTENT), ("main.cedar", POLICIES), ("targets/api.toml", TARGET)];
        let mut bearer = agent("wrapped", &["triage"]);
        bearer.allow_bearer = true;
        let world = World::new(&files, vec![agent("bot", &["triage"]), bearer], Vec::new()).await;
        let secrets = tempfile::tempdir().unwrap();
        for (name, text) in [("secret", SECRET), ("short", "1234567")] {
            let path = secrets.path().join(name);
            std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let target = target(&world, &upstream, &with, secrets.path());
        let lookup = Arc::new(Names(Mutex::new(with.lookups.clone().into())));
        let config = GatewayConfig { loopback: true, traceparent: Some(|| Some(TRACE.to_owned())), ..GatewayConfig::default() };
        let apis = HttpApis::new(&config, world.authority.clone(), vec![target.clone()], lookup, Arc::new(Quiet)).unwrap();
        Self { world, upstream, apis, secrets, target }
    }

    /// Reloads: these policies, and the one target as this.
    pub(crate) async fn reload(&self, policies: &str, target: &HttpTarget) {
        self.reload_policies(policies).await;
        self.apis.replace(vec![target.clone()]).unwrap();
    }

    /// The first half of it.
    pub(crate) async fn reload_policies(&self, policies: &str) {
        let files = [("intents/triage.toml", INTENT), ("main.cedar", policies), ("targets/api.toml", TARGET)];
        let file = |(path, text): (&str, &str)| SourceFile { path: path.into(), text: text.into() };
        let policy = Policy::compile(&Sources { files: files.map(file).into() }).unwrap().policy;
        self.world.authority.reload_policy(policy, &Actor::System).await.unwrap();
    }

    /// A client of agent `bot` with an open task about repository `r1`.
    pub(crate) async fn client(&self) -> Client<'_> {
        self.client_of("bot").await
    }

    pub(crate) async fn client_of(&self, agent: &str) -> Client<'_> {
        Client { setup: self, issued: self.world.issue(agent, task_request("triage", json!({ "repo": "r1" }))).await.unwrap() }
    }

    pub(crate) async fn end_task(&self, client: &Client<'_>) {
        self.world.authority.end_task(client.task(), &Actor::System, EndReason::Revoked).await.unwrap();
    }

    /// Events of the log of this type.
    pub(crate) fn logged(&self, kind: &str) -> Vec<Value> {
        self.world.ledger.events().into_iter().filter(|event| event["type"] == kind).collect()
    }

    /// How the last request ended, as the log has it.
    pub(crate) async fn outcome(&self) -> String {
        let waiting = async {
            loop {
                let decided = self
                    .logged("decision")
                    .iter()
                    .filter(|event| event["outcome"] == "allow" && event["operation"] == "http.request")
                    .count();
                let outcomes = self.logged("outcome");
                if outcomes.len() >= decided && decided > 0 {
                    return outcomes.last().unwrap()["status"].as_str().unwrap().to_owned();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("an outcome")
    }
}

/// The target, read from its file as the binary does it: what policy reads, and the rest.
pub(crate) fn target(world: &World, upstream: &Upstream, with: &With, secrets: &Path) -> HttpTarget {
    let connect = format!(
        "url = \"https://{}:{}/v1\"\naddresses = [\"{}\"]\ntrace = {}\nauth = {{ {} }}",
        with.host,
        upstream.port,
        with.named,
        with.trace,
        with.auth.replace("PORT", &upstream.port.to_string())
    );
    let connect: ConnectTable = toml::from_str(&connect).unwrap();
    let name = "api".parse().unwrap();
    let offers = &world.authority.policy().target(&name).unwrap().offers.clone();
    let file: toml::Table = toml::from_str(TARGET).unwrap();
    let own = |offer: &Offer| {
        let mut own = file["offers"][offer.name.as_str()].as_table().unwrap().clone();
        own.retain(|key, _| !["description", "reading", "sink", "params"].contains(&key));
        (own.try_into::<RouteTable>().unwrap(), offer.clone())
    };
    let roots = if with.trusted { vec![upstream.certificate.clone()] } else { Vec::new() };
    HttpTarget::new(name, (connect, roots), with.limits, offers.values().map(own).collect(), secrets)
        .unwrap_or_else(|faults| panic!("{faults:?}"))
}

pub(crate) struct Client<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) issued: Issued,
}

/// What the task got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether it broke off.
    pub(crate) cut: bool,
}

impl Got {
    pub(crate) async fn of(response: Response<ApiBody>) -> Self {
        let (parts, mut body) = response.into_parts();
        let (mut bytes, mut cut) = (Vec::new(), false);
        while let Some(frame) = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap() {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
                Err(_) => {
                    cut = true;
                    break;
                }
            }
        }
        Self { status: parts.status, headers: parts.headers, body: bytes, cut }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn reason(&self) -> String {
        serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|body| body["reason"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

pub(crate) fn info() -> ConnectionInfo {
    ConnectionInfo { certificate: None, remote: ([127, 0, 0, 1], 1).into() }
}

impl Client<'_> {
    pub(crate) fn task(&self) -> TaskId {
        self.issued.claims.task.parse().unwrap()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let token = self.issued.token.expose_secret();
        let uri = format!("{ISSUER}{}", path.split('?').next().unwrap());
        let proof = self.setup.world.holder.proof(method, &uri, self.setup.world.now(), Some(token));
        let request = Request::builder().method(method).uri(path).header("host", "writ.test");
        request.header("authorization", format!("DPoP {token}")).header("dpop", proof)
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<ApiBody> {
        tokio::time::timeout(Duration::from_secs(20), self.setup.apis.handle(request, info())).await.unwrap()
    }

    pub(crate) async fn go(&self, request: http::request::Builder, body: &str) -> Got {
        Got::of(self.send(request.body(Full::from(body.to_owned())).unwrap()).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.go(self.request("GET", path), "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Got {
        let request = self.request("POST", path).header("content-type", "application/json");
        self.go(request, &body.to_string()).await
    }
}
