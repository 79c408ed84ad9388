//! `writ exec`: runs a command with access for one task, which ends when the command ends, however it ends.

use super::output::{Form, note};
use super::{Common, Failure};
use crate::agent::bridge::{Bridge, Sender};
use crate::agent::evidence::Evidence;
use crate::agent::{Agent, Declared, stdio};
use crate::config::{Config, Kind, Provider};
use crate::credential::delivery::{Environment, Held, deliver};
use crate::credential::folder::Folder;
use crate::credential::{self, Manner, Task, Wanted};
use crate::dev_issuer::DevIssuer;
use crate::web::{Connector, connector};
use clap::Args;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::num::NonZeroU32;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  writ exec --intent refund-order --param order_id=A-1001 --param max_amount_cents=5000 --dev support-bot \\
      -- sh -c 'claude --mcp-config \"$WRIT_MCP_CONFIG\"'
  writ exec --intent report-orders --spiffe --credential orders-db/read_orders --credential-param region=eu -- psql
  writ exec --server https://writ.example.com --intent fix-build --github -- ./fix.sh
  writ exec --intent answer-ticket --param ticket_id=4710 --spiffe --stdio helpdesk      (as an MCP server program)

The command gets:
  WRIT_TASK              the task's id
  WRIT_TASK_URL          where `writ credential` asks for credentials of this task
  WRIT_MCP_<NAME>_URL    for each upstream, a local MCP endpoint that needs no token
  WRIT_MCP_CONFIG        a file {\"mcpServers\": …} with all of them, as many clients read it
  WRIT_HTTP_<NAME>_URL   for each HTTP API, a local base URL that needs no key
and for each --credential TARGET/OFFER
  WRIT_CREDENTIAL_<TARGET>_<OFFER>          a JSON file with all of it
  WRIT_CREDENTIAL_<TARGET>_<OFFER>_<FIELD>  what is no secret: HOST, PORT, USER, …
  PGHOST… PGPASSFILE, MYSQL_HOME, REDISCLI_AUTH, WRIT_SSH_CONFIG, AWS_SHARED_CREDENTIALS_FILE, GH_TOKEN, KUBECONFIG
                                            whatever its client reads by itself (docs/targets)

The secret of a database login, an SSH key and the key of a certificate are made here; the server gets what checks them.
Files are in a private folder that is removed when the command ends, also if this process is killed.

The command never gets a token. The task ends with the command; if this process itself is killed, the task ends by its liveness
limit. The exit code is the command's (128 and the signal's number if a signal ended it).")]
pub(crate) struct ExecArgs {
    /// What the task is for.
    #[arg(long, value_name = "NAME")]
    intent: String,
    /// A parameter of the intent. A value that is JSON counts as such (5000, true, "5"), everything else as text.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = super::pair)]
    params: Vec<(String, String)>,
    /// An upstream that the task needs; repeat for more. If absent, all that the intent reaches.
    #[arg(long = "upstream", value_name = "NAME")]
    upstreams: Vec<String>,
    /// How long the task may live at most, in seconds.
    #[arg(long, value_name = "SECS")]
    lifetime: Option<u64>,
    #[command(flatten)]
    credentials: CredentialArgs,
    /// The server; if absent, that of the configuration.
    #[arg(long, value_name = "URL", env = "WRIT_SERVER")]
    server: Option<String>,
    /// Certificates (PEM) to trust instead of the public roots.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// To whom evidence is made out; if absent, the server's URL.
    #[arg(long)]
    audience: Option<String>,
    #[command(flatten)]
    evidence: EvidenceArgs,
    /// Speak MCP of this upstream on standard input and output instead of running a command.
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    stdio: Option<String>,
    /// The command and its arguments.
    #[arg(last = true, required_unless_present = "stdio")]
    command: Vec<OsString>,
}

