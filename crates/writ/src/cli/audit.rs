//! `writ audit`: verify works on a folder alone, without network or database; the rest asks a server.

use super::output::{self, Form, Paint, member, painted, table};
use super::{Common, Exit, Failure};
use crate::client::{Operator, segment};
use crate::log_check::{self, Expected, Finding};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify a log folder offline: every entry, tile, signature and chain
    Verify(Box<VerifyArgs>),
    /// Search the log: who did what under which task, and who touched this
    Search(Box<SearchArgs>),
    /// One entry, with what opens its commitments if you may see it
    Show {
        /// Its index.
        index: u64,
    },
    /// A proof of one entry (c2sp.org/tlog-proof@v1) for somebody who trusts nobody here
    Prove {
        /// Its index.
        index: u64,
    },
    /// Delete what opens one sensitive value; the entry and every proof stay valid
    Redact {
        /// The entry's index.
        index: u64,
        /// The name of the value, as `audit show` lists it.
        name: String,
        /// Why, for the log.
        #[arg(long)]
        why: String,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  writ audit verify ./data/log --key \"$(cat log.vkey)\"
  writ audit verify --data ./data --older last-audit.checkpoint

Take the key from somewhere else than the log itself: a log that is checked with the key beside it proves only that
it is consistent. Keep each audit's checkpoint: the next audit then proves that history was not rewritten.

Exit codes: 0 valid, 1 invalid, 2 usage, 3 valid but unwitnessed, 4 valid but stale.")]
pub(crate) struct VerifyArgs {
    /// The log folder (C2SP tlog-tiles: `checkpoint`, `tile/…`).
    #[arg(required_unless_present = "data", conflicts_with = "data")]
    dir: Option<PathBuf>,
    /// A data folder of `writ serve`: its `log/`, with the key in `keys/log.vkey`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The log's verifier key (`name+id+key`).
    #[arg(long, value_name = "VKEY", conflicts_with = "trust")]
    key: Option<String>,
    /// A trust policy file (C2SP tlog-policy) with logs, witnesses and a quorum.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// A checkpoint of an earlier audit that this log must extend.
    #[arg(long, value_name = "FILE")]
    older: Option<PathBuf>,
    /// Count the log as stale if its newest entry is older than so many seconds.
    #[arg(long, value_name = "SECS")]
    max_age: Option<u64>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  writ audit search --agent support-bot --outcome deny\n  writ audit search --task tsk_0192f0… --type outcome\n  writ audit search --resource order_id=A-1001     who touched this order"
)]
pub(crate) struct SearchArgs {
    /// By agent.
    #[arg(long)]
    agent: Option<String>,
    /// By task.
    #[arg(long)]
    task: Option<String>,
    /// By intent.
    #[arg(long)]
    intent: Option<String>,
    /// By upstream.
    #[arg(long)]
    upstream: Option<String>,
    /// By target.
    #[arg(long)]
    target: Option<String>,
    /// By tool, resource, prompt or offer.
    #[arg(long)]
    subject: Option<String>,
    /// By owner.
    #[arg(long)]
    owner: Option<String>,
    /// By outcome: allow, deny, ask, failed.
    #[arg(long)]
    outcome: Option<String>,
    /// By kind of entry.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// By decision, `dec_…`.
    #[arg(long)]
    decision: Option<String>,
    /// By credential, `grt_…`.
    #[arg(long)]
    grant: Option<String>,
    /// By a declared parameter or clear argument.
    #[arg(long, value_name = "NAME=VALUE")]
    resource: Option<String>,
    /// Not before this date or moment.
    #[arg(long)]
    since: Option<String>,
    /// Not after this date or moment.
    #[arg(long)]
    until: Option<String>,
    /// Only entries below this index, for paging.
    #[arg(long)]
    before: Option<u64>,
    /// How many, newest first.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
}

