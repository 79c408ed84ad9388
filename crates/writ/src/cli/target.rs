//! `writ target`: the systems in which credentials are issued, over the REST API; and what an administrator installs there.

use super::output::{self, Form, Paint, member, painted, table};
use super::{Common, Exit, Failure};
use crate::client::{Operator, segment};
use crate::target_files;
use clap::Subcommand;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
A target is one file, targets/NAME.toml: how Writ reaches it, and what may be asked for there (docs/targets/README.md).

Set one up:
  writ target install orders-db --print | psql -h db.example.com -U postgres orders
  writ target doctor orders-db      can our account do what it must, and nothing more?
  writ target probe orders-db       issue, use, take back, prove dead; until this works the target issues nothing
  writ target scan orders-db        which standing credentials it could replace")]
pub(crate) enum TargetCommand {
    /// All targets: whether they issue, and what stands there
    List,
    /// One target and what it offers
    Show {
        /// Its name.
        target: String,
    },
    /// What the target's own administrator runs once, so that our account there can do what it must and nothing more
    #[command(after_help = "\
Writ applies nothing itself: the right to install is an administrator's, and Writ must not hold it. Read what is printed,
then run it with the target's own client, for example
  writ target install orders-db --print | psql -h db.example.com -U postgres orders")]
    Install {
        /// Its name.
        target: String,
        /// Print it.
        #[arg(long, required = true)]
        print: bool,
    },
    /// Whether our account at the target can do what it must and nothing more; exits 1 if something is broken
    Doctor {
        /// Its name.
        target: String,
    },
    /// Issue a credential, use it, take it back and prove it dead, now; exits 1 if that fails
    Probe {
        /// Its name.
        target: String,
    },
    /// Credentials that stand at the target without Writ, and what would replace each
    Scan {
        /// Its name.
        target: String,
    },
}

pub(crate) async fn run(common: &Common, command: TargetCommand) -> Result<ExitCode, Failure> {
    let form = common.form();
    if let TargetCommand::Install { target, .. } = &command {
        return install(common, target);
    }
    let server = Operator::configured(common)?;
    let path = |name: &str, rest: &str| format!("/v1/targets/{}{rest}", segment(name));
    match command {
        TargetCommand::List => listed(form, &server.get("/v1/targets").await?),
        TargetCommand::Show { target } => shown(form, &server.get(&path(&target, "")).await?),
        TargetCommand::Doctor { target } => {
            let answer = server.post(&path(&target, "/doctor")).await?;
            examined(form, &answer);
            return Ok(verdict(member(&answer, "/verdict") != "broken"));
        }
        TargetCommand::Probe { target } => {
            let answer = server.post(&path(&target, "/probe")).await?;
            probed(form, &answer);
            return Ok(verdict(member(&answer, "/health/state") == "healthy"));
        }
        TargetCommand::Scan { target } => scanned(form, &server.post(&path(&target, "/scan")).await?),
        TargetCommand::Install { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(Exit::Failed as u8) }
}

fn install(common: &Common, target: &str) -> Result<ExitCode, Failure> {
    let config = common.load()?;
    let script = target_files::install_script(&config.policy, &config.dir, target)
        .map_err(|error| Failure::usage(format!("what `{target}` needs cannot be told")).why(format!("{error:#}")))?;
    match common.form() {
        Form::Json => output::json(&json!({ "target": target, "script": script })),
        Form::Human => output::line(script.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let columns = [
        "/name",
        "/kind",
        "/owner",
        "/health/state",
        "/issues",
        "/credentials/held",
        "/credentials/ending",
        "/credentials/oldest_due",
    ];
    let headers = ["TARGET", "KIND", "OWNER", "PROBE", "ISSUES", "HELD", "ENDING", "OLDEST DUE"];
    let rows = super::items(page).map(|target| columns.iter().map(|column| member(target, column)).collect()).collect();
    table(&headers, rows, "no target is configured: see docs/targets/README.md");
}

fn shown(form: Form, target: &Value) {
    if form == Form::Json {
        return output::json(target);
    }
    for (label, pointer) in [
        ("target", "/name"),
        ("kind", "/kind"),
        ("owner", "/owner"),
        ("what it is", "/description"),
        ("probe", "/health/state"),
        ("probed at", "/health/probed_at"),
        ("why", "/health/why"),
        ("note", "/health/note"),
        ("issues", "/issues"),
        ("held", "/credentials/held"),
        ("ending", "/credentials/ending"),
        ("oldest due", "/credentials/oldest_due"),
        ("at most", "/credentials/live_max"),
    ] {
        let text = member(target, pointer);
        if !text.is_empty() {
            output::line(&format!("{label:<10} {text}"));
        }
    }
    for (name, offer) in target.get("offers").and_then(Value::as_object).into_iter().flatten() {
        output::line("");
        output::line(&painted(
            &format!("{}/{}", member(target, "/name"), output::tame(name)),
            Paint::Strong,
            output::colour_on_stdout(),
        ));
        output::line(&format!("  {}", member(offer, "/description")));
        output::line(&format!("  at most {} seconds", member(offer, "/lifetime_secs")));
        for (name, param) in offer.get("parameters").and_then(Value::as_object).into_iter().flatten() {
            let needed = if member(param, "/required") == "true" { ", required" } else { "" };
            output::line(&format!(
                "  {} ({}{needed}): {}",
                output::tame(name),
                member(param, "/type"),
                member(param, "/description")
            ));
        }
    }
}

fn examined(form: Form, answer: &Value) {
    if form == Form::Json {
        return output::json(answer);
    }
    let colour = output::colour_on_stdout();
    for finding in answer.get("findings").and_then(Value::as_array).into_iter().flatten() {
        let (word, paint) = match member(finding, "/gravity").as_str() {
            "fine" => ("fine   ", Paint::Good),
            "warning" => ("warning", Paint::Warn),
            _ => ("broken ", Paint::Bad),
        };
        output::line(&format!("{} {}: {}", painted(word, paint, colour), member(finding, "/check"), member(finding, "/found")));
        let remedy = member(finding, "/remedy");
        if !remedy.is_empty() {
            output::line(&format!("        {remedy}"));
        }
    }
}

fn probed(form: Form, answer: &Value) {
    if form == Form::Json {
        return output::json(answer);
    }
    let colour = output::colour_on_stdout();
    if member(answer, "/health/state") == "healthy" {
        output::line(&painted("issued, used, taken back, proved dead: the target issues", Paint::Good, colour));
    } else {
        output::line(&painted("the probe failed: the target issues nothing", Paint::Bad, colour));
    }
    for pointer in ["/health/why", "/health/note"] {
        let text = member(answer, pointer);
        if !text.is_empty() {
            output::line(&format!("  {text}"));
        }
    }
}

fn scanned(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let columns = ["/name", "/kind", "/flags", "/details"];
    let rows: Vec<_> = super::items(page).map(|one| columns.iter().map(|column| member(one, column)).collect()).collect();
    let any = !rows.is_empty();
    table(&["STANDS", "KIND", "FLAGS", "DETAILS"], rows, "nothing stands there without Writ");
    if any {
        output::line("\nWhat would replace each is in the member `proposal` of `--json`.");
    }
}
