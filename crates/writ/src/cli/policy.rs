//! `writ policy`: check, test and schema work on the folder alone; explain and reload ask a server.

use super::output::{self, Form, Paint, colour_on_stderr, member, note, painted};
use super::{Common, Failure};
use crate::client::{Operator, segment};
use crate::policy_folder::Folders;
use clap::{Args, Subcommand};
use http::Method;
use miette::{GraphicalReportHandler, GraphicalTheme};
use policy::{Compiled, Diagnostic, Policy, Severity, Sources};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy folder: types, reach, labels; every fault with its line and a hint
    Check {
        /// The folder; if absent, that of the configuration.
        dir: Option<PathBuf>,
    },
    /// Run the cases in `tests/` of a policy folder
    Test {
        /// The folder; if absent, that of the configuration.
        dir: Option<PathBuf>,
    },
    /// Print the Cedar schema that intents and tools give
    Schema {
        /// The folder; if absent, that of the configuration.
        dir: Option<PathBuf>,
    },
    /// Why: of a decision by its id, or of a request that an open task (`--task`) might make
    Explain(Box<ExplainArgs>),
    /// Make the server read its policy folder now
    Reload,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "writ policy explain [OPTIONS] <DECISION>\n       writ policy explain [OPTIONS] --task <TASK> --upstream <UPSTREAM> (--tool <TOOL> | --resource <URI> | --prompt <NAME>) [--arg <NAME=VALUE>]...",
    after_help = "Examples:\n  writ policy explain dec_0192f0c0a0b07c3e8d1e2f3a4b5c6d7e\n  writ policy explain --task tsk_0192f0… --upstream orders --tool refund --arg order_id=A-1002 --arg amount_cents=500"
)]
pub(crate) struct ExplainArgs {
    /// A decision, `dec_…`.
    #[arg(conflicts_with_all = ["task", "upstream", "tool", "resource", "prompt", "arguments"], required_unless_present = "task")]
    decision: Option<String>,
    /// The open task that would ask.
    #[arg(long, requires = "upstream")]
    task: Option<String>,
    /// The upstream that it would reach.
    #[arg(long)]
    upstream: Option<String>,
    /// The tool that it would call.
    #[arg(long, conflicts_with_all = ["resource", "prompt"])]
    tool: Option<String>,
    /// The resource that it would read.
    #[arg(long, conflicts_with = "prompt")]
    resource: Option<String>,
    /// The prompt that it would get.
    #[arg(long)]
    prompt: Option<String>,
    /// An argument; a value that is JSON counts as such, everything else as text.
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = super::pair)]
    arguments: Vec<(String, String)>,
    /// As if a human had approved it.
    #[arg(long)]
    approved: bool,
}