/// Credentials that the command gets.
#[derive(Debug, Args)]
struct CredentialArgs {
    /// A credential that the command gets, as TARGET/OFFER; repeat for more. Given back when the command ends.
    #[arg(long = "credential", value_name = "TARGET/OFFER", value_parser = Wanted::parse, conflicts_with = "stdio")]
    wanted: Vec<Wanted>,
    /// What is said about a credential; TARGET/OFFER:NAME=VALUE if there are several and only one is meant.
    #[arg(long = "credential-param", value_name = "NAME=VALUE", value_parser = super::pair, requires = "wanted")]
    parameters: Vec<(String, String)>,
    /// How long credentials shall live at most, in seconds; as long as their offers allow if absent.
    #[arg(long = "credential-lifetime", value_name = "SECS", requires = "wanted")]
    lifetime_secs: Option<u64>,
    /// Iterations of SCRAM verifiers. Our secrets are random, so that one is enough; some clients (JDBC) insist on 4096.
    #[arg(long, value_name = "N", default_value_t = credential::secret::SCRAM_ITERATIONS, requires = "wanted")]
    scram_iterations: NonZeroU32,
}

impl CredentialArgs {
    /// Asks for all; the first refusal ends it.
    async fn request(&self, agent: &Agent) -> Result<Vec<Held>, Failure> {
        let manner = Manner { lifetime_secs: self.lifetime_secs, scram_iterations: self.scram_iterations };
        let mut held = Vec::new();
        let task = Task::Holder(agent.clone());
        for wanted in Wanted::with_parameters(self.wanted.clone(), &self.parameters)? {
            held.push(credential::request(&task, &wanted, manner).await?);
        }
        Ok(held)
    }
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct EvidenceArgs {
    /// Evidence is in this file (kept fresh by somebody else, as Kubernetes does).
    #[arg(long, value_name = "FILE")]
    evidence_file: Option<PathBuf>,
    /// Evidence is in this environment variable.
    #[arg(long, value_name = "VARIABLE")]
    evidence_env: Option<String>,
    /// Evidence is what this shell command prints.
    #[arg(long, value_name = "COMMAND")]
    evidence_command: Option<String>,
    /// Evidence is a JWT-SVID of the SPIFFE Workload API (at this socket, or where SPIFFE_ENDPOINT_SOCKET says).
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, default_missing_value = "")]
    spiffe: Option<String>,
    /// Evidence is the identity token of this GitHub Actions job.
    #[arg(long)]
    github: bool,
    /// DEVELOPMENT ONLY: be this agent, by the key of the configuration's development provider.
    #[arg(long, value_name = "AGENT")]
    dev: Option<String>,
}

impl EvidenceArgs {
    /// Variables from which evidence, or an operator's secret, could be had: the command must not prove itself by them
    /// and open tasks of its own choice.
    fn variables(&self) -> Vec<&str> {
        let github = ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"];
        let of_source = github.into_iter().filter(|_| self.github).chain(self.evidence_env.as_deref());
        let spiffe = self.spiffe.iter().map(|_| "SPIFFE_ENDPOINT_SOCKET");
        ["WRIT_OPERATOR_SECRET_FILE"].into_iter().chain(of_source).chain(spiffe).collect()
    }
}

pub(crate) async fn run(common: &Common, args: ExecArgs) -> Result<ExitCode, Failure> {
    crate::system::seal_memory();
    let config = configuration(common, &args)?;
    let server = server(&args, config.as_ref())?;
    let ca_file = args.ca_file.clone().or_else(|| config.as_ref().and_then(|config| config.client.ca_file.clone()));
    let connector = connector(ca_file.as_deref())?;
    let evidence = evidence(&args, config.as_ref(), &server)?;
    let mut upstreams = args.upstreams.clone();
    upstreams.extend(args.stdio.iter().filter(|name| !args.upstreams.contains(name)).cloned());
    let declared =
        Declared { intent: args.intent.clone(), parameters: parameters(&args.params), lifetime_secs: args.lifetime, upstreams };
    // From here on a signal must not end this process before the task is ended.
    let mut signals = Signals::new()?;
    let opening = Agent::open(server, connector.clone(), evidence, declared);
    let agent = match unless_signalled(opening, &mut signals).await {
        Ok(opened) => opened,
        Err((opened, number)) => return Ok(give_up(common.form(), opened, number).await),
    };
    let agent = agent?;
    let keeper = tokio::spawn(agent.clone().keep_alive());
    let outcome = match args.stdio.clone() {
        Some(upstream) => serve_stdio(&agent, connector, upstream, signals).await,
        None => run_command(&agent, connector, &args, signals).await,
    };
    keeper.abort();
    if let Err(failure) = agent.end().await {
        failure.report(common.form());
        note_ending(common.form(), &agent.task());
    }
    outcome
}

