//! The command line: what there is to say, and to whom each command hands it. Owns names, help and exit codes; each
//! command lives in its own module and knows nothing of the others.

mod agent;
mod audit;
mod credential;
mod demo;
mod exec;
mod failure;
pub(crate) mod init;
pub(crate) mod output;
mod policy;
mod redis_gate;
mod serve;
mod ssh_host;
mod target;
mod task;
mod upstream;

pub(crate) use failure::{Exit, Failure};

use crate::config::{self, Config};
use clap::{Args, CommandFactory, Parser, Subcommand};
use output::Form;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

const ABOUT: &str = "Access governance for AI agents: prove who asks, decide each call, log it first, end it all at once.";

const EXAMPLES: &str = "\
Start here:
  writ demo                                  see the whole story on this machine
  writ init my-writ                          write a working configuration and policy folder
  writ serve --config my-writ/writ.toml      serve it
  writ exec --intent refund-order --param order_id=A-1001 --upstream orders --dev support-bot -- claude
                                             run an unmodified MCP client with access for one task

Exit codes:
  0  done, or what was checked is so
  1  failed, or what was checked is not so
  2  the command line or a configuration file is wrong; nothing was done
  3  audit verify: valid, but not witnessed
  4  audit verify: valid, but stale
  exec exits with the code of its command.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "writ", version, about = ABOUT, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "WRIT_CONFIG", default_value = "writ.toml")]
    pub(crate) config: PathBuf,
    /// Answer with one JSON document; errors are JSON on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Common {
    /// The form of results.
    pub(crate) fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Human }
    }

    /// The configuration.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Ok(config::load(&self.config)?)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve everything on one listener: gateway, OAuth, REST, log
    Serve(serve::ServeArgs),
    /// Tell the whole story on this machine: proofs, decisions, refusals, the log
    Demo(demo::DemoArgs),
    /// Write a working, commented configuration and policy folder
    Init(init::InitArgs),
    /// Run a command with access for one task, which ends when the command ends
    Exec(Box<exec::ExecArgs>),
    /// The inventory of agents: list, show, register, suspend, resume
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Tasks: list, show, end
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Credentials in real systems: offers, request, list, show, return, revoke
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Systems in which credentials are issued: list, show, install, doctor, probe, scan
    #[command(subcommand)]
    Target(target::TargetCommand),
    /// MCP servers behind the gateway: list, tools, diff, accept, add, remove
    #[command(subcommand)]
    Upstream(upstream::UpstreamCommand),
    /// Policy as code: check, test, explain, schema, reload
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// The log: verify it offline, search it, show and prove entries, redact values
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Stand between Writ and Redis: the only process that may change users there
    RedisGate(redis_gate::RedisGateArgs),
    /// On a host: fetch the list of revoked SSH certificates and end their sessions
    SshHost(ssh_host::SshHostArgs),
    /// Print shell completions
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && json_is_wanted() => return misused(&error).report(Form::Json),
        Err(error) => error.exit(),
    };
    let form = cli.common.form();
    let outcome = dispatch(cli).and_then(|code| if code == ExitCode::SUCCESS { all_printed().map(|()| code) } else { Ok(code) });
    outcome.unwrap_or_else(|failure| failure.report(form))
}

/// Whether a command line that could not be read asks for JSON. What a command of `exec` is given says nothing about that.
fn json_is_wanted() -> bool {
    std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// What is wrong with the command line, in clap's words.
fn misused(error: &clap::Error) -> Failure {
    let told = error.render().to_string();
    let mut lines = told.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")).filter(|line| !line.is_empty());
    let what = lines.next().unwrap_or_default();
    let failure = Failure::usage(what.strip_prefix("error: ").unwrap_or(what));
    lines.fold(failure, Failure::why).next("`--help` shows how it is used")
}

/// # Errors
/// Some of what was printed did not arrive.
fn all_printed() -> Result<(), Failure> {
    match output::lost() {
        None => Ok(()),
        Some(error) => Err(Failure::new("the results could not be written").why(error.to_string())),
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let common = &cli.common;
    match cli.command {
        Command::Serve(args) => block_on(serve::run(common, args)),
        Command::Demo(args) => block_on(demo::run(common, args)),
        Command::Init(args) => init::run(common, &args),
        Command::Exec(args) => block_on(exec::run(common, *args)),
        Command::Agent(command) => block_on(agent::run(common, command)),
        Command::Task(command) => block_on(task::run(common, command)),
        Command::Credential(command) => block_on(credential::run(common, command)),
        Command::Target(command) => block_on(target::run(common, command)),
        Command::Upstream(command) => block_on(upstream::run(common, command)),
        Command::Policy(command) => block_on(policy::run(common, command)),
        Command::Audit(command) => block_on(audit::run(common, command)),
        Command::RedisGate(args) => block_on(redis_gate::run(args)),
        Command::SshHost(args) => block_on(ssh_host::run(args)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "writ", &mut script);
            output::raw(&script);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// `NAME=VALUE` of the command line.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() { Err("the name is empty".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

/// The items of a page of the REST API.
fn items(page: &Value) -> impl Iterator<Item = &Value> {
    page.get("items").and_then(Value::as_array).into_iter().flatten()
}

fn block_on(future: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("the runtime cannot be started").why(error.to_string()))?;
    let outcome = runtime.block_on(future);
    // What still runs (a read of standard input, a name look-up) must not keep the process.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
