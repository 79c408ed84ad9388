//! Writ under load: the shipped binary as a process of its own, with a configuration made for the run.

use crate::child::{Server, free_port};
use crate::client::{Connection, header};
use crate::target::Target;
use crate::tls::Tls;
use crate::upstream;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use testkit::{Holder, TestIssuer};

/// Tools of the upstream, each with a policy of its own: as many as the other decision service has.
pub(crate) const TOOLS: usize = 100;
/// Agents that exchange tokens: an agent may have so many open tasks only.
pub(crate) const SWAPPERS: usize = 4;

pub(crate) struct Writ {
    server: Arc<Server>,
    url: String,
    issuer: Arc<TestIssuer>,
    tls: Option<Tls>,
}

/// How a client begins.
pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"load","version":"1"}}}"#;

/// Unix seconds.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

const INTENT: &str = r#"
name = "load"
description = "Puts load on the gateway."
owner = "bench"
reach = ["echo"]
[params.forbidden]
type = "string"
description = "A text that must not be said."
default = "forbidden"
[limits]
lifetime_secs = 86400
calls = 1000000
"#;

/// How a token is bound.
#[derive(Clone)]
pub(crate) enum Held {
    Bearer,
    Dpop(Arc<Holder>),
    /// By the certificate of the connection.
    Certificate,
}

impl Writ {
    /// Starts it over TLS if there are certificates, and says how long that took.
    pub(crate) async fn start(folder: &Path, upstream: SocketAddr, tls: Option<Tls>) -> Result<Self> {
        let issuer = TestIssuer::new("https://issuer.bench");
        let at = free_port()?;
        let url = format!("{}://{at}", if tls.is_some() { "https" } else { "http" });
        std::fs::create_dir_all(folder)?;
        write_configuration(folder, &issuer, (at, &url), upstream, tls.as_ref())?;
        let began = Instant::now();
        let server = Server::writ(&folder.join("writ.toml"), at).await?;
        println!("writ listens on {url} after {} ms", began.elapsed().as_millis());
        Ok(Self { server: Arc::new(server), url, issuer: Arc::new(issuer), tls })
    }

    fn target(&self, path: &str) -> Target {
        Target::new(&self.server, self.tls.as_ref().map(|tls| tls.connector.clone()), path)
    }

    /// Token exchanges of an agent: verify, decide, log, include, sign.
    pub(crate) fn exchanges(&self, agent: &str, held: &Held) -> Target {
        let (issuer, url, agent) = (Arc::clone(&self.issuer), self.url.clone(), agent.to_owned());
        let (uri, held) = (format!("{url}/oauth/token"), held.clone());
        let headers = move || match &held {
            Held::Dpop(holder) => format!("dpop: {}\r\n", holder.proof("POST", &uri, now(), None)),
            Held::Bearer | Held::Certificate => String::new(),
        };
        let details = "%5B%7B%22type%22%3A%22writ_task%22%2C%22intent%22%3A%22load%22%2C%22parameters%22%3A%7B%7D%7D%5D";
        let body = move || {
            let evidence = issuer.token(&format!("workload:{agent}"), &url, now());
            format!(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={evidence}\
                 &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&authorization_details={details}"
            )
        };
        self.target("/oauth/token").headers(headers).body(body)
    }

    /// Opens a task: its token and its id.
    async fn task(&self, agent: &str, held: &Held) -> Result<(String, String)> {
        let target = self.exchanges(agent, held);
        let (_, body) = Connection::open(&target).await?.exchange(&target.request()).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let text = |at: &str| answer.pointer(at).and_then(Value::as_str).map(str::to_owned).context("the answer has no token");
        Ok((text("/access_token")?, text("/authorization_details/0/task")?))
    }

    /// Governed calls with a token that is held like this, within a session.
    pub(crate) async fn calls(&self, held: Held) -> Result<Target> {
        let agent = if matches!(held, Held::Bearer) { "loose" } else { "bound" };
        let (token, _) = self.task(agent, &held).await?;
        let uri = format!("{}/mcp/echo", self.url);
        let headers = move || match &held {
            Held::Dpop(holder) => {
                let proof = holder.proof("POST", &uri, now(), Some(&token));
                format!("authorization: DPoP {token}\r\ndpop: {proof}\r\n")
            }
            Held::Bearer | Held::Certificate => format!("authorization: Bearer {token}\r\n"),
        };
        let start = self.target("/mcp/echo").headers(headers.clone()).body(|| INITIALIZE.into());
        let (head, _) = Connection::open(&start).await?.exchange(&start.request()).await?;
        let session = header(&head, "mcp-session-id").context("no session")?.to_owned();
        let headers = move || format!("{}mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n", headers());
        Ok(self.target("/mcp/echo").headers(headers))
    }