/// How long what was begun may take to come about after a signal, so that it can be undone.
const UNDONE_MAX: Duration = Duration::from_secs(5);

/// Prepares the command; a signal meanwhile means that it shall not be started. Gives then what came about all the same, if it
/// did in time, and the number of the signal.
async fn unless_signalled<T>(preparing: impl Future<Output = T>, signals: &mut Signals) -> Result<T, (Option<T>, i32)> {
    tokio::pin!(preparing);
    let number = tokio::select! {
        biased;
        number = signals.next() => number,
        prepared = &mut preparing => return Ok(prepared),
    };
    // Whoever asks twice does not want to wait.
    tokio::select! {
        prepared = tokio::time::timeout(UNDONE_MAX, preparing) => Err((prepared.ok(), number)),
        again = signals.next() => Err((None, again)),
    }
}

/// Ends the task that was opened while a signal came.
async fn give_up(form: Form, opened: Option<Result<Agent, Failure>>, number: i32) -> ExitCode {
    match opened {
        Some(Ok(agent)) => {
            if let Err(failure) = agent.end().await {
                failure.report(form);
                note_ending(form, &agent.task());
            }
        }
        Some(Err(_)) => {}
        None if form == Form::Human => {
            note("the server had not answered yet; if a task was opened, it ends by its liveness limit or deadline");
        }
        None => {}
    }
    exit_code_of_signal(number)
}

fn note_ending(form: Form, task: &str) {
    if form == Form::Human {
        note(&format!("task {task} could not be ended from here; it ends by its liveness limit or deadline"));
    }
}

/// The configuration, if there is one or something needs it.
fn configuration(common: &Common, args: &ExecArgs) -> Result<Option<Config>, Failure> {
    let needed = args.server.is_none() || args.evidence.dev.is_some();
    if needed || common.config.exists() { common.load().map(Some) } else { Ok(None) }
}

fn server(args: &ExecArgs, config: Option<&Config>) -> Result<String, Failure> {
    let configured = || config.map(|config| config.client.server.clone().unwrap_or_else(|| config.server.public_url.clone()));
    let given = args.server.clone().or_else(configured).ok_or_else(|| Failure::usage("which server? give --server URL"))?;
    let secure = url::Url::parse(&given).is_ok_and(|url| crate::web::is_secure(&url));
    if secure {
        Ok(given.trim_end_matches('/').to_owned())
    } else {
        Err(Failure::usage(format!("`{given}` must start with `https://`")))
    }
}

