//! `writ agent`: the inventory of agents over the REST API.

use super::output::{self, Form, member, table};
use super::{Common, Failure};
use crate::client::{Operator, segment};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// All agents, with their owners, review dates and flags
    List,
    /// One agent
    Show {
        /// Its name.
        agent: String,
    },
    /// Register an agent, or replace its record
    Put(Box<PutArgs>),
    /// Stop an agent: its tasks end at once, and it gets no new ones
    Suspend {
        /// Its name.
        agent: String,
    },
    /// Let a suspended agent open tasks again
    Resume {
        /// Its name.
        agent: String,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  writ agent put ci-fixer --owner platform --purpose 'Repairs broken builds' --review-by 2027-03-31 \\\n      --intent fix-build --provider github --claim repository_id=123456 --claim ref=refs/heads/main"
)]
pub(crate) struct PutArgs {
    /// Its name.
    agent: String,
    /// The team or person who answers for it.
    #[arg(long)]
    owner: String,
    /// Why it exists, in a sentence.
    #[arg(long)]
    purpose: String,
    /// Until when its registration was reviewed, `YYYY-MM-DD`.
    #[arg(long, value_name = "DATE")]
    review_by: String,
    /// An intent that it may declare; repeat for more.
    #[arg(long = "intent", value_name = "NAME")]
    intents: Vec<String>,
    /// The provider that must vouch for it.
    #[arg(long)]
    provider: String,
    /// A claim that must match exactly; repeat for more. `sub` is the subject or SPIFFE ID.
    #[arg(long = "claim", value_name = "NAME=VALUE", required = true, value_parser = super::pair)]
    claims: Vec<(String, String)>,
    /// Let it hold tokens that are not bound to a key. Flagged wherever it is shown.
    #[arg(long)]
    allow_bearer: bool,
}

pub(crate) async fn run(common: &Common, command: AgentCommand) -> Result<ExitCode, Failure> {
    let server = Operator::configured(common)?;
    let form = common.form();
    match command {
        AgentCommand::List => {
            let agents = server.all("/v1/agents").await?;
            listed(form, &agents);
        }
        AgentCommand::Show { agent } => shown(form, &server.get(&format!("/v1/agents/{}", segment(&agent))).await?),
        AgentCommand::Put(args) => {
            let path = format!("/v1/agents/{}", segment(&args.agent));
            shown(form, &server.send(Method::PUT, &path, &record(&args)).await?);
        }
        AgentCommand::Suspend { agent } => shown(form, &server.post(&format!("/v1/agents/{}/suspend", segment(&agent))).await?),
        AgentCommand::Resume { agent } => shown(form, &server.post(&format!("/v1/agents/{}/resume", segment(&agent))).await?),
    }
    Ok(ExitCode::SUCCESS)
}

fn record(args: &PutArgs) -> Value {
    let claims: Map<String, Value> = args.claims.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    json!({
        "owner": args.owner, "purpose": args.purpose, "review_by": args.review_by, "intents": args.intents,
        "identity": [{ "provider": args.provider, "claims": claims }], "allow_bearer": args.allow_bearer,
    })
}

fn listed(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let columns = ["/id", "/owner", "/state", "/review_by", "/intents", "/flags", "/not_eligible_because"];
    let headers = ["AGENT", "OWNER", "STATE", "REVIEW BY", "INTENTS", "FLAGS", "MAY NOT ACT BECAUSE"];
    let rows = super::items(page).map(|agent| columns.iter().map(|column| member(agent, column)).collect()).collect();
    table(&headers, rows, "no agent is registered");
}

fn shown(form: Form, agent: &Value) {
    if form == Form::Json {
        return output::json(agent);
    }
    output::line(&format!("agent      {}", member(agent, "/id")));
    for (label, pointer) in [
        ("owner", "/owner"),
        ("purpose", "/purpose"),
        ("state", "/state"),
        ("review by", "/review_by"),
        ("intents", "/intents"),
        ("flags", "/flags"),
        ("may not act because", "/not_eligible_because"),
    ] {
        let text = member(agent, pointer);
        if !text.is_empty() {
            output::line(&format!("{label:<10} {text}"));
        }
    }
    for rule in agent.get("identity").and_then(Value::as_array).into_iter().flatten() {
        output::line(&format!("identity   {} {}", member(rule, "/provider"), member(rule, "/claims")));
    }
}
