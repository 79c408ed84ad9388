//! agentgateway beside Writ, if its binary is at hand: the same tool call in front of the same upstream, on a route that
//! decides nothing, and on one that checks the caller's token (ES256, a JWKS in a file) and two rules (CEL). It keeps no
//! record of a call; its log says errors only. Calls are spread
//! over many sessions, as those of many clients are.

use crate::child::{Server, free_port};
use crate::client::{Connection, header};
use crate::target::Target;
use crate::writ::{INITIALIZE, now};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::TestIssuer;
use tokio::process::Command;

/// Sessions that the calls are spread over.
const SESSIONS: usize = 64;
const AUDIENCE: &str = "https://gateway.bench";
const AGENT: &str = "workload:agent";

/// Starts it in both forms, and gives the targets of their calls.
pub(crate) async fn start(binary: &Path, folder: &Path, upstream: SocketAddr) -> Result<Vec<(&'static str, Target)>> {
    std::fs::create_dir_all(folder)?;
    let issuer = TestIssuer::new("https://issuer.bench");
    let keys = folder.join("jwks.json");
    std::fs::write(&keys, issuer.jwks())?;
    let policies = json!({
        "jwtAuth": { "mode": "strict", "issuer": issuer.issuer, "audiences": [AUDIENCE], "jwks": { "file": keys } },
        "mcpAuthorization": { "rules": [
            format!("mcp.tool.name == \"other\" && jwt.sub == \"{AGENT}\""),
            format!("mcp.tool.name == \"echo\" && jwt.sub == \"{AGENT}\""),
        ] },
    });
    let now = now();
    let token = issuer.token_with(AGENT, AUDIENCE, now, json!({ "exp": now + 86_400 }));
    let authorization = format!("authorization: Bearer {token}\r\n");
    let plain = run(binary, &folder.join("plain.json"), upstream, &json!({})).await?;
    let governed = run(binary, &folder.join("governed.json"), upstream, &policies).await?;
    Ok(vec![
        ("agentgateway", calls(&plain, String::new()).await?),
        ("agentgateway, token and rules", calls(&governed, authorization).await?),
    ])
}

async fn run(binary: &Path, config: &Path, upstream: SocketAddr, policies: &Value) -> Result<Arc<Server>> {
    let at = free_port()?;
    let backend = json!({ "mcp": { "targets": [{ "name": "echo", "mcp": { "host": format!("http://{upstream}/mcp") } }] } });
    let routes = json!([{ "policies": policies, "backends": [backend] }]);
    let text = json!({ "binds": [{ "port": at.port(), "listeners": [{ "routes": routes }] }] });
    std::fs::write(config, text.to_string())?;
    let mut command = Command::new(binary);
    command.arg("-f").arg(config).env("RUST_LOG", "error").env("IPV6_ENABLED", "false");
    for place in ["ADMIN_ADDR", "STATS_ADDR", "READINESS_ADDR"] {
        command.env(place, free_port()?.to_string());
    }
    Ok(Arc::new(Server::other(command, at).await?))
}

/// The calls, each in the next of the sessions.
async fn calls(server: &Arc<Server>, authorization: String) -> Result<Target> {
    let headers = authorization.clone();
    let start = Target::new(server, None, "/mcp").headers(move || headers.clone()).body(|| INITIALIZE.into());
    let mut sessions = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        let (head, _) = Connection::open(&start).await?.exchange(&start.request()).await?;
        let session = header(&head, "mcp-session-id").context("no session")?;
        sessions.push(format!("{authorization}mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n"));
    }
    let turn = AtomicUsize::new(0);
    let headers = move || sessions.get(turn.fetch_add(1, Ordering::Relaxed) % SESSIONS).cloned().unwrap_or_default();
    Ok(Target::new(server, None, "/mcp").headers(headers))
}
