//! `writ task`: tasks over the REST API. Decides nothing: what an operator may do is the server's to say.

use super::output::{self, Form, member, table};
use super::{Common, Failure};
use crate::client::{Operator, segment};
use clap::Subcommand;
use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Tasks, newest first
    List {
        /// Only open ones.
        #[arg(long)]
        open: bool,
        /// Only those of this agent.
        #[arg(long)]
        agent: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// One task
    Show {
        /// Its id, `tsk_…`.
        task: String,
    },
    /// End a task: its tokens, sessions and calls in flight die at once
    End {
        /// Its id, `tsk_…`.
        task: String,
    },
}

pub(crate) async fn run(common: &Common, command: TaskCommand) -> Result<ExitCode, Failure> {
    let server = Operator::configured(common)?;
    let form = common.form();
    match command {
        TaskCommand::List { open, agent, limit } => {
            let pairs = [("open", open.then(|| "true".to_owned())), ("agent", agent), ("limit", Some(limit.to_string()))];
            listed(form, &server.query("/v1/tasks", &pairs).await?);
        }
        TaskCommand::Show { task } => shown(form, &server.get(&format!("/v1/tasks/{}", segment(&task))).await?),
        TaskCommand::End { task } => shown(form, &server.post(&format!("/v1/tasks/{}/end", segment(&task))).await?),
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let columns = ["/id", "/agent", "/intent", "/parameters", "/state", "/end_reason", "/opened_at", "/calls_used"];
    let headers = ["TASK", "AGENT", "INTENT", "PARAMETERS", "STATE", "ENDED BY", "OPENED", "CALLS"];
    let rows = super::items(page).map(|task| columns.iter().map(|column| member(task, column)).collect()).collect();
    table(&headers, rows, "no task");
}

fn shown(form: Form, task: &Value) {
    if form == Form::Json {
        return output::json(task);
    }
    for (label, pointer) in [
        ("task", "/id"),
        ("agent", "/agent"),
        ("intent", "/intent"),
        ("parameters", "/parameters"),
        ("state", "/state"),
        ("ended by", "/end_reason"),
        ("opened", "/opened_at"),
        ("deadline", "/deadline"),
        ("ended", "/ended_at"),
        ("calls", "/calls_used"),
        ("of at most", "/calls_max"),
        ("last seen", "/seen_at"),
        ("attested", "/attested_at"),
        ("workload", "/workload/subject"),
        ("read", "/read_sensitivity"),
        ("untrusted", "/read_untrusted"),
        ("replaced", "/predecessor"),
    ] {
        let text = member(task, pointer);
        if !text.is_empty() {
            output::line(&format!("{label:<10} {text}"));
        }
    }
}