pub(crate) async fn run(common: &Common, command: PolicyCommand) -> Result<ExitCode, Failure> {
    let form = common.form();
    match command {
        PolicyCommand::Check { dir } => check(form, &sources(common, dir)?),
        PolicyCommand::Test { dir } => test(form, &sources(common, dir)?),
        PolicyCommand::Schema { dir } => schema(form, &sources(common, dir)?),
        PolicyCommand::Explain(args) => explain(common, *args).await,
        PolicyCommand::Reload => {
            let answer = Operator::configured(common)?.post("/v1/policy/reload").await?;
            match form {
                Form::Json => output::json(&answer),
                Form::Human => output::line(&format!("policy {} is in force", member(&answer, "/version"))),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn sources(common: &Common, dir: Option<PathBuf>) -> Result<Sources, Failure> {
    let folders = match dir {
        Some(dir) => Folders::of_policy(dir),
        None => common.load()?.policy,
    };
    folders
        .read()
        .map(|(sources, _)| sources)
        .map_err(|error| Failure::usage(format!("{error:#}")).next("name a policy folder, or write one with `writ init DIR`"))
}

/// One finding with its line and a caret.
pub(crate) fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(120).with_links(false);
    let mut text = String::new();
    match handler.render_report(&mut text, diagnostic) {
        Ok(()) => text,
        Err(std::fmt::Error) => format!("{}: {}\n", diagnostic.path, diagnostic.message),
    }
}

fn finding_json(diagnostic: &Diagnostic) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    json!({
        "file": diagnostic.path, "line": diagnostic.line, "column": diagnostic.column, "severity": severity,
        "message": diagnostic.message, "help": diagnostic.help,
    })
}

/// Compiles, or shows all faults.
fn compiled(form: Form, sources: &Sources) -> Result<Compiled, ExitCode> {
    Policy::compile(sources).map_err(|faults| {
        match form {
            Form::Json => {
                output::json(&json!({ "valid": false, "findings": faults.iter().map(finding_json).collect::<Vec<_>>() }))
            }
            Form::Human => {
                faults.iter().for_each(|fault| note(&render(fault, colour_on_stderr())));
                let errors = faults.iter().filter(|fault| fault.severity == Severity::Error).count();
                note(&format!(
                    "{} {errors} {} in the policy",
                    painted("error:", Paint::Bad, colour_on_stderr()),
                    plural(errors, "fault")
                ));
            }
        }
        ExitCode::FAILURE
    })
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn check(form: Form, sources: &Sources) -> Result<ExitCode, Failure> {
    let Compiled { policy, warnings } = match compiled(form, sources) {
        Ok(compiled) => compiled,
        Err(code) => return Ok(code),
    };
    match form {
        Form::Json => output::json(&json!({
            "valid": true, "version": policy.version().to_string(), "intents": policy.intents().count(),
            "policies": policy.rules().count(), "findings": warnings.iter().map(finding_json).collect::<Vec<_>>(),
        })),
        Form::Human => {
            warnings.iter().for_each(|warning| note(&render(warning, colour_on_stderr())));
            let (rules, intents) = (policy.rules().count(), policy.intents().count());
            let good = painted("valid:", Paint::Good, output::colour_on_stdout());
            output::line(&format!("{good} {rules} {}, {intents} {}", rules_word(rules), plural(intents, "intent")));
            output::line(&format!("version {}", policy.version()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rules_word(count: usize) -> &'static str {
    if count == 1 { "policy" } else { "policies" }
}

fn test(form: Form, sources: &Sources) -> Result<ExitCode, Failure> {
    let Compiled { policy, .. } = match compiled(form, sources) {
        Ok(compiled) => compiled,
        Err(code) => return Ok(code),
    };
    let report = policy::run_tests(&policy, sources);
    let good = report.passed();
    match form {
        Form::Json => {
            let cases = report.cases.iter().map(|case| {
                json!({ "file": case.path, "line": case.line, "name": case.name, "passed": case.failure.is_none(), "failure": case.failure })
            });
            let faults: Vec<_> = report.faults.iter().map(finding_json).collect();
            output::json(&json!({ "passed": good, "cases": cases.collect::<Vec<_>>(), "findings": faults }));
        }
        Form::Human => {
            let colour = output::colour_on_stdout();
            report.faults.iter().for_each(|fault| note(&render(fault, colour_on_stderr())));
            for case in &report.cases {
                match &case.failure {
                    None => output::line(&format!("{} {}", painted("ok  ", Paint::Good, colour), case.name)),
                    Some(failure) => {
                        output::line(&format!(
                            "{} {} ({}:{})",
                            painted("FAIL", Paint::Bad, colour),
                            case.name,
                            case.path,
                            case.line
                        ));
                        output::line(&format!("     {failure}"));
                    }
                }
            }
            let failed = report.cases.iter().filter(|case| case.failure.is_some()).count();
            let passed = report.cases.len() - failed;
            output::line(&format!("{passed} {} passed, {failed} failed", plural(passed, "case")));
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn schema(form: Form, sources: &Sources) -> Result<ExitCode, Failure> {
    match compiled(form, sources) {
        Ok(Compiled { policy, .. }) => {
            match form {
                Form::Json => output::json(&json!({ "version": policy.version().to_string(), "schema": policy.schema_text() })),
                Form::Human => output::line(&policy.schema_text()),
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(code) => Ok(code),
    }
}

async fn explain(common: &Common, args: ExplainArgs) -> Result<ExitCode, Failure> {
    let server = Operator::configured(common)?;
    let form = common.form();
    if let Some(decision) = args.decision {
        let answer = server.get(&format!("/v1/decisions/{}", segment(&decision))).await?;
        match form {
            Form::Json => output::json(&answer),
            Form::Human => tell_decision(&answer),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let arguments: Map<String, Value> = args
        .arguments
        .into_iter()
        .map(|(name, value)| (name, serde_json::from_str(&value).unwrap_or(Value::String(value))))
        .collect();
    let mut request = json!({ "task": args.task, "upstream": args.upstream, "arguments": arguments, "approved": args.approved });
    if let Some(members) = request.as_object_mut() {
        for (name, value) in [("tool", args.tool), ("resource", args.resource), ("prompt", args.prompt)] {
            members.extend(value.map(|value| (name.to_owned(), Value::String(value))));
        }
    }
    let answer = server.send(Method::POST, "/v1/policy/explain", &request).await?;
    match form {
        Form::Json => output::json(&answer),
        Form::Human => tell_explanation(&answer),
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_decision(answer: &Value) {
    let event = answer.get("event").cloned().unwrap_or_default();
    for (label, pointer) in [
        ("outcome", "/outcome"),
        ("reason", "/reason"),
        ("policies", "/determining"),
        ("agent", "/agent"),
        ("owner", "/owner"),
        ("task", "/task"),
        ("intent", "/intent"),
        ("operation", "/operation"),
        ("upstream", "/upstream"),
        ("subject", "/subject"),
        ("arguments", "/arguments"),
        ("facts", "/facts"),
        ("policy", "/policy"),
    ] {
        let text = member(&event, pointer);
        if !text.is_empty() {
            output::line(&format!("{label:<10} {text}"));
        }
    }
    output::line(&format!("{:<10} {}", "log entry", member(answer, "/index")));
    let why = member(answer, "/explanation");
    if !why.is_empty() {
        output::line(&format!("{:<10} {why}", "why"));
    }
    for rule in answer.get("policies").and_then(Value::as_array).into_iter().flatten() {
        output::line(&format!(
            "{:<10} {} {} at {}:{}",
            "by",
            member(rule, "/effect"),
            member(rule, "/id"),
            member(rule, "/path"),
            member(rule, "/line")
        ));
    }
}

fn tell_explanation(answer: &Value) {
    let colour = output::colour_on_stdout();
    let outcome = member(answer, "/outcome");
    let paint = if outcome == "allow" { Paint::Good } else { Paint::Bad };
    output::line(&format!("{}  {}", painted(&outcome, paint, colour), member(answer, "/explanation")));
    for considered in answer.get("considered").and_then(Value::as_array).into_iter().flatten() {
        let rule = format!("{} {}", member(considered, "/policy/effect"), member(considered, "/policy/id"));
        let place = format!("{}:{}", member(considered, "/policy/path"), member(considered, "/policy/line"));
        output::line(&format!("  {rule} {} ({place})", member(considered, "/standing").replace('_', " ")));
        for unmet in considered.get("unmet").and_then(Value::as_array).into_iter().flatten() {
            output::line(&format!("    not so: {}", output::tame(unmet.as_str().unwrap_or_default())));
        }
    }
}
