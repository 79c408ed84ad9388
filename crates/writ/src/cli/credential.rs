//! `writ credential`: for a command under `writ exec`, the credentials of its own task; for operators, all of them.

use super::output::{self, Form, member, table};
use super::{Common, Failure};
use crate::client::{Operator, segment};
use crate::credential::{self, Manner, Task, Wanted};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use std::num::NonZeroU32;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
A command that runs under `writ exec` asks for its own task (WRIT_TASK_URL); otherwise an operator asks for all.
Most commands need none of this: `writ exec --credential TARGET/OFFER` puts credentials where their clients look.

Examples:
  writ credential request orders-db/read_orders --credential-param region=eu > cred.json
  writ credential list
  writ credential return grt_0199…")]
pub(crate) enum CredentialCommand {
    /// What this task could be given
    Offers,
    /// Ask for a credential; prints all of it, secrets included, as one JSON document, once
    Request(RequestArgs),
    /// Credentials, newest first, without secrets
    List {
        /// Only such that are not proved dead at their target.
        #[arg(long)]
        standing: bool,
        /// Only at this target.
        #[arg(long)]
        target: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// One credential, without secrets
    Show {
        /// Its id, `grt_…`.
        credential: String,
    },
    /// Give a credential of this task back before the task ends
    Return {
        /// Its id, `grt_…`.
        credential: String,
    },
    /// Revoke a credential, as an operator
    Revoke {
        /// Its id, `grt_…`.
        credential: String,
    },
}

/// What is asked for.
#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// TARGET/OFFER.
    #[arg(value_name = "TARGET/OFFER", value_parser = Wanted::parse)]
    wanted: Wanted,
    /// What is said about it; repeat for more.
    #[arg(long = "credential-param", value_name = "NAME=VALUE", value_parser = super::pair)]
    parameters: Vec<(String, String)>,
    /// How long it shall live at most, in seconds; as long as the offer allows if absent.
    #[arg(long = "lifetime", value_name = "SECS")]
    lifetime_secs: Option<u64>,
    /// Iterations of a SCRAM verifier. Our secrets are random, so that one is enough; some clients (JDBC) insist on 4096.
    #[arg(long, value_name = "N", default_value_t = credential::secret::SCRAM_ITERATIONS)]
    scram_iterations: NonZeroU32,
}

/// Where a command asks.
enum Asked {
    /// For the task under which it runs.
    Task(Task),
    /// For all.
    Operator(Box<Operator>),
}

impl Asked {
    fn configured(common: &Common) -> Result<Self, Failure> {
        Ok(match Task::surrounding() {
            Some(task) => Self::Task(task),
            None => Self::Operator(Box::new(Operator::configured(common)?)),
        })
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        match self {
            Self::Task(task) => task.api(Method::GET, path, None).await,
            Self::Operator(operator) => operator.get(&format!("/v1{path}")).await,
        }
    }
}

fn task() -> Result<Task, Failure> {
    Task::surrounding().ok_or_else(|| {
        Failure::usage("this command asks for the task under which it runs, and there is none")
            .why("WRIT_TASK_URL is not set")
            .next("run it under `writ exec --intent NAME … -- COMMAND`")
    })
}

pub(crate) async fn run(common: &Common, command: CredentialCommand) -> Result<ExitCode, Failure> {
    let form = common.form();
    match command {
        CredentialCommand::Offers => offered(form, &task()?.api(Method::GET, "/offers", None).await?),
        CredentialCommand::Request(args) => {
            crate::system::seal_memory();
            let manner = Manner { lifetime_secs: args.lifetime_secs, scram_iterations: args.scram_iterations };
            for wanted in Wanted::with_parameters(vec![args.wanted], &args.parameters)? {
                let held = credential::request(&task()?, &wanted, manner).await?;
                output::line(held.to_json().trim_end());
            }
        }
        CredentialCommand::List { standing, target, limit } => {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &limit.to_string());
            query.extend_pairs(standing.then_some(("standing", "true")));
            query.extend_pairs(target.map(|target| ("target", target)));
            listed(form, &Asked::configured(common)?.get(&format!("/credentials?{}", query.finish())).await?);
        }
        CredentialCommand::Show { credential } => {
            shown(form, &Asked::configured(common)?.get(&format!("/credentials/{}", segment(&credential))).await?);
        }
        CredentialCommand::Return { credential } => {
            let path = format!("/credentials/{}", segment(&credential));
            shown(form, &task()?.api(Method::DELETE, &path, None).await?);
        }
        CredentialCommand::Revoke { credential } => {
            let operator = Operator::configured(common)?;
            shown(form, &operator.post(&format!("/v1/credentials/{}/revoke", segment(&credential))).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn offered(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let rows = super::items(page).map(|offer| {
        let name = format!("{}/{}", member(offer, "/target"), member(offer, "/offer"));
        let parameters = offer.get("parameters").and_then(Value::as_object).into_iter().flatten();
        let parameters: Vec<_> = parameters.map(|(name, _)| output::tame(name)).collect();
        vec![name, member(offer, "/kind"), parameters.join(", "), member(offer, "/lifetime_secs"), member(offer, "/description")]
    });
    table(&["CREDENTIAL", "KIND", "PARAMETERS", "SECONDS", "WHAT IT IS"], rows.collect(), "this task can be given no credential");
}

fn listed(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let columns = ["/id", "/agent", "/target", "/offer", "/granted_at", "/expires_at", "/revoked_because", "/at_target/state"];
    let headers = ["CREDENTIAL", "AGENT", "TARGET", "OFFER", "GRANTED", "EXPIRES", "REVOKED", "AT TARGET"];
    let rows = super::items(page).map(|one| columns.iter().map(|column| member(one, column)).collect()).collect();
    table(&headers, rows, "no credential");
}

fn shown(form: Form, credential: &Value) {
    if form == Form::Json {
        return output::json(credential);
    }
    for (label, pointer) in [
        ("credential", "/id"),
        ("task", "/task"),
        ("agent", "/agent"),
        ("target", "/target"),
        ("offer", "/offer"),
        ("name there", "/handle"),
        ("decision", "/decision"),
        ("granted", "/granted_at"),
        ("expires", "/expires_at"),
        ("revoked", "/revoked_at"),
        ("because", "/revoked_because"),
        ("at target", "/at_target/state"),
        ("next try", "/at_target/next_try_at"),
    ] {
        let text = member(credential, pointer);
        if !text.is_empty() {
            output::line(&format!("{label:<10} {text}"));
        }
    }
}
