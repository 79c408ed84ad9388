//! Cerbos beside Writ's decision API, if its binary is at hand (npm `@cerbos/cerbos-linux-x64`): as many resource policies
//! as Writ has tools, each with a condition on three attributes, asked over HTTP on kept-alive connections. Its audit log
//! is off, as it is by default; Writ's decisions are durable before they are answered.

use crate::child::{Server, free_port};
use crate::target::Target;
use crate::writ::TOOLS;
use anyhow::Result;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use tokio::process::Command;

/// Starts it, and gives the target of its decisions.
pub(crate) async fn start(binary: &Path, folder: &Path) -> Result<Target> {
    let policies = folder.join("policies");
    std::fs::create_dir_all(&policies)?;
    for number in 0..TOOLS {
        std::fs::write(policies.join(format!("tool{number}.yaml")), policy(number))?;
    }
    let (http, grpc) = (free_port()?, free_port()?);
    let configuration = format!(
        "server:\n  httpListenAddr: \"{http}\"\n  grpcListenAddr: \"{grpc}\"\ntelemetry:\n  disabled: true\n\
         storage:\n  driver: disk\n  disk:\n    directory: \"{}\"\n    watchForChanges: false\n",
        policies.display()
    );
    std::fs::write(folder.join("cerbos.yaml"), configuration)?;
    let mut command = Command::new(binary);
    command.args(["server", "--log-level=error", "--config"]).arg(folder.join("cerbos.yaml"));
    let server = Arc::new(Server::other(command, http).await?);
    let request = json!({
        "requestId": "load",
        "principal": { "id": "task", "roles": ["agent"], "attr": { "forbidden": "forbidden", "calls_used": 7 } },
        "resources": [{
            "actions": ["call"],
            "resource": { "kind": "tool7", "id": "echo", "attr": { "text": "hello", "sink": "none" } },
        }],
    });
    Ok(Target::new(&server, None, "/api/check/resources").body(move || request.to_string()))
}

fn policy(number: usize) -> String {
    format!(
        r#"apiVersion: api.cerbos.dev/v1
resourcePolicy:
  version: default
  resource: tool{number}
  rules:
    - actions: [call]
      effect: EFFECT_ALLOW
      roles: [agent]
      condition:
        match:
          all:
            of:
              - expr: request.resource.attr.text != request.principal.attr.forbidden
              - expr: request.resource.attr.sink == "none"
              - expr: request.principal.attr.calls_used < 1000000
"#
    )
}
