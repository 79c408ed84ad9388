//! `writ upstream`: MCP servers behind the gateway over the REST API, and the approval of what they offer.

use super::output::{self, Form, Paint, member, painted, table};
use super::{Common, Failure};
use crate::client::{Operator, segment};
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum UpstreamCommand {
    /// All upstreams and how they are doing
    List,
    /// The tools of an upstream: approved, changed, new, gone
    Tools {
        /// Its name.
        upstream: String,
    },
    /// What an upstream offers that differs from what was approved
    Diff {
        /// Its name.
        upstream: String,
    },
    /// Approve what an upstream offers now: exactly the definitions that `diff` shows, or only the named tools
    Accept {
        /// Its name.
        upstream: String,
        /// Only these tools.
        tools: Vec<String>,
    },
    /// Register an upstream over HTTP (programs can be registered only in writ.toml)
    Add {
        /// Its name.
        upstream: String,
        /// Its Streamable HTTP endpoint.
        #[arg(long)]
        url: String,
        /// Who answers for it.
        #[arg(long)]
        owner: String,
        /// The environment variable of the server that holds its bearer token; must start with WRIT_UPSTREAM_.
        #[arg(long, value_name = "VARIABLE")]
        token_env: Option<String>,
    },
    /// Remove an upstream that was registered over the API
    Remove {
        /// Its name.
        upstream: String,
    },
}

pub(crate) async fn run(common: &Common, command: UpstreamCommand) -> Result<ExitCode, Failure> {
    let server = Operator::configured(common)?;
    let form = common.form();
    let path = |name: &str, rest: &str| format!("/v1/upstreams/{}{rest}", segment(name));
    match command {
        UpstreamCommand::List => listed(form, &server.all("/v1/upstreams").await?),
        UpstreamCommand::Tools { upstream } => tools(form, &server.get(&path(&upstream, "/tools")).await?),
        UpstreamCommand::Diff { upstream } => diff(form, &server.get(&path(&upstream, "/diff")).await?),
        UpstreamCommand::Accept { upstream, tools } => {
            let offered = server.get(&path(&upstream, "/diff")).await?;
            let pins = pins(&offered, &tools)?;
            let answer = server.send(Method::POST, &path(&upstream, "/accept"), &json!({ "tools": pins })).await?;
            told(form, &answer, &format!("accepted {}", member(&answer, "/accepted")));
        }
        UpstreamCommand::Add { upstream, url, owner, token_env } => {
            let injection = token_env
                .map(|variable| json!({ "header": "authorization", "prefix": "Bearer ", "secret": { "env": variable } }));
            let record = json!({ "url": url, "owner": owner, "injection": injection });
            let answer = server.send(Method::PUT, &path(&upstream, ""), &record).await?;
            told(
                form,
                &answer,
                &format!("registered {}; its resource is {}", member(&answer, "/name"), member(&answer, "/resource")),
            );
        }
        UpstreamCommand::Remove { upstream } => {
            let answer = server.delete(&path(&upstream, "")).await?;
            told(form, &answer, &format!("removed {}", member(&answer, "/removed")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(form: Form, answer: &Value, text: &str) {
    match form {
        Form::Json => output::json(answer),
        Form::Human => output::line(text),
    }
}

/// The names and live pins of what is to be approved: what the operator was shown, not what is there later.
fn pins(offered: &Value, wanted: &[String]) -> Result<Vec<Value>, Failure> {
    let named =
        |tool: &&Value| wanted.is_empty() || wanted.iter().any(|name| tool.get("name").and_then(Value::as_str) == Some(name));
    let pins: Vec<Value> = super::items(offered)
        .filter(named)
        .filter(|tool| tool.get("live_pin").is_some_and(Value::is_string))
        .map(|tool| json!({ "name": tool.get("name"), "pin": tool.get("live_pin") }))
        .collect();
    if pins.is_empty() {
        return Err(
            Failure::new("there is nothing to accept").why("what the upstream offers is what was approved, or it is gone")
        );
    }
    Ok(pins)
}

fn listed(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let columns = ["/name", "/owner", "/transport", "/url", "/status/reachable", "/status/last_error"];
    let headers = ["UPSTREAM", "OWNER", "TRANSPORT", "URL", "REACHABLE", "LAST ERROR"];
    let rows = super::items(page).map(|upstream| columns.iter().map(|column| member(upstream, column)).collect()).collect();
    table(&headers, rows, "no upstream is registered");
}

fn tools(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let columns = ["/name", "/state", "/labels/sink", "/labels/sensitivity", "/labels/untrusted"];
    let headers = ["TOOL", "STATE", "SINK", "SENSITIVITY", "UNTRUSTED"];
    let rows = super::items(page).map(|tool| columns.iter().map(|column| member(tool, column)).collect()).collect();
    table(&headers, rows, "it offers no tool");
}

fn diff(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let colour = output::colour_on_stdout();
    let mut any = false;
    for tool in super::items(page) {
        any = true;
        output::line(&painted(&format!("{} ({})", member(tool, "/name"), member(tool, "/state")), Paint::Strong, colour));
        for difference in tool.get("differences").and_then(Value::as_array).into_iter().flatten() {
            output::line(&format!("  at {}", member(difference, "/at")));
            output::line(&painted(&format!("  - {}", member(difference, "/approved")), Paint::Bad, colour));
            output::line(&painted(&format!("  + {}", member(difference, "/live")), Paint::Good, colour));
        }
        if member(tool, "/state") == "new" {
            output::line(&painted(&format!("  + {}", member(tool, "/definition")), Paint::Good, colour));
        }
    }
    if !any {
        output::line("what it offers is what was approved");
    }
}