fn parameters(given: &[(String, String)]) -> Map<String, Value> {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    given.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

fn evidence(args: &ExecArgs, config: Option<&Config>, server: &str) -> Result<Evidence, Failure> {
    let audience = || args.audience.clone().unwrap_or_else(|| server.to_owned());
    let given = &args.evidence;
    if let Some(path) = &given.evidence_file {
        return Ok(Evidence::File(path.clone()));
    }
    if let Some(name) = &given.evidence_env {
        return Ok(Evidence::Variable(name.clone()));
    }
    if let Some(command) = &given.evidence_command {
        return Ok(Evidence::Command(command.clone()));
    }
    if let Some(socket) = &given.spiffe {
        let socket = Some(socket.clone()).filter(|socket| !socket.is_empty());
        return Ok(Evidence::Spiffe { socket, audience: audience() });
    }
    if given.github {
        return Ok(Evidence::GitHub { audience: audience() });
    }
    let subject = given.dev.clone().unwrap_or_default();
    let (provider, key) = config.and_then(development).ok_or_else(|| {
        Failure::usage("there is no development provider")
            .why("no [[provider]] of the configuration has `dev_key_file`")
            .next("`writ init DIR` writes one; in production prove the workload with --spiffe, --github or --evidence-file")
    })?;
    let Kind::Oidc { issuer, .. } = &provider.kind else {
        return Err(Failure::usage("a development provider must be of kind `oidc`"));
    };
    let issuer = Box::new(DevIssuer::open(issuer, key)?);
    let audience = args.audience.clone().or_else(|| provider.audience.clone()).unwrap_or_else(|| server.to_owned());
    Ok(Evidence::Development { issuer, subject, audience })
}

fn development(config: &Config) -> Option<(&Provider, &Path)> {
    config.providers.iter().find_map(|provider| Some((provider, provider.dev_key_file.as_deref()?)))
}

async fn serve_stdio(agent: &Agent, connector: Connector, upstream: String, mut signals: Signals) -> Result<ExitCode, Failure> {
    let sender = Sender::new(agent.clone(), connector);
    tokio::select! {
        all_read = stdio::run(sender, upstream) => match all_read {
            true => Ok(ExitCode::SUCCESS),
            false => Err(Failure::new("the last answers were not read").why("the client stopped reading standard output")),
        },
        number = signals.next() => Ok(exit_code_of_signal(number)),
    }
}

async fn run_command(agent: &Agent, connector: Connector, args: &ExecArgs, mut signals: Signals) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = args.command.split_first() else { return Err(Failure::usage("which command?")) };
    let upstreams = agent.upstreams();
    let bridge = Bridge::start(Sender::new(agent.clone(), connector), upstreams.clone()).await?;
    // From here on a folder is there, and goes with its value.
    let folder = Folder::create()?;
    // What was issued meanwhile goes with the task.
    let prepared = unless_signalled(environment(agent, args, &bridge, &folder), &mut signals).await;
    let environment = match prepared {
        Ok(environment) => environment?,
        Err((_, number)) => return Ok(exit_code_of_signal(number)),
    };
    let mut child = Command::new(program);
    child.args(arguments);
    for name in args.evidence.variables().into_iter().chain(environment.unset) {
        child.env_remove(name);
    }
    let child = child
        .envs(environment.set)
        .spawn()
        .map_err(|error| Failure::usage(format!("`{}` cannot be started", program.to_string_lossy())).why(error.to_string()))?;
    let status = wait(child, signals).await;
    drop(folder);
    let status = status.map_err(|error| Failure::new("the command was lost").why(error.to_string()))?;
    Ok(status.code().map_or_else(
        || exit_code_of_signal(status.signal().unwrap_or(0)),
        |code| ExitCode::from(u8::try_from(code).unwrap_or(1)),
    ))
}

/// What the command is given: credentials, endpoints, and the list of these.
async fn environment(agent: &Agent, args: &ExecArgs, bridge: &Bridge, folder: &Folder) -> Result<Environment, Failure> {
    let held = args.credentials.request(agent).await?;
    let mut environment = deliver(&held, folder)?;
    let upstreams = agent.upstreams();
    let servers: Map<String, Value> =
        upstreams.iter().map(|name| (name.clone(), json!({ "type": "http", "url": bridge.url(name) }))).collect();
    let listing = folder.write("mcp.json", format!("{:#}\n", json!({ "mcpServers": servers })).as_bytes());
    let listing = listing.map_err(anyhow::Error::from)?;
    environment.set.insert("WRIT_TASK".to_owned(), agent.task().into());
    environment.set.insert("WRIT_MCP_CONFIG".to_owned(), listing.into());
    environment.set.insert(credential::TASK_URL.to_owned(), bridge.task_url().into());
    environment.set.extend(past_proxies(crate::system::variable).map(|(name, value)| (name.to_owned(), value.into())));
    for upstream in &upstreams {
        environment.set.insert(variable("MCP", upstream), bridge.url(upstream).into());
    }
    for api in agent.apis() {
        environment.set.insert(variable("HTTP", &api), bridge.api_url(&api).into());
    }
    Ok(environment)
}

fn exit_code_of_signal(number: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + number).unwrap_or(255))
}

/// Variables that keep requests to the local endpoint away from a proxy: clients send to it what goes to loopback addresses,
/// too, unless they are told not to, and it would read the secret path and everything that is said there.
fn past_proxies(variable: impl Fn(&str) -> Option<String>) -> impl Iterator<Item = (&'static str, String)> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let proxied = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].into_iter().any(|name| set(name).is_some());
    let own = [("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")].map(|(name, other)| {
        let before = set(name).or_else(|| set(other)).map(|before| before + ",").unwrap_or_default();
        (name, format!("{before}127.0.0.1,localhost"))
    });
    own.into_iter().filter(move |(_, value)| proxied && !value.starts_with("*,"))
}

