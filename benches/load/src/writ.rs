//! Writ under load: the release binary as a process of its own, with a configuration made for the run.

use crate::client::{Connection, Load, run};
use crate::report::{Row, table};
use crate::target::Target;
use crate::upstream;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use testkit::{Holder, TestIssuer};
use tokio::process::{Child, Command};

pub(crate) struct Server {
    process: Child,
    at: SocketAddr,
    url: String,
    issuer: Arc<TestIssuer>,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

const POLICY: &str = r#"
@id("open")
permit (principal, action in [Writ::Action::"open", Writ::Action::"renew"], resource);
@id("echo")
permit (principal is Intent::Load, action == Echo::Action::"echo", resource) when { context.input.text != principal.forbidden };
"#;
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
const LABELS: &str = "[tools.echo]\nsensitivity = \"public\"\nuntrusted = false\nsink = \"none\"\n";

impl Server {
    /// Starts the binary beside this one and waits until it is ready.
    pub(crate) async fn start(folder: &Path, upstream: SocketAddr) -> Result<Self> {
        let issuer = TestIssuer::new("https://issuer.bench");
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at: SocketAddr = ([127, 0, 0, 1], port).into();
        write_configuration(folder, &issuer, at, upstream)?;
        let binary = binary()?;
        let process = Command::new(&binary)
            .args(["serve", "--config"])
            .arg(folder.join("writ.toml"))
            .env("WRIT_LOG", "warn")
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        let server = Self { process, at, url: format!("http://{at}"), issuer: Arc::new(issuer) };
        server.wait_ready().await?;
        Ok(server)
    }

    async fn wait_ready(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if tokio::net::TcpStream::connect(self.at).await.is_ok() {
                println!("writ is up after {} ms", began.elapsed().as_millis());
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("writ does not listen on {}", self.at)
    }

    fn exchange_target(&self, agent: &'static str, holder: Option<Arc<Holder>>) -> Target {
        let (issuer, url) = (Arc::clone(&self.issuer), self.url.clone());
        let uri = format!("{url}/oauth/token");
        let headers = move || {
            holder.as_ref().map(|holder| format!("dpop: {}\r\n", holder.proof("POST", &uri, now(), None))).unwrap_or_default()
        };
        let details = "%5B%7B%22type%22%3A%22writ_task%22%2C%22intent%22%3A%22load%22%2C%22parameters%22%3A%7B%7D%7D%5D";
        let body = move || {
            let evidence = issuer.token(&format!("workload:{agent}"), &url, now());
            format!(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={evidence}\
                 &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&authorization_details={details}"
            )
        };
        Target::with(self.at, "/oauth/token", headers).body(body)
    }

    async fn token(&self, agent: &'static str, holder: Option<Arc<Holder>>) -> Result<String> {
        Ok(self.task(agent, holder).await?.0)
    }

    /// Opens a task: its token and its id.
    async fn task(&self, agent: &'static str, holder: Option<Arc<Holder>>) -> Result<(String, String)> {
        let target = self.exchange_target(agent, holder);
        let (_, body) = Connection::open(&target).await?.exchange(&target.request()).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let text = |at: &str| answer.pointer(at).and_then(Value::as_str).map(str::to_owned).context("the answer has no token");
        Ok((text("/access_token")?, text("/authorization_details/0/task")?))
    }

    /// Initialises a session and gives the target of its calls.
    async fn session(&self, headers: impl Fn() -> String + Clone + Send + Sync + 'static) -> Result<Target> {
        let initialize = json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "load", "version": "1" } },
        });
        let start = Target::with(self.at, "/mcp/echo", headers.clone()).body(move || initialize.to_string());
        let (head, _) = Connection::open(&start).await?.exchange(&start.request()).await?;
        let session =
            head.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).context("no session")?.trim().to_owned();
        let headers = move || format!("{}mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n", headers());
        Ok(Target::with(self.at, "/mcp/echo", headers))
    }

    pub(crate) async fn bearer(&self) -> Result<Target> {
        let token = self.token("loose", None).await?;
        self.session(move || format!("authorization: Bearer {token}\r\n")).await
    }

    pub(crate) async fn dpop(&self) -> Result<Target> {
        let holder = Arc::new(Holder::default());
        let token = self.token("bound", Some(Arc::clone(&holder))).await?;
        let uri = format!("{}/mcp/echo", self.url);
        self.session(move || {
            format!("authorization: DPoP {token}\r\ndpop: {}\r\n", holder.proof("POST", &uri, now(), Some(&token)))
        })
        .await
    }

    /// Token exchanges: verify, decide, log, include, sign.
    pub(crate) async fn measure_exchanges(&self, clients: &[usize], time: Duration) -> Result<()> {
        let holder = Arc::new(Holder::default());
        for clients in clients.iter().copied().filter(|clients| *clients > 1) {
            let mut row = Row::new("token exchange, DPoP");
            row.add(run(&self.exchange_target("bound", Some(Arc::clone(&holder))), &Load { clients, time }).await?);
            table(&format!("token exchanges, {clients} clients"), &[row]);
        }
        Ok(())
    }

    /// Decisions through the API (AuthZEN), each durably logged.
    pub(crate) async fn measure_decisions(&self, clients: &[usize], time: Duration) -> Result<()> {
        let (token, task) = self.task("loose", None).await?;
        let request = json!({
            "subject": { "type": "task", "id": task },
            "action": { "name": "tools/call" },
            "resource": { "type": "tool", "id": "echo/echo", "properties": { "arguments": { "text": "hello" } } },
        });
        let target = Target::with(self.at, "/access/v1/evaluation", move || format!("authorization: Bearer {token}\r\n"));
        let target = target.body(move || request.to_string());
        for clients in clients.iter().copied() {
            let mut row = Row::new("decision, logged");
            row.add(run(&target, &Load { clients, time }).await?);
            table(&format!("decisions through the API, {clients} clients"), &[row]);
        }
        Ok(())
    }

    /// Resident memory with so many open tasks.
    pub(crate) async fn measure_memory(&self, tasks: usize) -> Result<()> {
        let target = self.exchange_target("loose", None);
        let mut connection = Connection::open(&target).await?;
        for _ in 0..tasks {
            connection.exchange(&target.request()).await?;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id().context("writ has stopped")?))?;
        let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS unknown");
        println!("\nwith {tasks} more open tasks: {}", resident.split_whitespace().collect::<Vec<_>>().join(" "));
        Ok(())
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.process.kill().await?;
        Ok(())
    }
}

fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name("writ"))
}

fn write_configuration(folder: &Path, issuer: &TestIssuer, at: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let echo = "echo".parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let agent = |name: &str, bearer: bool| {
        format!(
            "owner = \"bench\"\npurpose = \"load\"\nreview_by = \"2099-01-01\"\nintents = [\"load\"]\nallow_bearer = {bearer}\n\
             [[identity]]\nprovider = \"bench\"\nclaims = {{ sub = \"workload:{name}\" }}\n"
        )
    };
    let configuration = format!(
        "[server]\nlisten = \"{at}\"\npublic_url = \"http://{at}\"\n[data]\ndir = \"data\"\n[policy]\ndir = \"policy\"\n[agents]\ndir = \"agents\"\n\
         [tokens]\nlifetime_secs = 3600\n\
         [[provider]]\nname = \"bench\"\nkind = \"oidc\"\nissuer = \"{}\"\njwks_file = \"jwks.json\"\n\
         [[upstream]]\nname = \"echo\"\nowner = \"bench\"\nurl = \"http://{upstream}/mcp\"\n",
        issuer.issuer
    );
    let files = [
        ("writ.toml", configuration),
        ("jwks.json", issuer.jwks()),
        ("agents/loose.toml", agent("loose", true)),
        ("agents/bound.toml", agent("bound", false)),
        ("policy/main.cedar", POLICY.into()),
        ("policy/intents/load.toml", INTENT.into()),
        ("policy/tools/echo.toml", LABELS.into()),
        ("policy/tools/echo.lock.json", policy::render_lock(&echo, &[upstream::definition()])),
    ];
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}