    /// Decisions through the API (AuthZEN), each durably logged.
    pub(crate) async fn decisions(&self) -> Result<Target> {
        let (token, task) = self.task("loose", &Held::Bearer).await?;
        let request = json!({
            "subject": { "type": "task", "id": task },
            "action": { "name": "tools/call" },
            "resource": { "type": "tool", "id": "echo/echo", "properties": { "arguments": { "text": "hello" } } },
        });
        let target = self.target("/access/v1/evaluation").headers(move || format!("authorization: Bearer {token}\r\n"));
        Ok(target.body(move || request.to_string()))
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        self.server.resident()
    }
}

/// One permit for each tool, on three attributes.
fn policies() -> String {
    let open = "@id(\"open\")\npermit (principal, action in [Writ::Action::\"open\", Writ::Action::\"renew\"], resource);\n";
    let one = |tool: String| {
        format!(
            "@id(\"{tool}\")\npermit (principal is Intent::Load, action == Echo::Action::\"{tool}\", resource)\n\
             when {{ context.input.text != principal.forbidden && resource.sink == \"none\" && context.facts.calls_used < 1000000 }};\n"
        )
    };
    tools().map(one).fold(open.to_owned(), |all, one| all + &one)
}

fn tools() -> impl Iterator<Item = String> {
    (0..TOOLS).map(|number| if number == 0 { "echo".to_owned() } else { format!("echo{number}") })
}

fn write_configuration(
    folder: &Path,
    issuer: &TestIssuer,
    (at, url): (SocketAddr, &str),
    upstream: SocketAddr,
    tls: Option<&Tls>,
) -> Result<()> {
    let echo = "echo".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let tls = tls.map_or_else(String::new, |tls| {
        let (cert, key) = (tls.cert.display(), tls.key.display());
        format!("[server.tls]\ncert = \"{cert}\"\nkey = \"{key}\"\nclient_certs = \"request\"\n")
    });
    let configuration = format!(
        "[server]\nlisten = \"{at}\"\npublic_url = \"{url}\"\n{tls}[data]\ndir = \"data\"\n[policy]\ndir = \"policy\"\n[agents]\ndir = \"agents\"\n\
         [tokens]\nlifetime_secs = 3600\n\
         [[provider]]\nname = \"bench\"\nkind = \"oidc\"\nissuer = \"{}\"\njwks_file = \"jwks.json\"\n\
         [[upstream]]\nname = \"echo\"\nowner = \"bench\"\nurl = \"http://{upstream}/mcp\"\n",
        issuer.issuer
    );
    let definitions: Vec<Value> = tools().map(|tool| upstream::definition(&tool)).collect();
    let labels: String =
        tools().map(|tool| format!("[tools.{tool}]\nsensitivity = \"public\"\nuntrusted = false\nsink = \"none\"\n")).collect();
    let agents = ["loose".to_owned(), "bound".to_owned()].into_iter().chain((0..SWAPPERS).map(|number| format!("swap{number}")));
    let agent_files = agents.map(|name| {
        let text = format!(
            "owner = \"bench\"\npurpose = \"load\"\nreview_by = \"2099-01-01\"\nintents = [\"load\"]\nallow_bearer = {}\n\
             [[identity]]\nprovider = \"bench\"\nclaims = {{ sub = \"workload:{name}\" }}\n",
            name == "loose"
        );
        (format!("agents/{name}.toml"), text)
    });
    let files = [
        ("writ.toml".to_owned(), configuration),
        ("jwks.json".to_owned(), issuer.jwks()),
        ("policy/main.cedar".to_owned(), policies()),
        ("policy/intents/load.toml".to_owned(), INTENT.into()),
        ("policy/tools/echo.toml".to_owned(), labels),
        ("policy/tools/echo.lock.json".to_owned(), policy::render_lock(&echo, &definitions)),
    ];
    for (path, text) in files.into_iter().chain(agent_files) {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}