/// The environment variable with the URL of an upstream (`MCP`) or an API (`HTTP`).
fn variable(kind: &str, name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    format!("WRIT_{kind}_{}_URL", plain.collect::<String>())
}

/// Waits for the command, handing signals on to it.
async fn wait(mut child: Child, mut signals: Signals) -> std::io::Result<ExitStatus> {
    let terminal = std::io::stdin().is_terminal();
    loop {
        tokio::select! {
            status = child.wait() => return status,
            number = signals.next() => {
                // A terminal sends its interrupt to the command itself, too.
                let reached = terminal && number == SignalKind::interrupt().as_raw_value();
                let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
                if let (Some(pid), Some(signal), false) = (pid, rustix::process::Signal::from_named_raw(number), reached) {
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
    }
}

/// The signals that are handed on.
struct Signals([(Signal, i32); 6]);

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let on = |kind: SignalKind| anyhow::Ok((signal(kind)?, kind.as_raw_value()));
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
        let [terminate, interrupt, hangup, quit] = kinds.map(on);
        // Those that would end this process, and leave the task open, although the command may live with them.
        let [one, two] = [SignalKind::user_defined1(), SignalKind::user_defined2()].map(on);
        Ok(Self([terminate?, interrupt?, hangup?, quit?, one?, two?]))
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        let [terminate, interrupt, hangup, quit, one, two] = &mut self.0;
        tokio::select! {
            _ = terminate.0.recv() => terminate.1,
            _ = interrupt.0.recv() => interrupt.1,
            _ = hangup.0.recv() => hangup.1,
            _ = quit.0.recv() => quit.1,
            _ = one.0.recv() => one.1,
            _ = two.0.recv() => two.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_json_where_they_can_be() {
        let given = [("a", "5"), ("b", "A-1001"), ("c", "\"5\""), ("d", "true"), ("e", "[\"x\"]")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let read = parameters(&given);
        assert_eq!(Value::Object(read), json!({ "a": 5, "b": "A-1001", "c": "5", "d": true, "e": ["x"] }));
    }

    #[test]
    fn the_command_gets_nothing_to_prove_itself_with() {
        let none = || EvidenceArgs {
            evidence_file: None,
            evidence_env: None,
            evidence_command: None,
            spiffe: None,
            github: false,
            dev: None,
        };
        let (operator, [url, token]) =
            ("WRIT_OPERATOR_SECRET_FILE", ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"]);
        assert_eq!(none().variables(), [operator]);
        assert_eq!(EvidenceArgs { github: true, ..none() }.variables(), [operator, url, token]);
        assert_eq!(EvidenceArgs { evidence_env: Some("PROOF".into()), ..none() }.variables(), [operator, "PROOF"]);
        assert_eq!(EvidenceArgs { spiffe: Some(String::new()), ..none() }.variables(), [operator, "SPIFFE_ENDPOINT_SOCKET"]);
    }

    #[test]
    fn what_is_said_to_the_local_endpoint_goes_past_proxies() {
        let given = |pairs: &[(&str, &str)]| {
            let variable = |name: &str| pairs.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
            past_proxies(variable).collect::<Vec<_>>()
        };
        let both = |lower: &str, upper: &str| vec![("no_proxy", lower.to_owned()), ("NO_PROXY", upper.to_owned())];
        assert_eq!(given(&[("no_proxy", "corp")]), []);
        assert_eq!(given(&[("http_proxy", ""), ("https_proxy", "http://p:1")]), []);
        let ours = "127.0.0.1,localhost";
        assert_eq!(given(&[("http_proxy", "http://p:1")]), both(ours, ours));
        let corp = "corp,127.0.0.1,localhost";
        assert_eq!(given(&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "corp")]), both(corp, corp));
        assert_eq!(
            given(&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "corp"), ("no_proxy", "a,b")]),
            both("a,b,127.0.0.1,localhost", corp)
        );
        assert_eq!(given(&[("HTTP_PROXY", "http://p:1"), ("no_proxy", "*")]), []);
    }

    #[test]
    fn a_variable_is_named_for_its_upstream() {
        assert_eq!(variable("MCP", "help-desk.v2"), "WRIT_MCP_HELP_DESK_V2_URL");
    }
}