pub(crate) async fn run(common: &Common, command: AuditCommand) -> Result<ExitCode, Failure> {
    let form = common.form();
    match command {
        AuditCommand::Verify(args) => return verify(form, *args),
        AuditCommand::Search(args) => {
            let page = Operator::configured(common)?.query("/v1/audit/entries", &pairs(*args)).await?;
            listed(form, &page);
        }
        AuditCommand::Show { index } => {
            let entry = Operator::configured(common)?.get(&format!("/v1/audit/entries/{index}")).await?;
            match form {
                Form::Json => output::json(&entry),
                Form::Human => tell(&entry),
            }
        }
        AuditCommand::Prove { index } => {
            let proof = Operator::configured(common)?.text(&format!("/v1/audit/entries/{index}/proof")).await?;
            match form {
                Form::Json => output::json(&json!({ "index": index, "proof": proof })),
                Form::Human => proof.lines().for_each(|line| output::line(&output::tame(line))),
            }
        }
        AuditCommand::Redact { index, name, why } => {
            let path = format!("/v1/audit/entries/{}/redact", segment(&index.to_string()));
            let answer = Operator::configured(common)?.send(Method::POST, &path, &json!({ "name": name, "why": why })).await?;
            match form {
                Form::Json => output::json(&answer),
                Form::Human => output::line(&format!("redacted `{name}` of entry {index}; its proof still holds")),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pairs(args: SearchArgs) -> Vec<(&'static str, Option<String>)> {
    vec![
        ("agent", args.agent),
        ("task", args.task),
        ("intent", args.intent),
        ("upstream", args.upstream),
        ("target", args.target),
        ("subject", args.subject),
        ("owner", args.owner),
        ("outcome", args.outcome),
        ("type", args.kind),
        ("decision", args.decision),
        ("grant", args.grant),
        ("resource", args.resource),
        ("since", args.since),
        ("until", args.until),
        ("before", args.before.map(|before| before.to_string())),
        ("limit", Some(args.limit.to_string())),
    ]
}

fn listed(form: Form, page: &Value) {
    if form == Form::Json {
        return output::json(page);
    }
    let headers = ["INDEX", "AT", "TYPE", "AGENT", "TASK", "WHAT", "OUTCOME", "BY"];
    let rows = super::items(page).map(row).collect();
    let next = member(page, "/next");
    let none = if next.is_empty() {
        "no entry of the log matches"
    } else {
        "no entry matches among the newest; older ones were not looked at"
    };
    table(&headers, rows, none);
    if !next.is_empty() {
        output::line(&format!("more: --before {next}"));
    }
}

fn row(entry: &Value) -> Vec<String> {
    let event = |name: &str| member(entry, &format!("/leaf/event/{name}"));
    let first = |names: &[&str]| names.iter().map(|name| event(name)).find(|text| !text.is_empty()).unwrap_or_default();
    // Evidence that was refused asked for nothing yet: whose it was is all that is known.
    let what =
        [first(&["upstream", "target"]), first(&["subject", "operation", "intent", "detail", "workload/subject"])].join(" ");
    let outcome = [first(&["outcome", "status"]), event("reason")].join(" ");
    vec![
        member(entry, "/index"),
        moment(entry.pointer("/leaf/event/at")),
        event("type"),
        event("agent"),
        event("task"),
        cut(what.trim()),
        outcome.trim().to_owned(),
        first(&["determining", "by"]),
    ]
}

/// What fits a column; `writ audit show` has the whole.
fn cut(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut shown: String = text.chars().take(CHARS_MAX).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Milliseconds since 1970 as RFC 3339.
fn moment(at: Option<&Value>) -> String {
    let millis = at.and_then(Value::as_i64).and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    millis.map(|at| format!("{at:.3}")).unwrap_or_default()
}

fn tell(entry: &Value) {
    let colour = output::colour_on_stdout();
    let published =
        if entry.get("published").and_then(Value::as_bool) == Some(true) { "published" } else { "durable, not yet published" };
    output::line(&painted(&format!("entry {} ({published})", member(entry, "/index")), Paint::Strong, colour));
    output::line(&format!("{:<13} {}", "at", moment(entry.pointer("/leaf/event/at"))));
    let event = entry.pointer("/leaf/event").and_then(Value::as_object);
    for (name, value) in event.into_iter().flatten().filter(|(name, _)| name.as_str() != "at") {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        output::line(&format!("{:<13} {}", output::tame(name), output::tame(&text)));
    }
    for (name, value) in entry.get("openings").and_then(Value::as_object).into_iter().flatten() {
        output::line(&format!("{:<13} {} = {}", "opened", output::tame(name), output::tame(&value.to_string())));
    }
}

fn verify(form: Form, args: VerifyArgs) -> Result<ExitCode, Failure> {
    let expected = expected(&args)?;
    let bar = progress_bar(form);
    let outcome = log_check::check(&expected, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let finding = outcome.map_err(|error| Failure::from(error).exit(Exit::Usage))?;
    let code = verdict(form, &finding);
    // A verdict that nobody could read is none: the code for *invalid* would say something about the log.
    super::all_printed().map_err(|failure| failure.exit(Exit::Usage))?;
    Ok(code)
}

fn expected(args: &VerifyArgs) -> Result<Expected, Failure> {
    let (dir, key_beside) = match (&args.dir, &args.data) {
        (Some(dir), _) => (dir.clone(), None),
        (None, Some(data)) => (data.join("log"), Some(data.join("keys").join("log.vkey"))),
        (None, None) => return Err(Failure::usage("name a log folder, or a data folder with --data")),
    };
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| Failure::usage(format!("`{}` cannot be read", path.display())).why(error.to_string()))
    };
    let trust = match (&args.trust, &args.key, key_beside) {
        (Some(path), _, _) => log_check::trust_of_policy(&read(path)?),
        (None, Some(key), _) => log_check::trust_of_key(key),
        (None, None, Some(path)) => {
            let key = read(&path).map_err(|failure| {
                failure.next("name the folder that `dir` of [data] names, or the log's own folder and --key")
            })?;
            log_check::trust_of_key(&String::from_utf8_lossy(&key))
        }
        (None, None, None) => {
            return Err(Failure::usage("whose signatures count?")
                .why("neither --key nor --trust was given")
                .next("ask the operator for the log's verifier key, over another way than the log: --key NAME+ID+KEY"));
        }
    };
    let trust = trust.map_err(|error| Failure::from(error).exit(Exit::Usage))?;
    let older = args.older.as_ref().map(read).transpose()?;
    Ok(Expected { dir, trust, older, max_age_secs: args.max_age })
}

fn progress_bar(form: Form) -> indicatif::ProgressBar {
    if form == Form::Json || !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("verifying {bar:40} {pos}/{len} entries, {eta} left");
    let bar = indicatif::ProgressBar::new(0);
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

fn verdict(form: Form, finding: &Finding) -> ExitCode {
    let (word, code, paint) = match finding {
        Finding::Valid(_) => ("valid", 0, Paint::Good),
        Finding::Invalid { .. } => ("invalid", Exit::Failed as u8, Paint::Bad),
        Finding::Unwitnessed(_) => ("unwitnessed", Exit::Unwitnessed as u8, Paint::Warn),
        Finding::Stale(_) => ("stale", Exit::Stale as u8, Paint::Warn),
    };
    match form {
        Form::Json => output::json(&finding.to_json(word)),
        Form::Human => {
            let shown = painted(word, paint, output::colour_on_stdout());
            output::line(&format!("{shown}  {}", finding.sentence()));
            for detail in finding.details() {
                output::line(&format!("  {detail}"));
            }
        }
    }
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_list_says_what_was_asked_and_why_not() {
        for (event, what, outcome) in [
            (
                json!({ "type": "decision", "operation": "tools/call", "upstream": "orders", "subject": "refund",
                    "outcome": "deny", "reason": "not_permitted" }),
                "orders refund",
                "deny not_permitted",
            ),
            (
                json!({ "type": "decision", "operation": "credential.issue", "target": "orders-db", "subject": "read",
                    "outcome": "ask", "reason": "approval_needed" }),
                "orders-db read",
                "ask approval_needed",
            ),
            (
                json!({ "type": "refusal", "outcome": "deny", "reason": "agent_unknown", "workload": { "subject": "repo:x" } }),
                "repo:x",
                "deny agent_unknown",
            ),
            (
                json!({ "type": "decision", "operation": "task.open", "intent": "refund-order", "outcome": "allow" }),
                "task.open",
                "allow",
            ),
            (json!({ "type": "outcome", "status": "ok" }), "", "ok"),
            (json!({ "type": "task.ended", "intent": "mail", "reason": "done" }), "mail", "done"),
        ] {
            let row = row(&json!({ "index": 1, "leaf": { "event": event } }));
            assert_eq!((row[5].as_str(), row[6].as_str()), (what, outcome));
        }
    }
}
